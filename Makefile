# hone: one binary, one library, its tests.  `make help` lists the targets.

# ---- settings: everything that may be changed stands here -------------------------------------------------------
B        ?= build
CC       ?= gcc
NVCC     ?= nvcc
prefix   ?= /usr/local
SAN      ?=
WERROR   ?=

PKGS     := dnnl jansson yaml-0.1 libpcre2-8 libutf8proc libsodium sqlite3 libmicrohttpd lua5.4
OPT      ?= -O2 -g
STD      := -std=c11 -D_GNU_SOURCE -I.
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef
# dnnl has no pkg-config file in Debian 12.
PKG_CFLAGS := $(shell pkg-config --cflags $(filter-out dnnl,$(PKGS)) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(filter-out dnnl,$(PKGS)) 2>/dev/null) -ldnnl
CFLAGS   += $(STD) $(OPT) $(WARN) $(WERROR) $(SAN) -fvisibility=hidden -fopenmp -pthread $(PKG_CFLAGS)
LDFLAGS  += $(SAN) -fopenmp -pthread -rdynamic
LDLIBS   += $(PKG_LIBS) -ldl -lm
# A file named *_avx2.c or *_avx512.c is compiled for that machine only; its callers check the feature bits.
AVX2     := -mavx2 -mfma -mf16c
AVX512   := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16

# ---- sources are found, not listed ------------------------------------------------------------------------------
LIB_SRC  := $(shell find core kernels/cpu adapters serve plugins lua -name '*.c' 2>/dev/null | sort) $(wildcard kernels/*.c)
CLI_SRC  := $(sort $(wildcard cli/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
AID_SRC  := $(sort $(wildcard tests/unit/aid_*.c))
OPS_SRC  := $(sort $(wildcard tests/ops/*.c))
GEN_SRC  := $(sort $(wildcard examples/*.c))

LIB_OBJ  := $(LIB_SRC:%.c=$B/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$B/%.o)
AID_OBJ  := $(AID_SRC:%.c=$B/%.o)
UNIT_BIN := $(UNIT_SRC:%.c=$B/%)

all: $B/hone $(if $(OPS_SRC),$B/op_check)  ## build the binary

$B/libhone.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$B/hone: $(CLI_OBJ) $B/libhone.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/op_check: $(OPS_SRC:%.c=$B/%.o) $B/libhone.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$B/tests/unit/test_%: $B/tests/unit/test_%.o $(AID_OBJ) $B/libhone.a
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

$B/%_avx2.o: CFLAGS += $(AVX2)
$B/%_avx512.o: CFLAGS += $(AVX512)
$B/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(UNIT_BIN:=.d) $(AID_OBJ:.o=.d) $(OPS_SRC:%.c=$B/%.d)

# ---- checks -----------------------------------------------------------------------------------------------------
T ?=
test: all $(UNIT_BIN)  ## all tests that need no GPU and no network; T=tok runs one file
	@tests/run $B $(T)

clean:  ## remove the build folder
	rm -rf $B

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: all test clean help
.DEFAULT_GOAL := all
.SECONDARY:

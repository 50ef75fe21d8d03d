# hone: one library, one binary, its tests and benches. `make help` lists the targets.

# ---- settings: everything that may be changed stands here ----------------------------------------
B        ?= build
prefix   ?= /usr/local
OPT      ?= -O2 -g
SAN      ?=
WERROR   ?=
V        ?=
T        ?=
JOBS     ?= 2
FUZZ_SECONDS ?= 60
# make's built-in CC is "cc", which ?= would keep.
ifeq ($(origin CC),default)
CC       := gcc
endif

STD      := -std=c11 -D_GNU_SOURCE -I.
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wformat=2 -Wundef
OMP      ?= -fopenmp
# Libraries with a pkg-config file; oneDNN has none in Debian 12.
PKGS     := jansson yaml-0.1 libpcre2-8 libutf8proc libsodium nettle sqlite3 libmicrohttpd gnutls \
            lua5.4
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -ldnnl
# DT_RPATH, not RUNPATH: the libraries that a bundle carries must find each other through it too.
RPATH    := -Wl,--disable-new-dtags -Wl,-rpath,'$$ORIGIN/lib:$$ORIGIN/../lib:$$ORIGIN/../../lib'

HONE_CFLAGS  = $(STD) $(OPT) $(WARN) $(WERROR) $(SAN) -fvisibility=hidden $(OMP) -pthread \
               $(PKG_CFLAGS) $(CFLAGS)
HONE_LDFLAGS = $(SAN) $(OMP) -pthread -rdynamic -Wl,--as-needed $(RPATH) $(LDFLAGS)
HONE_LDLIBS  = $(PKG_LIBS) -ldl -lm $(LDLIBS)
# A file named *_avx2.c, *_avx512.c or *_amx.c is compiled for that machine only; its callers check
# the feature bits.
AVX2     := -mavx2 -mfma -mf16c
AVX512   := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16
AMX      := $(AVX512) -mamx-tile -mamx-bf16 -mamx-int8

# Instrumented code looks uninitialised to gcc where it is not.
ASAN     := -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-maybe-uninitialized
UBSAN    := -fsanitize=undefined -fno-sanitize-recover=all -Wno-maybe-uninitialized
TSAN     := -fsanitize=thread -Wno-maybe-uninitialized
DEBUG    := -O1 -g -fno-omit-frame-pointer

# The CUDA backend is built where there is nvcc; NVCC= leaves it out. Machine code for the cards
# that we tune for, PTX for later ones.
NVCC     ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_ARCH ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_89,code=sm_89 \
             -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90
NVCCFLAGS = -std=c++17 -O3 -lineinfo -I. $(CUDA_ARCH) -cudart static --threads 2 \
            $(if $(WERROR),-Werror all-warnings) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra
# The same sources on the host, thread by thread: tests/emu.
# make's built-in CXX is g++; where CC goes through ccache, so does it.
ifeq ($(origin CXX),default)
CXX      := $(filter ccache,$(CC)) g++
endif
EMUFLAGS  = -std=c++17 $(OPT) -DEMU -I. -Itests/emu -fPIC -fvisibility=hidden -Wall -Wextra \
            -Wno-unknown-pragmas $(WERROR) $(SAN)

# ---- sources are found, not listed ---------------------------------------------------------------
LIB_DIRS := $(wildcard core kernels/cpu adapters serve plugins lua)
# What the CUDA backend has in plain C stands in both: its tests need no nvcc.
CUDA_C   := $(sort $(wildcard kernels/cuda/*.c))
LIB_SRC  := $(sort $(wildcard kernels/*.c) $(CUDA_C) \
              $(shell find $(LIB_DIRS) -name '*.c' -not -path 'plugins/bundled/*'))
CLI_SRC  := $(sort $(wildcard cli/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
# The guard of op_check serves the unit tests too.
AID_SRC  := $(sort $(wildcard tests/unit/aid_*.c) tests/ops/guard.c)
OPS_SRC  := $(sort $(wildcard tests/ops/*.c))
GEN_SRC  := $(sort $(wildcard examples/*.c))
BENCH_SRC := $(sort $(wildcard tests/bench/bench_*.c))
BENCH_AID := $(sort $(wildcard tests/bench/aid_*.c))
FAULT_SRC := $(sort $(wildcard tests/fault/*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
CUDA_SRC := $(sort $(wildcard kernels/cuda/*.cu))
EMU_SRC  := $(sort $(wildcard tests/emu/*.cc))
# Each a shared object of its own, made of one file and plugins/hone_plugin.h.
PLUGIN_SRC := $(sort $(wildcard plugins/bundled/*.c))
TEST_PLUGIN_SRC := $(sort $(wildcard tests/plugins/*.c))
SCRIPTS  := $(sort $(wildcard lua/bundled/*.lua))

obj       = $(1:%.c=$B/%.o)
exe       = $(1:%.c=$B/%)
ALL_OBJ  := $(call obj,$(LIB_SRC) $(CLI_SRC) $(UNIT_SRC) $(AID_SRC) $(OPS_SRC) $(GEN_SRC) \
              $(BENCH_SRC) $(BENCH_AID) $(FAULT_SRC) $(FUZZ_SRC))
LIB      := $B/libhone.a
PLUGINS  := $(PLUGIN_SRC:plugins/bundled/%.c=$B/plugins/%.so)
TEST_PLUGINS := $(TEST_PLUGIN_SRC:%.c=$B/%.so)
# What a bundled plugin may link against besides libc; only what it uses is needed.
PLUGIN_LIBS ?= -lutf8proc -lpcre2-8 -lm
# test_ops runs op_check.
UNIT_BIN := $(if $(strip $T),$(T:%=$B/tests/unit/test_%) $(if $(filter ops,$T),$B/op_check),\
              $(call exe,$(UNIT_SRC)))

comma    := ,
CUDA_LIB := $(if $(NVCC),$(if $(CUDA_SRC),$B/lib/libhone_cuda.so))
CUDA_PIC := $(CUDA_C:%.c=$B/pic/%.o) $B/pic/kernels/view.o
EMU_LIB  := $(if $(shell command -v $(lastword $(CXX)) 2>/dev/null),$(if $(filter \
              x86_64,$(shell uname -m)),$(if $(CUDA_SRC),$B/emu/libhone_cuda.so)))
EMU_OBJ  := $(CUDA_SRC:%.cu=$B/emu/%.o) $(EMU_SRC:%.cc=$B/emu/%.o)

Q        := $(if $V,,@)
say       = $(if $V$(findstring s,$(firstword -$(MAKEFLAGS))),,@echo "$1 $2")
link      = $Q$(CC) $(HONE_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $1 $(HONE_LDLIBS)

PROGRAMS := $B/hone $(if $(OPS_SRC),$B/op_check) $(if $(GEN_SRC),$B/examples/gen)

all: $(PROGRAMS) $(PLUGINS) $(CUDA_LIB)  ## build the program

# An archive takes the first of two functions of one name and says nothing.
$(LIB): $(call obj,$(LIB_SRC))
	$(call say,AR,$@)
	@rm -f $@
	$Qar rcs $@ $^
	@twice=$$(nm -g --defined-only $@ 2>/dev/null | awk '$$2 ~ /^[TDBR]$$/ { print $$3 }' | \
	  sort | uniq -d); [ -z "$$twice" ] || { rm -f $@; echo "defined twice: $$twice" >&2; exit 1; }

$B/hone: $(call obj,$(CLI_SRC)) $(LIB)
	$(call say,LD,$@)
	$(call link)

$B/op_check: $(call obj,$(OPS_SRC)) $(LIB)
	$(call say,LD,$@)
	$(call link)

$B/fault: $(call obj,$(FAULT_SRC)) $(LIB)
	$(call say,LD,$@)
	$(call link)

$B/examples/gen: $(call obj,$(GEN_SRC)) $(LIB)
	$(call say,LD,$@)
	$(call link)

$B/tests/bench/bench_%: $B/tests/bench/bench_%.o $(call obj,$(BENCH_AID)) $(LIB)
	$(call say,LD,$@)
	$(call link)

$B/tests/fuzz/fuzz_%: $B/tests/fuzz/fuzz_%.o $(LIB)
	$(call say,LD,$@)
	$(call link,-fsanitize=fuzzer)

# ---- the CUDA backend, and the same on an emulated card ------------------------------------------
cuda: $(CUDA_LIB)  ## the CUDA backend alone
	@[ -n "$(NVCC)" ] || { echo "nvcc is missing: install the CUDA toolkit" >&2; exit 1; }

emu: $B/emu/libhone_cuda.so  ## the CUDA backend on an emulated card

$B/lib/libhone_cuda.so: $(CUDA_SRC:%.cu=$B/%.cu.o) $(CUDA_PIC)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$Q$(NVCC) -shared -cudart static -o $@ $^ -Xcompiler -fvisibility=hidden -ldl -lpthread

$B/%.cu.o: %.cu Makefile
	$(call say,NVCC,$<)
	@mkdir -p $(@D)
	$Q$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$B/pic/%.o: %.c Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$Q$(CC) $(STD) $(OPT) $(WARN) $(WERROR) $(SAN) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$B/emu/libhone_cuda.so: $(EMU_OBJ) $(CUDA_PIC)
	$(call say,LD,$@)
	$Q$(CXX) -shared $(SAN) -o $@ $^ -ldl
	$Qln -sf $(@F) $(@D)/libcublasLt.so.13

$B/emu/%.o: %.cu Makefile
	$(call say,EMU,$<)
	@mkdir -p $(@D)
	$Q$(CXX) $(EMUFLAGS) -x c++ -MMD -MP -c -o $@ $<

$B/emu/%.o: %.cc Makefile
	$(call say,CXX,$<)
	@mkdir -p $(@D)
	$Q$(CXX) $(EMUFLAGS) -MMD -MP -c -o $@ $<

-include $(EMU_OBJ:.o=.d) $(CUDA_SRC:%.cu=$B/%.cu.d) $(CUDA_PIC:.o=.d)

# ---- plugins -------------------------------------------------------------------------------------
# A plugin sees the header as one that is built elsewhere does.
plugin    = $Q$(CC) -std=c99 -D_GNU_SOURCE -Iplugins $(OPT) $(WARN) $(WERROR) $(SAN) \
            -fvisibility=hidden -fPIC -shared -pthread $(CFLAGS) -MMD -MP -MF $(@:.so=.d) \
            -Wl,--as-needed -o $@ $< $(PLUGIN_LIBS)

$B/plugins/%.so: plugins/bundled/%.c Makefile
	$(call say,SO,$@)
	@mkdir -p $(@D)
	$(plugin)

$B/tests/plugins/%.so: tests/plugins/%.c Makefile
	$(call say,SO,$@)
	@mkdir -p $(@D)
	$(plugin)

# The checker of plugins is the program itself.
$B/tests/unit/test_plugin_bad: | $B/hone

# Requests go to a whole server.
$B/tests/fuzz/fuzz_http_head: $(call obj,$(wildcard tests/unit/aid_server.c tests/unit/aid_http.c \
                                tests/unit/aid_fake.c tests/unit/aid_dir.c))

$B/tests/bench/bench_hooks: $(call obj,tests/unit/aid_http.c)

# The grammar is in no library; its tests link it.
$B/tests/unit/test_grammar: $(filter-out %/gen.o,$(call obj,$(GEN_SRC)))
$B/tests/unit/test_%: $B/tests/unit/test_%.o $(call obj,$(AID_SRC)) $(LIB)
	$(call say,LD,$@)
	$(call link,-Wl$(comma)--wrap=kern_open -lcmocka)

$B/%_avx2.o: HONE_CFLAGS += $(AVX2)
$B/%_avx512.o: HONE_CFLAGS += $(AVX512)
$B/%_amx.o: HONE_CFLAGS += $(AMX)
$B/kernels/cpu/compact_avx512.o: HONE_CFLAGS += -mavx512vbmi2 -mpopcnt
$B/%.o: %.c Makefile | need
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$Q$(CC) $(HONE_CFLAGS) -MMD -MP -c -o $@ $<

-include $(ALL_OBJ:.o=.d) $(PLUGINS:.so=.d) $(TEST_PLUGINS:.so=.d)

# ---- what must be installed ----------------------------------------------------------------------
need:
	@docker/deps check build

deps:  ## install what the build and the tests need (apt)
	@docker/deps install build test

deps-dev:  ## install the tools of lint, fuzz and valgrind too (apt)
	@docker/deps install build test dev

# ---- checks --------------------------------------------------------------------------------------
# Flags are read before deps has run, so the work is done by a second make.
test: deps  ## all tests that need no GPU and no network; T=err runs one file
	@$(MAKE) --no-print-directory test-run

test-run: $(if $(strip $T),$(if $(filter emu,$T),$B/op_check $(EMU_LIB)),$(PROGRAMS) $(EMU_LIB)) \
          $(UNIT_BIN) $(PLUGINS) $(TEST_PLUGINS)
	@JOBS=$(JOBS) tests/run $B $T

asan:  ## the unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@TEST_TIMEOUT=900 $(MAKE) --no-print-directory B=build-asan SAN="$(ASAN)" OPT="$(DEBUG)" test

ubsan:  ## the unit tests under UndefinedBehaviorSanitizer alone
	@TEST_TIMEOUT=900 $(MAKE) --no-print-directory B=build-ubsan SAN="$(UBSAN)" OPT="$(DEBUG)" test

# libgomp's barriers are not built for ThreadSanitizer, which would report each parallel loop as a
# race. One OpenMP thread takes those away; our own threads stay checked.
tsan:  ## the unit tests under ThreadSanitizer
	@OMP_NUM_THREADS=1 TEST_TIMEOUT=900 \
	$(MAKE) --no-print-directory B=build-tsan SAN="$(TSAN)" OPT="$(DEBUG)" test

valgrind:  ## the unit tests under valgrind (leaks are errors)
	@OMP_NUM_THREADS=1 TEST_TIMEOUT=900 \
	TEST_WRAP="valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite" \
	$(MAKE) --no-print-directory B=build-valgrind OPT="$(DEBUG)" test

e2e: $(PROGRAMS) $(PLUGINS) $(EMU_LIB)  ## the end-to-end tests
	@tests/e2e/run-all $B

fault: $(if $(FAULT_SRC),$B/fault)  ## fail every system call and allocation of a write, in turn
	@OMP_NUM_THREADS=1 $B/fault $T

# clang has no libgomp: the readers need no parallel loops, so those run in one thread here.
fuzz:  ## fuzz every reader; FUZZ_SECONDS=600 for ten minutes each, T=yaml for one
	@command -v clang >/dev/null || { echo "clang is missing: make deps-dev"; exit 1; }
	@$(MAKE) --no-print-directory B=build-fuzz CC=clang OMP= LDLIBS=-lgomp OPT="$(DEBUG)" \
	  WARN="-Wall -Wno-unused-variable -Wno-unknown-pragmas" \
	  SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all" fuzz-run

fuzz-run: $(if $(strip $T),$(T:%=$B/tests/fuzz/fuzz_%),$(call exe,$(FUZZ_SRC)))
	@tests/fuzz/run $B $(FUZZ_SECONDS) $T

BENCHES  := $(if $(OPS_SRC),$B/op_check) $(call exe,$(BENCH_SRC)) $(PLUGINS)
bench: $(BENCHES)  ## measure the speed of this build
	@tests/bench/run $B $T

test-gpu: all $(UNIT_BIN)  ## everything that needs a card; without one it says so
	@tests/gpu/run $B

BENCH_GPU := $(addprefix $B/tests/bench/bench_,model card)
bench-gpu: all $(BENCH_GPU)  ## the card beside transformers and PEFT, in one run
	@tests/bench/gpu/run $B

first-gpu: all $(UNIT_BIN) $(BENCH_GPU)  ## both, within nine minutes and in one report
	@tests/gpu/first $B

lint:  ## layers, headers, sizes, format, names in the documents
	@CC="$(CC)" tests/lint/run

tidy:  ## clang-tidy over every source; T=core/base/buf.c for one
	@JOBS=$(JOBS) tests/lint/tidy $T -- $(STD) $(PKG_CFLAGS)

demo: deps  ## the whole loop on the embedded model
	@$(MAKE) --no-print-directory NVCC= all
	@examples/demo.sh $B/hone

# ---- packages ------------------------------------------------------------------------------------
bundle: all $(call exe,$(UNIT_SRC) $(BENCH_SRC)) $(TEST_PLUGINS)  ## one archive that needs nothing
	@docker/bundle $B

install: all  ## install the program under prefix=/usr/local
	install -D -m 755 $B/hone $(DESTDIR)$(prefix)/bin/hone
	$(if $(CUDA_LIB),install -D -m 755 $(CUDA_LIB) $(DESTDIR)$(prefix)/lib/libhone_cuda.so)
	install -D -m 644 plugins/hone_plugin.h $(DESTDIR)$(prefix)/include/hone_plugin.h
	for so in $(PLUGINS); do \
	  install -D -m 755 $$so $(DESTDIR)$(prefix)/lib/hone/plugins/$${so##*/} || exit 1; done
	for lua in $(SCRIPTS); do \
	  install -D -m 644 $$lua $(DESTDIR)$(prefix)/lib/hone/plugins/$${lua##*/} || exit 1; done
	install -D -m 644 LICENSE $(DESTDIR)$(prefix)/share/doc/hone/LICENSE
	install -D -m 644 README.md $(DESTDIR)$(prefix)/share/doc/hone/README.md

clean:  ## remove every build folder
	rm -rf build build-* dist

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: all cuda emu test-gpu bench-gpu first-gpu need deps deps-dev test test-run asan ubsan tsan \
        valgrind e2e fault fuzz fuzz-run bench lint tidy demo bundle install clean help
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

/* What `auto` takes is said, and why; a card that does not open is passed over aloud, and never
 * where it was asked for by name. */
#include "core/base/mem.h"
#include "core/model/device.h"
#include "tests/unit/aid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct wish {
    const char *name, *lib,
        *fault; /* device; backend; a variable of the emulated card's, or NULL */
} wish;

/* Opens what is wished for, in a process of its own; says the backend or the error too. */
static void open_one(void *arg)
{
    const wish *w = arg;
    kern_dev *d;
    hone_err e = {0};
    setenv("HONE_CUDA_LIB", w->lib, 1);
    if (w->fault != NULL)
        setenv(w->fault, "1", 1);
    if (device_open(&d, w->name, 1, &e) == 0) {
        fprintf(stderr, "opened %s\n", d->backend);
        kern_close(d);
    } else {
        fprintf(stderr, "refused: %s\n", e.msg);
    }
}

/* The text that opening writes; caller frees. */
static char *said(const char *name, const char *lib, const char *fault)
{
    wish w = {name, lib, fault};
    return aid_stderr(open_one, &w, NULL);
}

static void has(char *text, const char *a, const char *b, const char *c)
{
    const char *const all[] = {a, b, c};
    for (size_t i = 0; i < 3; i++)
        if (all[i] != NULL && strstr(text, all[i]) == NULL)
            fail_msg("'%s' is not in: %s", all[i], text);
    free(text);
}

static void the_choice_is_said(void **state)
{
    (void)state;
    const char *lib = "/nowhere/libhone_cuda.so";
    has(said("auto", lib, NULL), "sys=device",
        "auto takes cpu: ", "(cuda: /nowhere/libhone_cuda.so");
    has(said(NULL, lib, NULL), "auto takes cpu: ", "build it with nvcc", "opened cpu");
    char *quiet = said("cpu", lib, NULL);
    assert_string_equal(quiet, "opened cpu\n");
    free(quiet);
}

static void a_name_is_taken_at_its_word(void **state)
{
    (void)state;
    has(said("cuda", "/nowhere/libhone_cuda.so", NULL), "refused: cuda: /nowhere",
        "use --device cpu", NULL);
    has(said("tpu", "", NULL), "refused: no device 'tpu'", NULL, NULL);
}

/* The emulated card of this build; NULL where there is none. Caller frees. */
static char *emulated(void)
{
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = '\0';
    char *lib = mem_printf("%s/emu/libhone_cuda.so", self);
    bool usable = access(lib, R_OK) == 0 && getenv("TEST_WRAP") == NULL;
#if defined(__SANITIZE_THREAD__)
    usable = false;
#endif
    if (usable)
        return lib;
    free(lib);
    return NULL;
}

static void a_card_that_fails_is_passed_over_aloud(void **state)
{
    (void)state;
    char *lib = emulated();
    if (lib == NULL) {
        print_message("no emulated card\n");
        skip();
    }
    has(said("auto", lib, NULL), "auto takes cuda: emulated card", "opened cuda", NULL);
    has(said("auto", lib, "EMU_NO_CARD"), "auto takes cpu: ", "(cuda: no card", "opened cpu");
    has(said("auto", lib, "EMU_NO_LT"), "auto takes cpu: ", "(cuda: cuBLASLt does not start",
        "opened cpu");
    has(said("cuda", lib, "EMU_NO_LT"), "refused: cuda: cuBLASLt does not start (not initialised)",
        NULL, NULL);
    has(said("cuda", lib, "EMU_NO_CARD"), "refused: cuda: no card", "use --device cpu", NULL);
    free(lib);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_choice_is_said),
        cmocka_unit_test(a_name_is_taken_at_its_word),
        cmocka_unit_test(a_card_that_fails_is_passed_over_aloud),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

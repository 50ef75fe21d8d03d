/* The CUDA backend on an emulated card, thread by thread: every op against its reference, with
 * device memory closed to the host, and the same bits whether threads run in their order or in
 * reverse. In processes of their own: what a card would not survive ends the program. */
#include "core/base/mem.h"
#include "kernels/kern.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT = 1 << 16 };

/* The folder of the build, two above this program's; caller frees. */
static char *build_folder(void)
{
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = '\0';
    return mem_strdup(self);
}

/* Why the library cannot be used; NULL: it can. */
static const char *why_not(const char *lib)
{
#if defined(__SANITIZE_THREAD__)
    return "ThreadSanitizer does not follow the emulated card's threads";
#endif
    if (getenv("TEST_WRAP") != NULL)
        return "the emulated card is too slow under another program";
    return access(lib, R_OK) == 0
               ? NULL
               : "no emulated card: it is built where there are g++ and an x86-64 machine";
}

/* op_check in a process of its own; env: more of its environment. */
static FILE *start(const char *build, const char *lib, const char *env, const char *ops)
{
    char *cmd = mem_printf("HONE_CUDA_LIB='%s' %s '%s/op_check' bits --device cuda %s "
                           "2>&1",
                           lib, env, build, ops);
    FILE *p = popen(cmd, "r");
    assert_non_null(p);
    free(cmd);
    return p;
}

/* What it says; caller frees. *status gets how it ended. */
static char *finish(FILE *p, int *status)
{
    char *said = mem_alloc(MAX_TEXT);
    said[fread(said, 1, MAX_TEXT - 1, p)] = '\0';
    *status = pclose(p);
    if (*status != 0)
        print_message("%s", said);
    return said;
}

/* The folder of the build and the library in it; caller frees. Skips the test where that cannot be
 * used. */
static void find(char **build, char **lib)
{
    *build = build_folder();
    *lib = mem_printf("%s/emu/libhone_cuda.so", *build);
    const char *why = why_not(*lib);
    if (why == NULL)
        return;
    print_message("%s\n", why);
    free(*lib);
    free(*build);
    skip();
}

static void every_op_in_two_orders(void **state)
{
    (void)state;
    int status[2];
    char *build, *lib;
    find(&build, &lib);
    /* Algorithms that are found by timing may differ between the two. The guard costs more than the
     * ops, so one of them has it. */
    FILE *usual = start(build, lib, "HONE_GEMM_CACHE=off EMU_GUARD=1", "");
    FILE *reverse = start(build, lib, "HONE_GEMM_CACHE=off EMU_ORDER=reverse", "");
    char *a = finish(usual, &status[0]), *b = finish(reverse, &status[1]);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
    assert_string_equal(a, b);
    assert_non_null(strstr(a, " sample\n"));
    free(a);
    free(b);
    free(lib);
    free(build);
}

/* The emulated library has two algorithms that sum in opposite order, and one that fails. */
static void products_keep_the_algorithm_of_the_first_run(void **state)
{
    (void)state;
    int status[2];
    char *build, *lib;
    find(&build, &lib);
    char *dir = aid_dir_make(), *env = mem_printf("XDG_CACHE_HOME='%s'", dir);
    char *file = mem_printf("%s/hone/gemm-emulated-card-0.txt", dir);
    char *a = finish(start(build, lib, env, "logits"), &status[0]), *kept = aid_text(file);
    char *b = finish(start(build, lib, env, "logits"), &status[1]), *after = aid_text(file);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
    assert_string_equal(a, b);
    assert_string_equal(kept, after);
    assert_non_null(strstr(kept, "\nsum "));
    free(a);
    free(b);
    free(kept);
    free(after);
    free(file);
    free(env);
    aid_dir_drop(dir);
    free(lib);
    free(build);
}

/* ---- recorded steps -------------------------------------------------------------------------- */

enum { TOKENS = 7, VOCAB = 5, WIDTH = 4 };

typedef struct step {
    kern_dev *d;
    void *ids, *dx, *dtable;
} step;

static void *device_copy(kern_dev *d, const void *host, size_t bytes)
{
    void *p = NULL;
    assert_int_equal(kern_do(d, alloc, bytes, &p), 0);
    assert_int_equal(kern_do(d, write, p, host, bytes), 0);
    return p;
}

static int run_step(const step *s)
{
    kern_embed_grad g = {.ids = s->ids,
                         .n = TOKENS,
                         .dx = kern_mat(KERN_F32, TOKENS, WIDTH, s->dx),
                         .dtable = kern_mat(KERN_F32, VOCAB, WIDTH, s->dtable)};
    return kern_do(s->d, embed_grad, &g);
}

/* What one more step must add. */
static void add_step(const int32_t *ids, const float *dx, float *dtable)
{
    for (int r = 0; r < TOKENS; r++)
        for (int c = 0; c < WIDTH; c++)
            dtable[ids[r] * WIDTH + c] += dx[r * WIDTH + c];
}

static void a_recorded_step_reads_its_arrays_anew(void **state)
{
    (void)state;
    static const int32_t first[TOKENS] = {0, 1, 1, 4, 0, 2, 1};
    static const int32_t other[TOKENS] = {3, 3, 3, 3, 0, 4, 3};
    float dx[TOKENS * WIDTH], want[VOCAB * WIDTH] = {0}, got[VOCAB * WIDTH];
    char *build, *lib, err[256];
    step s;
    kern_graph *g = NULL;
    find(&build, &lib);
    assert_int_equal(setenv("HONE_CUDA_LIB", lib, 1), 0);
    assert_int_equal(kern_open(&s.d, "cuda", NULL, err), 0);
    for (int i = 0; i < TOKENS * WIDTH; i++)
        dx[i] = (float)(i * i % 13) - 5;
    s.ids = device_copy(s.d, first, sizeof first);
    s.dx = device_copy(s.d, dx, sizeof dx);
    s.dtable = device_copy(s.d, want, sizeof want);
    assert_int_equal(run_step(&s), 0); /* scratch memory grows here */
    assert_int_equal(kern_do(s.d, capture_begin), 0);
    assert_int_equal(run_step(&s), 0);
    assert_int_equal(kern_do(s.d, capture_end, &g), 0);
    assert_int_equal(kern_do(s.d, write, s.ids, other, sizeof other), 0);
    assert_int_equal(kern_do(s.d, graph_run, g), 0);
    assert_int_equal(kern_do(s.d, read, got, s.dtable, sizeof got), 0);
    add_step(first, dx, want);
    add_step(other, dx, want);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(kern_do(s.d, graph_free, g), 0);
    kern_do(s.d, release, s.ids);
    kern_do(s.d, release, s.dx);
    kern_do(s.d, release, s.dtable);
    kern_close(s.d);
    unsetenv("HONE_CUDA_LIB");
    free(lib);
    free(build);
}

/* ---- a card that is lost ------------------------------------------------------------------- */

/* Every op says so, and what to do; a device of a lost card can be closed. Ends with 0 when all is
 * as it must be: in a process of its own, for the emulated card reads its environment once. */
static void lose_a_card(void *lib)
{
    char err[256];
    kern_dev *d;
    kern_read *r = NULL;
    float x[4] = {1, 2, 3, 4};
    setenv("HONE_CUDA_LIB", lib, 1);
    setenv("EMU_LOST", "1", 1);
    if (kern_open(&d, "cuda", NULL, err) != 0)
        exit(1);
    void *p = device_copy(d, x, sizeof x);
    kern_tensor t = kern_mat(KERN_F32, 1, 4, p);
    int first = kern_do(d, add, &t, &t), second = kern_do(d, add, &t, &t);
    if (first != 0 || second != KERN_EDEVICE)
        exit(2);
    fprintf(stderr, "%s\n", d->err);
    int begun = kern_do(d, read_begin, p, sizeof x, &r);
    int waited = kern_do(d, sync), had = kern_do(d, read, x, p, sizeof x);
    if (begun != KERN_EDEVICE || r != NULL || waited != KERN_EDEVICE || had != KERN_EDEVICE)
        exit(3);
    fprintf(stderr, "%s\n", d->err);
    kern_close(d);
    _exit(0);
}

static void a_lost_card_is_told_with_what_to_do(void **state)
{
    (void)state;
    char *build, *lib;
    int status = 0;
    find(&build, &lib);
    char *said = aid_stderr(lose_a_card, lib, &status);
    assert_int_equal(status, 0);
    assert_string_equal(said, "add: unspecified launch failure; the card has ended this process's "
                              "work: start it again (training goes on from its last checkpoint), "
                              "and see dmesg if it happens twice\n"
                              "read: unspecified launch failure; the card has ended this process's "
                              "work: start it again (training goes on from its last checkpoint), "
                              "and see dmesg if it happens twice\n");
    free(said);
    free(lib);
    free(build);
}

/* ---- logits that are no numbers -------------------------------------------------------------- */

/* Rows of NaN, and of NaN among numbers, are refused whatever is asked for; nothing else happens.
 */
static void no_token_comes_from_what_is_no_number(void **state)
{
    (void)state;
    enum { LOGITS = 5120 };
    static const kern_sample_row asked[] = {
        {.temperature = 0, .top_p = 1},
        {.temperature = 1, .top_p = 1},
        {.temperature = 1, .top_p = 0.9F},
        {.temperature = 1, .top_p = 1, .top_k = 50, .n_top = 5},
    };
    char *build, *lib, err[256];
    kern_dev *d;
    find(&build, &lib);
    assert_int_equal(setenv("HONE_CUDA_LIB", lib, 1), 0);
    assert_int_equal(kern_open(&d, "cuda", NULL, err), 0);
    float *l = mem_array(LOGITS, sizeof *l);
    for (int some = 0; some < 2; some++) {
        for (int i = 0; i < LOGITS; i++)
            l[i] = some && i % 3 > 0 ? (float)(i % 7) : NAN;
        void *p = device_copy(d, l, LOGITS * sizeof *l);
        for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
            kern_sample_row row = asked[i];
            row.repetition = 1;
            row.u = 0.5F;
            kern_sample a = {.logits = kern_mat(KERN_F32, 1, LOGITS, p), .row = &row};
            assert_int_equal(kern_do(d, sample, &a), KERN_EDEVICE);
            assert_string_equal(d->err, "sample: the logits of row 0 are not finite");
        }
        kern_do(d, release, p);
    }
    free(l);
    kern_close(d);
    unsetenv("HONE_CUDA_LIB");
    free(lib);
    free(build);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_in_two_orders),
        cmocka_unit_test(products_keep_the_algorithm_of_the_first_run),
        /* Before this process itself has opened the emulated card. */
        cmocka_unit_test(a_lost_card_is_told_with_what_to_do),
        cmocka_unit_test(a_recorded_step_reads_its_arrays_anew),
        cmocka_unit_test(no_token_comes_from_what_is_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

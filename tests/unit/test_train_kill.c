/* A run that is killed (SIGKILL) again and again, and resumed, ends with the bits of one that was
 * not. Every run is a child process; the parent starts no threads. */
#include "adapters/tune.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "tests/unit/aid.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 24 };

static const char *const settings[] = {
    /* a LoRA with dropout, stopped anywhere; and a whole model, packed */
    "adapter=lora lora_r=4 lora_dropout=0.1 gradient_accumulation_steps=2 micro_batch_size=2",
    "micro_batch_size=2 sequence_len=160 sample_packing=true",
};
static const char *const weights[] = {"adapter_model.safetensors", "model.safetensors"};

/* Never returns. Children leave by _exit, so that no test output is written twice. */
static _Noreturn void child(const char *out, const char *more)
{
    train_conf c;
    tune_result r;
    hone_err e = {0};
    char text[1024], *assign[24], *save = NULL;
    size_t n = 0;
    snprintf(
        text, sizeof text,
        "base_model=tests/golden/train/model datasets=tests/golden/train/chat.jsonl output_dir=%s "
        "max_steps=%d save_steps=1 save_total_limit=2 auto_resume_from_checkpoints=true threads=1 "
        "progress=none learning_rate=0.003 %s",
        out, STEPS, more);
    for (char *w = strtok_r(text, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
        assign[n++] = w;
    int rc = train_conf_load(&c, NULL, assign, n, &e);
    if (rc == 0)
        rc = tune_run(&c, NULL, &r, &e);
    if (rc != 0)
        fprintf(stderr, "%s\n", e.msg);
    _exit(rc == 0 ? 0 : 1);
}

/* The newest checkpoint that stands; 0: none. */
static int last_step(const char *out)
{
    char **names = NULL;
    int last = 0, step;
    dir_list(&names, out, NULL);
    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        if (sscanf(names[i], "checkpoint-%d", &step) == 1 && step > last)
            last = step;
    dir_list_free(names);
    return last;
}

/* Runs a child; kills it `us` microseconds after checkpoint `step` stands (0: never). Is it done?
 * Anything but success or our kill fails the test. */
static bool spawn(const char *out, const char *more, int step, unsigned us)
{
    int status = 0;
    pid_t pid = fork(), left = 0;
    if (pid == 0)
        child(out, more);
    assert_true(pid > 0);
    while (step > 0 && (left = waitpid(pid, &status, WNOHANG)) == 0 && last_step(out) < step)
        usleep(200);
    if (step > 0 && left == 0) {
        usleep(us);
        kill(pid, SIGKILL);
    }
    if (left == 0)
        waitpid(pid, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return false;
    assert_int_equal(status, 0);
    return true;
}

static void same_file(const char *a, const char *b, const char *name)
{
    char *pa = path_join(a, name), *pb = path_join(b, name), *da, *db;
    size_t na, nb;
    hone_err e = {0};
    assert_int_equal(file_read(&da, &na, pa, 1 << 24, &e), 0);
    assert_int_equal(file_read(&db, &nb, pb, 1 << 24, &e), 0);
    assert_int_equal(na, nb);
    assert_memory_equal(da, db, na);
    free(da);
    free(db);
    free(pa);
    free(pb);
}

/* Begins a run and kills it every few steps; how many times. A run may come to its end first. */
static int kill_on_the_way(const char *out, const char *more, rng *r)
{
    int kills = 0, step = 0;
    while (step < STEPS - 4) {
        step = last_step(out) + 1 + (int)rng_below(r, 5);
        kills += !spawn(out, more, step, (unsigned)rng_below(r, 20000));
    }
    return kills;
}

static void kill_and_resume(int which)
{
    enum { TRIES = 50 }; /* of a machine that lets the child run and us wait */
    char *dir = aid_dir(), *whole = path_join(dir, "whole"), *killed = path_join(dir, "killed");
    uint64_t seed = (uint64_t)clock_mono_ns();
    rng r = {seed, 1, 0};
    assert_true(spawn(whole, settings[which], 0, 0));
    int kills = kill_on_the_way(killed, settings[which], &r);
    for (int i = 1; i < TRIES && kills == 0; i++) {
        assert_int_equal(dir_remove(killed, NULL), 0);
        kills = kill_on_the_way(killed, settings[which], &r);
    }
    print_message("seed %llu: %d kills\n", (unsigned long long)seed, kills);
    assert_true(kills >= 1);
    assert_true(spawn(killed, settings[which], 0, 0));
    same_file(whole, killed, weights[which]);
    free(whole);
    free(killed);
    aid_dir_remove(dir);
}

static void test_lora_survives_kills(void **state)
{
    (void)state;
    kill_and_resume(0);
}

static void test_whole_model_survives_kills(void **state)
{
    (void)state;
    kill_and_resume(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lora_survives_kills),
        cmocka_unit_test(test_whole_model_survives_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

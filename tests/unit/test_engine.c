/* The scheduler against plain generation: whatever is batched, chunked, shared, cancelled or given
 * back, an answer is the one that the model gives alone. */
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "serve/engine/engine.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_model.h"
#include "tests/unit/aid_tiny.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CHOICES = 8, MAX_TEXT = 4096, WAIT_MS = 60000 };

/* What one request got; written on the scheduler thread. */
typedef struct answer {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool last;
    bool hold,
        held; /* hold: the first text waits (and with it the scheduler) until it is cleared */
    int events_after_last, n_done, code;
    char text[MAX_CHOICES][MAX_TEXT];
    size_t len[MAX_CHOICES];
    gen_finish finish[MAX_CHOICES];
    int64_t n_prompt, n_answer[MAX_CHOICES];
    int n_logprobs, n_prompt_logprobs;
    float prompt_logp[64];
} answer;

static char *dir;
static served *sv;

static void take(void *user, const engine_event *ev, bool last)
{
    answer *a = user;
    pthread_mutex_lock(&a->lock);
    while (a->hold) {
        a->held = true;
        pthread_cond_wait(&a->ended, &a->lock);
    }
    a->events_after_last += a->last;
    if (ev->kind == ENGINE_TEXT) {
        memcpy(a->text[ev->choice] + a->len[ev->choice], ev->text, ev->len);
        a->len[ev->choice] += ev->len;
        a->n_logprobs += ev->n_logprobs;
    } else if (ev->kind == ENGINE_PROMPT) {
        a->n_prompt_logprobs = ev->n_logprobs;
        for (int i = 0; i < ev->n_logprobs; i++)
            a->prompt_logp[i] = ev->logprobs[i].logp;
    } else if (ev->kind == ENGINE_DONE) {
        a->n_done++;
        a->finish[ev->choice] = ev->finish;
        a->n_prompt = ev->n_prompt;
        a->n_answer[ev->choice] = ev->n_answer;
    } else {
        a->code = ev->err->code;
    }
    a->last = a->last || last;
    if (last)
        pthread_cond_broadcast(&a->ended);
    pthread_mutex_unlock(&a->lock);
}

static answer *answer_new(void)
{
    answer *a = mem_alloc(sizeof *a);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->ended, NULL);
    return a;
}

/* Waits for the end on the main thread, where assertions may be made. */
static void wait_for(answer *a)
{
    double until = clock_seconds() + WAIT_MS / 1000.0;
    for (;;) {
        pthread_mutex_lock(&a->lock);
        bool last = a->last;
        pthread_mutex_unlock(&a->lock);
        if (last)
            return;
        if (clock_seconds() > until)
            fail_msg("no answer within %d ms", WAIT_MS);
        usleep(500);
    }
}

static void answer_free(answer *a)
{
    assert_int_equal(a->events_after_last, 0);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->ended);
    free(a);
}

static engine *start(const engine_options *o)
{
    engine *g;
    hone_err e = {0};
    if (engine_start(&g, o, &e) != 0)
        fail_msg("%s", e.msg);
    engine_set_current(g, sv);
    return g;
}

static served *open_served(int64_t kv_tokens)
{
    served *s;
    hone_err e = {0};
    char *model_dir = path_join(dir, "model");
    served_options o = {.model_dir = model_dir,
                        .device = aid_device_name(),
                        .dtype = KERN_F32,
                        .kv_tokens = kv_tokens,
                        .block_tokens = 4};
    if (served_open(&s, &o, &e) != 0)
        fail_msg("%s", e.msg);
    free(model_dir);
    return s;
}

static int set_up(void **state)
{
    (void)state;
    dir = aid_dir_make();
    char *model_dir = path_join(dir, "model");
    aid_tiny_make(model_dir);
    free(model_dir);
    sv = open_served(0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    served_release(sv);
    aid_dir_drop(dir);
    return 0;
}

static gen_params params(int64_t max_tokens, float temperature, uint64_t seed)
{
    gen_params p;
    gen_defaults(&p);
    p.max_tokens = max_tokens;
    p.temperature = temperature;
    p.seed = seed;
    return p;
}

/* A prompt of n ids that differs with k. */
static void make_prompt(int32_t *ids, size_t n, int k)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)(5 + (i * 7 + (size_t)k * 13) % 60);
}

static int submit(engine *g, served *on, const int32_t *ids, size_t n, const gen_params *p,
                  int choices, answer *a, uint64_t *ticket, hone_err *e)
{
    int retry = 0;
    engine_request r = {
        .on = on, .prompt = ids, .n_prompt = n, .params = p, .n = choices, .fn = take, .user = a};
    return engine_submit(g, &r, ticket, &retry, e);
}

/* The same prompt through gen_run on a model of its own. */
static void expect_alone(const answer *a, int choice, const int32_t *ids, size_t n,
                         const gen_params *p)
{
    served *alone = open_served(0);
    gen_prompt prompt = {.ids = ids, .n = n};
    gen_result r = {0};
    hone_err e = {0};
    if (gen_run(alone->model, alone->tok, p, &prompt, 1, &r, NULL, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(a->text[choice], r.text);
    assert_int_equal(a->finish[choice], r.finish);
    gen_result_free(&r);
    served_release(alone);
}

static void expect_empty_cache(engine *g)
{
    double until = clock_seconds() + WAIT_MS / 1000.0;
    for (engine_stats s = engine_counters(g);; s = engine_counters(g)) {
        if (s.kv_blocks_used == 0 && s.running == 0 && s.waiting == 0)
            return;
        if (clock_seconds() > until)
            fail_msg("%lld blocks are still held", (long long)s.kv_blocks_used);
        usleep(1000);
    }
}

/* Twelve requests of different lengths through small steps: chunked prefill, mixed with decode. */
static void test_batched_as_alone(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){.max_seqs = 5, .step_tokens = 7});
    enum { N = 12 };
    answer *a[N];
    int32_t ids[N][40];
    gen_params p = params(15, 0, 1);
    hone_err e = {0};
    for (int i = 0; i < N; i++) {
        uint64_t ticket;
        make_prompt(ids[i], (size_t)(1 + i * 3), i);
        a[i] = answer_new();
        if (submit(g, sv, ids[i], (size_t)(1 + i * 3), &p, 1, a[i], &ticket, &e) != 0)
            fail_msg("%s", e.msg);
    }
    for (int i = 0; i < N; i++) {
        wait_for(a[i]);
        assert_int_equal(a[i]->code, 0);
        assert_int_equal(a[i]->n_prompt, 1 + i * 3);
        expect_alone(a[i], 0, ids[i], (size_t)(1 + i * 3), &p);
        answer_free(a[i]);
    }
    expect_empty_cache(g);
    engine_stats s = engine_counters(g);
    assert_int_equal(s.count.requests, N);
    assert_int_equal(s.count.finished, N);
    engine_figures f[2];
    assert_int_equal(engine_models(g, f, 2), 1);
    assert_int_equal(f[0].hist[ENGINE_E2E].count, N);
    engine_stop(g);
}

/* A model that answered counts on where it stopped; of many, the live one is never forgotten. */
static void test_figures_by_model(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){0});
    served *live = open_served(0), *other = open_served(0);
    gen_params p = params(3, 0, 1);
    engine_figures f[2 * ENGINE_MAX_FIGURES];
    hone_err e = {0};
    memset(other->model_digest, 'f', 64);
    for (int i = 0; i < 3; i++) {
        int32_t ids[4];
        uint64_t ticket;
        answer *a = answer_new();
        make_prompt(ids, 4, i);
        assert_int_equal(submit(g, i == 0 ? live : other, ids, 4, &p, 1, a, &ticket, &e), 0);
        wait_for(a);
        answer_free(a);
    }
    assert_int_equal(engine_models(g, f, 2 * ENGINE_MAX_FIGURES), 2);
    assert_string_equal(f[0].model_digest, other->model_digest);
    for (int i = 0; i < 2; i++) {
        uint64_t want = i == 0 ? 2 : 1;
        assert_int_equal(f[i].count.requests, want);
        assert_int_equal(f[i].count.finished, want);
        assert_int_equal(f[i].count.prompt_tokens, 4 * want);
        assert_int_equal(f[i].hist[ENGINE_TTFT].count, want);
        assert_int_equal(f[i].hist[ENGINE_E2E].count, want);
    }
    assert_int_equal(f[0].count.answer_tokens + f[1].count.answer_tokens,
                     engine_counters(g).count.answer_tokens);
    engine_set_current(g, live);
    for (int i = 0; i < 3 * ENGINE_MAX_FIGURES; i++) { /* as if so many were tried after another */
        snprintf(other->model_digest, sizeof other->model_digest, "%064d", i);
        engine_set_beside(g, other);
    }
    int n = engine_models(g, f, 2 * ENGINE_MAX_FIGURES), found = 0;
    assert_int_equal(n, ENGINE_MAX_FIGURES);
    for (int i = 0; i < n; i++)
        found += strcmp(f[i].model_digest, live->model_digest) == 0 && f[i].count.finished == 1;
    assert_int_equal(found, 1);
    engine_set_beside(g, NULL);
    engine_stop(g);
    served_release(live);
    served_release(other);
}

/* Forbids everything but one id, which follows from the step; never fails where it is right. */
static int force(hook_call *c, void *user, hone_err *e)
{
    const hook_logits *l = c->view->logits;
    int *wrong = user;
    (void)e;
    *wrong += l->ids[0] != 5 || l->n_ids != 3 + (uint64_t)l->step ||
              l->from_device != (strcmp(aid_device_name(), "cpu") != 0);
    for (size_t i = 0; i < c->view->n_values; i++)
        c->view->values[i] = i == (size_t)(40 + l->step) ? 0 : -INFINITY;
    return HOOK_MODIFIED;
}

/* What it does without saying so does not count. */
static int spoil(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    for (size_t i = 0; i < c->view->n_values; i++)
        c->view->values[i] = 0;
    return hone_fail(e, HONE_EINTERNAL, "broke"); /* the point fails open */
}

static void test_hooks_change_logits(void **state)
{
    (void)state;
    int wrong = 0;
    hone_err e = {0};
    uint64_t ticket;
    int32_t ids[3];
    gen_params p = params(4, 0, 1);
    make_prompt(ids, 3, 0);
    for (int round = 0; round < 2; round++) {
        hooks *h = hook_new();
        engine *g = start(&(engine_options){.hooks = h});
        answer *a = answer_new();
        hook_on(h, HOOK_SERVE_LOGITS, "l", 0, round == 0 ? force : spoil, &wrong, NULL);
        if (submit(g, sv, ids, 3, &p, 1, a, &ticket, &e) != 0)
            fail_msg("%s", e.msg);
        wait_for(a);
        assert_int_equal(a->code, 0);
        if (round == 0) {
            buf want;
            buf_init(&want, 1024);
            assert_int_equal(
                tok_decode(sv->tok, (const int32_t[]){40, 41, 42, 43}, 4, true, &want, &e), 0);
            assert_string_equal(a->text[0], want.data);
            buf_free(&want);
        } else {
            expect_alone(a, 0, ids, 3, &p);
        }
        answer_free(a);
        engine_stop(g);
        hook_free(h);
    }
    assert_int_equal(wrong, 0);
}

/* Choices share the prompt's whole blocks; sampled ones differ, and each is what its stream gives.
 */
static void test_choices_share_a_prompt(void **state)
{
    (void)state;
    for (size_t n = 3; n <= 9; n += 3) {
        engine *g = start(&(engine_options){.max_seqs = 8, .step_tokens = 16});
        int32_t ids[16];
        gen_params p = params(12, 1.0F, 99);
        answer *a = answer_new();
        uint64_t ticket;
        hone_err e = {0};
        make_prompt(ids, n, 5);
        assert_int_equal(submit(g, sv, ids, n, &p, 4, a, &ticket, &e), 0);
        wait_for(a);
        assert_int_equal(a->n_done, 4);
        expect_alone(a, 0, ids, n, &p);
        int different = 0;
        for (int c = 1; c < 4; c++)
            different += strcmp(a->text[0], a->text[c]) != 0;
        assert_true(different > 0);
        answer_free(a);
        expect_empty_cache(g);
        engine_stop(g);
    }
}

/* A cache that does not hold everybody: some give their blocks back and are computed again. */
static void test_too_small_a_cache_changes_nothing(void **state)
{
    (void)state;
    served *small = open_served(64);
    engine *g = start(&(engine_options){.max_seqs = 6, .step_tokens = 32});
    enum { N = 6 };
    answer *a[N];
    int32_t ids[N][16];
    gen_params p = params(40, 0.8F, 3);
    p.ignore_eos = true;
    hone_err e = {0};
    uint64_t ticket;
    for (int i = 0; i < N; i++) {
        make_prompt(ids[i], 10, i);
        a[i] = answer_new();
        assert_int_equal(submit(g, small, ids[i], 10, &p, 1, a[i], &ticket, &e), 0);
    }
    for (int i = 0; i < N; i++) {
        wait_for(a[i]);
        assert_int_equal(a[i]->n_answer[0], 40);
        expect_alone(a[i], 0, ids[i], 10, &p);
        answer_free(a[i]);
    }
    expect_empty_cache(g);
    engine_stop(g);
    served_release(small);
}

static void test_refusals(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){.max_seqs = 2});
    int32_t ids[80];
    gen_params p = params(10, 0, 1);
    answer *a = answer_new();
    uint64_t ticket;
    hone_err e = {0};
    make_prompt(ids, 80, 1);
    assert_int_equal(submit(g, sv, ids, 60, &p, 1, a, &ticket, &e), HONE_ELIMIT);
    assert_string_equal(
        e.msg, "the prompt's 60 tokens and an answer of 10 are more than the context of 64");
    assert_int_equal(submit(g, sv, ids, 64, &p, 1, a, &ticket, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "the prompt has 64 tokens, the context holds 64 with the answer");
    assert_int_equal(submit(g, sv, ids, 0, &p, 1, a, &ticket, &e), HONE_EINVAL);
    assert_int_equal(submit(g, sv, ids, 4, &p, 9, a, &ticket, &e), HONE_EINVAL);
    engine_drain(g, 10);
    assert_int_equal(submit(g, sv, ids, 4, &p, 1, a, &ticket, &e), HONE_ECANCELLED);
    assert_false(a->last);
    answer_free(a);
    engine_stop(g);
}

static void test_full_queue_is_an_answer(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){.max_seqs = 1, .step_tokens = 1, .queue_requests = 2});
    enum { N = 12 };
    int32_t ids[30];
    gen_params p = params(30, 0, 1);
    answer *a[N];
    int refused = 0, taken = 0;
    make_prompt(ids, 30, 1);
    for (int i = 0; i < N; i++) {
        uint64_t ticket;
        hone_err e = {0};
        a[i] = answer_new();
        int rc = submit(g, sv, ids, 30, &p, 1, a[i], &ticket, &e);
        refused += rc == HONE_EAGAIN;
        taken += rc == 0;
        if (rc != 0) {
            answer_free(a[i]);
            a[i] = NULL;
        }
    }
    assert_int_equal(taken + refused, N);
    assert_true(refused > 0 && taken >= 2);
    assert_int_equal(engine_counters(g).count.rejected, refused);
    for (int i = 0; i < N; i++) {
        if (a[i] == NULL)
            continue;
        wait_for(a[i]);
        answer_free(a[i]);
    }
    engine_stop(g);
}

static bool is_held(answer *a)
{
    pthread_mutex_lock(&a->lock);
    bool held = a->held;
    pthread_mutex_unlock(&a->lock);
    return held;
}

static void let_go(answer *a)
{
    pthread_mutex_lock(&a->lock);
    a->hold = false;
    pthread_cond_broadcast(&a->ended);
    pthread_mutex_unlock(&a->lock);
}

/* The scheduler is held in the first answer while the second is cancelled and the third's time runs
 * out. */
static void test_cancel_and_deadline(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){.max_seqs = 1, .step_tokens = 1});
    int32_t ids[40];
    gen_params p = params(24, 0, 1);
    p.ignore_eos = true;
    answer *one = answer_new(), *two = answer_new(), *late = answer_new();
    uint64_t t1, t2;
    hone_err e = {0};
    make_prompt(ids, 40, 2);
    one->hold = true;
    assert_int_equal(submit(g, sv, ids, 40, &p, 1, one, &t1, &e), 0);
    assert_int_equal(submit(g, sv, ids, 40, &p, 1, two, &t2, &e), 0);
    engine_request r = {.on = sv,
                        .prompt = ids,
                        .n_prompt = 40,
                        .params = &p,
                        .n = 1,
                        .deadline_ms = 1,
                        .fn = take,
                        .user = late};
    uint64_t t3;
    assert_int_equal(engine_submit(g, &r, &t3, NULL, &e), 0);
    while (!is_held(one))
        usleep(500);
    engine_cancel(g, t2);
    engine_cancel(g, t1);
    usleep(3000);
    let_go(one);
    wait_for(one);
    wait_for(two);
    wait_for(late);
    assert_int_equal(one->code, HONE_ECANCELLED);
    assert_int_equal(two->code, HONE_ECANCELLED);
    assert_int_equal(late->code, HONE_ETIMEOUT);
    engine_cancel(g, t1); /* finished: ignored */
    engine_cancel(g, 123456);
    expect_empty_cache(g);
    engine_stats s = engine_counters(g);
    assert_int_equal(s.count.cancelled, 2);
    assert_int_equal(s.count.failed, 1);
    answer_free(one);
    answer_free(two);
    answer_free(late);
    engine_stop(g);
}

/* New requests go to the new model, those in flight end on the old one, which is then let go. */
static void test_swap_drops_nothing(void **state)
{
    (void)state;
    served *next = open_served(0);
    engine *g = start(&(engine_options){.max_seqs = 4, .step_tokens = 2});
    int32_t ids[12];
    gen_params p = params(30, 0, 1);
    answer *before = answer_new(), *after = answer_new();
    uint64_t ticket;
    hone_err e = {0};
    make_prompt(ids, 12, 3);
    assert_int_equal(submit(g, sv, ids, 12, &p, 1, before, &ticket, &e), 0);
    engine_set_current(g, next);
    served *now = engine_current(g);
    assert_ptr_equal(now, next);
    assert_int_equal(submit(g, now, ids, 12, &p, 1, after, &ticket, &e), 0);
    served_release(now);
    wait_for(before);
    wait_for(after);
    assert_int_equal(before->code, 0);
    assert_string_equal(before->text[0], after->text[0]);
    answer_free(before);
    answer_free(after);
    engine_stop(g);
    served_release(next);
}

static void test_prompt_logprobs(void **state)
{
    (void)state;
    engine *g = start(&(engine_options){0});
    int32_t ids[9];
    gen_params p = params(0, 0, 1);
    p.n_top = 3;
    answer *a = answer_new();
    uint64_t ticket;
    hone_err e = {0};
    make_prompt(ids, 9, 4);
    engine_request r = {.on = sv,
                        .prompt = ids,
                        .n_prompt = 9,
                        .params = &p,
                        .n = 1,
                        .echo_logprobs = true,
                        .fn = take,
                        .user = a};
    assert_int_equal(engine_submit(g, &r, &ticket, NULL, &e), 0);
    wait_for(a);
    assert_int_equal(a->n_prompt_logprobs, 9);
    assert_true(isnan(a->prompt_logp[0]));
    int32_t pos[9], target[9], cu[2] = {0, 9};
    float logp[9];
    for (int i = 0; i < 9; i++) {
        pos[i] = i;
        target[i] = i < 8 ? ids[i + 1] : -1;
    }
    served *alone = open_served(0);
    const model_batch b = {.n = 9, .ids = ids, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    assert_int_equal(model_score(alone->model, &b, logp, &e), 0);
    for (int i = 1; i < 9; i++)
        assert_true(fabsf(logp[i - 1] - a->prompt_logp[i]) < 1e-4F);
    assert_int_equal(a->finish[0], GEN_LENGTH);
    assert_int_equal(a->n_answer[0], 0);
    served_release(alone);
    answer_free(a);
    engine_stop(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batched_as_alone),
        cmocka_unit_test(test_figures_by_model),
        cmocka_unit_test(test_hooks_change_logits),
        cmocka_unit_test(test_choices_share_a_prompt),
        cmocka_unit_test(test_too_small_a_cache_changes_nothing),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_full_queue_is_an_answer),
        cmocka_unit_test(test_cancel_and_deadline),
        cmocka_unit_test(test_swap_drops_nothing),
        cmocka_unit_test(test_prompt_logprobs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

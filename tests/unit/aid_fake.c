#include "tests/unit/aid_fake.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 512, TICK_NS = 1000000 };

typedef struct job {
    struct job *next;
    engine_request r;
    char *text[8];
    int said[8];
    bool done[8], prompted;
    int64_t n_prompt, max_tokens, due_ns, deadline_ns, began_ns;
    int32_t *prompt;
    uint64_t ticket;
    atomic_bool cancelled;
} job;

struct aid_fake {
    aid_fake_plan plan;
    backend b;
    served m, second;
    tok *tok;
    chat *chat;
    pthread_t thread;
    pthread_mutex_t lock;
    job *jobs;
    uint64_t next_ticket;
    bool stopping, draining;
    atomic_int taken, cancelled, running, references;
    char *last_params, *last_prompt;
};

static const double bounds[ENGINE_HIST_BUCKETS] = {.001, .005, .01, .025, .05, .1, .25,
                                                   .5,   1,    2.5, 5,    10,  30, 60};

/* ---- tokenizer and template ---- */

/* GPT-2's byte alphabet: printable bytes are themselves, the others move up from 256. */
static unsigned letter_of(unsigned byte)
{
    unsigned n = 0;
    for (unsigned b = 0; b < 256; b++) {
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        if (b == byte)
            return plain ? b : 256 + n;
        n += !plain;
    }
    return 0;
}

static void write_tokenizer(const char *dir)
{
    static const char tail[] =
        "\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},"
        "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":false,\"use_regex\":true},"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
        "\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
        "\"byte_fallback\":false,\"vocab\":";
    json_t *vocab = json_object();
    for (unsigned b = 0; b < 256; b++) {
        buf name;
        buf_init(&name, 16);
        buf_utf8(&name, letter_of(b));
        json_object_set_new(vocab, name.data, json_integer(b));
        buf_free(&name);
    }
    char *text = js_text(vocab, false);
    char *all = mem_printf(
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":["
        "{\"id\":256,\"content\":\"<|im_start|>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":true},"
        "{\"id\":257,\"content\":\"<|im_end|>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":true}],%s%s,\"merges\":[]}}",
        tail, text);
    char *path = path_join(dir, "tokenizer.json");
    file_write(path, all, strlen(all), NULL);
    free(path);
    free(all);
    free(text);
    json_decref(vocab);
}

static void write_config(const char *dir)
{
    static const char config[] =
        "{\"eos_token\": \"<|im_end|>\", \"chat_template\": \""
        "{% for m in messages %}"
        "{% if m.role == 'forbidden' %}{{ raise_exception('no such role') }}{% endif %}"
        "<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}"
        "{% if style %}[{{ style }}]{% endif %}"
        "{% if tools and show_tools %}{{ tools | tojson }}{% endif %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}\"}";
    char *path = path_join(dir, "tokenizer_config.json");
    file_write(path, config, strlen(config), NULL);
    free(path);
}

/* ---- the thread ---- */

static void send_text(job *j, int c)
{
    const char *s = j->text[c] + j->said[c]++;
    engine_logprob lp = {.id = (unsigned char)*s, .logp = -0.5f, .n_top = j->r.params->n_top};
    for (int i = 0; i < lp.n_top; i++) {
        lp.top_id[i] = i == 0 ? lp.id : 'A' + i;
        lp.top_logp[i] = i == 0 ? lp.logp : -INFINITY;
    }
    engine_event ev = {
        .kind = ENGINE_TEXT, .choice = c, .text = s, .len = 1, .logprobs = &lp, .n_logprobs = 1};
    j->r.fn(j->r.user, &ev, false);
}

static void send_done(job *j, int c, bool last)
{
    int64_t us = (clock_mono_ns() - j->began_ns) / 1000;
    engine_event ev = {.kind = ENGINE_DONE,
                       .choice = c,
                       .finish = j->said[c] >= j->max_tokens ? GEN_LENGTH : GEN_STOP,
                       .n_prompt = j->n_prompt,
                       .n_answer = j->said[c],
                       .queue_us = 1,
                       .first_token_us = us / 2,
                       .total_us = us};
    j->done[c] = true;
    j->r.fn(j->r.user, &ev, last);
}

static void send_error(job *j, int code, const char *text)
{
    hone_err e = {.code = code};
    snprintf(e.msg, sizeof e.msg, "%s", text);
    engine_event ev = {.kind = ENGINE_ERROR, .err = &e};
    j->r.fn(j->r.user, &ev, true);
}

static void send_prompt(job *j)
{
    engine_logprob *lp = mem_array((size_t)j->n_prompt, sizeof *lp);
    for (int64_t i = 0; i < j->n_prompt; i++) {
        lp[i] = (engine_logprob){.id = j->prompt[i], .logp = i == 0 ? NAN : -1.0f};
        lp[i].n_top = j->r.params->n_top > 0 ? 1 : 0;
        lp[i].top_id[0] = j->prompt[i];
        lp[i].top_logp[0] = -1.0f;
    }
    engine_event ev = {.kind = ENGINE_PROMPT, .logprobs = lp, .n_logprobs = (int)j->n_prompt};
    j->r.fn(j->r.user, &ev, false);
    j->prompted = true;
    free(lp);
}

/* One token of every choice; true when the job is over. */
static bool turn(aid_fake *f, job *j)
{
    int left = 0;
    if (j->r.echo_logprobs && !j->prompted)
        send_prompt(j);
    for (int c = 0; c < j->r.n; c++)
        left += !j->done[c];
    for (int c = 0; c < j->r.n; c++) {
        if (j->done[c])
            continue;
        if (f->plan.fail_after >= 0 && j->said[c] >= f->plan.fail_after) {
            send_error(j, HONE_EDEVICE, "the device caught fire");
            return true;
        }
        if (j->text[c][j->said[c]] != '\0' && j->said[c] < j->max_tokens)
            send_text(j, c);
        else
            send_done(j, c, --left == 0);
    }
    return left == 0;
}

static void job_free(aid_fake *f, job *j)
{
    for (int c = 0; c < j->r.n; c++)
        free(j->text[c]);
    free(j->prompt);
    free((void *)j->r.params);
    free(j);
    atomic_fetch_sub(&f->running, 1);
}

static bool step(aid_fake *f, job *j)
{
    int64_t now = clock_mono_ns();
    if (j->cancelled) {
        atomic_fetch_add(&f->cancelled, 1);
        send_error(j, HONE_ECANCELLED, "cancelled");
        return true;
    }
    if (j->deadline_ns > 0 && now > j->deadline_ns && !f->plan.deaf) {
        send_error(j, HONE_ETIMEOUT, "the answer was not ready in time");
        return true;
    }
    if (now < j->due_ns || f->plan.deaf)
        return false;
    if (f->plan.hold_after >= 0 && j->said[0] >= f->plan.hold_after)
        return false;
    j->due_ns = now + f->plan.token_ms * INT64_C(1000000);
    return turn(f, j);
}

static void *main_loop(void *arg)
{
    aid_fake *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->stopping || f->jobs != NULL) {
        for (job **at = &f->jobs; *at != NULL;) {
            job *j = *at;
            if (f->stopping)
                j->cancelled = true;

            pthread_mutex_unlock(&f->lock);

            bool over = step(f, j);
            pthread_mutex_lock(&f->lock);
            for (at = &f->jobs; *at != j;) /* others may have been added before it */
                at = &(*at)->next;
            if (over) {
                *at = j->next;
                job_free(f, j);
            } else {
                at = &j->next;
            }
        }
        pthread_mutex_unlock(&f->lock);
        nanosleep(&(struct timespec){0, TICK_NS / 4}, NULL);
        pthread_mutex_lock(&f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- the table ---- */

static void note_last(aid_fake *f, const engine_request *r)
{
    const gen_params *p = r->params;
    buf text, params;
    buf_init(&text, 1 << 20);
    buf_init(&params, 1 << 16);
    tok_decode(f->tok, r->prompt, r->n_prompt, false, &text, NULL);
    buf_printf(&params,
               "max_tokens=%lld temperature=%g top_p=%g min_p=%g top_k=%d repetition=%g "
               "presence=%g frequency=%g seed=%llu n_top=%d n=%d ignore_eos=%d",
               (long long)p->max_tokens, (double)p->temperature, (double)p->top_p, (double)p->min_p,
               p->top_k, (double)p->repetition, (double)p->presence, (double)p->frequency,
               (unsigned long long)p->seed, p->n_top, r->n, p->ignore_eos);
    for (int i = 0; i < p->n_stop; i++)
        buf_printf(&params, " stop=%s", p->stop[i]);
    for (int i = 0; i < p->n_stop_ids; i++)
        buf_printf(&params, " stop_id=%d", p->stop_ids[i]);
    for (int64_t i = 0; i < p->n_bias; i++)
        buf_printf(&params, " bias=%d:%g", p->bias_id[i], (double)p->bias[i]);
    free(f->last_params);
    free(f->last_prompt);
    f->last_params = buf_take(&params, NULL);
    f->last_prompt = buf_take(&text, NULL);
}

static int submit(void *ctx, const engine_request *r, uint64_t *ticket, int *retry_after_s,
                  hone_err *e)
{
    aid_fake *f = ctx;
    if (f->plan.queue_full) {
        *retry_after_s = 7;
        return hone_fail(e, HONE_EAGAIN, "the queue is full");
    }
    job *j = mem_alloc(sizeof *j);
    gen_params *params = mem_alloc(sizeof *params);
    *params = *r->params;
    params->stop = NULL;
    params->n_stop = 0;
    j->r = *r;
    j->r.params = params;
    j->prompt = mem_array(r->n_prompt, sizeof *j->prompt);
    memcpy(j->prompt, r->prompt, r->n_prompt * sizeof *j->prompt);
    j->n_prompt = (int64_t)r->n_prompt;
    j->max_tokens = params->max_tokens > 0 ? params->max_tokens : CONTEXT - j->n_prompt;
    j->began_ns = clock_mono_ns();
    j->due_ns = j->began_ns + f->plan.prefill_ms * INT64_C(1000000);
    j->deadline_ns = r->deadline_ms > 0 ? j->began_ns + r->deadline_ms * INT64_C(1000000) : 0;
    for (int c = 0; c < r->n; c++)
        j->text[c] = c == 0 ? mem_strdup(f->plan.text) : mem_printf("%s%d", f->plan.text, c);
    pthread_mutex_lock(&f->lock);
    bool draining = f->draining;
    if (!draining) {
        note_last(f, r);
        *ticket = j->ticket = ++f->next_ticket;
        j->next = f->jobs;
        f->jobs = j;
        atomic_fetch_add(&f->taken, 1);
    }
    atomic_fetch_add(&f->running, 1);
    pthread_mutex_unlock(&f->lock);
    if (draining) {
        job_free(f, j);
        return hone_fail(e, HONE_ECANCELLED, "the server is shutting down");
    }
    return 0;
}

static void cancel(void *ctx, uint64_t ticket)
{
    aid_fake *f = ctx;
    pthread_mutex_lock(&f->lock);
    for (job *j = f->jobs; j != NULL; j = j->next)
        if (j->ticket == ticket)
            j->cancelled = true;
    pthread_mutex_unlock(&f->lock);
}

static served *current(void *ctx)
{
    aid_fake *f = ctx;
    if (f->plan.no_model)
        return NULL;
    atomic_fetch_add(&f->references, 1);
    return &f->m;
}

static served *beside(void *ctx)
{
    aid_fake *f = ctx;
    if (!f->plan.beside)
        return NULL;
    atomic_fetch_add(&f->references, 1);
    return &f->second;
}

static const char *why_none(void *ctx)
{
    (void)ctx;
    return "the fake has no model";
}

static void release(void *ctx, served *m)
{
    (void)m;
    atomic_fetch_sub(&((aid_fake *)ctx)->references, 1);
}

static void drain(void *ctx, int timeout_ms)
{
    aid_fake *f = ctx;
    int64_t end = clock_mono_ns() + timeout_ms * INT64_C(1000000);
    pthread_mutex_lock(&f->lock);
    f->draining = true;
    pthread_mutex_unlock(&f->lock);
    while (f->running > 0 && clock_mono_ns() < end)
        nanosleep(&(struct timespec){0, TICK_NS}, NULL);
    pthread_mutex_lock(&f->lock);
    for (job *j = f->jobs; j != NULL; j = j->next)
        j->cancelled = true;
    pthread_mutex_unlock(&f->lock);
    while (f->running > 0)
        nanosleep(&(struct timespec){0, TICK_NS}, NULL);
}

static engine_stats counters(void *ctx)
{
    aid_fake *f = ctx;
    return (engine_stats){.count.requests = (uint64_t)f->taken,
                          .running = f->running,
                          .waiting = 2,
                          .kv_blocks = 10,
                          .kv_blocks_used = 5,
                          .last_step_age_ms = f->plan.step_age_ms};
}

static void figures_of(engine_figures *out, const served *m, uint64_t requests)
{
    *out = (engine_figures){.count.requests = requests};
    snprintf(out->name, sizeof out->name, "%s", m->name);
    memcpy(out->model_digest, m->model_digest, sizeof out->model_digest);
    for (int i = 0; i < ENGINE_N_HIST; i++)
        out->hist[i] =
            (engine_hist){.bucket = {1, 2, [ENGINE_HIST_BUCKETS] = 3}, .sum = 1.5, .count = 6};
}

static int models(void *ctx, engine_figures *out, int max)
{
    aid_fake *f = ctx;
    figures_of(&out[0], &f->m, (uint64_t)f->taken);
    if (!f->plan.beside || max < 2)
        return 1;
    figures_of(&out[1], &f->second, 1000);
    return 2;
}

aid_fake *aid_fake_start(const char *dir)
{
    hone_err e = {0};
    aid_fake *f = mem_alloc(sizeof *f);
    write_tokenizer(dir);
    write_config(dir);
    f->plan.text = "Hello";
    f->plan.fail_after = f->plan.hold_after = -1;
    pthread_mutex_init(&f->lock, NULL);
    if (tok_open(&f->tok, dir, &e) != 0 || chat_open(&f->chat, dir, NULL, &e) != 0) {
        fprintf(stderr, "fake: %s\n", e.msg);
        abort();
    }
    f->m = (served){.name = (char *)"fake",
                    .tok = f->tok,
                    .chat = f->chat,
                    .context = CONTEXT,
                    .created_unix = 1700000000};
    memset(f->m.model_digest, 'a', 64);
    gen_defaults(&f->m.defaults);
    f->second = f->m;
    f->second.name = (char *)"fake-canary";
    memset(f->second.model_digest, 'b', 64);
    f->second.defaults.temperature = 0.25f;
    f->b = (backend){f,       submit, cancel,   current, beside, why_none,
                     release, drain,  counters, models,  bounds};
    pthread_create(&f->thread, NULL, main_loop, f);
    return f;
}

void aid_fake_stop(aid_fake *f)
{
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    pthread_mutex_destroy(&f->lock);
    tok_close(f->tok);
    chat_close(f->chat);
    free(f->last_params);
    free(f->last_prompt);
    free(f);
}

aid_fake_plan *aid_fake_plan_of(aid_fake *f)
{
    return &f->plan;
}

const backend *aid_fake_backend(aid_fake *f)
{
    return &f->b;
}

int aid_fake_taken(aid_fake *f)
{
    return f->taken;
}

int aid_fake_cancelled(aid_fake *f)
{
    return f->cancelled;
}

int aid_fake_running(aid_fake *f)
{
    return f->running;
}

int aid_fake_references(aid_fake *f)
{
    return f->references;
}

static char *copy_locked(aid_fake *f, char *const *text)
{
    pthread_mutex_lock(&f->lock);
    char *s = mem_strdup(*text != NULL ? *text : "");
    pthread_mutex_unlock(&f->lock);
    return s;
}

char *aid_fake_last_params(aid_fake *f)
{
    return copy_locked(f, &f->last_params);
}

char *aid_fake_last_prompt(aid_fake *f)
{
    return copy_locked(f, &f->last_prompt);
}

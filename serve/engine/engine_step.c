/* One forward pass over the chunks that the scheduler chose, then sampling and delivery. */
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/engine/engine_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Host arrays of a step, made once for the largest one. */
struct step_buffers {
    int32_t *ids, *pos, *q_start, *kv_len, *out_row;
    int32_t *blocks;
    size_t cap_blocks;
    kern_sample_row *rows;
    seq **by_row;
    buf text;
};

enum { MAX_TEXT = 1 << 20 };

struct step_buffers *engine_step_new(const engine_options *o)
{
    struct step_buffers *b = mem_alloc(sizeof *b);
    size_t n = (size_t)o->step_tokens, s = (size_t)o->max_seqs;
    b->ids = mem_array(n, sizeof *b->ids);
    b->pos = mem_array(n, sizeof *b->pos);
    b->q_start = mem_array(s + 1, sizeof *b->q_start);
    b->kv_len = mem_array(s, sizeof *b->kv_len);
    b->out_row = mem_array(s, sizeof *b->out_row);
    b->rows = mem_array(s, sizeof *b->rows);
    b->by_row = mem_array(s, sizeof(seq *));
    buf_init(&b->text, MAX_TEXT);
    return b;
}

void engine_step_free(struct step_buffers *b)
{
    if (b == NULL)
        return;
    free(b->ids);
    free(b->pos);
    free(b->q_start);
    free(b->kv_len);
    free(b->out_row);
    free(b->blocks);
    free(b->rows);
    free(b->by_row);
    buf_free(&b->text);
    free(b);
}

/* Lays out the chosen chunks; the table of blocks is as wide as the longest sequence needs. */
static model_step lay_out(engine *g, lane *l, struct step_buffers *b)
{
    model_step m = {0};
    size_t width = 1;
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (s->lane == l && s->chunk > 0 && s->n_blocks > width)
            width = s->n_blocks;
    b->blocks =
        mem_grow(b->blocks, &b->cap_blocks, width * (size_t)g->o.max_seqs, sizeof *b->blocks);
    for (seq *s = g->seqs; s != NULL; s = s->next) {
        if (s->lane != l || s->chunk == 0)
            continue;
        b->q_start[m.n_seq] = (int32_t)m.n;
        for (int64_t i = 0; i < s->chunk; i++) {
            b->ids[m.n] = s->ids[s->computed + (size_t)i];
            b->pos[m.n++] = (int32_t)(s->computed + (size_t)i);
        }
        b->kv_len[m.n_seq] = (int32_t)(s->computed + (size_t)s->chunk);
        memset(b->blocks + (size_t)m.n_seq * width, 0, width * sizeof *b->blocks);
        memcpy(b->blocks + (size_t)m.n_seq * width, s->blocks, s->n_blocks * sizeof *b->blocks);
        s->out_index = -1;
        if (s->computed + (size_t)s->chunk == s->n_ids) {
            s->out_index = m.n_out;
            b->by_row[m.n_out] = s;
            b->out_row[m.n_out++] = (int32_t)(m.n - 1);
        }
        m.n_seq++;
    }
    b->q_start[m.n_seq] = (int32_t)m.n;
    m.ids = b->ids;
    m.pos = b->pos;
    m.q_start = b->q_start;
    m.kv_len = b->kv_len;
    m.blocks = b->blocks;
    m.max_blocks = (int64_t)width;
    m.out_row = b->out_row;
    return m;
}

static void keep_logprob(engine_logprob *lp, const kern_sample_row *row)
{
    lp->id = row->id;
    lp->logp = row->logp;
    lp->n_top = row->n_top;
    memcpy(lp->top_id, row->top_id, sizeof lp->top_id);
    memcpy(lp->top_logp, row->top_logp, sizeof lp->top_logp);
}

static void note_latency(engine *g, seq *s)
{
    job *j = s->owner;
    int64_t now = clock_mono_ns();
    if (j->first_token_ns == 0) {
        j->first_token_ns = now;
        engine_observe(g, j, ENGINE_TTFT, (double)(now - j->submit_ns) * 1e-9);
        engine_observe(g, j, ENGINE_PREFILL, (double)(now - j->admit_ns) * 1e-9);
    } else if (s->last_token_ns != 0) {
        engine_observe(g, j, ENGINE_ITL, (double)(now - s->last_token_ns) * 1e-9);
    }
    s->last_token_ns = now;
}

/* Takes one sampled token: text out, the answer's end, or the id that the next step feeds. */
static void deliver(engine *g, seq *s, const kern_sample_row *row)
{
    struct step_buffers *b = g->step;
    hone_err err = {0};
    engine_logprob lp;
    note_latency(g, s);
    buf_reset(&b->text);
    int rc = gen_state_take(s->state, row, &b->text, &err);
    bool ended = rc == 0 && gen_state_finish(s->state) != GEN_RUNNING;
    if (ended)
        rc = gen_state_flush(s->state, &b->text, &err);
    if (rc != 0) {
        sched_fail(g, s->owner, rc, err.msg);
        return;
    }
    keep_logprob(&lp, row);
    s->ids = mem_grow(s->ids, &s->cap_ids, s->n_ids + 1, sizeof *s->ids);
    s->ids[s->n_ids++] = row->id;
    bool stop_token = gen_state_finish(s->state) == GEN_STOP && b->text.len == 0;
    engine_event ev = {.kind = ENGINE_TEXT,
                       .choice = s->choice,
                       .text = b->text.data,
                       .len = b->text.len,
                       .logprobs = &lp,
                       .n_logprobs = stop_token ? 0 : 1};
    s->owner->fn(s->owner->user, &ev, false);
    if (ended)
        engine_send_done(g, s);
}

/* ---- serve.logits ---- */

/* Subscribers see each row on the host and may change it. Nothing is copied for nobody. */
static int ask_hooks(engine *g, kern_dev *d, const kern_tensor *logits, int n, hone_err *e)
{
    if (!hook_wanted(g->o.hooks, HOOK_SERVE_LOGITS))
        return 0;
    size_t bytes = (size_t)n * (size_t)logits->ld * sizeof(float);
    float *rows = mem_try(bytes);
    if (rows == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %d rows of logits", n);
    int rc = kern_do(d, read, rows, logits->data, bytes);
    if (rc != 0)
        hone_fail(e, rc, "logits: %s", d->err);
    for (int i = 0; rc == 0 && i < n; i++) {
        const seq *s = g->step->by_row[i];
        const hook_logits at = {.ids = s->ids,
                                .n_ids = s->n_ids,
                                .step = (int64_t)(s->n_ids - s->owner->n_prompt),
                                .from_device = strcmp(d->backend, "cpu") != 0};
        const hook_view view = {.logits = &at,
                                .values = rows + (size_t)i * (size_t)logits->ld,
                                .n_values = (size_t)logits->cols};
        rc = hook_emit_view(g->o.hooks, HOOK_SERVE_LOGITS, &view, e);
    }
    if (rc == 0 && (rc = kern_do(d, write, logits->data, rows, bytes)) != 0)
        hone_fail(e, rc, "logits: %s", d->err);
    free(rows);
    return rc;
}

static int sample(engine *g, lane *l, const kern_tensor *logits, int n, hone_err *e)
{
    struct step_buffers *b = g->step;
    kern_dev *d = model_device(l->on->model);
    int asked = ask_hooks(g, d, logits, n, e);
    if (asked != 0)
        return asked;
    for (int i = 0; i < n; i++)
        gen_state_row(b->by_row[i]->state, &b->rows[i]);
    kern_sample a = {.logits = *logits, .row = b->rows};
    int rc = kern_do(d, sample, &a);
    return rc == 0 ? 0 : hone_fail(e, rc, "sampling: %s", d->err);
}

int engine_step_run(engine *g, lane *l, hone_err *e)
{
    struct step_buffers *b = g->step;
    kern_tensor logits;
    model_step m = lay_out(g, l, b);
    int64_t start = clock_mono_ns();
    int rc = model_forward(l->on->model, l->on->kv, &m, &logits, e);
    if (rc == 0 && m.n_out > 0)
        rc = sample(g, l, &logits, m.n_out, e);
    if (rc != 0)
        return rc;
    double seconds = (double)(clock_mono_ns() - start) * 1e-9;
    pthread_mutex_lock(&g->lock);
    g->stats.steps++;
    if (m.n > m.n_seq && seconds > 0) {
        double rate = (double)m.n / seconds;
        g->prefill_rate = g->prefill_rate > 0 ? 0.8 * g->prefill_rate + 0.2 * rate : rate;
    }
    pthread_mutex_unlock(&g->lock);
    for (seq *s = g->seqs; s != NULL; s = s->next)
        if (s->lane == l && s->chunk > 0)
            s->computed += (size_t)s->chunk;
    for (int i = 0; i < m.n_out; i++)
        if (!b->by_row[i]->owner->failed)
            deliver(g, b->by_row[i], &b->rows[i]);
    return 0;
}

/* ---- log-probabilities of the prompt ---- */

typedef struct echo {
    const int32_t *ids;
    int64_t n;
    int n_top;
    engine_logprob *out; /* [n]; entry i is of token i */
} echo;

/* Row i predicts token i + 1. */
static int echo_row(void *user, int64_t row, const float *logprobs, int64_t vocab, hone_err *e)
{
    echo *x = user;
    (void)e;
    if (row + 1 >= x->n)
        return 0;
    engine_logprob *lp = &x->out[row + 1];
    lp->id = x->ids[row + 1];
    lp->logp = logprobs[lp->id];
    lp->n_top = 0;
    for (int k = 0; k < x->n_top; k++) {
        int64_t best = -1;
        for (int64_t v = 0; v < vocab; v++) {
            bool below = k == 0 || logprobs[v] < lp->top_logp[k - 1] ||
                         (logprobs[v] == lp->top_logp[k - 1] && v > lp->top_id[k - 1]);
            if (below && (best < 0 || logprobs[v] > logprobs[best]))
                best = v;
        }
        if (best < 0)
            break;
        lp->top_id[k] = (int32_t)best;
        lp->top_logp[lp->n_top++] = logprobs[best];
    }
    return 0;
}

int engine_step_score(job *j, hone_err *e)
{
    int64_t n = (int64_t)j->n_prompt;
    int32_t cu[2] = {0, (int32_t)n};
    int32_t *pos = mem_array((size_t)n, sizeof *pos),
            *target = mem_array((size_t)n, sizeof *target);
    engine_logprob *lps = mem_try_array((size_t)n, sizeof *lps);
    int rc =
        lps != NULL ? 0 : hone_fail(e, HONE_ENOMEM, "no memory for the prompt's log-probabilities");
    for (int64_t i = 0; i < n; i++) {
        pos[i] = (int32_t)i;
        target[i] = j->prompt[i + 1 < n ? i + 1 : i];
    }
    if (rc == 0) {
        echo x = {j->prompt, n, j->params.n_top, lps};
        model_batch mb = {
            .n = n, .ids = j->prompt, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
        lps[0] = (engine_logprob){.id = j->prompt[0], .logp = NAN};
        rc = model_logprobs(j->on->model, &mb, echo_row, &x, e);
    }
    if (rc == 0) {
        engine_event ev = {.kind = ENGINE_PROMPT, .logprobs = lps, .n_logprobs = (int)n};
        j->fn(j->user, &ev, false);
    }
    free(pos);
    free(target);
    free(lps);
    return rc;
}

#include "core/model/gen.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_TOKENS = 16,
    MAX_SLOTS = 16,     /* answers decoded together */
    STEP_TOKENS = 512,  /* rows of a step: decoded tokens, then pieces of prompts */
    MAX_TEXT = 1 << 28, /* bytes of one answer */
};
static const size_t MAX_KV_BYTES = (size_t)1 << 30; /* one answer may always take what it needs */

/* ---- settings ---- */

void gen_defaults(gen_params *p)
{
    *p = (gen_params){.max_tokens = -1, .temperature = 1, .top_p = 1, .repetition = 1};
}

static int read_settings(gen_params *p, const json_t *o, hone_err *e)
{
    double temperature = p->temperature, top_p = p->top_p, min_p = p->min_p;
    double repetition = p->repetition;
    int64_t top_k = p->top_k;
    bool sample = true;
    int rc;
    if ((rc = js_opt_num(o, "temperature", &temperature, e)) != 0 ||
        (rc = js_opt_num(o, "top_p", &top_p, e)) != 0 ||
        (rc = js_opt_num(o, "min_p", &min_p, e)) != 0 ||
        (rc = js_opt_num(o, "repetition_penalty", &repetition, e)) != 0 ||
        (rc = js_opt_int(o, "top_k", &top_k, e)) != 0 ||
        (rc = js_opt_int(o, "max_new_tokens", &p->max_tokens, e)) != 0 ||
        (rc = js_opt_bool(o, "do_sample", &sample, e)) != 0)
        return rc;
    if (top_k < 0 || top_k > INT32_MAX)
        return hone_fail(e, HONE_EFORMAT, "top_k is %lld", (long long)top_k);
    p->temperature = sample ? (float)temperature : 0;
    p->top_p = (float)top_p;
    p->min_p = (float)min_p;
    p->repetition = (float)repetition;
    p->top_k = (int32_t)top_k;
    return 0;
}

int gen_load_defaults(gen_params *p, const char *dir, hone_err *e)
{
    int rc = 0;
    json_t *o = NULL;
    char *path = path_join(dir, "generation_config.json");
    if (file_exists(path)) {
        rc = js_load(&o, path, e);
        if (rc == 0 && (rc = read_settings(p, o, e)) != 0)
            hone_fail_at(e, "%s", path);
    }
    json_decref(o);
    free(path);
    return rc;
}

static int check_stops(const gen_params *p, hone_err *e)
{
    if (p->n_stop > GEN_MAX_STOPS || p->n_stop_ids > GEN_MAX_STOPS)
        return hone_fail(e, HONE_ELIMIT, "%d stops, at most %d are taken",
                         p->n_stop > GEN_MAX_STOPS ? p->n_stop : p->n_stop_ids, GEN_MAX_STOPS);
    for (int i = 0; i < p->n_stop; i++) {
        size_t len = strlen(p->stop[i]);
        if (len == 0)
            return hone_fail(e, HONE_EINVAL, "a stop string is empty");
        if (len > GEN_MAX_STOP_LEN)
            return hone_fail(e, HONE_ELIMIT, "a stop string of %zu bytes, at most %d are taken",
                             len, GEN_MAX_STOP_LEN);
    }
    return 0;
}

static int check_ids(const char *what, const int32_t *ids, int64_t n, int64_t n_vocab, hone_err *e)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return hone_fail(e, HONE_EINVAL, "%s: id %d is outside the vocabulary of %lld", what,
                             ids[i], (long long)n_vocab);
    return 0;
}

int gen_check(const gen_params *p, int64_t n_vocab, hone_err *e)
{
    const struct {
        const char *name;
        float value, min, max;
        bool open; /* min itself is refused */
    } rows[] = {
        {"temperature", p->temperature, 0, 100, false},
        {"top_p", p->top_p, 0, 1, true},
        {"min_p", p->min_p, 0, 1, false},
        {"top_k", (float)p->top_k, 0, (float)INT32_MAX, false},
        {"repetition penalty", p->repetition, 0, 100, true},
        {"presence penalty", p->presence, -100, 100, false},
        {"frequency penalty", p->frequency, -100, 100, false},
        {"top log-probabilities", (float)p->n_top, 0, KERN_MAX_TOP, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float v = rows[i].value;
        if (!(v >= rows[i].min && v <= rows[i].max) || (rows[i].open && v <= rows[i].min))
            return hone_fail(e, HONE_EINVAL, "%s is %g, %s %g to %g is taken", rows[i].name,
                             (double)v, rows[i].open ? "above" : "from", (double)rows[i].min,
                             (double)rows[i].max);
    }
    for (int64_t i = 0; i < p->n_bias; i++)
        if (!isfinite(p->bias[i]))
            return hone_fail(e, HONE_EINVAL, "logit bias of id %d is not finite", p->bias_id[i]);
    if (p->max_tokens == 0 || p->max_tokens < -1)
        return hone_fail(e, HONE_EINVAL, "max_tokens is %lld, -1 or from 1 is taken",
                         (long long)p->max_tokens);
    int rc = check_stops(p, e);
    if (rc == 0)
        rc = check_ids("logit bias", p->bias_id, p->n_bias, n_vocab, e);
    return rc == 0 ? check_ids("stop id", p->stop_ids, p->n_stop_ids, n_vocab, e) : rc;
}

const char *gen_finish_name(gen_finish f)
{
    static const char *const names[] = {
        [GEN_RUNNING] = "running",
        [GEN_STOP] = "stop",
        [GEN_LENGTH] = "length",
        [GEN_CANCELLED] = "cancelled",
    };
    return names[f];
}

void gen_result_free(gen_result *r)
{
    free(r->text);
    free(r->ids);
    free(r->logp);
    *r = (gen_result){0};
}

/* ---- a run ---- */

/* One answer that is being decoded; it owns blocks [index * blocks, (index + 1) * blocks). */
typedef struct slot {
    gen_state *state; /* NULL: free */
    size_t prompt;    /* which */
    size_t fed;       /* tokens in the cache */
    buf text;
    float *logp;
    size_t n_logp, logp_cap;
    double began, first;
} slot;

struct gen_cache {
    model_kv *kv;
    int64_t blocks; /* of kv */
    int32_t *ids;   /* what is in it, in order */
    size_t n, cap;
    size_t kept; /* of the last prompt */
};

typedef struct run {
    model *m;
    gen_cache *cache; /* NULL: the run's own */
    const tok *tok;
    const gen_params *p;
    const gen_prompt *prompts;
    size_t n, next; /* prompts, and the first that has not begun */
    gen_result *results;
    gen_text_fn *fn;
    void *user;
    model_kv *kv;
    int n_slots;
    int64_t blocks; /* a slot */
    slot slot[MAX_SLOTS];
    int32_t ids[STEP_TOKENS], pos[STEP_TOKENS], q_start[MAX_SLOTS + 1], kv_len[MAX_SLOTS];
    int32_t out_row[MAX_SLOTS], out_slot[MAX_SLOTS];
    int32_t *block_table; /* [n_slots, blocks] */
    int n_seq, n_out;
    int64_t n_rows;
} run;

static int64_t context_of(const run *r)
{
    return model_config(r->m)->max_positions;
}

/* Tokens that an answer may have. */
static int64_t limit_of(const run *r, size_t prompt)
{
    int64_t room = context_of(r) - (int64_t)r->prompts[prompt].n;
    return r->p->max_tokens < 0 || r->p->max_tokens > room ? room : r->p->max_tokens;
}

/* ---- a conversation's cache ---- */

gen_cache *gen_cache_new(void)
{
    return mem_alloc(sizeof(gen_cache));
}

void gen_cache_free(gen_cache *c)
{
    if (c == NULL)
        return;
    model_kv_close(c->kv);
    free(c->ids);
    free(c);
}

size_t gen_cache_kept(const gen_cache *c)
{
    return c->kept;
}

/* Room for a whole context where that is not too much; when it has to grow, what was in it is read
 * anew. */
static int grow_cache(run *r, hone_err *e)
{
    gen_cache *c = r->cache;
    int64_t most = (int64_t)(MAX_KV_BYTES / model_kv_bytes(r->m, 1, BLOCK_TOKENS));
    int64_t whole = (context_of(r) + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    int64_t blocks = whole < most ? whole : most > r->blocks ? most : r->blocks;
    model_kv_close(c->kv);
    *c = (gen_cache){.ids = c->ids, .cap = c->cap};
    int rc = model_kv_open(&c->kv, r->m, blocks, BLOCK_TOKENS, e);
    if (rc == 0)
        c->blocks = blocks;
    return rc;
}

/* The last token of a prompt is always computed: its logits are wanted. */
static size_t common_beginning(const gen_cache *c, const gen_prompt *p)
{
    size_t n = 0;
    while (n < c->n && n + 1 < p->n && c->ids[n] == p->ids[n])
        n++;
    return n;
}

static int use_cache(run *r, hone_err *e)
{
    gen_cache *c = r->cache;
    int rc = c->blocks < r->blocks ? grow_cache(r, e) : 0;
    if (rc != 0)
        return rc;
    /* What comes after is written over; if this run fails, the beginning still stands. */
    c->n = c->kept = common_beginning(c, r->prompts);
    r->kv = c->kv;
    r->blocks = c->blocks;
    r->n_slots = 1;
    r->block_table = mem_array((size_t)r->blocks, sizeof *r->block_table);
    return 0;
}

/* What the run has put into it. */
static void note_cache(gen_cache *c, const slot *s)
{
    kern_sample_row all;
    gen_state_row(s->state, &all);
    c->ids = mem_grow(c->ids, &c->cap, s->fed + 1, sizeof *c->ids);
    memcpy(c->ids, all.context, s->fed * sizeof *c->ids);
    c->n = s->fed;
}

/* Makes the cache: slots for as many answers as there are and memory allows. */
static int open_cache(run *r, hone_err *e)
{
    int64_t longest = 0;
    for (size_t i = 0; i < r->n; i++) {
        int64_t n = (int64_t)r->prompts[i].n, need = n + limit_of(r, i);
        if (n == 0)
            return hone_fail(e, HONE_EINVAL, "prompt %zu is empty", i);
        if (n >= context_of(r))
            return hone_fail(e, HONE_ELIMIT, "prompt %zu has %lld tokens, the context is %lld", i,
                             (long long)n, (long long)context_of(r));
        longest = need > longest ? need : longest;
    }
    r->blocks = (longest + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    if (r->cache != NULL)
        return use_cache(r, e);
    size_t bytes = model_kv_bytes(r->m, r->blocks, BLOCK_TOKENS);
    size_t fit = MAX_KV_BYTES / bytes;
    size_t slots = r->n < MAX_SLOTS ? r->n : MAX_SLOTS;
    slots = fit < 1 ? 1 : fit < slots ? fit : slots;
    r->n_slots = (int)slots;
    r->block_table = mem_array(slots * (size_t)r->blocks, sizeof *r->block_table);
    return model_kv_open(&r->kv, r->m, r->blocks * r->n_slots, BLOCK_TOKENS, e);
}

static void admit(run *r)
{
    for (int i = 0; i < r->n_slots && r->next < r->n; i++) {
        slot *s = &r->slot[i];
        if (s->state != NULL)
            continue;
        const gen_prompt *prompt = &r->prompts[r->next];
        gen_params p = *r->p;
        p.max_tokens = limit_of(r, r->next);
        *s = (slot){.prompt = r->next++, .began = clock_seconds()};
        s->fed = r->cache != NULL ? r->cache->kept : 0;
        s->state = gen_state_new(r->tok, &p, prompt->ids, prompt->n, prompt->stream);
        buf_init(&s->text, MAX_TEXT);
    }
}

/* Puts tokens of a slot that the cache does not hold yet into the step, as many as there is room
 * for. */
static void add_rows(run *r, int index)
{
    slot *s = &r->slot[index];
    kern_sample_row all;
    gen_state_row(s->state, &all);
    int64_t room = STEP_TOKENS - r->n_rows, left = all.n_context - (int64_t)s->fed;
    int64_t take = left < room ? left : room;
    if (take == 0)
        return;
    for (int64_t i = 0; i < take; i++) {
        r->ids[r->n_rows] = all.context[s->fed];
        r->pos[r->n_rows++] = (int32_t)s->fed++;
    }
    for (int64_t b = 0; b < r->blocks; b++)
        r->block_table[r->n_seq * r->blocks + b] = (int32_t)(index * r->blocks + b);
    r->kv_len[r->n_seq++] = (int32_t)s->fed;
    r->q_start[r->n_seq] = (int32_t)r->n_rows;
    if (take == left) {
        r->out_slot[r->n_out] = index;
        r->out_row[r->n_out++] = (int32_t)r->n_rows - 1;
    }
}

/* Decoding answers come first: one row each; prompts share what is left. */
static void fill_step(run *r)
{
    r->n_seq = r->n_out = 0;
    r->n_rows = 0;
    for (int prompts = 0; prompts < 2; prompts++) {
        for (int i = 0; i < r->n_slots; i++) {
            size_t n_answer;
            if (r->slot[i].state == NULL)
                continue;
            gen_state_ids(r->slot[i].state, &n_answer);
            if ((n_answer == 0) == (prompts == 1))
                add_rows(r, i);
        }
    }
}

static int finish_slot(run *r, slot *s)
{
    gen_result *out = &r->results[s->prompt];
    size_t n;
    const int32_t *ids = gen_state_ids(s->state, &n);
    *out = (gen_result){
        .finish = gen_state_finish(s->state),
        .first_token_s = s->first - s->began,
        .total_s = clock_seconds() - s->began,
        .n = n,
        .ids = mem_array(n, sizeof *ids),
        .logp = s->logp,
    };
    memcpy(out->ids, ids, n * sizeof *ids);
    if (r->cache != NULL)
        note_cache(r->cache, s);
    int rc = buf_check(&s->text, "an answer", NULL);
    out->text = buf_take(&s->text, NULL);
    gen_state_free(s->state);
    s->state = NULL;
    return rc;
}

/* One sampled token of a slot: text to the caller, and the result when the answer has ended. */
static int take_token(run *r, slot *s, const kern_sample_row *row, hone_err *e)
{
    size_t before = s->text.len;
    if (s->n_logp == 0)
        s->first = clock_seconds();
    s->logp = mem_grow(s->logp, &s->logp_cap, s->n_logp + 1, sizeof *s->logp);
    s->logp[s->n_logp++] = row->logp;
    int rc = gen_state_take(s->state, row, &s->text, e);
    size_t len = s->text.len - before;
    if (rc == 0 && len > 0 && r->fn != NULL &&
        r->fn(r->user, s->prompt, s->text.data + before, len) != 0)
        rc = gen_state_flush(s->state, &s->text, e);
    if (rc != 0 || gen_state_finish(s->state) == GEN_RUNNING)
        return rc;
    rc = finish_slot(r, s);
    return rc == 0 ? 0 : hone_fail(e, rc, "an answer is longer than %d bytes", MAX_TEXT);
}

static int run_step(run *r, hone_err *e)
{
    kern_tensor logits;
    kern_sample_row rows[MAX_SLOTS];
    const model_step step = {
        .n = r->n_rows,
        .ids = r->ids,
        .pos = r->pos,
        .n_seq = r->n_seq,
        .q_start = r->q_start,
        .kv_len = r->kv_len,
        .blocks = r->block_table,
        .max_blocks = r->blocks,
        .n_out = r->n_out,
        .out_row = r->out_row,
    };
    int rc = model_forward(r->m, r->kv, &step, &logits, e);
    if (rc != 0 || r->n_out == 0)
        return rc;
    for (int i = 0; i < r->n_out; i++)
        gen_state_row(r->slot[r->out_slot[i]].state, &rows[i]);
    kern_dev *dev = model_device(r->m);
    rc = kern_do(dev, sample, &(kern_sample){.logits = logits, .row = rows});
    if (rc != 0)
        return hone_fail(e, rc, "sampling: %s", dev->err);
    for (int i = 0; i < r->n_out && rc == 0; i++)
        rc = take_token(r, &r->slot[r->out_slot[i]], &rows[i], e);
    return rc;
}

int gen_run(model *m, const tok *t, const gen_params *p, const gen_prompt *prompts, size_t n,
            gen_result *results, gen_text_fn *fn, void *user, hone_err *e)
{
    memset(results, 0, n * sizeof *results);
    int rc = gen_check(p, model_config(m)->vocab, e);
    if (rc != 0 || n == 0)
        return rc;
    run *r = mem_alloc(sizeof *r);
    *r = (run){.m = m,
               .tok = t,
               .p = p,
               .prompts = prompts,
               .n = n,
               .cache = n == 1 ? prompts->cache : NULL,
               .results = results,
               .fn = fn,
               .user = user};
    rc = open_cache(r, e);
    while (rc == 0) {
        admit(r);
        fill_step(r);
        if (r->n_rows == 0)
            break;
        rc = run_step(r, e);
    }
    for (int i = 0; i < MAX_SLOTS; i++) {
        if (r->slot[i].state == NULL)
            continue;
        gen_state_free(r->slot[i].state);
        buf_free(&r->slot[i].text);
        free(r->slot[i].logp);
    }
    if (r->cache == NULL)
        model_kv_close(r->kv);
    free(r->block_table);
    free(r);
    return rc;
}

/* The two passes over the model: log-probabilities of what stands there, and answers to what is
 * asked. */
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/eval/eval_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_BATCH = 8, DEFAULT_BATCH_TOKENS = 2048, DEFAULT_MAX_TOKENS = 64 };

/* A packed batch being filled: whole examples, in file order. */
typedef struct pack {
    int32_t *ids, *pos, *target, *cu;
    float *logp;
    int64_t n, cap;
    size_t first; /* example */
    int n_seg;
} pack;

static void pack_add(pack *p, const example *x)
{
    for (size_t i = 0; i < x->n_ids; i++) {
        bool scored = i + 1 < x->n_ids && x->mask[i + 1];
        p->ids[p->n] = x->ids[i];
        p->pos[p->n] = (int32_t)i;
        p->target[p->n++] = scored ? x->ids[i + 1] : -1;
    }
    p->cu[++p->n_seg] = (int32_t)p->n;
}

static int pack_score(pack *p, example_set *s, const eval_options *o, hone_err *e)
{
    if (p->n_seg == 0)
        return 0;
    model_batch b = {.n = p->n,
                     .ids = p->ids,
                     .pos = p->pos,
                     .target = p->target,
                     .cu = p->cu,
                     .n_seg = p->n_seg};
    int rc = model_score(o->m, &b, p->logp, e);
    for (int k = 0; rc == 0 && k < p->n_seg; k++) {
        example *x = &s->items[p->first + (size_t)k];
        for (int32_t i = p->cu[k]; i < p->cu[k + 1]; i++) {
            if (p->target[i] < 0)
                continue;
            x->nll -= (double)p->logp[i];
            if (x->each != NULL)
                x->each[i - p->cu[k] + 1] = p->logp[i];
        }
        if (!isfinite(x->nll))
            rc = hone_fail(e, HONE_ENUMERIC, "line %lld: its log-probability is not finite",
                           (long long)x->line);
    }
    p->first += (size_t)p->n_seg;
    p->n = p->n_seg = 0;
    return rc;
}

int run_scoring(example_set *s, const eval_options *o, hone_err *e)
{
    pack p = {.cap = o->batch_tokens > 0 ? o->batch_tokens : DEFAULT_BATCH_TOKENS};
    for (size_t i = 0; i < s->n; i++)
        p.cap = (int64_t)s->items[i].n_ids > p.cap ? (int64_t)s->items[i].n_ids : p.cap;
    p.ids = mem_array((size_t)p.cap, sizeof *p.ids);
    p.pos = mem_array((size_t)p.cap, sizeof *p.pos);
    p.target = mem_array((size_t)p.cap, sizeof *p.target);
    p.logp = mem_array((size_t)p.cap, sizeof *p.logp);
    p.cu = mem_array(s->n + 1, sizeof *p.cu);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        if (p.n + (int64_t)s->items[i].n_ids > p.cap)
            rc = pack_score(&p, s, o, e);
        if (rc == 0)
            pack_add(&p, &s->items[i]);
    }
    if (rc == 0)
        rc = pack_score(&p, s, o, e);
    free(p.ids);
    free(p.pos);
    free(p.target);
    free(p.logp);
    free(p.cu);
    return rc;
}

static gen_params greedy(const eval_options *o)
{
    gen_params p;
    gen_defaults(&p);
    p.temperature = 0;
    p.max_tokens = o->max_tokens > 0 ? o->max_tokens : DEFAULT_MAX_TOKENS;
    return p;
}

static int answer_batch(example *x, size_t n, const eval_options *o, hone_err *e)
{
    gen_params params = greedy(o);
    gen_prompt *prompts = mem_array(n, sizeof *prompts);
    gen_result *results = mem_array(n, sizeof *results);
    for (size_t i = 0; i < n; i++)
        prompts[i] = (gen_prompt){.ids = x[i].prompt, .n = x[i].n_prompt};
    int rc = gen_run(o->m, o->t, &params, prompts, n, results, NULL, NULL, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        x[i].answer = results[i];
    free(prompts);
    free(results);
    return rc == 0 ? 0 : hone_fail_at(e, "lines %lld and on", (long long)x[0].line);
}

int run_answers(example_set *s, const eval_options *o, hone_err *e)
{
    size_t batch = o->batch > 0 ? (size_t)o->batch : DEFAULT_BATCH;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n; i += batch)
        rc = answer_batch(&s->items[i], s->n - i < batch ? s->n - i : batch, o, e);
    return rc;
}

int run_latency(const example_set *s, const eval_options *o, size_t max, double *first,
                double *total, double *per_token, size_t *n, hone_err *e)
{
    gen_params params = greedy(o);
    int rc = 0;
    *n = 0;
    for (size_t i = 0; rc == 0 && i < s->n && *n < max; i++) {
        gen_prompt prompt = {.ids = s->items[i].prompt, .n = s->items[i].n_prompt};
        gen_result r = {0};
        rc = gen_run(o->m, o->t, &params, &prompt, 1, &r, NULL, NULL, e);
        if (rc == 0) {
            first[*n] = r.first_token_s;
            total[*n] = r.total_s;
            per_token[*n] = r.n > 1 ? (r.total_s - r.first_token_s) / (double)(r.n - 1) : 0;
            (*n)++;
        }
        gen_result_free(&r);
    }
    return rc;
}

/* One token from each row of logits. The model's own distribution is read before anything changes
 * it. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* One thread's memory for one row. */
typedef struct work {
    const cpu_vec *v;
    float *l;         /* [vocab] the logits as they are changed */
    float *p;         /* [vocab] weights of the candidates */
    int32_t *id;      /* [vocab] candidates */
    uint8_t *seen;    /* [vocab] */
    int64_t vocab, n; /* n candidates */
} work;

/* ---- what the caller asks for ---------------------------------------------------------------- */

static int check_ids(kern_dev *d, const char *what, int64_t n, const int32_t *id, int64_t vocab)
{
    for (int64_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= vocab)
            return cpu_fail(d, KERN_EINVAL, "sample: %s id %d, the vocabulary has %lld", what,
                            id[i], (long long)vocab);
    return 0;
}

static int check_row(kern_dev *d, const kern_sample_row *r, int64_t vocab)
{
    if (!(r->temperature >= 0) || !(r->repetition > 0) || !(r->u >= 0 && r->u < 1) || r->top_k < 0)
        return cpu_fail(d, KERN_EINVAL, "sample: temperature %g, repetition %g, u %g, top_k %d",
                        (double)r->temperature, (double)r->repetition, (double)r->u, r->top_k);
    if (r->n_top < 0 || r->n_top > KERN_MAX_TOP)
        return cpu_fail(d, KERN_EINVAL, "sample: n_top %d, must be 0 to %d", r->n_top,
                        KERN_MAX_TOP);
    int rc = check_ids(d, "context", r->n_context, r->context, vocab);
    if (rc == 0)
        rc = check_ids(d, "answer", r->n_answer, r->answer, vocab);
    return rc != 0 ? rc : check_ids(d, "bias", r->n_bias, r->bias_id, vocab);
}

static void change(work *w, const kern_sample_row *r)
{
    for (int64_t i = 0; i < r->n_bias; i++)
        w->l[r->bias_id[i]] += r->bias[i];
    if (r->repetition != 1.0F) {
        memset(w->seen, 0, (size_t)w->vocab);
        for (int64_t i = 0; i < r->n_context; i++) {
            float *l = &w->l[r->context[i]];
            if (!w->seen[r->context[i]])
                *l = *l > 0 ? *l / r->repetition : *l * r->repetition;
            w->seen[r->context[i]] = 1;
        }
    }
    if (r->presence == 0 && r->frequency == 0)
        return;
    memset(w->seen, 0, (size_t)w->vocab);
    for (int64_t i = 0; i < r->n_answer; i++) {
        w->l[r->answer[i]] -= r->frequency + (w->seen[r->answer[i]] ? 0 : r->presence);
        w->seen[r->answer[i]] = 1;
    }
}

static int32_t argmax(const float *l, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (l[i] > l[best])
            best = i;
    return (int32_t)best;
}

/* ---- candidates in falling order ------------------------------------------------------------- */

static bool before(const work *w, int32_t a, int32_t b)
{
    return w->l[a] > w->l[b] || (w->l[a] == w->l[b] && a < b);
}

/* A heap with the best candidate at id[0]. */
static void sift(work *w, int64_t i, int64_t n)
{
    int32_t x = w->id[i];
    for (;;) {
        int64_t c = 2 * i + 1;
        if (c >= n)
            break;
        if (c + 1 < n && before(w, w->id[c + 1], w->id[c]))
            c++;
        if (!before(w, w->id[c], x))
            break;
        w->id[i] = w->id[c];
        i = c;
    }
    w->id[i] = x;
}

/* Keeps the best k whose mass, of that of the best k, first reaches top_p. On return id[0..n)
 * falls. */
static void keep_best(work *w, int64_t k, float top_p, float max)
{
    int64_t n = w->vocab;
    if (k == 0 || k > n)
        k = n;
    for (int64_t i = 0; i < n; i++)
        w->id[i] = (int32_t)i;
    for (int64_t i = n / 2; i-- > 0;)
        sift(w, i, n);
    /* Popped candidates gather at the end, the best last of all. */
    double total = 0, sum = 0;
    if (top_p < 1.0F && k == n) {
        memcpy(w->p, w->l, (size_t)n * 4);
        total = (double)w->v->exp_sum(w->p, max, n);
    }
    int64_t got = 0;
    while (got < k && !(k == n && top_p < 1.0F && got > 0 && sum >= (double)top_p * total)) {
        int32_t best = w->id[0];
        w->id[0] = w->id[n - 1 - got];
        w->id[n - 1 - got] = best;
        got++;
        sift(w, 0, n - got);
        sum += (double)expf(w->l[best] - max);
    }
    for (int64_t i = 0; i < got; i++)
        w->p[i] = expf(w->l[w->id[n - 1 - i]] - max);
    for (int64_t i = 0; i < got / 2 + got % 2; i++) { /* best first */
        int32_t a = w->id[n - 1 - i], b = w->id[n - got + i];
        w->id[n - 1 - i] = b;
        w->id[n - got + i] = a;
    }
    memmove(w->id, w->id + (n - got), (size_t)got * sizeof *w->id);
    w->n = got;
    if (k == n || top_p >= 1.0F)
        return;
    double need = (double)top_p * sum, have = 0;
    for (w->n = 0; w->n < got && (w->n == 0 || have < need); w->n++)
        have += (double)w->p[w->n];
}

static void keep_all(work *w, float max)
{
    w->n = w->vocab;
    for (int64_t i = 0; i < w->n; i++)
        w->id[i] = (int32_t)i;
    memcpy(w->p, w->l, (size_t)w->n * 4);
    (void)w->v->exp_sum(w->p, max, w->n);
}

static void drop_below(work *w, float min_p)
{
    int64_t n = 0;
    for (int64_t i = 0; i < w->n; i++) {
        if (w->p[i] < min_p) /* the best candidate weighs 1 */
            continue;
        w->p[n] = w->p[i];
        w->id[n++] = w->id[i];
    }
    w->n = n;
}

static int32_t draw(const work *w, float u)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < w->n; i++)
        total += (double)w->p[i];
    for (int64_t i = 0; i < w->n; i++) {
        sum += (double)w->p[i];
        if ((double)u * total < sum)
            return w->id[i];
    }
    return w->id[w->n - 1];
}

static int32_t choose(work *w, const kern_sample_row *r)
{
    if (r->temperature == 0)
        return argmax(w->l, w->vocab);
    w->v->scale(1.0F / r->temperature, w->l, w->vocab);
    float max = w->v->max(w->l, w->vocab);
    if (r->top_k > 0 || r->top_p < 1.0F)
        keep_best(w, r->top_k, r->top_p, max);
    else
        keep_all(w, max);
    if (r->min_p > 0)
        drop_below(w, r->min_p);
    return draw(w, r->u);
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void top_of(const float *l, int64_t vocab, float lse, kern_sample_row *r)
{
    int n = 0, want = r->n_top < vocab ? r->n_top : (int)vocab;
    for (int64_t i = 0; i < vocab && want > 0; i++) {
        if (n == want && !(l[i] > r->top_logp[n - 1]))
            continue;
        int j = n < want ? n++ : n - 1;
        for (; j > 0 && l[i] > r->top_logp[j - 1]; j--) {
            r->top_logp[j] = r->top_logp[j - 1];
            r->top_id[j] = r->top_id[j - 1];
        }
        r->top_logp[j] = l[i];
        r->top_id[j] = (int32_t)i;
    }
    for (int j = 0; j < n; j++)
        r->top_logp[j] -= lse;
    r->n_top = n;
}

/* False when the logits are not finite. */
static bool one_row(work *w, const float *logits, kern_sample_row *r)
{
    float max = w->v->max(logits, w->vocab);
    memcpy(w->p, logits, (size_t)w->vocab * 4);
    float lse = max + logf(w->v->exp_sum(w->p, max, w->vocab));
    if (!isfinite(lse))
        return false;
    top_of(logits, w->vocab, lse, r);
    memcpy(w->l, logits, (size_t)w->vocab * 4);
    change(w, r);
    r->id = choose(w, r);
    r->logp = logits[r->id] - lse;
    return true;
}

typedef struct job {
    const cpu_vec *v;
    const kern_sample *a;
    uint8_t *bad; /* [n] rows that are not finite */
    char *mem;    /* of each thread `work`'s arrays */
    size_t each;
} job;

static void sample_row(void *arg, int64_t i, int thread)
{
    const job *j = arg;
    int64_t vocab = j->a->logits.cols;
    float *f = (float *)(void *)(j->mem + (size_t)thread * j->each);
    work w = {.v = j->v,
              .l = f,
              .p = f + vocab,
              .id = (int32_t *)(f + 2 * vocab),
              .seen = (uint8_t *)(f + 3 * vocab),
              .vocab = vocab};
    j->bad[i] = !one_row(&w, cpu_at(&j->a->logits, i, 0), &j->a->row[i]);
}

int cpu_sample(kern_dev *d, const kern_sample *a)
{
    int64_t vocab = a->logits.cols, n = a->logits.rows;
    job j = {.v = cpu_of(d)->vec, .a = a};
    void *mem, *bad;
    int rc = cpu_shape_of(d, "sample: logits", &a->logits, KERN_F32, n, vocab);
    if (rc == 0 && vocab < 1)
        rc = cpu_fail(d, KERN_EINVAL, "sample: a vocabulary of %lld", (long long)vocab);
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = check_row(d, &a->row[i], vocab);
    if (rc == 0)
        rc = cpu_scratch(d, CPU_SLOT_A, (size_t)n, &bad);
    if (rc == 0)
        rc = cpu_thread_mem(d, (size_t)vocab * 13, &mem, &j.each);
    if (rc != 0)
        return rc;
    j.bad = bad;
    j.mem = mem;
    cpu_run(d, n * vocab, n, sample_row, &j);
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (j.bad[i] != 0)
            rc = cpu_fail(d, KERN_EDEVICE, "sample: the logits of row %lld are not finite",
                          (long long)i);
    return rc;
}

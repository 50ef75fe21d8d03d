#include "cli/sampling.h"

#include <errno.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* A whole number up to the end of the text. */
static int read_int(int64_t *out, const char *name, const char *text, hone_err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a whole number", name, text);
    *out = v;
    return 0;
}

static int read_float(float *out, const char *name, const char *text, hone_err *e)
{
    char *end;
    float v = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(v))
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a number", name, text);
    *out = v;
    return 0;
}

static int read_id(int32_t *out, const char *name, const char *text, hone_err *e)
{
    int64_t v = 0;
    int rc = read_int(&v, name, text, e);
    if (rc == 0 && (v < INT32_MIN || v > INT32_MAX))
        rc = hone_fail(e, HONE_EINVAL, "--%s: %.40s is out of range", name, text);
    *out = (int32_t)v;
    return rc;
}

/* Short enough for a reader of JSON that keeps numbers as doubles. */
static uint64_t random_seed(void)
{
    uint64_t seed;
    randombytes_buf(&seed, sizeof seed);
    return seed >> 11;
}

static int read_numbers(gen_params *p, const sampling_args *a, hone_err *e)
{
    const struct {
        const char *name, *text;
        float *into;
    } rows[] = {
        {"temperature", a->temperature, &p->temperature},
        {"top-p", a->top_p, &p->top_p},
        {"min-p", a->min_p, &p->min_p},
        {"repetition-penalty", a->repetition, &p->repetition},
        {"presence-penalty", a->presence, &p->presence},
        {"frequency-penalty", a->frequency, &p->frequency},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == 0; i++)
        if (rows[i].text != NULL)
            rc = read_float(rows[i].into, rows[i].name, rows[i].text, e);
    if (rc == 0 && a->top_k != NULL)
        rc = read_id(&p->top_k, "top-k", a->top_k, e);
    if (rc == 0 && a->max_tokens != NULL)
        rc = read_int(&p->max_tokens, "max-tokens", a->max_tokens, e);
    int64_t seed = 0;
    if (a->seed == NULL)
        p->seed = random_seed();
    else if (rc == 0 && (rc = read_int(&seed, "seed", a->seed, e)) == 0)
        p->seed = (uint64_t)seed;
    return rc;
}

static int read_bias(sampling *s, const char *text, hone_err *e)
{
    char id[24];
    const char *eq = strchr(text, '=');
    if (eq == NULL || (size_t)(eq - text) >= sizeof id)
        return hone_fail(e, HONE_EINVAL, "--logit-bias: '%.40s' is not ID=NUMBER", text);
    memcpy(id, text, (size_t)(eq - text));
    id[eq - text] = '\0';
    int64_t at = s->p.n_bias++;
    int rc = read_id(&s->bias_id[at], "logit-bias", id, e);
    return rc == 0 ? read_float(&s->bias[at], "logit-bias", eq + 1, e) : rc;
}

int sampling_read(sampling *s, const sampling_args *a, const char *dir, int64_t max_tokens,
                  int64_t n_vocab, hone_err *e)
{
    gen_params *p = &s->p;
    gen_defaults(p);
    p->max_tokens = max_tokens;
    int rc = gen_load_defaults(p, dir, e);
    if (rc == 0)
        rc = read_numbers(p, a, e);
    p->ignore_eos = a->ignore_eos;
    p->n_stop = a->stop.n;
    p->stop = (char **)a->stop.item;
    p->stop_ids = s->stop_id;
    for (int i = 0; i < a->stop_id.n && rc == 0; i++)
        rc = read_id(&s->stop_id[p->n_stop_ids++], "stop-id", a->stop_id.item[i], e);
    p->bias_id = s->bias_id;
    p->bias = s->bias;
    for (int i = 0; i < a->bias.n && rc == 0; i++)
        rc = read_bias(s, a->bias.item[i], e);
    return rc == 0 ? gen_check(p, n_vocab, e) : rc;
}

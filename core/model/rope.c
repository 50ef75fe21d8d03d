#include "core/model/rope.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { FIRST_TABLE = 1024 };

static const float TWO_PI = 6.28318530717958647692F;

/* Long wavelengths are stretched by the factor, short ones stay, those between are blended. */
static float scale_llama3(const arch_config *c, float inv)
{
    float factor = (float)c->rope_factor, low = (float)c->rope_low, high = (float)c->rope_high;
    float original = (float)c->rope_original;
    float wave = TWO_PI / inv;
    if (wave > original / low)
        return inv / factor;
    if (wave < original / high)
        return inv;
    float s = (original / wave - low) / (high - low);
    return (1 - s) * inv / factor + s * inv;
}

static float scale_linear(const arch_config *c, float inv)
{
    return inv / (float)c->rope_factor;
}

static float scale_none(const arch_config *c, float inv)
{
    (void)c;
    return inv;
}

void rope_frequencies(const arch_config *c, float *inv)
{
    static float (*const scale[])(const arch_config *c, float inv) = {
        [ROPE_PLAIN] = scale_none,
        [ROPE_LINEAR] = scale_linear,
        [ROPE_LLAMA3] = scale_llama3,
    };
    for (int i = 0; i < c->head_dim / 2; i++) {
        float power = (float)(2 * i) / (float)c->head_dim;
        float wide = (float)pow((double)(float)c->rope_theta, (double)power);
        inv[i] = scale[c->rope](c, 1.0F / wide);
    }
}

/* Fills one table on the host and sends it. */
static int send_table(kern_tensor *t, kern_dev *dev, const float *inv, int64_t n, int64_t half,
                      double (*fn)(double), hone_err *e)
{
    void *data = NULL;
    size_t bytes = (size_t)n * (size_t)half * sizeof(float);
    float *host = mem_try(bytes);
    if (host == NULL)
        return hone_fail(e, HONE_ENOMEM, "rope: no memory for %lld positions", (long long)n);
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < half; i++)
            host[p * half + i] = (float)fn((double)((float)p * inv[i]));
    int rc = kern_do(dev, alloc, bytes, &data);
    if (rc == 0) {
        *t = kern_mat(KERN_F32, n, half, data);
        rc = kern_do(dev, write, data, host, bytes);
    }
    free(host);
    return rc == 0 ? 0 : hone_fail(e, rc, "rope: %s", dev->err);
}

int rope_reserve(rope *r, kern_dev *dev, const arch_config *c, int64_t n_positions, hone_err *e)
{
    int64_t n = FIRST_TABLE;
    while (n < n_positions)
        n *= 2;
    n = n > c->max_positions ? c->max_positions : n;
    if (n_positions <= r->n || n == r->n)
        return 0;
    int64_t half = c->head_dim / 2;
    float *inv = mem_array((size_t)half, sizeof *inv);
    rope_frequencies(c, inv);
    rope_free(r, dev);
    int rc = send_table(&r->cos, dev, inv, n, half, cos, e);
    if (rc == 0)
        rc = send_table(&r->sin, dev, inv, n, half, sin, e);
    free(inv);
    if (rc != 0)
        rope_free(r, dev);
    else
        r->n = n;
    return rc;
}

void rope_free(rope *r, kern_dev *dev)
{
    kern_do(dev, release, r->cos.data);
    kern_do(dev, release, r->sin.data);
    *r = (rope){0};
}

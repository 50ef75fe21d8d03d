#include "core/base/rng.h"

#include <math.h>

void rng_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53U * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57U * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint32_t rng_u32(rng *r)
{
    uint32_t w[4];
    rng_philox(w, r->seed, r->stream, r->index / 4);
    return w[r->index++ % 4];
}

uint64_t rng_below(rng *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    for (;;) {
        uint64_t v = (uint64_t)rng_u32(r) << 32;
        v |= rng_u32(r);
        if (v < limit)
            return v % n;
    }
}

float rng_uniform(rng *r)
{
    return (float)(rng_u32(r) >> 8) * 0x1p-24F;
}

float rng_normal(rng *r)
{
    float u = 1.0F - rng_uniform(r); /* (0, 1] */
    float v = rng_uniform(r);
    return sqrtf(-2.0F * logf(u)) * cosf(6.28318530718F * v);
}

void rng_shuffle(rng *r, uint32_t *a, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)rng_below(r, i);
        uint32_t t = a[i - 1];
        a[i - 1] = a[j];
        a[j] = t;
    }
}

uint64_t rng_stream(const char *name)
{
    uint64_t h = 0xCBF29CE484222325U;
    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001B3U;
    return h;
}

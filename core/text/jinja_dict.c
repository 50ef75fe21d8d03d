/* Dictionaries in insertion order: a scan while small, an index of hashes above. */
#include "core/text/jinja_int.h"

#include <math.h>
#include <string.h>

enum { SMALL = 8 };

static uint32_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    return (uint32_t)x | 1;
}

/* Numbers that are equal hash alike: 1, 1.0 and true. */
static uint32_t hash_number(jval v)
{
    double f = jval_num(v);
    if (v.kind != J_FLOAT)
        return mix((uint64_t)(v.kind == J_INT ? v.i : v.b));
    if (f == floor(f) && fabs(f) < 9e18)
        return mix((uint64_t)(int64_t)f);
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return mix(bits);
}

int jval_hash(jrt *r, jval v, uint32_t *out)
{
    *out = 1;
    if (v.kind == J_STR) {
        *out = jstr_hash(v.s);
    } else if (jval_is_num(v)) {
        *out = hash_number(v);
    } else if (v.kind == J_TUPLE) {
        if (++r->depth > r->max_depth)
            return jrt_fail_code(r, HONE_ELIMIT, "values nest deeper than %d", r->max_depth);
        for (size_t i = 0; i < v.seq->n; i++) {
            uint32_t h;
            int rc = jval_hash(r, v.seq->v[i], &h);
            if (rc != 0)
                return rc;
            *out = mix((uint64_t)*out << 32 | h);
        }
        r->depth--;
    } else if (v.kind == J_LIST || v.kind == J_DICT || v.kind == J_SLICE) {
        return jrt_fail(r, "unhashable type: '%s'", jval_type(v));
    }
    return 0;
}

int jdict_new(jrt *r, size_t cap, jdict **out)
{
    int rc = jrt_alloc(r, sizeof **out, out);
    if (rc == 0)
        rc = jrt_array(r, cap, sizeof *(*out)->e, &(*out)->e);
    if (rc == 0)
        (*out)->cap = cap;
    return rc;
}

static void index_put(jdict *d, size_t i)
{
    size_t at = d->e[i].hash & (d->n_index - 1);
    while (d->index[at] != 0)
        at = (at + 1) & (d->n_index - 1);
    d->index[at] = (uint32_t)i + 1;
}

static int reindex(jrt *r, jdict *d)
{
    size_t n = 32;
    while (n < d->n * 4)
        n *= 2;
    int rc = jrt_array(r, n, sizeof *d->index, &d->index);
    if (rc != 0)
        return rc;
    d->n_index = n;
    for (size_t i = 0; i < d->n; i++)
        index_put(d, i);
    return 0;
}

static int key_is(jrt *r, const jentry *e, jval key, uint32_t hash, bool *out)
{
    *out = false;
    if (e->hash != hash)
        return 0;
    if (key.kind == J_STR && e->key.kind == J_STR) {
        *out = jstr_same(e->key.s, key.s);
        return 0;
    }
    return jval_eq(r, e->key, key, out);
}

static int find(jrt *r, const jdict *d, jval key, uint32_t hash, size_t *out)
{
    bool yes;
    *out = SIZE_MAX;
    if (d->index == NULL) {
        for (size_t i = 0; i < d->n; i++) {
            int rc = key_is(r, &d->e[i], key, hash, &yes);
            if (rc != 0)
                return rc;
            if (yes) {
                *out = i;
                return 0;
            }
        }
        return 0;
    }
    for (size_t at = hash & (d->n_index - 1); d->index[at] != 0; at = (at + 1) & (d->n_index - 1)) {
        size_t i = d->index[at] - 1;
        int rc = key_is(r, &d->e[i], key, hash, &yes);
        if (rc != 0)
            return rc;
        if (yes) {
            *out = i;
            return 0;
        }
    }
    return 0;
}

int jdict_put(jrt *r, jdict *d, jval key, jval val)
{
    uint32_t hash;
    size_t i;
    int rc = jval_hash(r, key, &hash);
    if (rc == 0)
        rc = find(r, d, key, hash, &i);
    if (rc != 0)
        return rc;
    if (i != SIZE_MAX) {
        d->e[i].val = val;
        return 0;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap * 2 + 4;
        jentry *e;
        rc = jrt_array(r, cap, sizeof *e, &e);
        if (rc != 0)
            return rc;
        if (d->n > 0)
            memcpy(e, d->e, d->n * sizeof *e);
        d->e = e;
        d->cap = cap;
    }
    d->e[d->n++] = (jentry){key, val, hash};
    if (d->index != NULL && d->n * 2 <= d->n_index)
        index_put(d, d->n - 1);
    else if (d->n > SMALL)
        rc = reindex(r, d);
    return rc;
}

int jdict_get(jrt *r, const jdict *d, jval key, jval **out)
{
    uint32_t hash;
    size_t i;
    *out = NULL;
    int rc = jval_hash(r, key, &hash);
    if (rc == 0)
        rc = find(r, d, key, hash, &i);
    if (rc == 0 && i != SIZE_MAX)
        *out = &d->e[i].val;
    return rc;
}

static int merge_pairs(jrt *r, jdict *d, jval from)
{
    jiter it;
    jval pair;
    int rc = jiter_open(r, from, &it);
    while (rc == 0 && (rc = jiter_next(r, &it, &pair)) == 1) {
        jval *v;
        size_t n;
        rc = jiter_all(r, pair, &v, &n);
        if (rc == 0 && n != 2)
            rc = jrt_fail(r, "a dictionary is made of pairs, got %zu values", n);
        if (rc == 0)
            rc = jdict_put(r, d, v[0], v[1]);
    }
    return rc;
}

int jdict_merge(jrt *r, jdict *d, jval from)
{
    if (from.kind != J_DICT)
        return merge_pairs(r, d, from);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < from.dict->n; i++)
        rc = jdict_put(r, d, from.dict->e[i].key, from.dict->e[i].val);
    return rc;
}

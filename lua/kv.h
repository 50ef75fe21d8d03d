#pragma once
/* What a script remembers: text keys to JSON values, in an SQLite file of its own. Survives
 * restarts, is shared by all states of the script (and by other processes that run it), and is held
 * to a quota. Thread-safe. */
#include "core/base/err.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_MAX_KEY = 512, KV_MAX_VALUE = 64 << 10, KV_MAX_LIST = 1000 };

typedef struct kv kv;

/* The file, readable by its owner alone, and its folder are made when something is first asked; a
 * path of NULL is a store in memory. `quota` is the sum of the bytes of keys and values. */
kv *kv_new(const char *path, int64_t quota);
void kv_free(kv *k); /* NULL is a no-op */

/* *out is a new reference, NULL where there is no such key. */
int kv_get(kv *k, const char *key, size_t len, json_t **out, hone_err *e);

/* v = NULL removes the key. ELIMIT past a limit or the quota: nothing has changed. */
int kv_set(kv *k, const char *key, size_t len, const json_t *v, hone_err *e);

/* Adds to a number (0 where there is none), in one step for all who do so; *out is the sum. EINVAL
 * where the value is no number. */
int kv_add(kv *k, const char *key, size_t len, double amount, double *out, hone_err *e);

/* The keys that begin with prefix, sorted, at most KV_MAX_LIST (new reference to an array). */
int kv_keys(kv *k, const char *prefix, size_t len, json_t **out, hone_err *e);

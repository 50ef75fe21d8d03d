#pragma once
/* JSON over jansson with this project's limits and errors. Reading refuses duplicate keys,
 * documents longer than JS_MAX_BYTES and nesting deeper than JS_MAX_DEPTH. Getters name the field
 * in the error. Values returned are borrowed from the object unless the contract says "new
 * reference". */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { JS_MAX_BYTES = 256 << 20, JS_MAX_DEPTH = 256, JS_MAX_VALUES = 32 << 20 };

/* Makes jansson's own allocations abort when there is no memory, as all our small ones do: a
 * builder that ignored a NULL would write a document with a field missing. Called once, before the
 * first value is made, by whoever has a main(). */
void js_start(void);

/* New reference; *out = NULL first. EFORMAT with line and column. A whole number that 64 bits do
 * not hold becomes a real: transformers writes 10^30 into every other tokenizer_config.json. */
int js_parse(json_t **out, const char *text, size_t len, hone_err *e);
int js_load(json_t **out, const char *path, hone_err *e);

/* Writes `v` to path atomically (see file_write), indented when `pretty`. Reals are written in the
 * fewest digits that read back to the same number, here and below. */
int js_save(const json_t *v, const char *path, bool pretty, hone_err *e);

/* Compact text, never NULL (v is not NULL either); caller frees; keys in insertion order unless
 * `sorted` (canonical form, for hashing). */
char *js_text(const json_t *v, bool sorted);

/* Is it what a reader would accept: at most JS_MAX_DEPTH deep (so it does not hold itself) and at
 * most JS_MAX_VALUES values, those counted twice that stand in two places? */
bool js_is_tree(const json_t *v);

/* The same over several lines, indented by two. */
char *js_pretty(const json_t *v);

/* Required fields: EFORMAT "field 'x' is missing" or "... is not a string". */
int js_get_str(const json_t *o, const char *key, const char **out, hone_err *e);
int js_get_int(const json_t *o, const char *key, int64_t *out, hone_err *e);
int js_get_num(const json_t *o, const char *key, double *out, hone_err *e);
int js_get_array(const json_t *o, const char *key, json_t **out, hone_err *e);

/* Optional fields: absent or null leaves *out as it is; a wrong type is EFORMAT. */
int js_opt_str(const json_t *o, const char *key, const char **out, hone_err *e);
int js_opt_int(const json_t *o, const char *key, int64_t *out, hone_err *e);
int js_opt_num(const json_t *o, const char *key, double *out, hone_err *e);
int js_opt_bool(const json_t *o, const char *key, bool *out, hone_err *e);

/* EFORMAT naming the first key of o that is not in the NULL-ended list, with the nearest name. */
int js_only_keys(const json_t *o, const char *const *keys, hone_err *e);

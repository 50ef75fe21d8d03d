#pragma once
/* YAML (libyaml) to the JSON tree that the rest of the program reads. Plain scalars are typed as
 * people expect: null, true/false/yes/no/on/off, integers, numbers (1e-4 is a number); quoted ones
 * are strings, and so is what only looks like a number but would change when written again (007, an
 * integer past 64 bits). A text without a document is an empty object.
 *
 * Refused by name and line: duplicate keys, keys that are not plain names, merge keys (<<), tags
 * other than !!str, !!seq and !!map, more than one document, more than 100,000 values (those behind
 * an alias counted each time), nesting deeper than JS_MAX_DEPTH, more than 16 MiB. */
#include "core/base/err.h"

#include <jansson.h>

/* New reference in *out. *lines, if not NULL, gets a new object: dotted path ("datasets.0.path") to
 * line, for keys; what stands behind an alias has only the line of the key that uses it. */
int yaml_parse(json_t **out, json_t **lines, const char *text, size_t len, hone_err *e);
int yaml_load(json_t **out, json_t **lines, const char *path, hone_err *e);

/* The value a plain scalar has ("1e-4" -> 0.0001, "abc" -> "abc"). New reference; NULL only where
 * the text is not UTF-8. */
json_t *yaml_scalar(const char *text, size_t len);

#pragma once
/* YAML (libyaml) to the JSON tree that the rest of the program reads. Plain scalars are typed as people expect:
 * null, true/false/yes/no/on/off, integers, numbers (1e-4 is a number); quoted ones are strings. Refused by name
 * and line: duplicate keys, more than one document, tags of other languages, more than 100,000 nodes (aliases
 * counted each time), nesting deeper than JS_MAX_DEPTH. */
#include "core/base/err.h"

#include <jansson.h>

/* New reference in *out. *lines, if not NULL, gets a new object: dotted path ("datasets.0.path") to line. */
int yaml_parse(json_t **out, json_t **lines, const char *text, size_t len, hone_err *e);
int yaml_load(json_t **out, json_t **lines, const char *path, hone_err *e);

/* The value a plain scalar has ("1e-4" -> 0.0001, "abc" -> "abc"). New reference. */
json_t *yaml_scalar(const char *text, size_t len);

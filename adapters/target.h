#pragma once
/* Which linear sites an adapter goes beside, by PEFT's rules for target_modules. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>

/* targets: NULL or a list with "all-linear" matches every site; other entries match a name that
 * equals them or ends in "." and them; an entry "regex:P" matches when P matches the whole name.
 * EFORMAT: a pattern that does not compile. */
int target_match(const json_t *targets, const char *name, bool *matches, hone_err *e);

/* The value of rank_pattern or alpha_pattern for a name: keys are patterns that match
 * "(.*\.)?(key)$". NULL when none does. Borrowed. */
int target_pattern(const json_t *patterns, const char *name, const json_t **value, hone_err *e);

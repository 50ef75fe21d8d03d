#pragma once
/* Named counters that scripts raise and the appliance shows. Thread-safe. */
#include "core/base/err.h"

#include <jansson.h>

enum { COUNTER_MAX_NAMES = 64, COUNTER_MAX_NAME = 48 };

typedef struct counters counters;

counters *counter_new(void);
void counter_free(counters *c); /* NULL is a no-op */

/* Names are lower-case letters, digits and '_'. Errors: EINVAL for a name or a negative or infinite
 * amount, ELIMIT for too many names. */
int counter_add(counters *c, const char *name, double amount, hone_err *e);

/* {name: value}, names sorted; new reference. */
json_t *counter_values(counters *c);

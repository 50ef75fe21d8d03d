#pragma once
/* What a script keeps from one piece of a streamed answer to the next: the pieces may meet
 * different states. Thread-safe; the pieces of one stream come one after the other. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { STREAM_MAX = 4096, STREAM_IDLE_S = 600, STREAM_MAX_BYTES = 64 << 10 };

typedef struct streams streams;

streams *stream_new(void);
void stream_free(streams *s); /* NULL is a no-op */

/* Takes what is kept for (request, choice) out of the store: a new reference, an empty object for a
 * stream that is new. */
json_t *stream_take(streams *s, const char *request, int64_t choice);

/* Keeps v (borrowed) for it. Streams that nobody has touched for STREAM_IDLE_S seconds make room.
 * Errors: ELIMIT: v is too large, or there are STREAM_MAX busy streams. */
int stream_keep(streams *s, const char *request, int64_t choice, const json_t *v, hone_err *e);

int64_t stream_count(streams *s);

#include "lua/stream.h"

#include "core/base/clock.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A JSON object is a hash table already: key "request/choice", value {"at": seconds, "kept": v}. */
struct streams {
    pthread_mutex_t lock;
    json_t *kept;
};

streams *stream_new(void)
{
    streams *s = mem_alloc(sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->kept = json_object();
    return s;
}

void stream_free(streams *s)
{
    if (s == NULL)
        return;
    pthread_mutex_destroy(&s->lock);
    json_decref(s->kept);
    free(s);
}

static int64_t seconds(void)
{
    return clock_mono_ns() / 1000000000;
}

static char *key_of(const char *request, int64_t choice)
{
    return mem_printf("%s/%lld", request, (long long)choice);
}

json_t *stream_take(streams *s, const char *request, int64_t choice)
{
    char *key = key_of(request, choice);
    pthread_mutex_lock(&s->lock);
    json_t *v = json_incref(json_object_get(json_object_get(s->kept, key), "kept"));
    json_object_del(s->kept, key);
    pthread_mutex_unlock(&s->lock);
    free(key);
    return v != NULL ? v : json_object();
}

static void drop_idle(streams *s, int64_t now)
{
    const char *key;
    json_t *row;
    void *next;
    json_object_foreach_safe(
        s->kept, next, key,
        row) if (json_integer_value(json_object_get(row, "at")) + STREAM_IDLE_S < now)
        json_object_del(s->kept, key);
}

int stream_keep(streams *s, const char *request, int64_t choice, const json_t *v, hone_err *e)
{
    if (json_object_size(v) == 0)
        return 0;
    size_t bytes = json_dumpb(v, NULL, 0, JSON_COMPACT);
    if (bytes > STREAM_MAX_BYTES)
        return hone_fail(e, HONE_ELIMIT, "%zu bytes kept for a stream, at most %d", bytes,
                         STREAM_MAX_BYTES);
    int64_t now = seconds();
    int rc = 0;
    char *key = key_of(request, choice);
    json_t *row = json_pack("{s:I, s:o}", "at", (json_int_t)now, "kept", json_deep_copy(v));
    pthread_mutex_lock(&s->lock);
    if (json_object_size(s->kept) >= STREAM_MAX)
        drop_idle(s, now);
    if (json_object_size(s->kept) >= STREAM_MAX)
        rc = hone_fail(e, HONE_ELIMIT, "%d streams are open", STREAM_MAX);
    else
        json_object_set(s->kept, key, row);
    pthread_mutex_unlock(&s->lock);
    json_decref(row);
    free(key);
    return rc;
}

int64_t stream_count(streams *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t n = (int64_t)json_object_size(s->kept);
    pthread_mutex_unlock(&s->lock);
    return n;
}

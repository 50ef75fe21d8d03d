#include "serve/http/http_tally.h"

#include "core/base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct http_tally {
    pthread_mutex_t lock;
    http_tally_row row[HTTP_TALLY_MAX];
    int n;
};

http_tally *http_tally_new(void)
{
    http_tally *t = mem_alloc(sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void http_tally_free(http_tally *t)
{
    if (t == NULL)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static void set(char *dst, size_t cap, const char *text)
{
    snprintf(dst, cap, "%s", text != NULL ? text : "");
}

static bool same(const http_tally_row *a, const http_tally_row *b)
{
    return strcmp(a->name, b->name) == 0 && strcmp(a->digest, b->digest) == 0 &&
           strcmp(a->adapter, b->adapter) == 0;
}

static http_tally_row *row_of(http_tally *t, const http_tally_model *m)
{
    http_tally_row want = {0};
    set(want.name, sizeof want.name, m->name);
    set(want.digest, sizeof want.digest, m->digest);
    set(want.adapter, sizeof want.adapter, m->adapter);
    for (int i = 0; i < t->n; i++)
        if (same(&t->row[i], &want))
            return &t->row[i];
    if (t->n == HTTP_TALLY_MAX)
        return &t->row[HTTP_TALLY_MAX - 1];
    if (t->n == HTTP_TALLY_MAX - 1)
        want = (http_tally_row){.name = "other"};
    t->row[t->n] = want;
    return &t->row[t->n++];
}

void http_tally_add(http_tally *t, const http_tally_model *m, int rating)
{
    pthread_mutex_lock(&t->lock);
    row_of(t, m)->rated[rating + 1]++;
    pthread_mutex_unlock(&t->lock);
}

void http_tally_know(http_tally *t, const http_tally_model *m)
{
    pthread_mutex_lock(&t->lock);
    row_of(t, m);
    pthread_mutex_unlock(&t->lock);
}

int http_tally_rows(http_tally *t, http_tally_row out[HTTP_TALLY_MAX])
{
    pthread_mutex_lock(&t->lock);
    int n = t->n;
    memcpy(out, t->row, (size_t)n * sizeof *out);
    pthread_mutex_unlock(&t->lock);
    return n;
}

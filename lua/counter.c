#include "lua/counter.h"

#include "core/base/mem.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct counter {
    char name[COUNTER_MAX_NAME + 1];
    double value;
} counter;

struct counters {
    pthread_mutex_t lock;
    counter all[COUNTER_MAX_NAMES]; /* sorted by name */
    size_t n;
};

counters *counter_new(void)
{
    counters *c = mem_alloc(sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void counter_free(counters *c)
{
    if (c == NULL)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static int check(const char *name, double amount, hone_err *e)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    if (n == 0 || name[n] != '\0' || n > COUNTER_MAX_NAME)
        return hone_fail(e, HONE_EINVAL,
                         "counter '%s': a name is 1 to %d of the characters a-z, 0-9 and _", name,
                         COUNTER_MAX_NAME);
    if (!isfinite(amount) || amount < 0)
        return hone_fail(e, HONE_EINVAL, "counter '%s' only rises, and by a number", name);
    return 0;
}

static int add(counters *c, const char *name, double amount, hone_err *e)
{
    size_t i = 0;
    while (i < c->n && strcmp(c->all[i].name, name) < 0)
        i++;
    if (i == c->n || strcmp(c->all[i].name, name) != 0) {
        if (c->n == COUNTER_MAX_NAMES)
            return hone_fail(e, HONE_ELIMIT, "counter '%s': there are %d counters already", name,
                             COUNTER_MAX_NAMES);
        memmove(&c->all[i + 1], &c->all[i], (c->n - i) * sizeof *c->all);
        c->all[i] = (counter){.value = 0};
        memcpy(c->all[i].name, name, strlen(name) + 1);
        c->n++;
    }
    c->all[i].value += amount;
    return 0;
}

int counter_add(counters *c, const char *name, double amount, hone_err *e)
{
    int rc = check(name, amount, e);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = add(c, name, amount, e);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

json_t *counter_values(counters *c)
{
    json_t *o = json_object();
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n; i++)
        json_object_set_new(o, c->all[i].name, json_real(c->all[i].value));
    pthread_mutex_unlock(&c->lock);
    return o;
}

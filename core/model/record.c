#include "core/model/record.h"

#include "core/model/model_int.h"

enum { RUNS_BEFORE = 2 };

static bool same(const record_key *a, const record_key *b)
{
    return a->kind == b->kind && a->training == b->training && a->n == b->n &&
           a->n_seg == b->n_seg && a->max_blocks == b->max_blocks && a->floor == b->floor &&
           a->kv == b->kv;
}

static record_entry *entry_of(model *m, const record_key *key)
{
    record_set *s = &m->records;
    for (int i = 0; i < s->n; i++)
        if (same(&s->entry[i].key, key))
            return &s->entry[i];
    int i = s->n;
    if (s->n < RECORD_MAX) {
        s->n++;
    } else {
        i = s->next;
        s->next = (i + 1) % RECORD_MAX;
        kern_do(m->dev, graph_free, s->entry[i].graph);
    }
    s->entry[i] = (record_entry){.key = *key};
    return &s->entry[i];
}

/* An error inside ends the recording all the same; the first error is told. */
static int record(model *m, record_entry *r, record_fn *fn, const struct pass *p, hone_err *e)
{
    hone_err second = {0};
    int rc = model_failed(m, kern_do(m->dev, capture_begin), "recording", e);
    if (rc != 0)
        return rc;
    rc = fn(m, p, e);
    int end = model_failed(m, kern_do(m->dev, capture_end, &r->graph), "recording",
                           rc == 0 ? e : &second);
    if (rc == 0)
        return end;
    if (end == 0)
        kern_do(m->dev, graph_free, r->graph);
    r->graph = NULL;
    return rc;
}

int record_run(model *m, const record_key *key, record_fn *fn, const struct pass *p, hone_err *e)
{
    if (!m->dev->records)
        return fn(m, p, e);
    record_entry *r = entry_of(m, key);
    if (r->graph == NULL && r->runs++ < RUNS_BEFORE)
        return fn(m, p, e);
    int rc = r->graph == NULL ? record(m, r, fn, p, e) : 0;
    if (rc != 0 || r->graph == NULL) /* it has run, and is not recorded */
        return rc;
    return model_failed(m, kern_do(m->dev, graph_run, r->graph), "recorded pass", e);
}

void record_drop(model *m)
{
    record_set *s = &m->records;
    for (int i = 0; i < s->n; i++)
        kern_do(m->dev, graph_free, s->entry[i].graph);
    s->n = s->next = 0;
}

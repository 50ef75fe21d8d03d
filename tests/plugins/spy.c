/* Writes down what it is given: a line of JSON a call, {"hook", "data"} or, of the two points with
 * a struct, {"hook", "n"}. At the point `fail` it fails, at the point `veto` it refuses. */
#include <hone_plugin.h>

#include <stdlib.h>

typedef struct spy {
    FILE *out;
    const char *fail, *veto;
    int told_struct;
} spy;

/* Once: a row of logits comes with every token, and its time is short. */
static void hear_struct(spy *s, const hone_call *call)
{
    if (s->told_struct)
        return;
    s->told_struct = 1;
    fprintf(s->out, "{\"hook\": \"%s\", \"n\": %lu}\n", call->hook,
            (unsigned long)(call->batch != NULL ? call->batch->n : call->logits->vocab));
}

static int hear(const hone_host *h, hone_call *call, void *user)
{
    spy *s = user;
    if (call->batch != NULL || call->logits != NULL)
        hear_struct(s, call);
    else
        fprintf(s->out, "{\"hook\": \"%s\", \"data\": %s}\n", call->hook,
                h->to_json(call, call->data, NULL));
    h->count(call->ctx, "a \"name\" with \\", 1); /* what /metrics must escape */
    if (s->fail != NULL && strcmp(s->fail, call->hook) == 0)
        return h->error(call, "told to fail");
    if (s->veto != NULL && strcmp(s->veto, call->hook) == 0)
        return h->veto(call, "told to refuse");
    return HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *set = h->settings(cx), *points = h->get(set, "points");
    spy *s = calloc(1, sizeof *s);
    int rc = s != NULL ? 0 : h->init_error(cx, "no memory");
    if (rc != 0)
        return rc;
    s->fail = hone_get_string(h, set, "fail", NULL);
    s->veto = hone_get_string(h, set, "veto", NULL);
    s->out = fopen(hone_get_string(h, set, "out", NULL), "a");
    if (s->out == NULL)
        rc = h->init_error(cx, "cannot write");
    for (size_t i = 0; rc == 0 && i < h->length(points); i++)
        rc = h->on(cx, h->string(h->at(points, i), NULL), 0, hear, s);
    h->set_state(cx, s);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    spy *s = h->state(cx);
    fclose(s->out);
    free(s);
}

static const hone_setting settings[] = {
    {"out", HONE_SET_PATH, 0, "calls.jsonl", 0, 0, NULL, "where it writes to"},
    {"points", HONE_SET_LIST, 0, "[]", 0, 0, NULL, "where it listens"},
    {"fail", HONE_SET_STRING, 0, NULL, 0, 0, NULL, "the point where it fails"},
    {"veto", HONE_SET_STRING, 0, NULL, 0, 0, NULL, "the point where it refuses"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(0, HONE_CAP_WRITE_FILES),
    "spy",
    "1.0",
    "Apache-2.0",
    "writes down what it is given",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

/* Takes white space off both ends of every text of the training data, and drops records of which
 * nothing is left. The smallest useful plugin: two hooks, one setting. */
#include <hone_plugin.h>

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static int trim_text(const hone_host *h, hone_call *call, void *user)
{
    size_t n, first = 0;
    const char *text = hone_get_string(h, call->data, "text", &n);
    (void)user;
    if (text == NULL)
        return HONE_CONTINUE;
    size_t last = n;
    while (last > 0 && is_space(text[last - 1]))
        last--;
    while (first < last && is_space(text[first]))
        first++;
    if (last - first == n)
        return HONE_CONTINUE;
    h->count(call->ctx, "bytes_removed", (double)(n - (last - first)));
    hone_set_string(h, call, call->data, "text", text + first, last - first);
    return HONE_MODIFIED;
}

/* Bytes in all texts of a record. */
static size_t size_of(const hone_host *h, const hone_value *record)
{
    hone_text t = {0};
    size_t n = 0;
    while (hone_text_next(h, record, &t))
        n += t.len;
    return n;
}

static int drop_small(const hone_host *h, hone_call *call, void *user)
{
    int64_t least = h->integer(h->get(h->settings(call->ctx), "min_bytes"), 1);
    size_t n = size_of(h, h->get(call->data, "record"));
    (void)user;
    if ((int64_t)n >= least)
        return HONE_CONTINUE;
    return h->veto(call, "%lu bytes, at least %lld are wanted", (unsigned long)n, (long long)least);
}

static int start(const hone_host *h, hone_ctx *cx)
{
    if (h->on(cx, "data.normalize", 0, trim_text, NULL) != 0)
        return HONE_ERR;
    return h->on(cx, "data.filter", 0, drop_small, NULL);
}

static const hone_setting settings[] = {
    {"min_bytes", HONE_SET_INT, 0, "1", 0, 1000000, NULL,
     "records with fewer bytes in their texts are dropped"},
};

static const hone_descriptor trim = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, 0),
    "trim",
    "1.0.0",
    "Apache-2.0",
    "takes white space off the ends of texts",
    HONE_SETTINGS(settings),
    start,
    NULL,
};

HONE_PLUGIN(trim)

/* A plugin of the interface's first day. The binary beside it must load for ever: it uses every
 * member of the host table of 1.0, and answers with a text in which a mistake would be seen. */
#include "hone_plugin.h"

static int check(const hone_host *h, hone_call *call, void *user)
{
    size_t n = 0, len = 0;
    char hex[65];
    hone_value *o = h->new_object(call), *a = h->new_array(call);
    h->set(call, o, "null", h->new_null(call));
    h->set(call, o, "bool", h->new_bool(call, 1));
    h->set(call, o, "int", h->new_int(call, 7));
    h->set(call, o, "real", h->new_real(call, 0.5));
    h->set(call, o, "gone", h->new_int(call, 1));
    h->remove(call, o, "gone");
    h->append(call, a, h->new_string(call, "x", 1));
    h->append(call, a, h->new_string(call, "y", 1));
    h->append(call, a, h->new_string(call, "z", 1));
    h->set_at(call, a, 0, h->copy(call, h->at(a, 1)));
    h->remove_at(call, a, 2);
    h->set(call, o, "array", a);
    h->set(call, o, "host", h->new_int(call, h->abi_major));
    h->set(call, o, "min", h->copy(call, h->get(h->settings(call->ctx), "min")));
    h->set(call, o, "types",
           h->new_int(call, h->type(o) * 1000 + h->type(a) * 100 + h->type(h->at(a, 0)) * 10 +
                                h->type(NULL)));
    h->set(call, o, "read",
           h->new_bool(call, h->length(a) == 2 && h->key(o, 0, &n) != NULL && n == 4 &&
                                 h->number(h->get(o, "real"), 0) == 0.5 &&
                                 h->integer(h->get(o, "int"), 0) == 7 &&
                                 h->boolean(h->get(o, "bool"), 0) == 1 &&
                                 h->string(h->at(a, 1), &n) != NULL && n == 1));
    h->sha256(hex, "abc", 3);
    h->set(call, o, "sha", h->new_string(call, hex, 8));
    const char *json = h->to_json(call, h->get(o, "array"), &len);
    h->set(call, o, "json", h->from_json(call, json, len));
    h->set(call, o, "misc",
           h->new_bool(call, h->alloc(call, 16) != NULL && h->state(call->ctx) == user &&
                                 h->api(call->ctx, "none", 1) == NULL && call->version == 1 &&
                                 call->size >= 64 && strcmp(call->hook, "data.record") == 0 &&
                                 (call->allows & HONE_MAY_MODIFY) != 0 && h->late(call) == 0));
    if (hone_get_string(h, call->data, "text", &len) == NULL)
        return h->error(call, "no text");
    if (len == 0)
        return h->veto(call, "empty");
    h->count(call->ctx, "seen", 1);
    call->data = o;
    return HONE_MODIFIED;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    static int state;
    h->set_state(cx, &state);
    h->log(cx, HONE_LOG_DEBUG, "started by %s", h->version);
    return h->on(cx, "data.record", 0, check, &state);
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    h->log(cx, HONE_LOG_DEBUG, "stopped");
}

static const hone_setting settings[] = {
    {"min", HONE_SET_REAL, 0, "1.5", 0, 9, NULL, "a number"},
    {"how", HONE_SET_ENUM, 0, "b", 0, 0, "a|b", "a choice"},
};

static const hone_descriptor old = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "old",
    "1.0.0",
    "Apache-2.0",
    "built against the interface 1.0",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(old)

#include "plugins/value.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

void value_call_start(value_call *c)
{
    c->memory = arena_new();
    c->seen.host_private = c;
}

void value_call_untie(value_call *c)
{
    for (size_t i = 0; i < c->n_held; i++) {
        json_object_clear(c->held[i]);
        json_array_clear(c->held[i]);
    }
}

void value_call_end(value_call *c)
{
    for (size_t i = 0; i < c->n_held; i++)
        json_decref(c->held[i]);
    free(c->held);
    arena_free(c->memory);
}

/* Keeps one reference until the call ends, so that a pointer that the plugin has stays good. */
static hone_value *hold(hone_call *call, json_t *v)
{
    value_call *c = value_call_of(call);
    if (v == NULL)
        return NULL;
    c->held = mem_grow(c->held, &c->cap_held, c->n_held + 1, sizeof(json_t *));
    c->held[c->n_held++] = v;
    return value_of(v);
}

static void *call_alloc(hone_call *call, size_t n)
{
    value_call *c = value_call_of(call);
    if (n > VALUE_MAX_BYTES || c->n_bytes + n > VALUE_MAX_BYTES)
        return NULL;
    c->n_bytes += n;
    return arena_alloc(c->memory, n);
}

/* ---- reading ---- */

static hone_type value_type(const hone_value *v)
{
    static const hone_type types[] = {
        [JSON_OBJECT] = HONE_OBJECT, [JSON_ARRAY] = HONE_ARRAY, [JSON_STRING] = HONE_STRING,
        [JSON_INTEGER] = HONE_INT,   [JSON_REAL] = HONE_REAL,   [JSON_TRUE] = HONE_BOOL,
        [JSON_FALSE] = HONE_BOOL,    [JSON_NULL] = HONE_NULL};
    return v != NULL ? types[json_typeof(value_json(v))] : HONE_ABSENT;
}

static size_t value_length(const hone_value *v)
{
    const json_t *j = value_json(v);
    if (json_is_string(j))
        return json_string_length(j);
    return json_is_object(j) ? json_object_size(j) : json_array_size(j);
}

static hone_value *value_get(const hone_value *o, const char *key)
{
    return value_of(json_object_get(value_json(o), key));
}

static hone_value *value_at(const hone_value *array, size_t i)
{
    return value_of(json_array_get(value_json(array), i));
}

static const char *value_key(const hone_value *o, size_t i, size_t *len)
{
    void *it = json_object_iter(value_json(o));
    for (; it != NULL && i > 0; i--)
        it = json_object_iter_next(value_json(o), it);
    if (len != NULL)
        *len = it != NULL ? json_object_iter_key_len(it) : 0;
    return it != NULL ? json_object_iter_key(it) : NULL;
}

static const char *value_string(const hone_value *v, size_t *len)
{
    if (len != NULL)
        *len = json_string_length(value_json(v));
    return json_string_value(value_json(v));
}

static double value_number(const hone_value *v, double fallback)
{
    const json_t *j = value_json(v);
    return json_is_number(j) ? json_number_value(j) : fallback;
}

static int64_t value_integer(const hone_value *v, int64_t fallback)
{
    const json_t *j = value_json(v);
    return json_is_integer(j) ? json_integer_value(j) : fallback;
}

static int value_boolean(const hone_value *v, int fallback)
{
    const json_t *j = value_json(v);
    return json_is_boolean(j) ? json_is_true(j) : fallback;
}

/* ---- making ---- */

static hone_value *new_null(hone_call *call)
{
    return hold(call, json_null());
}

static hone_value *new_bool(hone_call *call, int b)
{
    return hold(call, json_boolean(b));
}

static hone_value *new_int(hone_call *call, int64_t i)
{
    return hold(call, json_integer(i));
}

static hone_value *new_real(hone_call *call, double x)
{
    return isfinite(x) ? hold(call, json_real(x)) : NULL;
}

static hone_value *new_string(hone_call *call, const char *text, size_t len)
{
    return text != NULL ? hold(call, json_stringn(text, len)) : NULL;
}

static hone_value *new_array(hone_call *call)
{
    return hold(call, json_array());
}

static hone_value *new_object(hone_call *call)
{
    return hold(call, json_object());
}

static hone_value *value_copy(hone_call *call, const hone_value *v)
{
    return hold(call, json_deep_copy(value_json(v)));
}

/* ---- changing ---- */

static int done(int rc)
{
    return rc == 0 ? 0 : HONE_ERR;
}

static int value_set(hone_call *call, hone_value *o, const char *key, hone_value *v)
{
    json_t *old = key != NULL ? json_object_get(value_json(o), key) : NULL;
    if (v == NULL || key == NULL)
        return HONE_ERR;
    hold(call, json_incref(old));
    return done(json_object_set(value_json(o), key, value_json(v)));
}

static int value_set_at(hone_call *call, hone_value *array, size_t i, hone_value *v)
{
    hold(call, json_incref(json_array_get(value_json(array), i)));
    return v != NULL ? done(json_array_set(value_json(array), i, value_json(v))) : HONE_ERR;
}

static int value_append(hone_call *call, hone_value *array, hone_value *v)
{
    (void)call;
    return v != NULL ? done(json_array_append(value_json(array), value_json(v))) : HONE_ERR;
}

static int value_remove(hone_call *call, hone_value *o, const char *key)
{
    hold(call, json_incref(json_object_get(value_json(o), key)));
    return done(json_object_del(value_json(o), key));
}

static int value_remove_at(hone_call *call, hone_value *array, size_t i)
{
    hold(call, json_incref(json_array_get(value_json(array), i)));
    return done(json_array_remove(value_json(array), i));
}

/* ---- text ---- */

static const char *to_json(hone_call *call, const hone_value *v, size_t *len)
{
    char *text = v != NULL ? json_dumps(value_json(v), JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    size_t n = text != NULL ? strlen(text) : 0;
    char *kept = text != NULL ? call_alloc(call, n + 1) : NULL;
    if (kept != NULL)
        memcpy(kept, text, n);
    free(text);
    if (len != NULL)
        *len = kept != NULL ? n : 0;
    return kept;
}

static hone_value *from_json(hone_call *call, const char *text, size_t len)
{
    json_t *v;
    return js_parse(&v, text, len, NULL) == 0 ? hold(call, v) : NULL;
}

void value_members(hone_host *h)
{
    h->alloc = call_alloc;
    h->type = value_type;
    h->length = value_length;
    h->get = value_get;
    h->at = value_at;
    h->key = value_key;
    h->string = value_string;
    h->number = value_number;
    h->integer = value_integer;
    h->boolean = value_boolean;
    h->new_null = new_null;
    h->new_bool = new_bool;
    h->new_int = new_int;
    h->new_real = new_real;
    h->new_string = new_string;
    h->new_array = new_array;
    h->new_object = new_object;
    h->copy = value_copy;
    h->set = value_set;
    h->set_at = value_set_at;
    h->append = value_append;
    h->remove = value_remove;
    h->remove_at = value_remove_at;
    h->to_json = to_json;
    h->from_json = from_json;
    h->sha256 = bytes_sha256;
}

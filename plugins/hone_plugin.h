#pragma once
/* The plugin interface of hone: all that a plugin in C or C++ needs. C99 and C++ clean, nothing to
 * link against.
 *
 * A plugin is one shared object that exports one function, hone_plugin_descriptor_v1 (write
 * HONE_PLUGIN(my_descriptor) at file scope). The descriptor says who the plugin is, which settings
 * it has, and which functions start and stop it; it is read without starting anything. `init`
 * subscribes to hook points with host->on; from then on the appliance calls the plugin there.
 * `hone plugin hooks` lists the points with what their data hold; `hone plugin new` writes a plugin
 * that builds and passes its test, `hone plugin check` judges one.
 *
 * Rules. The host owns what it passes; texts are UTF-8 with a length and may hold NULs. Every value
 * and every byte from the call (new values, alloc) dies when the hook returns. No exception and no
 * longjmp crosses the border; no setlocale, signal handlers, fork or exit. A hook may be called on
 * many threads at once if the plugin says HONE_F_THREADSAFE, else the host takes turns. What a
 * hook may do belongs to the point: MODIFIED where nothing may be modified, or VETO where nothing
 * may be refused, is a failure, and its changes are dropped. A plugin that keeps failing, or is
 * late most of the time, is taken out for a while; one that does not come back, for good. Hooks,
 * init and fini may each run on another thread.
 *
 * Stability. Structs begin with their size and only grow at their end; a plugin built against 1.0
 * loads in every later 1.x. A plugin that needs a newer minor than the host has is refused, with
 * both numbers. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HONE_ABI_MAJOR 1
#define HONE_ABI_MINOR 1
#define HONE_PLUGIN_MAGIC 0x31504E48u /* "HNP1" */

#if defined(__GNUC__)
#define HONE_EXPORT __attribute__((visibility("default")))
#define HONE_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define HONE_EXPORT
#define HONE_PRINTF(fmt, args)
#endif

typedef struct hone_ctx hone_ctx;     /* one started plugin */
typedef struct hone_value hone_value; /* a value of a JSON tree */
typedef struct hone_host hone_host;

/* ---- what a hook answers ---- */

enum {
    HONE_CONTINUE = 0, /* go on; whatever was changed is dropped */
    HONE_MODIFIED = 1, /* go on with call->data (or the weights, the row) as it is now */
    HONE_VETO = 2,     /* refuse: the record, the request, the promotion; say why with host->veto */
    HONE_STOP = 3,     /* as MODIFIED where the point may be modified; nobody else is asked */
    HONE_ERR = -1      /* the hook itself failed; say why with host->error */
};

/* ---- what a hook is given ---- */

/* train.batch: the rows of one micro-batch, before its forward pass. Example i is made of the
 * tokens [bound[i], bound[i + 1]). Its share of the loss and of the gradient is multiplied by
 * weight[i] (1 at first; finite, not below 0). */
typedef struct hone_batch {
    uint32_t size, version;
    const int32_t *ids;    /* [n] */
    const uint8_t *mask;   /* [n], 1: this token is learnt */
    uint64_t n;            /* tokens */
    const uint64_t *bound; /* [n_examples + 1] */
    uint64_t n_examples;
    const uint64_t *row; /* [n_examples], number of the row in the training data, from 0 */
    float *weight;       /* [n_examples], may be changed */
    int64_t step;        /* the optimizer step that it is part of, from 1 */
    /* Since 1.1: [n_examples], the record that the example was made of, whatever was filtered
     * before it: the number that data.split shows as id (16 hex digits). */
    const uint64_t *id;
} hone_batch;

/* serve.logits: one row before a token is picked from it. */
typedef struct hone_logits {
    uint32_t size, version;
    float *row; /* [vocab], may be changed; -inf forbids a token */
    uint64_t vocab;
    const int32_t *ids; /* [n_ids]: the prompt and what was answered so far */
    uint64_t n_ids;
    int64_t step;   /* tokens answered so far */
    uint32_t flags; /* HONE_LOGITS_* */
} hone_logits;

enum {
    HONE_LOGITS_FROM_DEVICE = 1 /* the row lies on a GPU and was copied for this call, and back */
};

/* What the point allows (hone_call.allows). */
enum { HONE_MAY_MODIFY = 1, HONE_MAY_VETO = 2, HONE_FAILS_CLOSED = 4 };

typedef struct hone_call {
    uint32_t size, version;
    hone_ctx *ctx;
    const char *hook;    /* "data.filter" */
    uint32_t allows;     /* HONE_MAY_* and HONE_FAILS_CLOSED */
    uint32_t reserved;   /* 0 */
    int64_t budget_us;   /* what the point gives one call */
    hone_value *data;    /* the plugin's own copy: change it, or put another value here. NULL at the
                            two points with a struct of their own: */
    hone_batch *batch;   /* train.batch */
    hone_logits *logits; /* serve.logits */
    void *host_private;
} hone_call;

typedef int hone_fn(const hone_host *h, hone_call *call, void *user);

/* ---- values ---- */

typedef enum {
    HONE_ABSENT = 0, /* what every reading function makes of NULL */
    HONE_NULL = 1,
    HONE_BOOL = 2,
    HONE_INT = 3,
    HONE_REAL = 4,
    HONE_STRING = 5,
    HONE_ARRAY = 6,
    HONE_OBJECT = 7
} hone_type;

/* ---- what the host offers: append only ---- */

enum { HONE_LOG_DEBUG = 0, HONE_LOG_INFO = 1, HONE_LOG_WARN = 2, HONE_LOG_ERROR = 3 };

struct hone_host {
    uint32_t struct_size;
    uint16_t abi_major, abi_minor;
    const char *version; /* of the appliance, for messages */

    /* In init only: calls fn at the hook point of this name, in ascending priority. 0, or HONE_ERR
     * (no such point; the reason is kept, init passes HONE_ERR on). */
    int (*on)(hone_ctx *cx, const char *hook, int priority, hone_fn *fn, void *user);
    /* In init: why it fails. Returns HONE_ERR. */
    int (*init_error)(hone_ctx *cx, const char *fmt, ...) HONE_PRINTF(2, 3);

    /* At any time, on any thread. */
    void (*log)(hone_ctx *cx, int level, const char *fmt, ...) HONE_PRINTF(3, 4);
    /* Adds to a counter of the plugin's own, shown in /metrics and in the report of a run. It only
     * rises. At most 64 names, each 1 to 63 bytes of UTF-8 without controls. */
    void (*count)(hone_ctx *cx, const char *name, double add);
    /* The settings, an object with every setting of the descriptor in it (defaults filled in). */
    const hone_value *(*settings)(hone_ctx *cx);
    /* The plugin's own pointer, for fini and for hooks without user. NULL at first. */
    void (*set_state)(hone_ctx *cx, void *state);
    void *(*state)(hone_ctx *cx);
    /* An interface that not every host has, or NULL: ask in init. */
    const void *(*api)(hone_ctx *cx, const char *name, uint32_t min_version);

    /* In a hook. The reason is kept (256 bytes); they return HONE_VETO and HONE_ERR. */
    int (*veto)(hone_call *call, const char *fmt, ...) HONE_PRINTF(2, 3);
    int (*error)(hone_call *call, const char *fmt, ...) HONE_PRINTF(2, 3);
    /* Zeroed memory of the call, for any type; NULL past 256 MiB a call. */
    void *(*alloc)(hone_call *call, size_t n);
    /* Not 0 when the call is late: what takes long asks now and then, and gives up. */
    int (*late)(hone_call *call);

    /* Reading. NULL may be given everywhere and is ABSENT; the wrong type gives the fallback, NULL
     * or 0. Texts end with a NUL past their length. Both live until the hook
     * returns. */
    hone_type (*type)(const hone_value *v);
    size_t (*length)(const hone_value *v); /* elements, members, bytes of a text */
    hone_value *(*get)(const hone_value *o, const char *key);
    hone_value *(*at)(const hone_value *array, size_t i);
    const char *(*key)(const hone_value *o, size_t i, size_t *len); /* members in their order */
    const char *(*string)(const hone_value *v, size_t *len);        /* len may be NULL */
    double (*number)(const hone_value *v, double fallback);         /* INT and REAL */
    int64_t (*integer)(const hone_value *v, int64_t fallback);      /* INT */
    int (*boolean)(const hone_value *v, int fallback);

    /* Making. Never NULL but for a text that is not UTF-8 and a number that is not finite. */
    hone_value *(*new_null)(hone_call *call);
    hone_value *(*new_bool)(hone_call *call, int b);
    hone_value *(*new_int)(hone_call *call, int64_t i);
    hone_value *(*new_real)(hone_call *call, double x);
    hone_value *(*new_string)(hone_call *call, const char *text, size_t len);
    hone_value *(*new_array)(hone_call *call);
    hone_value *(*new_object)(hone_call *call);
    hone_value *(*copy)(hone_call *call, const hone_value *v); /* deep */

    /* Changing. 0, or HONE_ERR for a NULL, the wrong type, or a place that is not there. A value
     * may stand in several places, but not within itself. */
    int (*set)(hone_call *call, hone_value *o, const char *key, hone_value *v);
    int (*set_at)(hone_call *call, hone_value *array, size_t i, hone_value *v);
    int (*append)(hone_call *call, hone_value *array, hone_value *v);
    int (*remove)(hone_call *call, hone_value *o, const char *key);
    int (*remove_at)(hone_call *call, hone_value *array, size_t i);

    /* Compact JSON of a value (memory of the call), and back; NULL for what is no JSON. */
    const char *(*to_json)(hone_call *call, const hone_value *v, size_t *len);
    hone_value *(*from_json)(hone_call *call, const char *text, size_t len);
    /* 64 hex digits and a NUL. */
    void (*sha256)(char out[65], const void *data, size_t len);
    /* 1.0 ends here. */

    /* In init only: JSON text as a value that lives until fini has returned; NULL for what is no
     * JSON. */
    const hone_value *(*parse)(hone_ctx *cx, const char *text, size_t len);
    /* 1.1 ends here. */
};

/* ---- what a plugin says of itself ---- */

typedef enum {
    HONE_SET_STRING = 0,
    HONE_SET_INT = 1,
    HONE_SET_REAL = 2,
    HONE_SET_BOOL = 3,
    HONE_SET_ENUM = 4, /* arrives as a string, one of choices */
    HONE_SET_LIST = 5, /* of strings */
    HONE_SET_JSON = 6, /* anything */
    HONE_SET_PATH = 7  /* a string; relative to the settings file, arrives absolute */
} hone_setting_type;

typedef struct hone_setting {
    const char *name;
    uint32_t type;       /* hone_setting_type */
    uint32_t reserved;   /* 0 */
    const char *def;     /* default, as YAML text; NULL: null */
    double min, max;     /* inclusive, of INT and REAL; both 0: no limit */
    const char *choices; /* ENUM: "a|b|c" */
    const char *help;    /* one line */
} hone_setting;

enum {
    HONE_F_THREADSAFE = 1,   /* hooks may run on many threads at once */
    HONE_F_DETERMINISTIC = 2 /* the same input gives the same answer, in every run */
};

/* What it reaches beyond its calls: shown to the operator and recorded, not enforced. */
enum { HONE_CAP_READ_FILES = 1, HONE_CAP_WRITE_FILES = 2, HONE_CAP_NETWORK = 4 };

typedef struct hone_descriptor {
    uint32_t struct_size; /* sizeof(hone_descriptor) */
    uint32_t magic;       /* HONE_PLUGIN_MAGIC */
    uint16_t abi_major, abi_minor;
    uint32_t flags;      /* HONE_F_* */
    uint64_t caps;       /* HONE_CAP_* */
    const char *name;    /* [a-z0-9_-], at most 63, unique among what is loaded */
    const char *version; /* "1.2.0" */
    const char *license; /* SPDX: "Apache-2.0" */
    const char *summary; /* one line */
    const hone_setting *settings;
    uint32_t n_settings, setting_size;              /* setting_size: sizeof(hone_setting) */
    int (*init)(const hone_host *h, hone_ctx *cx);  /* 0, or HONE_ERR with host->init_error */
    void (*fini)(const hone_host *h, hone_ctx *cx); /* may be NULL; join your threads here. No hook
                                                       of the plugin runs any more. Not called when
                                                       init has failed. */
} hone_descriptor;

/* The first fields of a descriptor: {HONE_DESCRIPTOR(flags, caps), "name", "1.0.0", ...}. */
#define HONE_DESCRIPTOR(flags, caps)                                                               \
    (uint32_t)sizeof(hone_descriptor), HONE_PLUGIN_MAGIC, HONE_ABI_MAJOR, HONE_ABI_MINOR, (flags), \
        (caps)
/* Its settings from an array, or none. */
#define HONE_SETTINGS(array)                                                                       \
    (array), (uint32_t)(sizeof(array) / sizeof((array)[0])), (uint32_t)sizeof(hone_setting)
#define HONE_NO_SETTINGS NULL, 0, (uint32_t)sizeof(hone_setting)

typedef const hone_descriptor *hone_descriptor_fn(void);
HONE_EXPORT const hone_descriptor *hone_plugin_descriptor_v1(void);
#define HONE_PLUGIN(descriptor)                                                                    \
    HONE_EXPORT const hone_descriptor *hone_plugin_descriptor_v1(void)                             \
    {                                                                                              \
        return &(descriptor);                                                                      \
    }

/* ---- shorthand ---- */

/* The text of a member, or NULL. */
static inline const char *hone_get_string(const hone_host *h, const hone_value *o, const char *key,
                                          size_t *len)
{
    return h->string(h->get(o, key), len);
}

static inline int hone_set_string(const hone_host *h, hone_call *call, hone_value *o,
                                  const char *key, const char *text, size_t len)
{
    return h->set(call, o, key, h->new_string(call, text, len));
}

static inline int hone_set_number(const hone_host *h, hone_call *call, hone_value *o,
                                  const char *key, double x)
{
    return h->set(call, o, key, h->new_real(call, x));
}

/* One text of a record in the form that data.tag, data.filter and data.split give. */
typedef struct hone_text {
    const char *text;
    size_t len;
    hone_value *in;  /* the object that holds it */
    const char *key; /* as which member */
    char field[48];  /* "text", "prompt", "completion", "messages[3].content" */
    size_t next;     /* for hone_text_next */
} hone_text;

/* The texts of a record one after the other; *t is zeroed before the first. Returns 0 at the end.
 */
static inline int hone_text_next(const hone_host *h, const hone_value *record, hone_text *t)
{
    static const char *const fields[] = {"text", "prompt", "completion"};
    hone_value *messages = h->get(record, "messages");
    for (; t->next < 3 + h->length(messages); t->next++) {
        size_t i = t->next;
        t->in = i < 3 ? (hone_value *)(uintptr_t)record : h->at(messages, i - 3);
        t->key = i < 3 ? fields[i] : "content";
        t->text = hone_get_string(h, t->in, t->key, &t->len);
        if (t->text == NULL)
            continue;
        if (i < 3)
            snprintf(t->field, sizeof t->field, "%s", fields[i]);
        else
            snprintf(t->field, sizeof t->field, "messages[%lu].content", (unsigned long)(i - 3));
        t->next++;
        return 1;
    }
    return 0;
}

/* Decodes one character of s[0..n), n > 0: how many bytes it has. Where they are no UTF-8: 1, and
 * *cp is U+FFFD. */
static inline size_t hone_utf8_next(const char *s, size_t n, uint32_t *cp)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *u = (const unsigned char *)s;
    size_t len = u[0] < 0x80 ? 1 : (u[0] & 0xE0) == 0xC0 ? 2 : (u[0] & 0xF0) == 0xE0 ? 3 : 4;
    uint32_t c = len == 1 ? u[0] : u[0] & (0xFFu >> (len + 1));
    int good = u[0] < 0x80 || (u[0] >= 0xC2 && u[0] <= 0xF4 && len <= n);
    for (size_t i = 1; good && i < len; i++) {
        good = (u[i] & 0xC0) == 0x80;
        c = c << 6 | (u[i] & 0x3Fu);
    }
    good = good && c >= least[len] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
    *cp = good ? c : 0xFFFD;
    return good ? len : 1;
}

#ifdef __cplusplus
}
#endif

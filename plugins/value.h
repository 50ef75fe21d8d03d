#pragma once
/* The values that a plugin sees: the members of hone_host that read, make and change them, over
 * JSON trees. */
#include "core/base/arena.h"
#include "plugins/hone_plugin.h"

#include <jansson.h>

enum { VALUE_MAX_BYTES = 256 << 20 }; /* of one call */

/* One call of one hook: what the plugin sees of it, and what dies with it. */
typedef struct value_call {
    hone_call seen; /* the plugin's pointer to it is the way back here */
    arena *memory;
    size_t n_bytes; /* handed out by alloc */
    json_t **held;  /* values made or taken out during the call */
    size_t n_held, cap_held;
    char reason[256];
    int64_t deadline_ns;
} value_call;

void value_call_start(value_call *c);
void value_call_end(value_call *c);
/* Empties every container made during the call: values that hold themselves are freed no other way.
 */
void value_call_untie(value_call *c);

static inline value_call *value_call_of(hone_call *c)
{
    return (value_call *)c->host_private;
}
static inline json_t *value_json(const hone_value *v)
{
    return (json_t *)(uintptr_t)v;
}
static inline hone_value *value_of(const json_t *v)
{
    return (hone_value *)(uintptr_t)v;
}

/* Fills in these members. */
void value_members(hone_host *h);

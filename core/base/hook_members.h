#pragma once
/* What the data of a hook point hold, member by member: the second table of the reference page, the
 * stubs for scripts, and of the tests that hold every point to it. */
#include "core/base/hook.h"

typedef struct hook_member {
    hook_point point;
    const char *name;
    const char
        *type; /* text, integer, number, boolean, object, list, null; "a|b": one of them; with
                  "?" at the end: it may be absent */
    const char *what;
    bool changes; /* a subscriber may change it; changes of others go nowhere */
} hook_member;

/* Those of a point, in their order; NULL and 0 where it has a struct. */
const hook_member *hook_members(hook_point p, size_t *n);

/* The member of this name, or the row for any other ("*"); NULL: there is none. */
const hook_member *hook_member_find(hook_point p, const char *name);

/* Has v (NULL: absent) a type that the member may have? */
bool hook_member_takes(const hook_member *m, const json_t *v);

#pragma once
/* The table `host` that a script has: log, json, sha256, config, kv, counter, regex, now. What
 * would make a data set come out differently next time (the clock, the store) refuses inside a
 * deterministic hook. */
#include "core/base/hook.h"
#include "lua/kv.h"
#include "lua/sandbox.h"

typedef struct api {
    const char *name;   /* of the plugin, for the log */
    kv *kv;             /* NULL: there is no folder to keep it in */
    hooks *hooks;       /* that count for it; NULL: nobody counts */
    bool deterministic; /* of the hook that runs now; while loading too */
    bool quiet;         /* nothing goes to the log */
    int lines;          /* of the log, in this call */
} api;

/* Pushes the frozen table; its functions hold `a`, which must live as long as the state. The table
 * of settings behind host.config stays at registry[a]. Raises. */
void api_push(lua_State *L, api *a);

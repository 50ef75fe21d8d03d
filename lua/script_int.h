#pragma once
/* What script.c, script_load.c and script_test.c share. */
#include "lua/api.h"
#include "lua/script.h"

struct script {
    sandbox *box;
    api api;
    const script_source *source;
    script_setup setup;
    json_t *header, *settings;
    script_hook hooks[SCRIPT_MAX_HOOKS];
    size_t n;
    /* of the call that runs, for its random numbers */
    const json_t *data;
    size_t calling;
};

/* Keys of the registry: the functions of hooks by index from 1, and of tests by name. */
extern const char script_functions_key, script_tests_key;

/* Loads the text: a body for sandbox_run with the script as its argument. */
int script_load(lua_State *L);

/* Runs hook i on c; raises. Its function comes from the registry. */
int script_enter(lua_State *L, script *s, size_t i, hook_call *c);

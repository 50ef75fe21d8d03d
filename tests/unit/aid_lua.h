#pragma once
/* Scripts for tests. */
#include "lua/lua_host.h"

typedef struct aid_lua {
    char *dir;
    hooks *hooks;
    lua_plugin *plugin;
    lua_plugin_args args;
    hone_err e;
    json_t *data; /* what the last emission left */
} aid_lua;

/* A script of this text ("<dir>/<file>"); rc as of lua_plugin_open. `text` without a header gets
 * one of a line, without a newline, so that line numbers stay. args.path and hooks are filled in.
 */
int aid_lua_open(aid_lua *a, const char *file, const char *text);
void aid_lua_close(aid_lua *a); /* safe on a zeroed one */

/* Writes the file again. */
void aid_lua_write(aid_lua *a, const char *file, const char *text);

/* Emits the JSON text (with ' for ") at the point; a->data and a->e are its outcome. */
int aid_lua_emit(aid_lua *a, const char *point, const char *json);

/* a->data as sorted text; valid until the next call. */
const char *aid_lua_data(aid_lua *a);

#pragma once
/* Plugins under test. */
#include "core/base/hook.h"
#include "plugins/loader.h"

/* "<build>/plugins/<name>.so", or of tests/plugins where there is none; caller frees. Fails the
 * test where neither was built. */
char *aid_plugin_path(const char *name);

/* A copy of it in dir that only its owner may write; caller frees the path. */
char *aid_plugin_copy(const char *dir, const char *name);

/* Loads it into h; settings is JSON text, NULL for none. Fails the test with the message where that
 * does not work. Close with loader_close. */
loaded *aid_plugin_open(hooks *h, const char *name, const char *settings);

/* The same with a limit for its calls, as its status. */
int aid_plugin_try(loaded **out, hooks *h, const char *name, const char *settings, int limit_ms,
                   hone_err *e);

/* Emits the data of this JSON text; returns what came of it as JSON text with sorted keys; caller
 * frees. */
char *aid_emit(hooks *h, hook_point p, const char *json, int *rc, hone_err *e);

#pragma once
/* The settings of a plugin: its descriptor's table against what the settings file says. */
#include "core/base/err.h"
#include "plugins/hone_plugin.h"

#include <jansson.h>

/* *out is an object with every setting of the descriptor, defaults filled in; PATHs are joined to
 * dir. New reference. given may be NULL. An unknown key is refused with the nearest name, a value
 * of another type or out of range by name; so is a descriptor whose table is wrong. */
int settings_read(json_t **out, const hone_descriptor *d, const json_t *given, const char *dir,
                  hone_err *e);

/* The table as JSON, for whoever lists it. New reference. */
json_t *settings_describe(const hone_descriptor *d);

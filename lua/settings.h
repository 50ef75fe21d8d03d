#pragma once
/* The settings that a script declares, and what an operator gave for them. The declaration is an
 * object of objects: {NAME: {type, default, min, max, choices, help}}; type is number, integer,
 * text, boolean or list (of texts). Without a default a setting must be given. */
#include "core/base/err.h"

#include <jansson.h>

/* Values of all settings (new reference). `given` may be NULL.
 * Errors: EFORMAT where the declaration is wrong, EINVAL where a value is (it names the nearest
 * setting for one that does not exist). */
int settings_resolve(json_t **out, const json_t *declared, const json_t *given, hone_err *e);

#pragma once
/* The two hook points with a struct, called with what JSON says: for the checks of a plugin.
 *
 *     train.batch   {"examples": [{"id": "0f3c5e9b1a2d4c68", "row": 7, "ids": [1, 2, 3],
 *                    "mask": [0, 1, 1]}, ...], "step": 1}; of an example only id must be given
 *     serve.logits  {"row": [0.5, ...], "ids": [1, 2, 3], "step": 1}; row must be given */
#include "core/base/err.h"
#include "core/base/hook.h"

/* data NULL: an example of ours. *out (may be NULL): an array of what the weights or the row
 * became, new reference, NULL after an error. What the plugin may not write lies in pages that
 * cannot be written, and every array ends where a page ends that may not be touched; all of these
 * stay mapped, which a process that ends after its checks can bear, and a loop not. Errors: EINVAL
 * for data that is none, and for weights or a row that a plugin may not leave; those of
 * hook_emit_view. */
int plugin_view_call(hooks *h, hook_point p, const json_t *data, json_t **out, hone_err *e);

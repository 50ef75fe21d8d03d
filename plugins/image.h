#pragma once
/* The shared object of a plugin in memory, and the descriptor in it, checked. */
#include "core/base/err.h"
#include "core/base/trust.h"
#include "plugins/hone_plugin.h"

/* Maps exactly the bytes that were read and hashed (a file may change behind its name), all
 * symbols bound, none given to others. There is no unmapping. *d is a copy: what an older plugin
 * does not know is zero. */
int image_open(hone_descriptor *d, const trust_file *f, hone_err *e);

/* Setting i of a descriptor, whatever size its plugin thinks a setting has. */
hone_setting image_setting(const hone_descriptor *d, uint32_t i);

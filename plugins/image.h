#pragma once
/* The shared object of a plugin in memory, and the descriptor in it, checked. */
#include "core/base/err.h"
#include "core/base/trust.h"
#include "plugins/hone_plugin.h"
#include "plugins/runner.h"

/* Maps exactly the bytes that were read and hashed (a file may change behind its name), all
 * symbols bound, none given to others. There is no unmapping. *d is a copy: what an older plugin
 * does not know is zero. What runs of the plugin for this, its constructors and the function that
 * gives the descriptor, does so under r. ETIMEOUT: one of them does not come back. After a
 * constructor that does not, nothing can be loaded any more in this process, which should end. */
int image_open(hone_descriptor *d, const trust_file *f, runner *r, hone_err *e);

/* Setting i of a descriptor, whatever size its plugin thinks a setting has. */
hone_setting image_setting(const hone_descriptor *d, uint32_t i);

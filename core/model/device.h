#pragma once
/* The device that a model will run on. */
#include "core/base/err.h"
#include "kernels/kern.h"

/* name: "cpu", "cuda" or "auto" (as NULL); threads 0: as many as the process may use. What auto has
 * taken is always said on the log, and why when it is not a card: as a warning where the machine
 * has one. Errors: as kern_open, with what to do. The caller closes it with kern_close. */
int device_open(kern_dev **out, const char *name, int threads, hone_err *e);

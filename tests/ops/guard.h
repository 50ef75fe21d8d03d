#pragma once
/* A device whose memory the program cannot touch.
 *
 * On the CPU backend a pointer of the device works everywhere, so code that reads through one would
 * break only on a card. Here every block of `alloc` is closed to the program except while an op
 * runs, and each op's pointers must lie in such a block where kern.h says "device". A touch from
 * outside is a segmentation fault; a host pointer in an op is EINVAL with the field's name. */
#include "kernels/kern.h"

/* Puts itself between a fresh CPU device, of which nothing was allocated yet, and its ops, until it
 * is closed. */
void guard_device(kern_dev *d);

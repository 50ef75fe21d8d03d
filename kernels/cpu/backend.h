#pragma once
/* The CPU backend, built in. */
#include "kernels/kern.h"

extern const kern_backend cpu_backend;

#pragma once
/* hone feedback compare: what users say of each model, and of the canary beside the live one. */
#include "cli/state.h"

/* since_ms: 0 is ever. As a table, or as JSON where the call asks for it. */
int feedback_compare(const state_call *c, int64_t since_ms, hone_err *e);

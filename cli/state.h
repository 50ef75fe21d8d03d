#pragma once
/* What the commands that work on a state directory share. */
#include "serve/store/store.h"

/* Opens the database of --config (its state_dir) or --state; with neither, of ./hone.yaml, else
 * ./state. */
int state_open(store **out, const char *config, const char *state, bool must_exist, hone_err *e);

/* "cli:<user>", for the audit log; caller frees. */
char *state_actor(void);

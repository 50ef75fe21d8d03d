#pragma once
/* Random secrets that a directory holds in files of their own, made on first use. */
#include "core/base/err.h"

enum { SECRET_BYTES = 32 };

/* Reads <dir>/<name>, making it (mode 0600, synced) when there is none; two processes that make it
 * at once end with the same one. EDENIED when others may read it, EFORMAT when it has another
 * length. */
int secret_load(unsigned char out[SECRET_BYTES], const char *dir, const char *name, hone_err *e);

#pragma once
/* Files that become code: who may have written them, and are they what was approved? A plugin or
 * script is opened once; what is checked, hashed and run are the bytes behind that descriptor. */
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { TRUST_MAX_BYTES = 64 << 20 };

typedef struct trust_file {
    char *path; /* absolute, without symbolic links */
    char *data; /* [len], NUL-terminated past it */
    size_t len;
    char sha256[65];
    int fd; /* read-only, close-on-exec; "/proc/self/fd/N" is this very file */
} trust_file;

/* Opens `path` (relative to dir; NULL is the working directory) and reads it. EDENIED, saying what
 * to change, for a symbolic link, anything but a regular file, an owner that is neither this
 * process's user nor root, and a file or folder that its group or anyone may write. */
int trust_open(trust_file *out, const char *dir, const char *path, hone_err *e);
void trust_close(trust_file *f); /* safe on a zeroed one */

/* What approves a file: one of these must, else EDENIED. */
typedef struct trust_rule {
    const char *sha256;    /* 64 hex digits, from the settings; NULL: not given */
    const char *signed_by; /* Ed25519 public key, 64 hex digits: "<path>.sig" holds 128 hex digits,
                              the signature of the text "hone-plugin-v1:<sha256>"; NULL */
    const char *lock;      /* path of plugins.lock, lines as sha256sum writes them ("<sha256>
                              <path>", paths relative to its folder); may not exist; NULL */
    bool bundled;          /* it came with the program: approved unless one of these says no */
    bool unpinned;         /* anything goes: for whoever is writing the file just now */
} trust_rule;

/* A digest or signature that is given and differs is EDENIED with both digests, whatever else
 * holds. */
int trust_check(const trust_file *f, const trust_rule *r, hone_err *e);

/* Writes the file's line into the lock, in place of the one that named its path. */
int trust_pin(const trust_file *f, const char *lock, hone_err *e);

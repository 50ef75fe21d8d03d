#pragma once
/* Status codes and the one error record.
 *
 * Every fallible function returns 0 or a negative HONE_E* and takes a hone_err as its last
 * argument. The place that fails writes the message; each layer that knows more prepends with
 * hone_fail_at. One line, no trailing period, values included, no secrets. */
#include <stddef.h>

#define HONE_ERRNO_MAP(X)                                                                          \
    X(EINVAL, 1, "invalid argument")                                                               \
    X(ENOMEM, 2, "out of memory")                                                                  \
    X(EIO, 3, "input or output error")                                                             \
    X(EFORMAT, 4, "malformed input")                                                               \
    X(ELIMIT, 5, "limit exceeded")                                                                 \
    X(ENOTFOUND, 6, "not found")                                                                   \
    X(EUNSUPPORTED, 7, "not supported")                                                            \
    X(EAGAIN, 8, "try again")                                                                      \
    X(EEXIST, 9, "exists already")                                                                 \
    X(EDENIED, 10, "permission denied")                                                            \
    X(EDEVICE, 11, "device error")                                                                 \
    X(ECANCELLED, 12, "cancelled")                                                                 \
    X(ENUMERIC, 13, "not a finite number")                                                         \
    X(ETIMEOUT, 14, "timed out")                                                                   \
    X(EVETO, 15, "refused by a hook")                                                              \
    X(EINTERNAL, 16, "internal error")

enum hone_errno {
#define HONE_ERRNO_ENUM(name, n, text) HONE_##name = -(n),
    HONE_ERRNO_MAP(HONE_ERRNO_ENUM)
#undef HONE_ERRNO_ENUM
};

/* Plain data; initialise with {0}. msg is always terminated. */
typedef struct hone_err {
    int code;
    char msg[1024];
} hone_err;

/* Sets code and message; returns code. A NULL e is allowed (the message is dropped). Control
 * characters and bytes that are not UTF-8 become '?', so that a message is one line of text
 * whatever a file is called; what is too long ends in "...". The arguments may include e->msg. */
int hone_fail(hone_err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prepends "<text>: " to the message that is there; returns the code that is there, or EINTERNAL
 * where nothing has failed yet (or e is NULL), so that a failure never turns into a 0. */
int hone_fail_at(hone_err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Generic text of a code, for logs; never NULL. */
const char *hone_strerror(int code);

/* The short name ("EINVAL"), "OK" of 0, "?" of no code of ours. */
const char *hone_errname(int code);

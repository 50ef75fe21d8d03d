#pragma once
/* The calls that can be made to fail. They are defined in the program itself, so that the libraries
 * it is linked with (jansson, SQLite) call them too; only what libc calls inside itself stays out.
 */
#include <stdbool.h>

/* X(id, name, errno when it fails) */
#define INJECT_KINDS(X)                                                                            \
    X(ALLOC, "alloc", ENOMEM)                                                                      \
    X(OPEN, "open", EMFILE)                                                                        \
    X(READ, "read", EIO)                                                                           \
    X(WRITE, "write", ENOSPC)                                                                      \
    X(SHORT_WRITE, "short write", 0)                                                               \
    X(SYNC, "sync", EIO)                                                                           \
    X(RENAME, "rename", EIO)                                                                       \
    X(MKDIR, "mkdir", ENOSPC)                                                                      \
    X(TRUNCATE, "truncate", EIO)                                                                   \
    X(CLOSE, "close", EIO)                                                                         \
    X(UNLINK, "unlink", EIO)                                                                       \
    X(MAP, "mmap", ENOMEM)                                                                         \
    X(DISK, "full disk", ENOSPC)                                                                   \
    X(KILL, "kill", 0)

typedef enum {
#define INJECT_ENUM(id, name, error) INJECT_##id,
    INJECT_KINDS(INJECT_ENUM)
#undef INJECT_ENUM
        INJECT_N_KINDS
} inject_kind;

const char *inject_name(inject_kind k);

/* Plans it: after inject_on, the nth call of the kind fails, and with `for_ever` all after it. DISK
 * counts every
 * call that needs room on a disk (a write that meets its end first takes half), KILL every call but
 * an allocation. */
void inject_plan(inject_kind k, int nth, bool for_ever);
void inject_on(void);
/* Nothing fails any more. */
void inject_off(void);

/* Did anything fail? */
bool inject_fired(void);
/* Was anything renamed that had not been synced; is anything still waiting? */
bool inject_renamed_unsynced(void);
bool inject_unsynced(void);

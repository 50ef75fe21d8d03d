#pragma once
/* Faults on purpose. A case is an operation that writes; the driver runs it again and again, each
 * time in a child process and a directory of its own, and makes the 1st, 2nd, 3rd ... system call
 * or allocation of each kind fail (once, or for ever after, as a full disk does), or kills the
 * process there, until a run comes through untouched. After each run the directory must hold the
 * old state or the new one, whole:
 *
 *   returned 0            the new state; what was renamed had been synced before
 *   returned an error     the old state, with a message, no descriptor left open and no file left
 * over; the new one only if a sync after the rename failed killed or aborted     either; a file
 * left beside is allowed
 *
 * and the operation, tried again without faults, must succeed. Operations and looks run in
 * children, always in the same directory, which is filled anew from what `prepare` made once, in
 * the driver itself: it leaves no thread behind, since none survives the fork. */
#include "core/base/err.h"

#include <stdbool.h>

typedef enum { FAULT_OLD, FAULT_NEW, FAULT_BROKEN } fault_state;

typedef struct fault_case {
    const char *name;
    /* Makes the old state in an empty directory, once. Runs without faults, as `look` does. */
    void (*prepare)(const char *dir);
    /* The operation. Runs with a fault. */
    int (*act)(const char *dir, hone_err *e);
    /* What is in the directory. */
    fault_state (*look)(const char *dir);
    /* An error may leave names behind that were not there: directories made on the way. */
    bool leaves_names;
    /* 0 means: on the disk. Nothing written and no name made may wait for a sync then. */
    bool durable;
    /* Faults come only between the case's own fault_begin and fault_end (the first pair counts). */
    bool own_window;
    /* Work that follows the new state may fail, and is reported (an old checkpoint that cannot be
     * removed). */
    bool error_after_new;
    /* What it keeps open is closed by the end of the process, which stands for a crash. */
    bool keeps_descriptors;
} fault_case;

/* All cases, NULL-ended; tests/fault/cases.c is the list. */
extern const fault_case *const fault_cases[];

void fault_begin(void);
void fault_end(void);

/* Aids for cases. fault_put makes directories on the way, and aborts where it cannot write. */
void fault_put(const char *dir, const char *name, const char *text);
/* Does dir/name hold exactly this text? A NULL text: is it absent? */
bool fault_holds(const char *dir, const char *name, const char *text);

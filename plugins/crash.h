#pragma once
/* Says which plugin was running when the process dies of a signal, or of its exit(). Code in C that
 * has crashed cannot be gone on from within its process; what was complete on disk is, and the
 * message says what to leave out until it is mended. */

/* What this thread is running; NULL: nothing of a plugin's. Borrowed. */
typedef struct crash_place {
    const char *plugin, *hook;
} crash_place;

/* From now on (once is enough) signals that end a process are told first; handlers that were there
 * before have their turn afterwards. An exit() of a plugin's gets status 1. */
void crash_watch(void);
/* Returns what was running before, to be given to crash_leave. */
crash_place crash_enter(const char *plugin, const char *hook);
void crash_leave(crash_place before);

#pragma once
/* What unit tests share: cmocka with the headers it needs, directories that go away, captured
 * output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* A new empty directory under $TMPDIR or /tmp; caller frees. aid_dir_remove takes it and what is in
 * it away, and frees the name. */
char *aid_dir(void);
void aid_dir_remove(char *dir);

/* The real data beside the checkout: "<$HONE_SHARED or ../shared>/<name>"; caller frees. NULL, with
 * a line on standard error, where it is absent: the test then calls skip(). */
char *aid_shared(const char *name);

/* What fn(arg) writes to standard error, in a child process; caller frees. *status, if not NULL,
 * gets the child's wait status. */
char *aid_stderr(void (*fn)(void *arg), void *arg, int *status);

/* A whole file as text; caller frees. Fails the test where it cannot be read. */
char *aid_text(const char *path);

/* Where what is counted by the day (UTC) must fall on one: waits for tomorrow if today has only
 * seconds left. The day, since 1970. */
int64_t aid_day(void);

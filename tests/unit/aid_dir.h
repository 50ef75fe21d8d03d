#pragma once
/* A directory for one test. */
#include <stdbool.h>

/* A fresh empty directory under $TMPDIR (/tmp); asserts on failure. Release with aid_dir_drop. */
char *aid_dir_make(void);
/* The same in memory (/dev/shm) where there is such a place, for tests that sync often and write
 * little. */
char *aid_dir_quick(void);
/* Removes it with everything in it and frees the name. NULL is a no-op. */
void aid_dir_drop(char *dir);
/* Does any file under dir hold these bytes? */
bool aid_dir_holds(const char *dir, const char *needle);
/* cmocka setup (the quick kind for the second) and teardown that keep such a directory in *state.
 */
int aid_dir_setup(void **state);
int aid_dir_quick_setup(void **state);
int aid_dir_teardown(void **state);

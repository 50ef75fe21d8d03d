#pragma once
/* A directory for one test. */

/* A fresh empty directory under $TMPDIR (/tmp); asserts on failure. Release with aid_dir_drop. */
char *aid_dir_make(void);
/* Removes it with everything in it and frees the name. NULL is a no-op. */
void aid_dir_drop(char *dir);
/* cmocka setup and teardown that keep such a directory in *state. */
int aid_dir_setup(void **state);
int aid_dir_teardown(void **state);

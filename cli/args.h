#pragma once
/* Long options of a command, as a table. "--name value" and "--name=value" are the same; "--" ends
 * the options. */
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an option takes: a value, nothing, or a value each time that it is given. */
typedef enum { ARGS_TEXT = false, ARGS_FLAG = true, ARGS_LIST } args_kind;

enum { ARGS_MAX_LIST = 64 };
typedef struct args_list {
    const char *item[ARGS_MAX_LIST]; /* borrowed */
    int n;
} args_list;

/* One row is one option; the table ends with a NULL name. */
typedef struct args_row {
    const char *name; /* without the dashes */
    size_t offset;    /* of a const char * (the value, borrowed), a bool, or an args_list */
    args_kind kind;
} args_row;

/* Fills `into` from argv[1..argc). What is no option goes to rest[0..max_rest) in order; *n_rest
 * counts it. EINVAL for an unknown option (with the nearest name), a value that is missing or not
 * wanted, an option given twice (a list over ARGS_MAX_LIST times), or more than max_rest words. */
int args_parse(const args_row *rows, void *into, int argc, char **argv, const char **rest,
               int max_rest, int *n_rest, hone_err *e);

/* The value of --what as a number, not below 0; NULL leaves *out as it is. EINVAL names the option
 * and the value. */
int args_whole(int64_t *out, const char *text, const char *what, hone_err *e);
int args_real(double *out, const char *text, const char *what, hone_err *e);

#pragma once
/* Settings tables. One row is one setting: it gives the YAML key, its aliases, `key=value` on the
 * command line,
 * `--help` and the reference page. The values live in a struct of the caller's; rows hold offsets
 * into it. An unknown key is an error that names the nearest one. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef enum {
    CONF_STR,   /* char *; NULL when unset and no default */
    CONF_INT,   /* int64_t */
    CONF_FLOAT, /* double */
    CONF_BOOL,  /* bool */
    CONF_ENUM,  /* int: index of the choice */
    CONF_LIST,  /* json_t *: array of strings; one string is taken as a list of one */
    CONF_JSON   /* json_t *: any value, checked by its reader (datasets, policies) */
} conf_type;

typedef struct conf_row {
    const char *key;     /* dotted for nested mappings: "retrain.min_examples" */
    const char *aliases; /* other names, space-separated; NULL none */
    conf_type type;
    size_t offset;
    const char *def;     /* default as YAML text; NULL: unset (0, false, NULL, first choice) */
    double min, max;     /* inclusive; both 0: no limit */
    const char *choices; /* CONF_ENUM: "a|b|c" */
    const char *help;    /* one line */
} conf_row;

/* A table ends with a row whose key is NULL. conf is zeroed before its first use. */
void conf_defaults(const conf_row *rows, void *conf);
void conf_free(const conf_row *rows, void *conf);

/* For the test of a table: defaults that cannot be read, names that stand twice, rows without help.
 * Leaves the defaults in conf. */
int conf_check(const conf_row *rows, void *conf, hone_err *e);

/* Both start from what is in conf; `given`, if not NULL, is a json object that collects the
 * canonical keys set with their values (what a run records). Errors name file and line. After an
 * error some settings are set and some are not.
 *
 * null unsets text, lists and values, and gives everything else its default again. A number in
 * quotes is text; text may be written as a whole number, but not as 1.10 (it would become 1.1). A
 * setting given twice, by its key and an alias, is an error. A group without a value is empty. */
int conf_load(const conf_row *rows, void *conf, json_t *given, const char *path, hone_err *e);
int conf_apply(const conf_row *rows, void *conf, json_t *given, const json_t *tree, hone_err *e);

/* "key=value", value as YAML text; an empty one is null. For text it is taken as it stands unless
 * it begins with a quote. */
int conf_set(const conf_row *rows, void *conf, json_t *given, const char *assignment, hone_err *e);

/* The row of a key or alias, or NULL. */
const conf_row *conf_find(const conf_row *rows, const char *key);

/* The name of an enum's choice; caller frees. */
char *conf_choice(const conf_row *row, int value);

void conf_help(const conf_row *rows, FILE *out);     /* for --help */
void conf_markdown(const conf_row *rows, FILE *out); /* for the reference page */

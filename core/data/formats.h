#pragma once
/* Shapes of training records, and their one canonical form. formats[] is the only list: a row is a
 * format.
 *
 * Canonical: {"messages": [...], "tools": [...]} (tools may be missing), {"prompt": text,
 * "completion": text} or
 * {"text": text}. Alpaca records become messages too, so that training and serving share the chat
 * template. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>

/* One entry of `datasets:`, read. Names of fields are defaults of the format unless the entry
 * overrides them. */
typedef struct format_spec {
    const char *path;
    const struct format *format; /* NULL: auto, by the first record */
    int kind, unit;              /* source_kind, source_unit */
    int train_on_inputs;         /* -1: as the run's setting */
    const char *messages, *tools, *role, *content, *train, *system;
    const char *instruction, *input, *output, *history;
    const char *prompt, *completion, *text;
    const json_t *properties; /* canonical name -> name in the record */
    const json_t *roles;      /* canonical role -> list of names in the record */
} format_spec;

typedef struct format {
    const char *name;
    /* Does this record look like it? */
    bool (*detect)(const json_t *record, const format_spec *s);
    /* *out is a new reference; EFORMAT says which field is wrong. */
    int (*convert)(json_t **out, const json_t *record, const format_spec *s, hone_err *e);
    const char *help;
} format;
extern const format *const formats[]; /* NULL-ended */

/* Reads one entry: a path, or {path, type, ...}. The spec borrows from the entry. EINVAL, EFORMAT
 * name the field. */
int format_spec_read(format_spec *out, const json_t *entry, hone_err *e);

/* The format of a record, by detection. EUNSUPPORTED names preference data and other shapes that
 * this program cannot train on; EFORMAT lists the record's fields. */
int format_detect(const format **out, const json_t *record, const format_spec *s, hone_err *e);

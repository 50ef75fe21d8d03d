#pragma once
/* One file of training records, read one by one with the line where each begins. JSON Lines
 * (.jsonl, .ndjson, and .json that begins with an object), a JSON array (.json), plain text (.txt).
 * Compressed and columnar files are refused by name. Blank lines are not records. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdint.h>

/* Order of the choices of `ds_type` and `sample_by`. */
typedef enum { SOURCE_BY_NAME, SOURCE_JSON, SOURCE_TEXT } source_kind;
typedef enum { SOURCE_LINE, SOURCE_PARAGRAPH, SOURCE_DOCUMENT } source_unit;

typedef struct source source;

/* kind BY_NAME goes by the extension. unit is what one record of a text file is: a line, a
 * paragraph (blank lines between) or the whole file. EUNSUPPORTED for other kinds of file, EFORMAT
 * for an empty one. */
int source_open(source **out, const char *path, source_kind kind, source_unit unit, hone_err *e);
void source_close(source *s); /* NULL is a no-op */

typedef enum { SOURCE_END, SOURCE_RECORD, SOURCE_BAD } source_got;

typedef struct source_record {
    source_got got;
    int64_t line;  /* 1 is the first */
    json_t *value; /* RECORD: new reference; text becomes {"text": ...} */
    hone_err why;  /* BAD: what is wrong with this one; the next may be good */
} source_record;

/* EFORMAT when the file's own structure is broken, so that what follows cannot be found. */
int source_next(source *s, source_record *r, hone_err *e);

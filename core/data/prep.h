#pragma once
/* What subscribers make of a record between reading and tokens: texts normalised, attributes added,
 * the record kept or refused, spans of personal data replaced, the part it goes to. Tags are made
 * first and judged after, so that a threshold can be changed without another pass. */
#include "core/base/err.h"
#include "core/base/hook.h"
#include "core/data/dataset.h"

#include <jansson.h>
#include <stdint.h>

typedef struct prep {
    hooks *hooks; /* may be NULL */
    const char *source;
    int64_t line;
    uint64_t id; /* data_row.id, for data.split */
} prep;

/* data.normalize, data.tag, data.filter, data.pii, in this order. *record is replaced by a changed
 * copy where something changes. EVETO: refused, e says why. Other errors are failures of
 * subscribers, and EFORMAT for spans that are not in the text. */
int prep_record(const prep *p, json_t **record, hone_err *e);

/* data.split. `key` is the record's hash, which a subscriber may change: rows of one key fall on
 * one side. EVETO: it goes nowhere. */
int prep_split(const prep *p, json_t *record, uint64_t *key, data_part *out, hone_err *e);

#pragma once
/* One canonical record to tokens with their mask, and the length policy. */
#include "core/base/err.h"
#include "core/data/dataset.h"
#include "core/data/prep.h"

typedef enum { ENCODED_CHAT, ENCODED_PAIR, ENCODED_TEXT } encoded_kind;

/* Tokens of one record. Zero-initialise. */
typedef struct encoded {
    encoded_kind kind;
    int32_t *id;
    uint8_t *mask;
    size_t n;
    bool bos; /* the first token is the tokenizer's own beginning */
} encoded;
void encoded_free(encoded *x);

/* Any error but ENOMEM and EINTERNAL (a subscriber of data.template failed) concerns this record
 * alone. The chat template must be there for messages. */
int encode_record(encoded *out, const json_t *record, const data_options *o, const prep *at,
                  hone_err *e);

/* Supervises everything (train_on_inputs). */
void encoded_all(encoded *x);

/* Shortens to at most max tokens as DATA_TRUNCATE says. EFORMAT when nothing useful would be left.
 */
int encode_truncate(encoded *x, size_t max, hone_err *e);

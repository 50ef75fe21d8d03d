#pragma once
/* The tokenizer: text to ids and back, as tokenizer.json says (byte-level and SentencePiece-style
 * BPE), id for id as Hugging Face tokenizers does it. What a file asks for and this module does not
 * have is refused by name. */
#include "core/base/buf.h"
#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TOK_MAX_FILE = 64 << 20, /* bytes of tokenizer.json */
    TOK_MAX_ID = (1 << 24) - 1,
    TOK_MAX_TEXT = 1 << 30, /* bytes of one text */
};

/* Does not change after tok_open; safe to use from many threads at once. */
typedef struct tok tok;

/* Opens the tokenizer of a checkpoint directory: tokenizer.json, and where they stand
 * tokenizer_config.json, special_tokens_map.json and generation_config.json (names of bos, eos,
 * pad; the stop list; add_bos_token). Errors: ENOTFOUND without tokenizer.json; EFORMAT for a
 * malformed or inconsistent file; ELIMIT over the limits above; EUNSUPPORTED naming the component.
 */
int tok_open(tok **out, const char *dir, hone_err *e);
/* The same from the bytes of a tokenizer.json alone (no bos, eos, pad or stop ids). */
int tok_open_json(tok **out, const char *json, size_t len, hone_err *e);
void tok_close(tok *t);

/* Ids with the bytes of the input that each came from: [start, end). Where the text reaches the
 * model unchanged the ranges are exact, also inside a character; a piece of text that was
 * normalised maps to all the bytes it was made from; ids and characters that the tokenizer inserts
 * have an empty range. Whitespace is never trimmed from a range. Zero-initialise; release with
 * tok_ids_free. */
typedef struct tok_ids {
    int32_t *id;
    uint32_t *start, *end;
    size_t n, cap;
} tok_ids;
void tok_ids_free(tok_ids *ids);

enum {
    TOK_ADD_SPECIAL = 1,      /* add what the post-processor or add_bos_token adds around a text */
    TOK_NO_PARSE_SPECIAL = 2, /* special tokens written in the text are plain text */
};

/* Appends the ids of text[0..len). Errors: EFORMAT with the byte offset where the text is not
 * UTF-8, or where a character is neither in the vocabulary nor covered by byte fallback or an
 * unknown token; ELIMIT over TOK_MAX_TEXT. After an error *out is as it was. */
int tok_encode(const tok *t, const char *text, size_t len, unsigned flags, tok_ids *out,
               hone_err *e);

/* Appends the text of the ids. Bytes that are not UTF-8 become U+FFFD, so the result is always
 * valid; the leading space that the tokenizer inserted is removed. EINVAL names an id that does not
 * exist. */
int tok_decode(const tok *t, const int32_t *ids, size_t n, bool skip_special, buf *out,
               hone_err *e);

/* Decoding as ids come: gives text only at character borders, and in the end the same text as
 * tok_decode. The tokenizer must outlive the stream. */
typedef struct tok_stream tok_stream;
tok_stream *tok_stream_new(const tok *t, bool skip_special);
void tok_stream_free(tok_stream *s);
/* Appends what this id completes (perhaps nothing). */
int tok_stream_push(tok_stream *s, int32_t id, buf *out, hone_err *e);
/* Appends U+FFFD for what is still incomplete; the stream may be used again from the start. */
int tok_stream_end(tok_stream *s, buf *out);

/* The exact bytes that a token adds in the middle of a text (not always valid UTF-8), for
 * log-probabilities. */
int tok_token_bytes(const tok *t, int32_t id, buf *out, hone_err *e);

int32_t tok_n_vocab(const tok *t); /* highest id + 1; ids below it may be missing */
/* Id of the exact piece as the vocabulary writes it, added tokens too; -1 when there is none. */
int32_t tok_find(const tok *t, const char *piece);
/* The piece as the vocabulary writes it, NUL-terminated, borrowed; *len (may be NULL) in bytes.
 * NULL if no such id. */
const char *tok_piece(const tok *t, int32_t id, size_t *len);
bool tok_is_special(const tok *t, int32_t id);
bool tok_is_added(const tok *t, int32_t id);
int32_t tok_bos(const tok *t); /* -1 when there is none; so the next two */
int32_t tok_eos(const tok *t);
int32_t tok_pad(const tok *t);
/* Ids that end a generation: eos and the list of generation_config.json, each once. Borrowed. */
size_t tok_stop_ids(const tok *t, const int32_t **ids);
/* Whether TOK_ADD_SPECIAL puts bos first. */
bool tok_adds_bos(const tok *t);
/* SHA-256 of tokenizer.json, hex. */
const char *tok_digest(const tok *t);

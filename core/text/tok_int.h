#pragma once
/* What the files of the tokenizer share; nothing outside core/text/tok*.c and its test includes it.
 *
 * A text goes through four steps, each fed with views of the one before: added tokens are cut out
 * (tok_added.c), the rest is normalised (tok_norm.c), cut into words (tok_pre.c) and merged
 * (tok_bpe.c). A step that changes bytes keeps a map back to what it was given, so that offsets
 * survive any chain of steps. */
#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/base/err.h"
#include "core/base/js.h"
#include "core/text/tok.h"

#include <stdatomic.h>

enum {
    TOK_MAX_OPS = 16,        /* steps in one Sequence, flattened */
    TOK_MAX_PIECE = 1 << 16, /* bytes of one piece */
    TOK_MAX_ADDED = 1 << 17,
    TOK_MAX_PATTERN = 1 << 14,
};

typedef struct tok_work tok_work;
struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

/* ---- vocabulary (tok_vocab.c) ---- */

enum { PIECE_MODEL = 1, PIECE_ADDED = 2, PIECE_SPECIAL = 4 };

typedef struct tok_entry {
    const char *s; /* NULL: no such id */
    uint32_t len, flags;
} tok_entry;

typedef struct tok_slot {
    uint32_t hash; /* the upper half, so that few strings are compared in vain */
    int32_t id;    /* -1: free */
} tok_slot;

typedef struct tok_vocab {
    arena *text;
    tok_entry *entry; /* by id */
    int32_t n;        /* highest id + 1 */
    tok_slot *slot;   /* open addressing by piece */
    size_t mask;
} tok_vocab;

/* Room for ids below n_ids and at most n_pieces pieces. */
int tok_vocab_init(tok_vocab *v, int32_t n_ids, size_t n_pieces, hone_err *e);
void tok_vocab_free(tok_vocab *v);
/* Adds a piece, or flags to a piece that is there under the same id. EFORMAT when the id has
 * another piece or the piece another id. */
int tok_vocab_add(tok_vocab *v, const char *s, size_t len, int64_t id, uint32_t flags, hone_err *e);
int32_t tok_vocab_find(const tok_vocab *v, const char *s, size_t len);
uint64_t tok_hash(const char *s, size_t len);

/* ---- characters (tok_scan.c) ---- */

/* Decodes a character of text that is known to be valid; returns its bytes. */
static inline size_t tok_cp(const char *str, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)str;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    if (s[0] < 0xE0) {
        *cp = (s[0] & 0x1FU) << 6 | (s[1] & 0x3FU);
        return 2;
    }
    if (s[0] < 0xF0) {
        *cp = (s[0] & 0x0FU) << 12 | (s[1] & 0x3FU) << 6 | (s[2] & 0x3FU);
        return 3;
    }
    *cp = (s[0] & 0x07U) << 18 | (s[1] & 0x3FU) << 12 | (s[2] & 0x3FU) << 6 | (s[3] & 0x3FU);
    return 4;
}
bool tok_is_space(uint32_t cp);  /* White_Space */
bool tok_is_letter(uint32_t cp); /* \p{L} */
bool tok_is_number(uint32_t cp); /* \p{N} */
bool tok_is_word(uint32_t cp);   /* \w: alphabetic, marks, digits, connectors, joiners */
bool tok_is_punct(uint32_t cp);  /* ASCII punctuation and \p{P} */

/* Bytes of the first word of s[0..n), n > 0, under one of the well-known patterns, which cover
 * every text. */
typedef size_t tok_scan(const char *s, size_t n);
extern const char tok_pattern_gpt2[], tok_pattern_llama3[], tok_pattern_qwen2[];
/* The hand-written scanner of exactly this pattern, or NULL. */
tok_scan *tok_scan_find(const char *pattern);

/* ---- patterns (tok_match.c) ---- */

typedef struct tok_match {
    tok_scan *scan; /* one of these four is set */
    struct pcre2_real_code_8 *code;
    char *literal;
    bool (*in_class)(uint32_t cp);
    size_t literal_len;
    bool runs; /* in_class: a match is a whole run, not one character */
} tok_match;

/* A pattern in the Oniguruma syntax of tokenizer.json; `scan` allows the hand-written scanners. */
int tok_match_regex(tok_match *m, const char *pattern, size_t len, bool scan, hone_err *e);
int tok_match_literal(tok_match *m, const char *text, size_t len, hone_err *e);
/* {"String": ...} or {"Regex": ...} */
int tok_match_load(tok_match *m, const json_t *pattern, hone_err *e);
void tok_match_free(tok_match *m);
/* The first match of s[from..n) that is not empty: 1 with [*a, *b), 0 when there is none, or an
 * error. `data` is pcre2_match_data for one pair. */
int tok_match_next(const tok_match *m, struct pcre2_real_match_data_8 *data, const char *s,
                   size_t n, size_t from, size_t *a, size_t *b, hone_err *e);

/* ---- texts and maps (tok_norm.c) ---- */

/* Output [n0, n1) was made from input [o0, o1); between edits bytes are unchanged. */
typedef struct tok_edit {
    uint32_t n0, n1, o0, o1;
} tok_edit;

typedef struct tok_map {
    struct tok_map *up; /* what the input of this step was mapped by; NULL: the text itself */
    uint32_t base;      /* where that input begins in the output of `up` */
    tok_edit *edit;     /* ascending */
    size_t n, cap;
    size_t cursor; /* the last edit that was asked for */
} tok_map;

typedef struct tok_view {
    const char *p;
    size_t len;
    tok_map *map; /* NULL: p is the text itself */
    uint32_t at;  /* offset of p in the output of map, or in the text */
} tok_view;

/* What one step writes. */
typedef struct tok_text {
    buf bytes;
    tok_map map;
} tok_text;

/* Turns a range of a view's map into a range of the text. */
void tok_map_range(tok_map *map, uint32_t *start, uint32_t *end);
/* Starts *out as the output of a step over `in`. */
void tok_text_begin(tok_text *out, const tok_view *in);
/* Notes that the bytes added since out was n0 long came from in[o0, o1). */
int tok_text_edit(tok_text *out, size_t n0, size_t o0, size_t o1, hone_err *e);
/* The view of what was written. */
int tok_text_end(tok_text *out, tok_view *view, hone_err *e);
/* Puts `prefix` before the view. */
int tok_text_prefix(tok_text *out, const char *prefix, tok_view *view, hone_err *e);

typedef struct tok_norm tok_norm;
struct tok_norm {
    /* Replaces *view when it changes something; *view then lies in *out. */
    int (*run)(const tok_norm *op, tok_work *w, tok_text *out, tok_view *view, hone_err *e);
    int form;         /* options of utf8proc */
    tok_match match;  /* Replace */
    char *text;       /* Prepend, Replace */
    bool left, right; /* Strip */
};

typedef struct tok_norms {
    tok_norm op[TOK_MAX_OPS];
    size_t n;
} tok_norms;
int tok_norm_load(tok_norms *list, const json_t *o, hone_err *e);
void tok_norm_free(tok_norms *list);
int tok_norm_run(const tok_norms *list, tok_work *w, tok_view *view, hone_err *e);

/* ---- added tokens (tok_added.c) ---- */

typedef struct tok_added {
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} tok_added;

typedef struct tok_node {
    uint32_t child, sibling; /* 0: none */
    int32_t added;           /* index into tok_trie.added, -1: no token ends here */
    unsigned char byte;
} tok_node;

typedef struct tok_trie {
    tok_added *added;
    size_t n_added, cap_added;
    tok_node *node; /* 0 is unused */
    size_t n_node, cap_node;
    uint32_t first[256]; /* node of each first byte, 0: none */
    int only;            /* the one first byte there is, or -1 */
} tok_trie;

/* EFORMAT for an empty text. The same text again takes the later token. */
int tok_trie_add(tok_trie *trie, const char *text, size_t len, tok_added added, hone_err *e);
void tok_trie_free(tok_trie *trie);
/* Cuts a view at its added tokens: `text` gets what lies between, tokens go to the output. */
int tok_trie_split(const tok_trie *trie, tok_work *w, const tok_view *view,
                   int (*text)(tok_work *w, const tok_view *view, hone_err *e), hone_err *e);

/* ---- pre-tokenizers (tok_pre.c) ---- */

typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
    SPLIT_CONTIGUOUS
} tok_behavior;

typedef struct tok_pre tok_pre;
struct tok_pre {
    int (*run)(const tok_pre *op, tok_work *w, size_t next, const tok_view *view, hone_err *e);
    tok_match match;
    tok_behavior behavior;
    bool invert;
    char *prefix;    /* put before a view that does not begin with it or with a space */
    bool first_only; /* prefix only at the start of the text */
};

typedef struct tok_pres {
    tok_pre op[TOK_MAX_OPS];
    size_t n;
    bool byte_level; /* words reach the model as bytes */
    char *meta;      /* a space reaches the model as this character */
} tok_pres;
int tok_pre_load(tok_pres *list, const json_t *o, hone_err *e);
void tok_pre_free(tok_pres *list);
/* Reads the fields that Metaspace has as a pre-tokenizer and as a decoder; the texts are borrowed.
 */
int tok_metaspace(const json_t *o, const char **meta, const char **scheme, bool *split,
                  hone_err *e);
int tok_pre_run(tok_work *w, size_t at, const tok_view *view, hone_err *e);

/* ---- model (tok_bpe.c) ---- */

typedef struct tok_pair {
    uint64_t key; /* left << 24 | right; UINT64_MAX is free */
    uint32_t rank;
    int32_t made;
} tok_pair;

typedef struct tok_bpe {
    tok_pair *pair; /* open addressing */
    size_t mask;
    int32_t unit[256]; /* byte level: piece of each byte; else of each ASCII character; -1: none */
    int32_t fallback[256]; /* <0xNN>; -1: none */
    int32_t unk;           /* -1: none */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool byte_level;
    char *meta; /* the character that stands for a space */
    size_t meta_len;
    bool space_is_meta;     /* texts reach the model with spaces not yet replaced by it */
    bool cut;               /* joins is complete: words may be cut where it says so */
    uint64_t joins[256][4]; /* by class of character: whether a merge joins one with the next */
} tok_bpe;

int tok_bpe_init(tok_bpe *b, size_t n_merges, hone_err *e);
void tok_bpe_free(tok_bpe *b);
void tok_bpe_add(tok_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t made);
/* Notes that a merge joins the end of `left` with the beginning of `right`, pieces of characters.
 */
void tok_bpe_join(tok_bpe *b, const char *left, size_t n_left, const char *right, size_t n_right);
/* Appends the ids of one word. */
int tok_bpe_word(tok_work *w, const tok_view *word, hone_err *e);

/* The character that byte-level pieces write for each byte, and back (-1: none). */
uint32_t tok_byte_char(unsigned byte);
int tok_char_byte(uint32_t cp);

/* ---- decoders (tok_decode.c) ---- */

typedef struct tok_dec_op {
    enum { DEC_REPLACE, DEC_FALLBACK, DEC_META, DEC_STRIP } kind;
    char *from, *to;      /* Replace; Metaspace: the character */
    bool drop_first;      /* Metaspace: none in the first token */
    unsigned start, stop; /* Strip: at most so many */
    char *strip;
} tok_dec_op;

typedef struct tok_decs {
    tok_dec_op op[TOK_MAX_OPS]; /* on one token */
    size_t n;
    bool byte_level, fallback, spaces; /* spaces: tokens are joined with one (no decoder) */
    bool fused;
    char *strip; /* on the whole text: at most strip_n at its start; NULL: none */
    unsigned strip_n;
} tok_decs;
int tok_dec_load(tok_decs *d, const json_t *o, hone_err *e);
void tok_dec_free(tok_decs *d);

/* ---- the whole ---- */

enum { WORD_KEY = 24, WORD_IDS = 7, WORD_SLOTS = 1 << 15 };

/* Words seen lately with their ids: one cache line each, a newer word takes the place of an older
 * one. */
typedef struct tok_word {
    uint64_t key[WORD_KEY / 8];
    int32_t id[WORD_IDS];
    uint8_t end[WORD_IDS];
    uint8_t len, n; /* len 0: free */
} tok_word;

/* Everything that one call of tok_encode writes to besides its output. */
struct tok_work {
    const tok *t;
    unsigned flags;
    tok_ids *out;
    tok_word *words;
    int32_t *id, *made; /* symbols of a word */
    uint32_t *end, *rank, *prev, *next;
    size_t cap;
    uint64_t *heap;
    size_t n_heap, cap_heap;
    buf piece;    /* a word as the vocabulary would write it */
    int32_t *cps; /* characters of a normalisation chunk */
    size_t cap_cps;
    tok_text norm[TOK_MAX_OPS], pre[TOK_MAX_OPS];
    struct pcre2_real_match_data_8 *match;
};

tok_work *tok_work_new(const tok *t);
void tok_work_free(tok_work *w); /* NULL is a no-op */

enum { TOK_POOL = 32 };

struct tok {
    char digest[65];
    tok_vocab vocab;
    tok_norms norm;
    tok_trie raw, norm_trie; /* added tokens matched on the text, and on the normalised text */
    tok_pres pre;
    tok_bpe bpe;
    tok_decs dec;
    int32_t *before, *after; /* what TOK_ADD_SPECIAL adds */
    size_t n_before, n_after;
    unsigned n_seq; /* while loading: whether the template has come to the text */
    int32_t bos, eos, pad;
    int32_t *stop;
    size_t n_stop;
    /* Scratch for calls to come: a call takes one or makes one, and puts it back. */
    struct tok_pool {
        _Atomic(tok_work *) slot[TOK_POOL];
    } * pool;
};

/* Fills t from a parsed tokenizer.json and, when not NULL, the added_tokens_decoder of
 * tokenizer_config.json. */
int tok_load(tok *t, const json_t *root, const json_t *more_added, hone_err *e);
/* Reads the files beside tokenizer.json: *config is a new reference or NULL. */
int tok_conf_read(json_t **config, const char *dir, hone_err *e);
int tok_conf_apply(tok *t, const json_t *config, const char *dir, hone_err *e);

/* Appends one id. */
int tok_ids_push(tok_ids *ids, int32_t id, size_t start, size_t end, hone_err *e);
int tok_ids_reserve(tok_ids *ids, size_t more, hone_err *e);
/* realloc that may fail, doubling *cap until need fits. */
int tok_grow(void *pp, size_t *cap, size_t need, size_t size, hone_err *e);
/* "<what> '<type>' is not supported" with the text of o's field type (or "?"). */
int tok_refuse(const char *what, const json_t *o, hone_err *e);
const char *tok_type(const json_t *o);

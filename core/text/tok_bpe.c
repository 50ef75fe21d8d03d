/* Byte-pair merging of one word. Most words of a text have been seen before: a direct-mapped table
 * answers those. A new short word is merged by scanning for the best pair; a long one, where that
 * would be quadratic, with a heap. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_WORD = 48 };
#define NO_RANK UINT32_MAX

/* ---- the merge table ---- */

int tok_bpe_init(tok_bpe *b, size_t n_merges, hone_err *e)
{
    size_t slots = 64;
    while (slots < n_merges * 2)
        slots *= 2;
    b->pair = mem_try_array(slots, sizeof *b->pair);
    if (b->pair == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for %zu merges", n_merges);
    b->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        b->pair[i].key = UINT64_MAX;
    b->unk = -1;
    memset(b->unit, 0xFF, sizeof b->unit);
    memset(b->fallback, 0xFF, sizeof b->fallback);
    return 0;
}

void tok_bpe_free(tok_bpe *b)
{
    free(b->pair);
    free(b->meta);
    *b = (tok_bpe){0};
}

static tok_pair *pair_slot(const tok_bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 24 | (uint32_t)right;
    size_t i = (size_t)((key * 0x9E3779B97F4A7C15U) >> 24) & b->mask;
    while (b->pair[i].key != key && b->pair[i].key != UINT64_MAX)
        i = (i + 1) & b->mask;
    return &b->pair[i];
}

void tok_bpe_add(tok_bpe *b, int32_t left, int32_t right, uint32_t rank, int32_t made)
{
    *pair_slot(b, left, right) =
        (tok_pair){(uint64_t)(uint32_t)left << 24 | (uint32_t)right, rank, made};
}

static uint32_t pair_rank(const tok_bpe *b, int32_t left, int32_t right, int32_t *made)
{
    const tok_pair *p = pair_slot(b, left, right);
    if (p->key == UINT64_MAX)
        return NO_RANK;
    *made = p->made;
    return p->rank;
}

/* ---- a word into symbols ---- */

static int grow_symbols(tok_work *w, size_t need, hone_err *e)
{
    if (need <= w->cap)
        return 0;
    void *arrays[] = {&w->id, &w->made, &w->end, &w->rank, &w->prev, &w->next};
    size_t cap = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        cap = w->cap;
        int rc = tok_grow(arrays[i], &cap, need, sizeof(int32_t), e);
        if (rc != 0)
            return rc;
    }
    w->cap = cap;
    return 0;
}

static int no_unit(const tok_work *w, const tok_view *word, size_t at, hone_err *e)
{
    uint32_t cp, start = word->at + (uint32_t)at, end = start + 1;
    tok_map_range(word->map, &start, &end);
    if (w->t->bpe.byte_level)
        return hone_fail(e, HONE_EFORMAT, "byte 0x%02X at offset %u is not in the vocabulary",
                         (unsigned char)word->p[at], start);
    tok_cp(word->p + at, &cp);
    return hone_fail(e, HONE_EFORMAT,
                     "character U+%04X at offset %u is not in the vocabulary, which has neither "
                     "byte fallback nor an unknown token",
                     cp, start);
}

static int byte_symbols(tok_work *w, const tok_view *word, size_t *n, hone_err *e)
{
    const tok_bpe *b = &w->t->bpe;
    for (size_t i = 0; i < word->len; i++) {
        w->id[i] = b->unit[(unsigned char)word->p[i]];
        w->end[i] = (uint32_t)i + 1;
        if (w->id[i] < 0)
            return no_unit(w, word, i, e);
    }
    *n = word->len;
    return 0;
}

/* The bytes of a piece that is not in the vocabulary: one <0xNN> each. False when one of those is
 * missing too. A space that stands for a longer meta character gives more symbols than bytes. */
static bool fall_back(tok_work *w, const char *piece, size_t len, size_t from, size_t to, size_t *n)
{
    const tok_bpe *b = &w->t->bpe;
    if (!b->byte_fallback)
        return false;
    for (size_t k = 0; k < len; k++)
        if (b->fallback[(unsigned char)piece[k]] < 0)
            return false;
    for (size_t k = 0; k < len; k++) {
        w->id[*n] = b->fallback[(unsigned char)piece[k]];
        w->end[(*n)++] = (uint32_t)(from + k + 1 < to ? from + k + 1 : to);
    }
    return true;
}

static int32_t model_piece(const tok_vocab *v, const char *s, size_t len)
{
    int32_t id = tok_vocab_find(v, s, len);
    return id >= 0 && (v->entry[id].flags & PIECE_MODEL) != 0 ? id : -1;
}

static int char_symbols(tok_work *w, const tok_view *word, size_t *n, hone_err *e)
{
    const tok_bpe *b = &w->t->bpe;
    bool after_unk = false;
    *n = 0;
    for (size_t i = 0, k; i < word->len; i += k) {
        uint32_t cp;
        k = tok_cp(word->p + i, &cp);
        const char *piece = word->p + i;
        size_t len = k;
        if (cp == ' ' && b->space_is_meta) {
            piece = b->meta;
            len = b->meta_len;
        }
        int32_t id = cp < 128 ? b->unit[cp] : model_piece(&w->t->vocab, piece, len);
        bool unk = id < 0;
        if (unk && fall_back(w, piece, len, i, i + k, n)) {
            after_unk = false;
            continue;
        }
        if (unk && b->unk < 0)
            return no_unit(w, word, i, e);
        if (unk && after_unk && b->fuse_unk) {
            w->end[*n - 1] = (uint32_t)(i + k);
            continue;
        }
        w->id[*n] = unk ? b->unk : id;
        w->end[(*n)++] = (uint32_t)(i + k);
        after_unk = unk;
    }
    return 0;
}

/* ---- merging ---- */

/* Merges symbols in place by looking for the best pair each time. Returns how many are left. */
static size_t merge_short(const tok_bpe *b, tok_work *w, size_t n)
{
    uint32_t *rank = w->rank;
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = pair_rank(b, w->id[i], w->id[i + 1], &w->made[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        w->id[best] = w->made[best];
        w->end[best] = w->end[best + 1];
        n--;
        for (size_t i = best + 1; i < n; i++) {
            w->id[i] = w->id[i + 1];
            w->end[i] = w->end[i + 1];
            rank[i] = rank[i + 1];
            w->made[i] = w->made[i + 1];
        }
        if (best > 0)
            rank[best - 1] = pair_rank(b, w->id[best - 1], w->id[best], &w->made[best - 1]);
        if (best + 1 < n)
            rank[best] = pair_rank(b, w->id[best], w->id[best + 1], &w->made[best]);
    }
    return n;
}

/* Heap entries are rank << 32 | position: the smallest is the best pair, the leftmost of equals. An
 * entry is stale when the pair at its position has another rank by now. */
static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t x = heap[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        k += k + 1 < n && heap[k + 1] < heap[k];
        if (x <= heap[k])
            break;
        heap[i] = heap[k];
    }
    heap[i] = x;
}

static void heap_push(tok_work *w, uint64_t x)
{
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > x; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = x;
}

static uint64_t heap_pop(tok_work *w)
{
    uint64_t top = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    if (w->n_heap > 0)
        sift_down(w->heap, w->n_heap, 0);
    return top;
}

/* Ranks the pair that begins at symbol i anew. */
static void rank_pair(const tok_bpe *b, tok_work *w, uint32_t i, size_t n)
{
    uint32_t k = w->next[i];
    w->rank[i] = k < n ? pair_rank(b, w->id[i], w->id[k], &w->made[i]) : NO_RANK;
    if (w->rank[i] != NO_RANK)
        heap_push(w, (uint64_t)w->rank[i] << 32 | i);
}

static int merge_long(const tok_bpe *b, tok_work *w, size_t *n_symbols, hone_err *e)
{
    size_t n = *n_symbols, kept = 0;
    /* each symbol ranked once at the start; each merge takes one symbol away and ranks two pairs */
    int rc = tok_grow(&w->heap, &w->cap_heap, 3 * n, sizeof *w->heap, e);
    if (rc != 0)
        return rc;
    w->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        w->prev[i] = (uint32_t)i - 1;
        w->next[i] = (uint32_t)i + 1;
        w->rank[i] = i + 1 < n ? pair_rank(b, w->id[i], w->id[i + 1], &w->made[i]) : NO_RANK;
        if (w->rank[i] != NO_RANK)
            w->heap[w->n_heap++] = (uint64_t)w->rank[i] << 32 | i;
    }
    for (size_t i = w->n_heap / 2; i-- > 0;)
        sift_down(w->heap, w->n_heap, i);
    while (w->n_heap > 0) {
        uint64_t top = heap_pop(w);
        uint32_t i = (uint32_t)top, k = w->next[i];
        if (w->rank[i] != (uint32_t)(top >> 32))
            continue;
        w->id[i] = w->made[i];
        w->end[i] = w->end[k];
        w->rank[k] = NO_RANK;
        w->next[i] = w->next[k];
        if (w->next[i] < n)
            w->prev[w->next[i]] = i;
        rank_pair(b, w, i, n);
        if (i > 0)
            rank_pair(b, w, w->prev[i], n);
    }
    for (size_t i = 0; i < n; i = w->next[i]) {
        w->id[kept] = w->id[i];
        w->end[kept++] = w->end[i];
    }
    *n_symbols = kept;
    return 0;
}

/* ---- a word ---- */

/* The word as one piece of the vocabulary, -1 when it is none. Special tokens are found by
 * tok_added.c or not at all. */
static int32_t whole_word(tok_work *w, const tok_view *word)
{
    const tok_bpe *b = &w->t->bpe;
    const char *s = word->p;
    size_t len = word->len;
    if (b->byte_level || b->space_is_meta) {
        buf_reset(&w->piece);
        for (size_t i = 0; i < word->len; i++) {
            if (b->byte_level)
                buf_utf8(&w->piece, tok_byte_char((unsigned char)word->p[i]));
            else if (word->p[i] == ' ')
                buf_add(&w->piece, b->meta, b->meta_len);
            else
                buf_char(&w->piece, word->p[i]);
        }
        s = w->piece.data;
        len = w->piece.len;
    }
    int32_t id = model_piece(&w->t->vocab, s, len);
    return id >= 0 && (w->t->vocab.entry[id].flags & PIECE_SPECIAL) == 0 ? id : -1;
}

/* Leaves the ids of the word in w->id and their ends in w->end. */
static int merge_word(tok_work *w, const tok_view *word, size_t *n, hone_err *e)
{
    const tok_bpe *b = &w->t->bpe;
    int rc = grow_symbols(w, b->space_is_meta ? word->len * b->meta_len : word->len, e);
    if (rc != 0)
        return rc;
    if (b->ignore_merges && word->len <= TOK_MAX_PIECE) {
        int32_t id = whole_word(w, word);
        if (id >= 0) {
            w->id[0] = id;
            w->end[0] = (uint32_t)word->len;
            *n = 1;
            return 0;
        }
    }
    rc = b->byte_level ? byte_symbols(w, word, n, e) : char_symbols(w, word, n, e);
    if (rc == 0 && *n <= SHORT_WORD)
        *n = merge_short(b, w, *n);
    else if (rc == 0)
        rc = merge_long(b, w, n, e);
    return rc;
}

static int push_merged(tok_work *w, const tok_view *word, size_t n, hone_err *e)
{
    tok_ids *out = w->out;
    int rc = tok_ids_reserve(out, n, e);
    if (rc != 0)
        return rc;
    uint32_t from = 0;
    for (size_t i = 0; i < n; i++, out->n++) {
        uint32_t a = word->at + from, b = word->at + w->end[i];
        from = w->end[i];
        if (word->map != NULL)
            tok_map_range(word->map, &a, &b);
        out->id[out->n] = w->id[i];
        out->start[out->n] = a;
        out->end[out->n] = b;
    }
    return 0;
}

/* ---- words seen lately ---- */

static inline uint64_t load8(const char *s)
{
    uint64_t x;
    memcpy(&x, s, 8);
    return x;
}

/* 0 to 8 bytes as a number, without reading past them. */
static inline uint64_t load_part(const char *s, size_t n)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 8)
        return load8(s);
    if (n >= 4) {
        uint32_t lo, hi;
        memcpy(&lo, s, 4);
        memcpy(&hi, s + n - 4, 4);
        return lo | (uint64_t)hi << ((n - 4) * 8);
    }
    if (n == 0)
        return 0;
    return u[0] | (uint64_t)u[n / 2] << (n / 2 * 8) | (uint64_t)u[n - 1] << ((n - 1) * 8);
}

static inline size_t word_key(uint64_t key[3], const char *s, size_t n)
{
    key[1] = key[2] = 0;
    if (n <= 8) {
        key[0] = load_part(s, n);
    } else if (n <= 16) {
        key[0] = load8(s);
        key[1] = load_part(s + 8, n - 8);
    } else {
        key[0] = load8(s);
        key[1] = load8(s + 8);
        key[2] = load_part(s + 16, n - 16);
    }
    uint64_t h = key[0] * 0x9E3779B97F4A7C15U ^ key[1] * 0xC2B2AE3D27D4EB4FU ^
                 key[2] * 0x165667B19E3779F9U ^ n;
    h *= 0xD6E8FEB86659FD93U;
    return (size_t)(h >> 40) & (WORD_SLOTS - 1);
}

static void remember(tok_word *slot, const uint64_t key[3], size_t len, const tok_work *w, size_t n)
{
    if (n > WORD_IDS)
        return;
    memcpy(slot->key, key, sizeof slot->key);
    for (size_t i = 0; i < n; i++) {
        slot->id[i] = w->id[i];
        slot->end[i] = (uint8_t)w->end[i];
    }
    slot->len = (uint8_t)len;
    slot->n = (uint8_t)n;
}

static int push_known(tok_work *w, const tok_view *word, const tok_word *slot, hone_err *e)
{
    tok_ids *out = w->out;
    if (out->cap - out->n < WORD_IDS) {
        int rc = tok_ids_reserve(out, WORD_IDS, e);
        if (rc != 0)
            return rc;
    }
    uint32_t from = word->at;
    size_t k = out->n;
    for (size_t i = 0; i < slot->n; i++, k++) {
        uint32_t a = from, b = from = word->at + slot->end[i];
        if (word->map != NULL)
            tok_map_range(word->map, &a, &b);
        out->id[k] = slot->id[i];
        out->start[k] = a;
        out->end[k] = b;
    }
    out->n = k;
    return 0;
}

static int push_word(tok_work *w, const tok_view *word, hone_err *e)
{
    size_t n = 0;
    int rc;
    if (word->len > WORD_KEY) {
        rc = merge_word(w, word, &n, e);
        return rc == 0 ? push_merged(w, word, n, e) : rc;
    }
    uint64_t key[3];
    tok_word *slot = &w->words[word_key(key, word->p, word->len)];
    if (slot->len == word->len && slot->key[0] == key[0] && slot->key[1] == key[1] &&
        slot->key[2] == key[2])
        return push_known(w, word, slot, e);
    rc = merge_word(w, word, &n, e);
    if (rc != 0)
        return rc;
    remember(slot, key, word->len, w, n);
    return push_merged(w, word, n, e);
}

/* ---- cutting long words ---- */

/* Characters fall into 256 classes: the meta character, ASCII, and the rest by remainder. */
static inline unsigned class_at(const tok_bpe *b, const char *s, size_t *k)
{
    uint32_t cp;
    *k = 1;
    if (*s > 0)
        return *s == ' ' && b->space_is_meta ? 0 : (unsigned char)*s;
    *k = tok_cp(s, &cp);
    if (*k == b->meta_len && memcmp(s, b->meta, *k) == 0)
        return 0;
    return 128 + cp % 128;
}

void tok_bpe_join(tok_bpe *b, const char *left, size_t n_left, const char *right, size_t n_right)
{
    size_t k, last = n_left;
    if (n_left == 0 || n_right == 0)
        return;
    do {
        last--;
    } while (last > 0 && ((unsigned char)left[last] & 0xC0) == 0x80);
    unsigned from = class_at(b, left + last, &k), to = class_at(b, right, &k);
    b->joins[from][to / 64] |= (uint64_t)1 << to % 64;
}

/* A word that no pre-tokenizer has made short (SentencePiece models cut nothing) is cut where no
 * merge could ever join the two sides: each part then merges as it would in the whole, and most
 * parts have been seen before. */
static int push_cut_word(tok_work *w, const tok_view *word, hone_err *e)
{
    const tok_bpe *b = &w->t->bpe;
    tok_view part = *word;
    size_t from = 0, k;
    unsigned last = class_at(b, word->p, &k);
    for (size_t i = k; i <= word->len; i += k) {
        k = 1;
        unsigned class = i < word->len ? class_at(b, word->p + i, &k) : 0;
        bool joins = i < word->len && (b->joins[last][class / 64] >> class % 64 & 1) != 0;
        last = class;
        if (joins)
            continue;
        part.p = word->p + from;
        part.len = i - from;
        part.at = word->at + (uint32_t)from;
        from = i;
        int rc = push_word(w, &part, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int tok_bpe_word(tok_work *w, const tok_view *word, hone_err *e)
{
    return w->t->bpe.cut ? push_cut_word(w, word, e) : push_word(w, word, e);
}

/* ---- the alphabet of byte-level pieces ---- */

/* Bytes that print as one Latin-1 character stand for themselves; the other 68 become U+0100 and
 * on. */
static bool prints(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

uint32_t tok_byte_char(unsigned byte)
{
    if (prints(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xAD ? 0x143 : 0x121 + (byte - 0x7F);
}

int tok_char_byte(uint32_t cp)
{
    if (cp < 0x100)
        return prints(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

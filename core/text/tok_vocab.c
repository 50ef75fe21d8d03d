/* The vocabulary: id to piece by array, piece to id by open addressing. Written while a tokenizer
 * is loaded, read-only after. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

uint64_t tok_hash(const char *s, size_t len)
{
    uint64_t h = 0x9E3779B97F4A7C15U ^ len;
    while (len > 0) {
        uint64_t k = 0;
        size_t n = len < 8 ? len : 8;
        memcpy(&k, s, n);
        h = (h ^ k) * 0xD6E8FEB86659FD93U;
        h ^= h >> 32;
        s += n;
        len -= n;
    }
    return h;
}

int tok_vocab_init(tok_vocab *v, int32_t n_ids, size_t n_pieces, hone_err *e)
{
    size_t slots = 64;
    while (slots < n_pieces * 2)
        slots *= 2;
    v->text = arena_new();
    v->n = n_ids;
    v->mask = slots - 1;
    v->entry = mem_try_array((size_t)n_ids, sizeof *v->entry);
    v->slot = mem_try_array(slots, sizeof *v->slot);
    if (v->entry == NULL || v->slot == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for a vocabulary of %d ids", n_ids);
    memset(v->slot, 0xFF, slots * sizeof *v->slot);
    return 0;
}

void tok_vocab_free(tok_vocab *v)
{
    arena_free(v->text);
    free(v->entry);
    free(v->slot);
    *v = (tok_vocab){0};
}

/* The slot of the piece, or the free slot where it would go. */
static tok_slot *find_slot(const tok_vocab *v, const char *s, size_t len)
{
    uint64_t hash = tok_hash(s, len);
    for (size_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        tok_slot *slot = &v->slot[i];
        if (slot->id < 0)
            return slot;
        const tok_entry *p = &v->entry[slot->id];
        if (slot->hash == (uint32_t)(hash >> 32) && p->len == len && memcmp(p->s, s, len) == 0)
            return slot;
    }
}

int tok_vocab_add(tok_vocab *v, const char *s, size_t len, int64_t id, uint32_t flags, hone_err *e)
{
    if (len > TOK_MAX_PIECE)
        return hone_fail(e, HONE_ELIMIT, "piece of %zu bytes, at most %d are allowed", len,
                         TOK_MAX_PIECE);
    if (id < 0 || id >= v->n)
        return hone_fail(e, HONE_EFORMAT, "piece '%.60s' has id %lld, allowed are 0 to %d", s,
                         (long long)id, TOK_MAX_ID);
    tok_slot *slot = find_slot(v, s, len);
    if (slot->id >= 0 && slot->id != id)
        return hone_fail(e, HONE_EFORMAT, "piece '%.60s' has two ids, %d and %lld", s, slot->id,
                         (long long)id);
    tok_entry *p = &v->entry[id];
    if (slot->id < 0) {
        if (p->s != NULL)
            return hone_fail(e, HONE_EFORMAT, "id %lld has two pieces, '%.60s' and '%.60s'",
                             (long long)id, p->s, s);
        p->s = arena_strndup(v->text, s, len);
        p->len = (uint32_t)len;
        *slot = (tok_slot){(uint32_t)(tok_hash(s, len) >> 32), (int32_t)id};
    }
    p->flags |= flags;
    return 0;
}

int32_t tok_vocab_find(const tok_vocab *v, const char *s, size_t len)
{
    return find_slot(v, s, len)->id;
}

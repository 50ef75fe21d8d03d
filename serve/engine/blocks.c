/* Lanes: the paged cache of each loaded model, as a stack of free blocks. Blocks are taken when a
 * sequence grows and shared by the choices of a request as far as their prompt fills whole blocks.
 */
#include "core/base/mem.h"
#include "serve/engine/engine_int.h"

#include <stdlib.h>

lane *lane_for(engine *g, served *on)
{
    for (lane *l = g->lanes; l != NULL; l = l->next)
        if (l->on == on)
            return l;
    lane *l = mem_alloc(sizeof *l);
    l->on = on;
    served_retain(on);
    l->free_block = mem_array((size_t)on->n_blocks, sizeof *l->free_block);
    l->n_users = mem_array((size_t)on->n_blocks, sizeof *l->n_users);
    for (int64_t b = on->n_blocks; b > 0; b--)
        l->free_block[l->n_free++] = (int32_t)(b - 1);
    l->next = g->lanes;
    g->lanes = l;
    return l;
}

void lane_drop_idle(engine *g)
{
    pthread_mutex_lock(&g->lock);
    served *current = g->current, *beside = g->beside;
    pthread_mutex_unlock(&g->lock);
    for (lane **at = &g->lanes; *at != NULL;) {
        lane *l = *at;
        bool used = l->on == current || l->on == beside;
        for (seq *s = g->seqs; s != NULL && !used; s = s->next)
            used = s->owner->on == l->on;
        if (used) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        served_release(l->on);
        free(l->free_block);
        free(l->n_users);
        free(l);
    }
}

size_t lane_blocks_for(const lane *l, size_t n_tokens)
{
    size_t b = (size_t)l->on->block_tokens;
    return (n_tokens + b - 1) / b;
}

bool seq_reserve(seq *s, size_t n_tokens)
{
    lane *l = s->lane;
    size_t need = lane_blocks_for(l, n_tokens);
    if (need <= s->n_blocks)
        return true;
    if ((int64_t)(need - s->n_blocks) > l->n_free)
        return false;
    while (s->n_blocks < need) {
        int32_t b = l->free_block[--l->n_free];
        l->n_users[b] = 1;
        s->blocks[s->n_blocks++] = b;
    }
    return true;
}

void seq_release(seq *s)
{
    for (size_t i = 0; i < s->n_blocks; i++) {
        int32_t b = s->blocks[i];
        if (--s->lane->n_users[b] == 0)
            s->lane->free_block[s->lane->n_free++] = b;
    }
    s->n_blocks = 0;
    s->computed = 0;
}

void seq_share(seq *s, const seq *from, size_t n_tokens)
{
    size_t whole = n_tokens / (size_t)s->lane->on->block_tokens;
    for (size_t i = 0; i < whole; i++) {
        s->blocks[i] = from->blocks[i];
        s->lane->n_users[from->blocks[i]]++;
    }
    s->n_blocks = whole;
    s->computed = whole * (size_t)s->lane->on->block_tokens;
}

/* Added tokens: found in the text before anything else looks at it, the leftmost first and of those
 * the longest. A trie with a table for the first byte: most positions of most texts cost one look
 * at that table. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

static uint32_t node_new(tok_trie *trie, unsigned char byte)
{
    if (trie->n_node == 0)
        trie->n_node = 1;
    trie->node = mem_grow(trie->node, &trie->cap_node, trie->n_node + 1, sizeof *trie->node);
    trie->node[trie->n_node] = (tok_node){.added = -1, .byte = byte};
    return (uint32_t)trie->n_node++;
}

static uint32_t node_child(const tok_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t i = trie->node[node].child;
    while (i != 0 && trie->node[i].byte != byte)
        i = trie->node[i].sibling;
    return i;
}

int tok_trie_add(tok_trie *trie, const char *text, size_t len, tok_added added, hone_err *e)
{
    if (len == 0)
        return hone_fail(e, HONE_EFORMAT, "added token %d is empty", added.id);
    const unsigned char *s = (const unsigned char *)text;
    if (trie->n_added == 0)
        trie->only = s[0];
    else if (trie->only != s[0])
        trie->only = -1;
    if (trie->first[s[0]] == 0)
        trie->first[s[0]] = node_new(trie, s[0]);
    uint32_t at = trie->first[s[0]];
    for (size_t i = 1; i < len; i++) {
        uint32_t next = node_child(trie, at, s[i]);
        if (next == 0) {
            next = node_new(trie, s[i]);
            trie->node[next].sibling = trie->node[at].child;
            trie->node[at].child = next;
        }
        at = next;
    }
    trie->added = mem_grow(trie->added, &trie->cap_added, trie->n_added + 1, sizeof *trie->added);
    trie->added[trie->n_added] = added;
    trie->node[at].added = (int32_t)trie->n_added++;
    return 0;
}

void tok_trie_free(tok_trie *trie)
{
    free(trie->added);
    free(trie->node);
    *trie = (tok_trie){0};
}

/* The first match at or after `from`; NULL when there is none. */
static const tok_added *find(const tok_trie *trie, const char *text, size_t n, size_t from,
                             size_t *start, size_t *stop)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = from; i < n; i++) {
        if (trie->only >= 0) {
            const char *hit = memchr(text + i, trie->only, n - i);
            if (hit == NULL)
                return NULL;
            i = (size_t)(hit - text);
        }
        const tok_added *best = NULL;
        size_t k = i + 1;
        for (uint32_t at = trie->first[s[i]]; at != 0; at = node_child(trie, at, s[k++])) {
            if (trie->node[at].added >= 0) {
                best = &trie->added[trie->node[at].added];
                *stop = k;
            }
            if (k == n)
                break;
        }
        if (best != NULL) {
            *start = i;
            return best;
        }
    }
    return NULL;
}

/* The start of the character that ends at s[end]. */
static size_t char_before(const char *s, size_t end)
{
    do {
        end--;
    } while (end > 0 && ((unsigned char)s[end] & 0xC0) == 0x80);
    return end;
}

static bool stands_alone(const tok_view *v, size_t start, size_t stop)
{
    uint32_t cp;
    if (start > 0 && (tok_cp(v->p + char_before(v->p, start), &cp), tok_is_word(cp)))
        return false;
    return stop == v->len || (tok_cp(v->p + stop, &cp), !tok_is_word(cp));
}

/* The start of the spaces that end at s[end], not before `from`. */
static size_t spaces_before(const char *s, size_t from, size_t end)
{
    while (end > from) {
        uint32_t cp;
        size_t at = char_before(s, end);
        tok_cp(s + at, &cp);
        if (!tok_is_space(cp))
            break;
        end = at;
    }
    return end;
}

static size_t spaces_after(const char *s, size_t n, size_t from)
{
    while (from < n) {
        uint32_t cp;
        size_t k = tok_cp(s + from, &cp);
        if (!tok_is_space(cp))
            break;
        from += k;
    }
    return from;
}

static int push_token(tok_work *w, const tok_view *view, int32_t id, size_t start, size_t stop,
                      hone_err *e)
{
    uint32_t a = view->at + (uint32_t)start, b = view->at + (uint32_t)stop;
    tok_map_range(view->map, &a, &b);
    return tok_ids_push(w->out, id, a, b, e);
}

static int push_text(tok_work *w, const tok_view *view, size_t start, size_t stop,
                     int (*text)(tok_work *w, const tok_view *view, hone_err *e), hone_err *e)
{
    if (start >= stop)
        return 0;
    tok_view part = {view->p + start, stop - start, view->map, view->at + (uint32_t)start};
    return text(w, &part, e);
}

/* A token of spaces inside the spaces that the one before it took is found again: so does Hugging
 * Face. */
int tok_trie_split(const tok_trie *trie, tok_work *w, const tok_view *view,
                   int (*text)(tok_work *w, const tok_view *view, hone_err *e), hone_err *e)
{
    size_t done = 0, from = 0, start = 0, stop = 0;
    const tok_added *hit;
    int rc = 0;
    while (rc == 0 && trie->n_added > 0 &&
           (hit = find(trie, view->p, view->len, from, &start, &stop)) != NULL) {
        from = stop;
        if ((hit->special && (w->flags & TOK_NO_PARSE_SPECIAL) != 0) ||
            (hit->single_word && !stands_alone(view, start, stop)))
            continue;
        if (hit->lstrip)
            start = start < done ? done : spaces_before(view->p, done, start);
        if (hit->rstrip)
            stop = spaces_after(view->p, view->len, stop);
        if (start >= stop)
            continue;
        rc = push_text(w, view, done, start, text, e);
        if (rc == 0)
            rc = push_token(w, view, hit->id, start, stop, e);
        done = stop;
    }
    return rc != 0 ? rc : push_text(w, view, done, view->len, text, e);
}

/* Patterns of scripts: whatever pattern and text are, matching ends within its steps, reads nothing
 * beyond them, and finds captures that lie in the text. The first byte of the input is the length
 * of the pattern. */
#include "lua/pattern.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 20000 };

static bool more(pattern_match *m)
{
    (void)m;
    return false;
}

static void check(const pattern_match *m, const char *at, const char *to)
{
    FUZZ_CHECK(to >= at && to <= m->end);
    for (int i = 0; i < m->p->n_captures; i++) {
        const pattern_span *c = &m->captures[i];
        FUZZ_CHECK(c->at >= m->start && c->at <= m->end);
        FUZZ_CHECK(c->len == PATTERN_POSITION || (c->len >= 0 && c->len <= m->end - c->at));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t len = data[0] < size ? data[0] : size - 1, rest = size - 1 - len;
    /* Copies of their own, so that a byte too far is seen. */
    char *text = malloc(len + 1), *subject = malloc(rest + 1);
    pattern_item *items = calloc(len + 1, sizeof *items);
    pattern_back *stack = calloc(len + 1, sizeof *stack);
    FUZZ_CHECK(text != NULL && subject != NULL && items != NULL && stack != NULL);
    memcpy(text, data + 1, len);
    memcpy(subject, data + 1 + len, rest);
    text[len] = subject[rest] = '\0';
    pattern p;
    if (pattern_read(&p, text, len, items) == NULL) {
        pattern_match m = {.p = &p,
                           .start = subject,
                           .end = subject + rest,
                           .stack = stack,
                           .more = more,
                           .left = STEPS};
        FUZZ_CHECK(p.n <= len && p.n_captures <= PATTERN_MAX_CAPTURES);
        for (size_t i = 0; i <= rest && !m.given_up; i++) {
            const char *to = pattern_run(&m, subject + i);
            if (to != NULL)
                check(&m, subject + i, to);
        }
    }
    free(text);
    free(subject);
    free(items);
    free(stack);
    return 0;
}

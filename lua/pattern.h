#pragma once
/* Lua's patterns (find, match, gmatch, gsub), matched with a count of the work: the library's own
 * matcher backtracks for hours where no hook is asked. A pattern is a list of items without
 * alternation, so that a stack of one entry an item is enough to backtrack; nothing recurses and
 * nothing is allocated. Source: the Lua 5.4 manual, section 6.4.1; bytes, in the C locale.
 *
 * A malformed pattern is refused as a whole, where the library only complains when it comes to the
 * mistake. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_MAX_CAPTURES = 32, PATTERN_MAX_LEN = 1 << 16 };

/* Lengths that say what a capture is. */
enum { PATTERN_POSITION = -2 };

typedef struct pattern_span {
    const char *at;
    ptrdiff_t len; /* or PATTERN_POSITION */
} pattern_span;

typedef struct pattern_item { /* private */
    uint8_t op, kind, a, b;
    uint32_t from, to; /* of a set, in the text */
} pattern_item;

typedef struct pattern_back { /* private: where to go on when the rest does not match */
    uint32_t item;
    bool greedy;
    const char *s, *low;
} pattern_back;

typedef struct pattern {
    const char *text;    /* borrowed */
    pattern_item *items; /* borrowed */
    size_t n;
    int n_captures;
} pattern;

/* Reads the text (without the '^' of an anchor) into items, of which there is room for len. NULL,
 * or what is wrong with it. */
const char *pattern_read(pattern *p, const char *text, size_t len, pattern_item *items);

typedef struct pattern_match {
    const pattern *p;
    const char *start, *end; /* the subject */
    pattern_back *stack;     /* room for p->n entries */
    /* Called when `left` steps are done; it adds to left and returns true, or false to give up. It
     * may also never return. */
    bool (*more)(struct pattern_match *m);
    void *user;
    int64_t left;
    bool given_up;
    pattern_span captures[PATTERN_MAX_CAPTURES];
} pattern_match;

/* The end of the match that begins at `at`, or NULL. A step is an item or a character looked at. */
const char *pattern_run(pattern_match *m, const char *at);

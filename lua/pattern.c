#include "lua/pattern.h"

#include <string.h>

enum { ONE, OPTIONAL, MANY, SOME, FEW, OPEN, CLOSE, POSITION, BALANCE, FRONTIER, AGAIN, END };
enum { CHAR, ANY, CLASS, SET, OTHER_THAN_SET };

/* ---- characters ---- */

static bool is_lower(uint8_t c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(uint8_t c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_graph(uint8_t c)
{
    return c > ' ' && c < 0x7f;
}

static bool is_alnum(uint8_t c)
{
    return is_lower(c) || is_upper(c) || is_digit(c);
}

/* Does c belong to the class of this letter? Another letter than these stands for itself. */
static bool in_class(uint8_t letter, uint8_t c)
{
    bool in;
    switch (letter | 0x20) {
    case 'a':
        in = is_lower(c) || is_upper(c);
        break;
    case 'c':
        in = c < ' ' || c == 0x7f;
        break;
    case 'd':
        in = is_digit(c);
        break;
    case 'g':
        in = is_graph(c);
        break;
    case 'l':
        in = is_lower(c);
        break;
    case 'p':
        in = is_graph(c) && !is_alnum(c);
        break;
    case 's':
        in = c == ' ' || (c >= '\t' && c <= '\r');
        break;
    case 'u':
        in = is_upper(c);
        break;
    case 'w':
        in = is_alnum(c);
        break;
    case 'x':
        in = is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
        break;
    case 'z':
        in = c == 0;
        break;
    default:
        return letter == c;
    }
    return in != is_upper(letter);
}

static bool in_set(const pattern *p, const pattern_item *it, uint8_t c)
{
    const uint8_t *t = (const uint8_t *)p->text;
    for (uint32_t i = it->from; i < it->to;) {
        if (t[i] == '%') {
            if (in_class(t[i + 1], c))
                return true;
            i += 2;
        } else if (t[i + 1] == '-' && i + 2 < it->to) {
            if (t[i] <= c && c <= t[i + 2])
                return true;
            i += 3;
        } else if (t[i++] == c) {
            return true;
        }
    }
    return false;
}

static bool matches(const pattern *p, const pattern_item *it, uint8_t c)
{
    switch (it->kind) {
    case CHAR:
        return it->a == c;
    case ANY:
        return true;
    case CLASS:
        return in_class(it->a, c);
    case SET:
        return in_set(p, it, c);
    default:
        return !in_set(p, it, c);
    }
}

/* ---- reading ---- */

typedef struct reader {
    pattern *p;
    const char *text;
    size_t i, len;
    int open[PATTERN_MAX_CAPTURES], n_open;
    bool closed[PATTERN_MAX_CAPTURES];
} reader;

/* Reads a set; i stands at its '['. */
static const char *read_set(reader *r, pattern_item *it)
{
    size_t i = r->i + 1;
    it->kind = SET;
    if (i < r->len && r->text[i] == '^') {
        it->kind = OTHER_THAN_SET;
        i++;
    }
    it->from = (uint32_t)i;
    do { /* the first character is one of the set, even if it is a ']' */
        if (i >= r->len)
            return "malformed pattern (missing ']')";
        i += r->text[i] == '%' && i + 1 < r->len ? 2 : 1;
    } while (i >= r->len || r->text[i] != ']');
    it->to = (uint32_t)i;
    r->i = i + 1;
    return NULL;
}

/* One character, class or set. */
static const char *read_single(reader *r, pattern_item *it)
{
    char c = r->text[r->i];
    if (c == '[')
        return read_set(r, it);
    if (c == '%' && r->i + 1 == r->len)
        return "malformed pattern (ends with '%')";
    it->kind = c == '.' ? ANY : c == '%' ? CLASS : CHAR;
    it->a = (uint8_t)(c == '%' ? r->text[r->i + 1] : c);
    r->i += c == '%' ? 2 : 1;
    return NULL;
}

static const char *read_repeated(reader *r, pattern_item *it)
{
    static const char signs[] = "?*+-";
    const char *why = read_single(r, it), *sign;
    it->op = ONE;
    if (why != NULL || r->i >= r->len || r->text[r->i] == '\0')
        return why;
    sign = strchr(signs, r->text[r->i]);
    if (sign != NULL) {
        it->op = (uint8_t)(OPTIONAL + (sign - signs));
        r->i++;
    }
    return NULL;
}

static const char *read_open(reader *r, pattern_item *it)
{
    bool position = r->i + 1 < r->len && r->text[r->i + 1] == ')';
    int k = r->p->n_captures;
    if (k == PATTERN_MAX_CAPTURES)
        return "too many captures";
    it->op = position ? POSITION : OPEN;
    it->a = (uint8_t)k;
    r->closed[k] = position;
    if (!position)
        r->open[r->n_open++] = k;
    r->p->n_captures++;
    r->i += position ? 2 : 1;
    return NULL;
}

static const char *read_close(reader *r, pattern_item *it)
{
    if (r->n_open == 0)
        return "invalid pattern capture";
    it->op = CLOSE;
    it->a = (uint8_t)r->open[--r->n_open];
    r->closed[it->a] = true;
    r->i++;
    return NULL;
}

/* What follows a '%' and is no class. */
static const char *read_escape(reader *r, pattern_item *it, char c)
{
    if (c == 'b') {
        if (r->i + 3 >= r->len)
            return "malformed pattern (missing arguments to '%b')";
        *it = (pattern_item){
            .op = BALANCE, .a = (uint8_t)r->text[r->i + 2], .b = (uint8_t)r->text[r->i + 3]};
        r->i += 4;
        return NULL;
    }
    if (c == 'f') {
        r->i += 2;
        if (r->i >= r->len || r->text[r->i] != '[')
            return "missing '[' after '%f' in pattern";
        it->op = FRONTIER;
        return read_set(r, it);
    }
    int k = c - '1';
    if (k < 0 || k >= r->p->n_captures || !r->closed[k])
        return "invalid capture index in pattern";
    it->op = AGAIN;
    it->a = (uint8_t)k;
    r->i += 2;
    return NULL;
}

static const char *read_item(reader *r, pattern_item *it)
{
    char c = r->text[r->i], next = r->i + 1 < r->len ? r->text[r->i + 1] : '\0';
    *it = (pattern_item){0};
    if (c == '(')
        return read_open(r, it);
    if (c == ')')
        return read_close(r, it);
    if (c == '$' && r->i + 1 == r->len) {
        it->op = END;
        r->i++;
        return NULL;
    }
    if (c == '%' && (next == 'b' || next == 'f' || is_digit((uint8_t)next)))
        return read_escape(r, it, next);
    return read_repeated(r, it);
}

const char *pattern_read(pattern *p, const char *text, size_t len, pattern_item *items)
{
    reader r = {.p = p, .text = text, .len = len};
    *p = (pattern){.text = text, .items = items};
    if (len > PATTERN_MAX_LEN)
        return "the pattern is too long";
    while (r.i < len) {
        const char *why = read_item(&r, &items[p->n++]);
        if (why != NULL)
            return why;
    }
    return r.n_open != 0 ? "unfinished capture" : NULL;
}

/* ---- matching ---- */

typedef struct run {
    pattern_match *m;
    const pattern *p;
    const char *s;
    uint32_t i;
    size_t top; /* of the stack */
} run;

static bool spend(pattern_match *m, size_t steps)
{
    m->left -= (int64_t)steps;
    while (m->left < 0 && !m->given_up)
        if (!m->more(m))
            m->given_up = true;
    return !m->given_up;
}

/* Is there a character that the item takes at s? */
static bool takes(const run *r, const pattern_item *it, const char *s)
{
    return s < r->m->end && matches(r->p, it, (uint8_t)*s);
}

/* What looking at one character costs. */
static size_t price(const pattern_item *it)
{
    return 1 + (it->to - it->from) / 8;
}

static void push(run *r, bool greedy, uint32_t item, const char *s, const char *low)
{
    r->m->stack[r->top++] = (pattern_back){item, greedy, s, low};
}

static bool run_one(run *r, const pattern_item *it)
{
    if (!takes(r, it, r->s))
        return false;
    r->s++;
    return true;
}

static bool run_optional(run *r, const pattern_item *it)
{
    if (takes(r, it, r->s)) {
        push(r, true, r->i + 1, r->s + 1, r->s);
        r->s++;
    }
    return true;
}

/* Takes all that there are; one less each time the rest does not match. */
static bool run_many(run *r, const pattern_item *it)
{
    const char *s = r->s, *low = r->s + (it->op == SOME);
    while (takes(r, it, s))
        s++;
    if (!spend(r->m, (size_t)(s - r->s) * price(it)) || s < low)
        return false;
    if (s > low)
        push(r, true, r->i + 1, s, low);
    r->s = s;
    return true;
}

/* Takes none; one more each time the rest does not match. */
static bool run_few(run *r, const pattern_item *it)
{
    (void)it;
    push(r, false, r->i, r->s, NULL);
    return true;
}

static bool run_open(run *r, const pattern_item *it)
{
    r->m->captures[it->a] = (pattern_span){r->s, 0};
    return true;
}

static bool run_close(run *r, const pattern_item *it)
{
    pattern_span *c = &r->m->captures[it->a];
    c->len = r->s - c->at;
    return true;
}

static bool run_position(run *r, const pattern_item *it)
{
    r->m->captures[it->a] = (pattern_span){r->s, PATTERN_POSITION};
    return true;
}

static bool run_balance(run *r, const pattern_item *it)
{
    const char *s = r->s;
    size_t depth = 1;
    if (s >= r->m->end || (uint8_t)*s != it->a)
        return false;
    while (++s < r->m->end) {
        if ((uint8_t)*s == it->b && --depth == 0)
            break;
        if ((uint8_t)*s == it->a && it->a != it->b)
            depth++;
    }
    if (!spend(r->m, (size_t)(s - r->s)) || s >= r->m->end)
        return false;
    r->s = s + 1;
    return true;
}

static bool run_frontier(run *r, const pattern_item *it)
{
    uint8_t before = r->s == r->m->start ? 0 : (uint8_t)r->s[-1];
    uint8_t after = r->s == r->m->end ? 0 : (uint8_t)*r->s;
    return !matches(r->p, it, before) && matches(r->p, it, after);
}

static bool run_again(run *r, const pattern_item *it)
{
    const pattern_span *c = &r->m->captures[it->a];
    if (c->len == PATTERN_POSITION || r->m->end - r->s < c->len ||
        memcmp(c->at, r->s, (size_t)c->len) != 0 || !spend(r->m, (size_t)c->len / 8))
        return false;
    r->s += c->len;
    return true;
}

static bool run_end(run *r, const pattern_item *it)
{
    (void)it;
    return r->s == r->m->end;
}

/* clang-format off */
static bool (*const ops[])(run *, const pattern_item *) = {
    [ONE] = run_one, [OPTIONAL] = run_optional, [MANY] = run_many, [SOME] = run_many,
    [FEW] = run_few, [OPEN] = run_open, [CLOSE] = run_close, [POSITION] = run_position,
    [BALANCE] = run_balance, [FRONTIER] = run_frontier, [AGAIN] = run_again, [END] = run_end,
};
/* clang-format on */

/* Goes back to the last choice that has another way out. */
static bool back(run *r)
{
    while (r->top > 0) {
        pattern_back *b = &r->m->stack[r->top - 1];
        if (b->greedy) {
            r->s = --b->s;
            r->i = b->item;
            if (b->s == b->low)
                r->top--;
            return true;
        }
        const pattern_item *it = &r->p->items[b->item];
        if (!spend(r->m, price(it)))
            return false;
        if (takes(r, it, b->s)) {
            r->s = ++b->s;
            r->i = b->item + 1;
            return true;
        }
        r->top--;
    }
    return false;
}

const char *pattern_run(pattern_match *m, const char *at)
{
    run r = {.m = m, .p = m->p, .s = at};
    while (r.i < r.p->n) {
        const pattern_item *it = &r.p->items[r.i];
        if (!spend(m, price(it)))
            return NULL;
        if (ops[it->op](&r, it))
            r.i++;
        else if (m->given_up || !back(&r))
            return NULL;
    }
    return r.s;
}

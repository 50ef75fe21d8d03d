/* Template text to tokens, by the rules of Jinja 3.1 with trim_blocks, lstrip_blocks and no
 * trailing newline. Text between tags, the insides of raw blocks and unescaped strings are copied
 * only where they change. */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    arena *mem;
    const char *p; /* the source with newlines normalised */
    size_t n, at;
    int line;
    bool line_starting; /* the last match ended with a newline, or nothing was matched yet */
    jtoken *tok;
    size_t n_tok, cap_tok;
    char open[JINJA_MAX_NEST]; /* brackets that are open inside a tag: what closes them */
    size_t n_open;
    hone_err *e;
} lexer;

static int fail(lexer *x, const char *what)
{
    return hone_fail(x->e, HONE_EFORMAT, "template: line %d: %s", x->line, what);
}

static jtoken *push(lexer *x, jtok_kind kind, const char *p, size_t n)
{
    if (x->n_tok == x->cap_tok) {
        size_t cap = x->cap_tok * 2;
        jtoken *v = arena_alloc(x->mem, cap * sizeof *v);
        memcpy(v, x->tok, x->n_tok * sizeof *v);
        x->tok = v;
        x->cap_tok = cap;
    }
    jtoken *t = &x->tok[x->n_tok++];
    *t = (jtoken){.kind = kind, .line = x->line, .p = p, .n = n};
    return t;
}

static void advance(lexer *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x->line += x->p[x->at + i] == '\n';
    if (n > 0)
        x->line_starting = x->p[x->at + n - 1] == '\n';
    x->at += n;
}

static bool looking_at(const lexer *x, size_t at, const char *text)
{
    size_t n = strlen(text);
    return x->n - at >= n && memcmp(x->p + at, text, n) == 0;
}

static size_t skip_space(const lexer *x, size_t at)
{
    return at + jchar_skip_space(x->p + at, x->n - at);
}

/* Length of a tag's end at `at` ("%}", "-%}", "+%}") with the white space that it takes along; 0:
 * not here. A block or comment takes one newline; a sign at a print tag is only '-'. */
static size_t tag_end(const lexer *x, size_t at, const char *end, bool trim)
{
    size_t i = at;
    char sign = x->p[i];
    if (sign == '-' || (sign == '+' && trim))
        i++;
    else
        sign = 0;
    if (i >= x->n || !looking_at(x, i, end))
        return 0;
    i += 2;
    if (sign == '-')
        i = skip_space(x, i);
    else if (sign == 0 && trim && i < x->n && x->p[i] == '\n')
        i++;
    return i - at;
}

/* Matches a "{%", a sign, the word and the end of a raw or endraw tag at `at`; 0: not here. */
static size_t raw_tag(const lexer *x, size_t at, const char *word, bool trim)
{
    size_t i = at + 2;
    if (!looking_at(x, at, "{%"))
        return 0;
    if (i < x->n && (x->p[i] == '-' || x->p[i] == '+'))
        i++;
    i = skip_space(x, i);
    if (i >= x->n || !looking_at(x, i, word))
        return 0;
    i = skip_space(x, i + strlen(word));
    if (i >= x->n)
        return 0;
    if (!trim) { /* the begin takes no newline and has no plus */
        size_t dash = x->p[i] == '-';
        if (!looking_at(x, i + dash, "%}"))
            return 0;
        i += dash + 2;
        return (dash ? skip_space(x, i) : i) - at;
    }
    size_t end = tag_end(x, i, "%}", true);
    return end == 0 ? 0 : i + end - at;
}

/* The text [x->at, to) before a tag whose sign is `sign` (0: none), as a token. */
static void push_data(lexer *x, size_t to, char sign, bool print)
{
    const char *p = x->p + x->at;
    size_t n = to - x->at;
    if (sign == '-') {
        n -= jchar_space_before(p, n);
    } else if (sign != '+' && !print) {
        size_t line = n;
        while (line > 0 && p[line - 1] != '\n')
            line--;
        if ((line > 0 || x->line_starting) && jchar_skip_space(p + line, n - line) == n - line)
            n = line;
    }
    if (n > 0)
        push(x, T_DATA, p, n);
    advance(x, to - x->at);
}

static size_t hex_value(const char *p, size_t n, uint32_t *out)
{
    size_t i = 0;
    *out = 0;
    for (; i < n; i++) {
        char c = p[i];
        uint32_t d;
        if (c >= '0' && c <= '9')
            d = (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (uint32_t)((c | 32) - 'a') + 10;
        else
            break;
        *out = *out * 16 + d;
    }
    return i;
}

static size_t put_utf8(char *dst, uint32_t c)
{
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        dst[i] = (char)(0x80 | (c & 0x3F));
    dst[0] = (char)(lead[n] | c);
    return n;
}

/* \x41 é \U0001F600; at p: the letter. Returns the bytes read, 0 after an error. */
static size_t hex_escape(lexer *x, const char *p, size_t n, uint32_t *c)
{
    size_t digits = p[0] == 'x' ? 2 : p[0] == 'u' ? 4 : 8;
    if (n < 1 + digits || hex_value(p + 1, digits, c) != digits) {
        hone_fail(x->e, HONE_EFORMAT, "template: line %d: string with a truncated \\%c escape",
                  x->line, p[0]);
        return 0;
    }
    if (*c > 0x10FFFF || (*c >= 0xD800 && *c <= 0xDFFF)) {
        hone_fail(x->e, HONE_EUNSUPPORTED,
                  "template: line %d: string with \\%c%.*s, which is not a character", x->line,
                  p[0], (int)digits, p + 1);
        return 0;
    }
    return 1 + digits;
}

static size_t octal_escape(const char *p, size_t n, uint32_t *c)
{
    size_t i = 0;
    for (*c = 0; i < 3 && i < n && p[i] >= '0' && p[i] <= '7'; i++)
        *c = *c * 8 + (uint32_t)(p[i] - '0');
    return i;
}

static const char simple_escapes[] = "n\nt\tr\rb\bf\fa\av\v\\\\''\"\"";

/* What follows a backslash at p. Writes to dst and sets *used; returns bytes written or SIZE_MAX
 * after an error. */
static size_t unescape_one(lexer *x, const char *p, size_t n, char *dst, size_t *used)
{
    for (const char *s = simple_escapes; *s != '\0'; s += 2)
        if (*p == s[0]) {
            *used = 1;
            dst[0] = s[1];
            return 1;
        }
    uint32_t c;
    if (*p == '\n') {
        *used = 1;
        return 0;
    }
    if (*p == 'x' || *p == 'u' || *p == 'U') {
        *used = hex_escape(x, p, n, &c);
        return *used == 0 ? SIZE_MAX : put_utf8(dst, c);
    }
    if (*p >= '0' && *p <= '7') {
        *used = octal_escape(p, n, &c);
        return put_utf8(dst, c);
    }
    if (*p == 'N' || (unsigned char)*p >= 0x80) {
        hone_fail(x->e, HONE_EUNSUPPORTED,
                  "template: line %d: a backslash before %s in a string is not supported", x->line,
                  *p == 'N' ? "N" : "a character that is not ASCII");
        return SIZE_MAX;
    }
    *used = 0; /* an unknown escape stays as it is */
    dst[0] = '\\';
    return 1;
}

static int lex_string(lexer *x)
{
    char quote = x->p[x->at];
    size_t end = x->at + 1;
    while (end < x->n && x->p[end] != quote)
        end += x->p[end] == '\\' ? 2 : 1;
    if (end >= x->n)
        return fail(x, "string without an end");
    const char *p = x->p + x->at + 1;
    size_t n = end - x->at - 1, len = n;
    if (memchr(p, '\\', n) != NULL) {
        char *dst = arena_alloc(x->mem, n + 1);
        len = 0;
        for (size_t i = 0; i < n;) {
            if (p[i] != '\\') {
                dst[len++] = p[i++];
                continue;
            }
            size_t used, put = unescape_one(x, p + i + 1, n - i - 1, dst + len, &used);
            if (put == SIZE_MAX)
                return x->e == NULL ? HONE_EFORMAT : x->e->code;
            len += put;
            i += 1 + used;
        }
        p = dst;
    }
    push(x, T_STRING, p, len);
    advance(x, end + 1 - x->at);
    return 0;
}

/* Digits with single underscores between them, copied to dst without. */
static size_t digits(const char *p, size_t n, char *dst, size_t *len, size_t cap)
{
    size_t i = 0;
    while (i < n) {
        size_t gap = i > 0 && p[i] == '_';
        if (i + gap >= n || p[i + gap] < '0' || p[i + gap] > '9')
            break;
        if (*len < cap)
            dst[(*len)++] = p[i + gap];
        i += gap + 1;
    }
    return i;
}

enum { NUMBER_MAX = 128 };

static size_t lex_float(lexer *x, double *out)
{
    const char *p = x->p + x->at;
    size_t n = x->n - x->at, len = 0;
    char text[NUMBER_MAX + 1];
    if (x->at > 0 && p[-1] == '.')
        return 0;
    size_t i = digits(p, n, text, &len, NUMBER_MAX);
    bool real = false;
    if (i + 1 < n && p[i] == '.' && p[i + 1] >= '0' && p[i + 1] <= '9' && len < NUMBER_MAX) {
        text[len++] = '.';
        i += 1 + digits(p + i + 1, n - i - 1, text, &len, NUMBER_MAX);
        real = true;
    }
    if (i < n && (p[i] | 32) == 'e') {
        size_t sign = i + 1 < n && (p[i + 1] == '+' || p[i + 1] == '-');
        size_t at = i + 1 + sign, mark = len;
        if (len + 2 < NUMBER_MAX) {
            text[len++] = 'e';
            if (sign)
                text[len++] = p[i + 1];
        }
        size_t exponent = at < n ? digits(p + at, n - at, text, &len, NUMBER_MAX) : 0;
        if (exponent > 0) {
            i = at + exponent;
            real = true;
        } else {
            len = mark;
        }
    }
    if (!real)
        return 0;
    text[len] = '\0';
    *out = strtod(text, NULL);
    return i;
}

static int lex_number(lexer *x)
{
    double f;
    size_t used = lex_float(x, &f);
    if (used > 0) {
        push(x, T_FLOAT, x->p + x->at, used)->f = f;
        advance(x, used);
        return 0;
    }
    const char *p = x->p + x->at;
    size_t n = x->n - x->at, len = 0;
    char text[NUMBER_MAX + 1];
    int64_t v = 0;
    if (n > 1 && p[0] == '0' && strchr("bBoOxX", p[1]) != NULL)
        return hone_fail(x->e, HONE_EUNSUPPORTED,
                         "template: line %d: a number like 0%c1 is not supported", x->line, p[1]);
    used = p[0] == '0' ? 1 : digits(p, n, text, &len, NUMBER_MAX);
    text[len] = '\0';
    errno = 0;
    if (len > 0)
        v = strtoll(text, NULL, 10);
    if (errno != 0 || len == NUMBER_MAX)
        return hone_fail(x->e, HONE_ELIMIT, "template: line %d: integer beyond 64 bits", x->line);
    push(x, T_INT, p, used)->i = v;
    advance(x, used);
    return 0;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static const char *const operators[] = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";",
};

static int balance(lexer *x, char c)
{
    static const char pairs[] = "{}()[]";
    const char *at = strchr(pairs, c);
    if (at == NULL)
        return 0;
    if ((at - pairs) % 2 == 0) {
        if (x->n_open == sizeof x->open)
            return hone_fail(x->e, HONE_ELIMIT, "template: line %d: nests deeper than %d", x->line,
                             JINJA_MAX_NEST);
        x->open[x->n_open++] = at[1];
        return 0;
    }
    if (x->n_open == 0)
        return hone_fail(x->e, HONE_EFORMAT, "template: line %d: unexpected '%c'", x->line, c);
    char want = x->open[--x->n_open];
    if (want != c)
        return hone_fail(x->e, HONE_EFORMAT, "template: line %d: unexpected '%c', expected '%c'",
                         x->line, c, want);
    return 0;
}

static int lex_operator(lexer *x)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!looking_at(x, x->at, operators[i]))
            continue;
        int rc = balance(x, operators[i][0]);
        if (rc != 0)
            return rc;
        push(x, T_OP, operators[i], strlen(operators[i]));
        advance(x, strlen(operators[i]));
        return 0;
    }
    return hone_fail(x->e, HONE_EFORMAT, "template: line %d: unexpected character '%c'", x->line,
                     x->p[x->at]);
}

/* The inside of a print or block tag, up to and with its end. */
static int lex_tag(lexer *x, bool print)
{
    const char *end = print ? "}}" : "%}";
    x->n_open = 0;
    while (x->at < x->n) {
        size_t close = x->n_open == 0 ? tag_end(x, x->at, end, !print) : 0;
        if (close > 0) {
            push(x, print ? T_PRINT_END : T_BLOCK_END, end, 2);
            advance(x, close);
            return 0;
        }
        size_t space = skip_space(x, x->at) - x->at;
        if (space > 0) {
            advance(x, space);
            continue;
        }
        char c = x->p[x->at];
        int rc = 0;
        if (c >= '0' && c <= '9') {
            rc = lex_number(x);
        } else if (name_char(c)) {
            size_t n = 1;
            while (x->at + n < x->n && name_char(x->p[x->at + n]) &&
                   jchar_skip_space(x->p + x->at + n, x->n - x->at - n) == 0)
                n++;
            push(x, T_NAME, x->p + x->at, n);
            advance(x, n);
        } else if (c == '\'' || c == '"') {
            rc = lex_string(x);
        } else {
            rc = lex_operator(x);
        }
        if (rc != 0)
            return rc;
    }
    return 0; /* the parser says what is missing */
}

static int lex_comment(lexer *x)
{
    for (size_t i = x->at; i < x->n; i++) {
        size_t end = tag_end(x, i, "#}", true);
        if (end > 0) {
            advance(x, i + end - x->at);
            return 0;
        }
    }
    return fail(x, "comment without an end");
}

static int lex_raw(lexer *x)
{
    for (size_t i = x->at; i < x->n; i++) {
        size_t end = raw_tag(x, i, "endraw", true);
        if (end > 0) {
            char sign = x->p[i + 2];
            push_data(x, i, sign, false);
            advance(x, end);
            return 0;
        }
    }
    return fail(x, "raw block without {% endraw %}");
}

/* One piece of text and the tag after it. */
static int lex_root(lexer *x)
{
    size_t i = x->at;
    while (i + 1 < x->n &&
           (x->p[i] != '{' || strchr("%{#", x->p[i + 1]) == NULL || x->p[i + 1] == '\0'))
        i++;
    if (i + 1 >= x->n) {
        push(x, T_DATA, x->p + x->at, x->n - x->at);
        advance(x, x->n - x->at);
        return 0;
    }
    char kind = x->p[i + 1], sign = i + 2 < x->n ? x->p[i + 2] : 0;
    bool has_sign = sign == '-' || sign == '+';
    size_t raw = raw_tag(x, i, "raw", false);
    push_data(x, i, has_sign ? sign : 0, kind == '{');
    if (raw > 0) {
        advance(x, raw);
        return lex_raw(x);
    }
    if (kind != '#')
        push(x, kind == '{' ? T_PRINT_BEGIN : T_BLOCK_BEGIN, x->p + i, 2);
    advance(x, 2 + (size_t)has_sign);
    return kind == '#' ? lex_comment(x) : lex_tag(x, kind == '{');
}

/* \r\n and \r become \n; one newline at the end goes. */
static char *normalise(arena *mem, const char *src, size_t n, size_t *out)
{
    char *p = arena_alloc(mem, n + 1);
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r' && i + 1 < n && src[i + 1] == '\n')
            continue;
        p[len++] = src[i] == '\r' ? '\n' : src[i];
    }
    if (len > 0 && p[len - 1] == '\n')
        len--;
    *out = len;
    return p;
}

int jlex(arena *mem, const char *src, size_t n, jtoken **out, size_t *n_out, hone_err *e)
{
    lexer x = {.mem = mem, .line = 1, .line_starting = true, .e = e, .cap_tok = 256};
    x.p = normalise(mem, src, n, &x.n);
    x.tok = arena_alloc(mem, x.cap_tok * sizeof *x.tok);
    while (x.at < x.n) {
        int rc = lex_root(&x);
        if (rc != 0)
            return rc;
    }
    push(&x, T_EOF, "", 0);
    *out = x.tok;
    *n_out = x.n_tok;
    return 0;
}

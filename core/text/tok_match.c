/* Patterns of tokenizer.json: literals, character classes and regular expressions. Hugging Face
 * runs the expressions with Oniguruma, we with PCRE2; where the two read a construct differently it
 * is rewritten here, and what cannot be rewritten is refused. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 10000000, HEAP_LIMIT_KIB = 1 << 16, DEPTH_LIMIT = 100000 };

/* White_Space and \w as Oniguruma has them: PCRE2 counts U+180E as a space, and no marks as word
 * characters. */
#define SPACES                                                                                     \
    "\\t-\\r \\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACES                                                                                 \
    "\\x00-\\x08\\x0E-\\x1F!-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-\\x{1FFF}"           \
    "\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"                 \
    "\\x{3001}-\\x{D7FF}\\x{E000}-\\x{10FFFF}"
#define WORDS                                                                                      \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-"                              \
    "\\x{1F149}"                                                                                   \
    "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"

/* Outside a class Oniguruma's \w has the superscripts and fractions of Latin-1 too. */
#define WORD "[" WORDS "\\xB2\\xB3\\xB9\\xBC-\\xBE]"
#define NOT_WORD "[^" WORDS "\\xB2\\xB3\\xB9\\xBC-\\xBE]"

typedef struct reader {
    const char *p, *end;
    buf out;
    bool in_class;
} reader;

static int refuse(const char *what, size_t len, hone_err *e)
{
    return hone_fail(e, HONE_EUNSUPPORTED, "pattern construct '%.*s' is not supported", (int)len,
                     what);
}

/* \p{...} and \x{...}: copied as they stand. */
static int copy_braced(reader *r, hone_err *e)
{
    const char *start = r->p;
    const char *close = memchr(start, '}', (size_t)(r->end - start));
    if (r->end - start < 3 || start[2] != '{' || close == NULL)
        return refuse(start, 2, e);
    r->p = close + 1;
    buf_add(&r->out, start, (size_t)(r->p - start));
    return 0;
}

/* r->p stands on a backslash. */
static int escape(reader *r, hone_err *e)
{
    static const struct {
        char c;
        const char *outside, *in_class;
    } rewritten[] = {
        {'s', "[" SPACES "]", SPACES},
        {'S', "[^" SPACES "]", NOT_SPACES},
        {'w', WORD, WORDS},
        {'W', NOT_WORD, NULL},
        {'v', "\\x0B", "\\x0B"},
        {'h', "[0-9A-Fa-f]", "0-9A-Fa-f"},
    };
    if (r->end - r->p < 2)
        return refuse(r->p, 1, e);
    char c = r->p[1];
    if (c == 'p' || c == 'P' || c == 'x')
        return copy_braced(r, e);
    for (size_t i = 0; i < sizeof rewritten / sizeof rewritten[0]; i++) {
        const char *text = r->in_class ? rewritten[i].in_class : rewritten[i].outside;
        if (rewritten[i].c != c || text == NULL)
            continue;
        buf_str(&r->out, text);
        r->p += 2;
        return 0;
    }
    bool plain = strchr("rntdD", c) != NULL || (!r->in_class && strchr("Az", c) != NULL);
    bool symbol = c > 0 && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    if (!plain && !symbol)
        return refuse(r->p, 2, e);
    buf_add(&r->out, r->p, 2);
    r->p += 2;
    return 0;
}

/* r->p stands on the '[' that opens a class. */
static int class(reader *r, hone_err *e)
{
    size_t opened = r->p + 1 < r->end && r->p[1] == '^' ? 2 : 1;
    buf_add(&r->out, r->p, opened);
    r->p += opened;
    if (r->p < r->end && *r->p == ']') /* the two disagree on an empty class */
        return refuse("[]", 2, e);
    r->in_class = true;
    while (r->p < r->end && *r->p != ']') {
        size_t left = (size_t)(r->end - r->p);
        if (*r->p == '[' || (left > 1 && memcmp(r->p, "&&", 2) == 0)) /* sets inside sets */
            return refuse(r->p, left < 2 ? left : 2, e);
        if (*r->p == '\\') {
            int rc = escape(r, e);
            if (rc != 0)
                return rc;
        } else {
            buf_char(&r->out, *r->p++);
        }
    }
    r->in_class = false;
    if (r->p == r->end)
        return hone_fail(e, HONE_EFORMAT, "pattern has a '[' that is not closed");
    buf_char(&r->out, *r->p++);
    return 0;
}

/* r->p stands on '('. */
static int group(reader *r, hone_err *e)
{
    static const char *const openings[] = {"(?:",  "(?i:", "(?-i:", "(?=", "(?!",
                                           "(?<=", "(?<!", "(?>",   NULL};
    size_t left = (size_t)(r->end - r->p), n = 1;
    if (left > 1 && r->p[1] == '?') {
        size_t i = 0;
        while (openings[i] != NULL &&
               (left < strlen(openings[i]) || memcmp(r->p, openings[i], strlen(openings[i])) != 0))
            i++;
        if (openings[i] == NULL)
            return refuse(r->p, left < 4 ? left : 4, e);
        n = strlen(openings[i]);
    }
    buf_add(&r->out, r->p, n);
    r->p += n;
    return 0;
}

/* In Oniguruma's Ruby syntax ^ and $ are line anchors, + and ? after {n,m} repeat it, and {,m}
 * counts from 0. */
static int translate(reader *r, hone_err *e)
{
    while (r->p < r->end) {
        int rc = 0;
        char c = *r->p;
        if (c == '\\')
            rc = escape(r, e);
        else if (c == '[')
            rc = class(r, e);
        else if (c == '(')
            rc = group(r, e);
        else if (c == '^' || c == '$')
            rc = refuse(r->p, 1, e);
        else if (r->end - r->p > 1 && (memcmp(r->p, "}+", 2) == 0 || memcmp(r->p, "}?", 2) == 0 ||
                                       memcmp(r->p, "{,", 2) == 0))
            rc = refuse(r->p, 2, e);
        else
            buf_char(&r->out, *r->p++);
        if (rc != 0)
            return rc;
    }
    return buf_check(&r->out, "pattern", e);
}

static int compile(tok_match *m, const buf *pattern, hone_err *e)
{
    int code, rc = 0;
    PCRE2_SIZE at;
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    if (cc == NULL)
        return hone_fail(e, HONE_ENOMEM, "no memory for a pattern");
    pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(cc, 100);
    m->code = pcre2_compile((PCRE2_SPTR)pattern->data, pattern->len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, cc);
    if (m->code == NULL) {
        char why[160];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        rc = hone_fail(e, HONE_EUNSUPPORTED, "pattern: %s", why);
    } else {
        uint32_t empty = 0;
        pcre2_pattern_info(m->code, PCRE2_INFO_MATCHEMPTY, &empty);
        if (empty != 0)
            rc = hone_fail(e, HONE_EUNSUPPORTED, "a pattern that matches nothing is not supported");
        pcre2_jit_compile(m->code, PCRE2_JIT_COMPLETE); /* without JIT it is slow, not wrong */
    }
    pcre2_compile_context_free(cc);
    return rc;
}

int tok_match_regex(tok_match *m, const char *pattern, size_t len, bool scan, hone_err *e)
{
    *m = (tok_match){0};
    if (len == 0 || len > TOK_MAX_PATTERN)
        return hone_fail(e, HONE_EFORMAT, "pattern of %zu bytes, allowed are 1 to %d", len,
                         TOK_MAX_PATTERN);
    if (scan && strlen(pattern) == len)
        m->scan = tok_scan_find(pattern);
    if (m->scan != NULL)
        return 0;
    reader r = {.p = pattern, .end = pattern + len};
    buf_init(&r.out, (size_t)TOK_MAX_PATTERN * 64);
    int rc = translate(&r, e);
    if (rc == 0)
        rc = compile(m, &r.out, e);
    buf_free(&r.out);
    return rc == 0 ? 0 : hone_fail_at(e, "Regex '%.200s'", pattern);
}

int tok_match_literal(tok_match *m, const char *text, size_t len, hone_err *e)
{
    *m = (tok_match){0};
    if (len == 0)
        return hone_fail(e, HONE_EFORMAT, "pattern of 0 bytes");
    m->literal = mem_strndup(text, len);
    m->literal_len = len;
    return 0;
}

int tok_match_load(tok_match *m, const json_t *pattern, hone_err *e)
{
    static const char *const keys[] = {"String", "Regex", NULL};
    *m = (tok_match){0};
    if (!json_is_object(pattern) || json_object_size(pattern) != 1)
        return hone_fail(e, HONE_EFORMAT,
                         "field 'pattern' is not {\"String\": ...} or "
                         "{\"Regex\": ...}");
    int rc = js_only_keys(pattern, keys, e);
    if (rc != 0)
        return hone_fail_at(e, "field 'pattern'");
    const json_t *literal = json_object_get(pattern, "String");
    const json_t *text = literal != NULL ? literal : json_object_get(pattern, "Regex");
    if (!json_is_string(text))
        return hone_fail(e, HONE_EFORMAT, "field 'pattern' is not a string");
    const char *s = json_string_value(text);
    size_t len = json_string_length(text);
    return literal != NULL ? tok_match_literal(m, s, len, e) : tok_match_regex(m, s, len, true, e);
}

void tok_match_free(tok_match *m)
{
    pcre2_code_free(m->code);
    free(m->literal);
    *m = (tok_match){0};
}

static int next_regex(const tok_match *m, pcre2_match_data *data, const char *s, size_t n,
                      size_t from, size_t *a, size_t *b, hone_err *e)
{
    pcre2_match_context *mc = NULL;
    uint32_t flags = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(m->code, (PCRE2_SPTR)s, n, from, flags, data, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT || rc == PCRE2_ERROR_MATCHLIMIT) {
        /* rare and slow: the interpreter keeps its state on the heap */
        mc = pcre2_match_context_create(NULL);
        if (mc == NULL)
            return hone_fail(e, HONE_ENOMEM, "no memory for a pattern");
        pcre2_set_match_limit(mc, MATCH_LIMIT);
        pcre2_set_depth_limit(mc, DEPTH_LIMIT);
        pcre2_set_heap_limit(mc, HEAP_LIMIT_KIB);
        rc = pcre2_match(m->code, (PCRE2_SPTR)s, n, from, flags | PCRE2_NO_JIT, data, mc);
        pcre2_match_context_free(mc);
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        char why[160];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return hone_fail(e, HONE_ELIMIT, "the pattern of tokenizer.json gives up: %s", why);
    }
    const PCRE2_SIZE *pair = pcre2_get_ovector_pointer(data);
    *a = pair[0];
    *b = pair[1];
    return 1;
}

static int next_in_class(const tok_match *m, const char *s, size_t n, size_t from, size_t *a,
                         size_t *b)
{
    uint32_t cp;
    size_t i = from, k = 0;
    while (i < n && (k = tok_cp(s + i, &cp), !m->in_class(cp)))
        i += k;
    if (i == n)
        return 0;
    *a = i;
    i += k;
    while (m->runs && i < n && (k = tok_cp(s + i, &cp), m->in_class(cp)))
        i += k;
    *b = i;
    return 1;
}

int tok_match_next(const tok_match *m, pcre2_match_data *data, const char *s, size_t n, size_t from,
                   size_t *a, size_t *b, hone_err *e)
{
    if (from >= n)
        return 0;
    if (m->scan != NULL) {
        *a = from;
        *b = from + m->scan(s + from, n - from);
        return 1;
    }
    if (m->in_class != NULL)
        return next_in_class(m, s, n, from, a, b);
    if (m->code != NULL)
        return next_regex(m, data, s, n, from, a, b, e);
    const char *hit = memmem(s + from, n - from, m->literal, m->literal_len);
    if (hit == NULL)
        return 0;
    *a = (size_t)(hit - s);
    *b = *a + m->literal_len;
    return 1;
}

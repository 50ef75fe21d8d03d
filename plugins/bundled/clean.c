/* Cleans the Unicode of texts: UTF-8 that was once read as CP1252 or Latin-1 is read again, line
 * ends become LF, controls, byte order marks and invisible characters go, what is left is in NFC.
 *
 * A sequence of characters is read again only where all of it is one valid character of UTF-8 and
 * it is strong evidence (three or four characters, or a C2 or C3 before a Latin-1 character), or
 * stands beside another: "CAFE..." with an accent on its E and an ellipsis stays. Linear; each text
 * is looked at a fixed number of times. */
#include <hone_plugin.h>

#include <stdlib.h>
#include <utf8proc.h>

enum { MAX_PASSES = 3, MAX_MARKS = 32 };

typedef struct clean {
    int mojibake, line_ends, controls, remove, nfc;
} clean;

typedef struct text {
    char *s; /* memory of the call */
    size_t n;
} text;

/* Bytes 0x80 to 0x9f of CP1252; 0 where it has none, and the byte stands for itself. */
static const uint16_t cp1252[32] = {0x20AC, 0,      0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                    0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0,      0x017D, 0,
                                    0,      0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
                                    0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0,      0x017E, 0x0178};

/* The byte that was read as this character, or 0. */
static unsigned byte_of(uint32_t c)
{
    if (c >= 0x80 && c <= 0xff)
        return c;
    for (unsigned i = 0; c > 0xff && i < 32; i++)
        if (cp1252[i] == c)
            return 0x80 + i;
    return 0;
}

static size_t put_utf8(char *out, uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

/* ---- mojibake ---- */

/* One character that was read as several. */
typedef struct sequence {
    size_t len; /* bytes of the text that it takes; 0: none begins here */
    uint32_t c;
    int strong;
} sequence;

/* Quotes, dashes and the ellipsis of CP1252: what may follow a capital in a word of capitals. */
static int closes(unsigned b)
{
    return b == 0x85 || b == 0x8b || (b >= 0x91 && b <= 0x97) || b == 0x9b || b == 0xab ||
           b == 0xbb;
}

static sequence read_again(const char *s, size_t n, char before)
{
    sequence none = {0, 0, 0};
    char bytes[4];
    uint32_t c = 0, got;
    size_t at = hone_utf8_next(s, n, &c);
    unsigned b = byte_of(c);
    size_t want = b >= 0xc2 && b <= 0xdf   ? 2
                  : b >= 0xe0 && b <= 0xef ? 3
                  : b >= 0xf0 && b <= 0xf4 ? 4
                                           : 0;
    bytes[0] = (char)b;
    for (size_t i = 1; i < want; i++) {
        if (at >= n)
            return none;
        at += hone_utf8_next(s + at, n - at, &c);
        unsigned next = byte_of(c);
        if (next < 0x80 || next > 0xbf)
            return none;
        bytes[i] = (char)next;
    }
    if (want == 0 || hone_utf8_next(bytes, want, &got) != want)
        return none;
    int shouted = before >= 'A' && before <= 'Z' && closes((unsigned char)bytes[1]);
    return (sequence){at, got, want > 2 || (b <= 0xc3 && !shouted)};
}

/* The end of a run of sequences that begins at i, and whether it is to be read again. */
static size_t run_end(const text *t, size_t i, int *bad)
{
    int n = 0, strong = 0;
    char before = i > 0 ? t->s[i - 1] : ' ';
    for (;;) {
        sequence q = i < t->n ? read_again(t->s + i, t->n - i, before) : (sequence){0, 0, 0};
        if (q.len == 0)
            break;
        n++;
        strong |= q.strong;
        i += q.len;
        before = ' ';
    }
    *bad = strong || n > 1;
    return i;
}

/* Is there strong evidence, and no character beyond ASCII but in sequences? Then weak ones count.
 */
static int is_whole(const text *t)
{
    int strong = 0;
    for (size_t i = 0; i < t->n;) {
        if ((unsigned char)t->s[i] < 0x80) {
            i++;
            continue;
        }
        sequence q = read_again(t->s + i, t->n - i, i > 0 ? t->s[i - 1] : ' ');
        if (q.len == 0)
            return 0;
        strong |= q.strong;
        i += q.len;
    }
    return strong;
}

/* Into out (as long as t), or only counted where out is NULL. Returns the runs read again. */
static size_t repair(const text *t, text *out)
{
    size_t n = 0;
    int whole = is_whole(t);
    if (out != NULL)
        out->n = 0;
    for (size_t i = 0; i < t->n;) {
        int bad = 0;
        size_t end = (unsigned char)t->s[i] >= 0xc2 ? run_end(t, i, &bad) : i;
        bad |= whole && end > i;
        n += (size_t)bad;
        if (!bad) {
            uint32_t c;
            end = end > i ? end : i + hone_utf8_next(t->s + i, t->n - i, &c);
            if (out != NULL)
                memcpy(out->s + out->n, t->s + i, end - i);
            if (out != NULL)
                out->n += end - i;
        } else if (out != NULL) {
            for (size_t k = i; k < end;) {
                sequence q = read_again(t->s + k, t->n - k, ' ');
                out->n += put_utf8(out->s + out->n, q.c);
                k += q.len;
            }
        }
        i = end;
    }
    return n;
}

/* ---- characters that go ---- */

static int is_control(uint32_t c)
{
    return (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7f && c <= 0x9f) || c == 0xFEFF;
}

/* Zero width, bidirectional controls, tags. Joiners are looked at in their place. */
static int is_invisible(uint32_t c)
{
    return c == 0x00AD || c == 0x200B || c == 0x200E || c == 0x200F || c == 0x061C || c == 0x180E ||
           (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE007F);
}

/* What a pass over the text has met. */
typedef struct counts {
    size_t line_ends, controls, invisible;
} counts;

/* Is the joiner c at home here: between two characters beyond ASCII, as in Persian, Hindi, emoji?
 */
static int joins(uint32_t before, const char *s, size_t n)
{
    return before >= 0x300 && n > 0 && (unsigned char)*s >= 0x80;
}

static void drop_chars(const clean *k, const text *t, text *out, counts *x)
{
    uint32_t before = 0;
    int flag = 0; /* tags after U+1F3F4 spell a flag */
    out->n = 0;
    for (size_t i = 0, len; i < t->n; i += len) {
        uint32_t c = 0;
        len = hone_utf8_next(t->s + i, t->n - i, &c);
        int crlf = c == '\r' && i + 1 < t->n && t->s[i + 1] == '\n';
        int tagged = flag && c >= 0xE0020 && c <= 0xE007F;
        int joiner = c == 0x200C || c == 0x200D;
        flag = c == 0x1F3F4 || tagged;
        if (c == '\r' && k->line_ends) {
            x->line_ends++;
            if (!crlf)
                out->s[out->n++] = '\n';
            continue;
        }
        if (is_control(c) && k->controls && c != '\r') {
            x->controls++;
            continue;
        }
        if ((is_invisible(c) && !tagged) ||
            (joiner && !joins(before, t->s + i + len, t->n - i - len))) {
            x->invisible++;
            if (k->remove)
                continue;
        }
        memcpy(out->s + out->n, t->s + i, len);
        out->n += len;
        before = c;
    }
}

/* ---- NFC ---- */

/* Everything below U+0300 is in NFC. Sorting marks is quadratic in their number, and no language
 * has this many on one letter: such a text stays as it is. */
static int needs_nfc(const text *t)
{
    int wide = 0, run = 0;
    for (size_t i = 0; i < t->n;) {
        uint32_t c = (unsigned char)t->s[i];
        i += c < 0x80 ? 1 : hone_utf8_next(t->s + i, t->n - i, &c);
        wide |= c >= 0x300;
        run = c >= 0x300 && utf8proc_get_property((utf8proc_int32_t)c)->combining_class != 0
                  ? run + 1
                  : 0;
        if (run > MAX_MARKS)
            return 0;
    }
    return wide;
}

/* 1: changed. The result is of the call. */
static int compose(const hone_host *h, hone_call *call, text *t)
{
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)t->s, (utf8proc_ssize_t)t->n, &made,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    int changed = n >= 0 && ((size_t)n != t->n || memcmp(made, t->s, t->n) != 0);
    char *copy = changed ? h->alloc(call, (size_t)n + 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, made, (size_t)n);
        t->s = copy;
        t->n = (size_t)n;
    }
    free(made);
    return copy != NULL;
}

/* ---- the hooks ---- */

static int is_plain(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && ((s[i] >= ' ' && s[i] != 0x7f) || s[i] == '\n' || s[i] == '\t'))
        i++;
    return i == n;
}

static void count(const hone_host *h, hone_call *call, const char *name, size_t n)
{
    if (n > 0)
        h->count(call->ctx, name, (double)n);
}

static int normalize(const hone_host *h, hone_call *call, void *user)
{
    const clean *k = user;
    text t, out;
    counts x = {0, 0, 0};
    const char *given = hone_get_string(h, call->data, "text", &t.n);
    size_t len = t.n, passes = 0, runs;
    if (given == NULL || is_plain(given, t.n))
        return HONE_CONTINUE;
    t.s = h->alloc(call, t.n + 1);
    out.s = h->alloc(call, t.n + 1);
    if (t.s == NULL || out.s == NULL)
        return h->error(call, "a text of %lu bytes is too long", (unsigned long)len);
    memcpy(t.s, given, t.n);
    while (k->mojibake && passes < MAX_PASSES && (runs = repair(&t, &out)) > 0) {
        if (repair(&out, NULL) >= runs && passes > 0)
            break; /* it gets no better */
        count(h, call, "mojibake", runs);
        text swap = t;
        t = out;
        out = swap;
        passes++;
    }
    drop_chars(k, &t, &out, &x);
    count(h, call, "line_ends", x.line_ends);
    count(h, call, "controls", x.controls);
    count(h, call, k->remove ? "invisible" : "invisible_kept", x.invisible);
    if (k->nfc && needs_nfc(&out))
        count(h, call, "nfc", (size_t)compose(h, call, &out));
    if (out.n == len && memcmp(out.s, given, len) == 0)
        return HONE_CONTINUE;
    h->count(call->ctx, "texts_changed", 1);
    hone_set_string(h, call, call->data, "text", out.s, out.n);
    return HONE_MODIFIED;
}

/* Where invisible characters stay, a tag says how many there are. */
static int tag(const hone_host *h, hone_call *call, void *user)
{
    const clean *k = user;
    counts x = {0, 0, 0};
    hone_text t = {0};
    while (hone_text_next(h, h->get(call->data, "record"), &t)) {
        text in = {(char *)(uintptr_t)t.text, t.len}, out = {h->alloc(call, t.len + 1), 0};
        if (out.s == NULL)
            return h->error(call, "a text of %lu bytes is too long", (unsigned long)t.len);
        drop_chars(k, &in, &out, &x);
    }
    if (x.invisible == 0)
        return HONE_CONTINUE;
    h->set(call, h->get(call->data, "tags"), "invisible", h->new_int(call, (int64_t)x.invisible));
    return HONE_MODIFIED;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    clean *k = calloc(1, sizeof *k);
    if (k == NULL)
        return h->init_error(cx, "no memory");
    k->mojibake = h->boolean(h->get(s, "mojibake"), 1);
    k->line_ends = h->boolean(h->get(s, "line_ends"), 1);
    k->controls = h->boolean(h->get(s, "controls"), 1);
    k->nfc = h->boolean(h->get(s, "nfc"), 1);
    k->remove = strcmp(hone_get_string(h, s, "invisible", NULL), "remove") == 0;
    int rc = h->on(cx, "data.normalize", -10, normalize, k); /* before who looks for words */
    if (rc == 0 && !k->remove)
        rc = h->on(cx, "data.tag", 0, tag, k);
    if (rc != 0)
        free(k);
    else
        h->set_state(cx, k);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    free(h->state(cx));
}

static const hone_setting settings[] = {
    {"mojibake", HONE_SET_BOOL, 0, "true", 0, 0, NULL,
     "UTF-8 read as CP1252 or Latin-1 is read again"},
    {"line_ends", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "CR LF and CR become LF"},
    {"controls", HONE_SET_BOOL, 0, "true", 0, 0, NULL,
     "take out C0 and C1 controls but tab and LF, and byte order marks"},
    {"invisible", HONE_SET_ENUM, 0, "remove", 0, 0, "remove|tag",
     "zero-width characters, bidirectional controls, tag characters: take out, or leave and tag"},
    {"nfc", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "canonical composition (NFC)"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, 0),
    "clean",
    "1.0.0",
    "Apache-2.0",
    "repairs mojibake, takes out controls and invisible characters, composes",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

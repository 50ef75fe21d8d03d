/* Ids to text. Every decoder of the listed families is a few steps on the text of one token, then
 * bytes that are put together to characters, then perhaps a space less at the start; so one stream
 * serves both the whole and the piecewise decode, and the two cannot differ. */
#include "core/text/tok_int.h"

#include "core/base/mem.h"
#include "core/base/utf8.h"

#include <stdlib.h>
#include <string.h>

struct tok_stream {
    const tok *t;
    bool skip_special;
    size_t n;       /* tokens so far */
    unsigned strip; /* characters that may still go from the start */
    bool by_byte;   /* the bytes in `part` came from byte fallback */
    size_t n_part;
    char part[4]; /* bytes of a character that is not complete */
    buf a, b;     /* text of one token, from one step to the next */
};

/* ---- putting bytes together ---- */

static void put_text(tok_stream *s, const char *text, size_t len, buf *out)
{
    const char *strip = s->t->dec.strip;
    size_t k = strip != NULL ? strlen(strip) : 0;
    while (strip != NULL && s->strip > 0 && len >= k && memcmp(text, strip, k) == 0) {
        s->strip--;
        text += k;
        len -= k;
    }
    if (len > 0) {
        s->strip = 0;
        buf_add(out, text, len);
    }
}

static void put_broken(tok_stream *s, size_t times, buf *out)
{
    while (times-- > 0)
        put_text(s, "\xEF\xBF\xBD", 3, out);
}

/* The kept bytes will not become a character. A byte-level decoder marks the whole beginning of one
 * once; byte fallback marks each byte, as Hugging Face does, but unlike there the whole characters
 * of a run of such bytes stay: a stream has shown them already. */
static void drop_part(tok_stream *s, buf *out)
{
    if (s->n_part > 0)
        put_broken(s, s->by_byte ? s->n_part : 1, out);
    s->n_part = 0;
}

static void put_byte(tok_stream *s, char c, buf *out)
{
    uint32_t cp;
    s->part[s->n_part++] = c;
    while (s->n_part > 0) {
        if (utf8_next(s->part, s->n_part, &cp) == s->n_part) {
            put_text(s, s->part, s->n_part, out);
            s->n_part = 0;
        } else if (utf8_partial(s->part, s->n_part) == s->n_part) {
            return;
        } else { /* the last byte does not continue the others */
            char last = s->part[--s->n_part];
            if (s->n_part == 0) {
                put_broken(s, 1, out);
                return;
            }
            drop_part(s, out);
            s->part[s->n_part++] = last;
        }
    }
}

static void put_bytes(tok_stream *s, const char *p, size_t n, buf *out)
{
    while (n > 0) {
        size_t k = s->n_part == 0 ? utf8_valid(p, n) : 0;
        put_text(s, p, k, out);
        if (k == 0)
            put_byte(s, p[k++], out);
        p += k;
        n -= k;
    }
}

/* ---- one token ---- */

/* "<0xNN>" as a byte, -1 for anything else. */
static int fallback_byte(const char *s, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    int value = 0;
    for (size_t i = 3; i < 5; i++) {
        char low = s[i] >= 'A' && s[i] <= 'F' ? (char)(s[i] | 0x20) : s[i];
        const char *d = low == '\0' ? NULL : strchr(digits, low);
        if (d == NULL)
            return -1;
        value = value * 16 + (int)(d - digits);
    }
    return value;
}

static void replace(const tok_dec_op *op, const buf *in, buf *out, bool drop)
{
    size_t k = strlen(op->from), done = 0;
    const char *hit;
    while ((hit = memmem(in->data + done, in->len - done, op->from, k)) != NULL) {
        size_t at = (size_t)(hit - in->data);
        buf_add(out, in->data + done, at - done);
        if (!drop)
            buf_str(out, op->to);
        done = at + k;
    }
    buf_add(out, in->data + done, in->len - done);
}

static void strip(const tok_dec_op *op, const buf *in, buf *out)
{
    size_t k = strlen(op->strip), a = 0, b = in->len;
    for (unsigned i = 0; i < op->start && b - a >= k && memcmp(in->data + a, op->strip, k) == 0;
         i++)
        a += k;
    for (unsigned i = 0; i < op->stop && b - a >= k && memcmp(in->data + b - k, op->strip, k) == 0;
         i++)
        b -= k;
    buf_add(out, in->data + a, b - a);
}

/* Runs the steps on s->a and leaves the text there; *byte is what byte fallback made of it, or -1.
 */
static void run_ops(tok_stream *s, bool first, int *byte)
{
    const tok_decs *d = &s->t->dec;
    *byte = -1;
    for (size_t i = 0; i < d->n; i++) {
        const tok_dec_op *op = &d->op[i];
        if (op->kind == DEC_FALLBACK) {
            *byte = fallback_byte(s->a.data, s->a.len);
            return;
        }
        buf_reset(&s->b);
        if (op->kind == DEC_STRIP)
            strip(op, &s->a, &s->b);
        else
            replace(op, &s->a, &s->b, op->kind == DEC_META && op->drop_first && first);
        buf swap = s->a;
        s->a = s->b;
        s->b = swap;
    }
}

/* The bytes that a byte-level piece stands for; a piece with other characters stands for itself. */
static void byte_level(buf *piece)
{
    size_t n = 0;
    uint32_t cp;
    for (size_t i = 0; i < piece->len; i += tok_cp(piece->data + i, &cp)) {
        tok_cp(piece->data + i, &cp);
        if (tok_char_byte(cp) < 0)
            return;
    }
    for (size_t i = 0; i < piece->len;) {
        i += tok_cp(piece->data + i, &cp);
        piece->data[n++] = (char)tok_char_byte(cp);
    }
    piece->len = n;
}

static int load_piece(tok_stream *s, int32_t id, hone_err *e)
{
    size_t len;
    const char *p = tok_piece(s->t, id, &len);
    if (p == NULL)
        return hone_fail(e, HONE_EINVAL, "id %d is not in the vocabulary", id);
    buf_reset(&s->a);
    buf_add(&s->a, p, len);
    return 0;
}

int tok_stream_push(tok_stream *s, int32_t id, buf *out, hone_err *e)
{
    const tok_decs *d = &s->t->dec;
    int byte, rc = load_piece(s, id, e);
    if (rc != 0 || (s->skip_special && tok_is_special(s->t, id)))
        return rc;
    if (d->spaces && s->n > 0)
        put_text(s, " ", 1, out);
    run_ops(s, s->n == 0, &byte);
    s->n++;
    if (byte >= 0) {
        s->by_byte = true;
        put_byte(s, (char)byte, out);
    } else {
        if (s->by_byte)
            drop_part(s, out);
        s->by_byte = false;
        if (d->byte_level)
            byte_level(&s->a);
        put_bytes(s, s->a.data, s->a.len, out);
    }
    rc = buf_check(&s->a, "decoded token", e);
    return rc == 0 ? buf_check(out, "decoded text", e) : rc;
}

int tok_stream_end(tok_stream *s, buf *out)
{
    drop_part(s, out);
    s->n = 0;
    s->strip = s->t->dec.strip_n;
    s->by_byte = false;
    return out->failed ? HONE_ELIMIT : 0;
}

static void stream_init(tok_stream *s, const tok *t, bool skip_special)
{
    *s = (tok_stream){.t = t, .skip_special = skip_special, .strip = t->dec.strip_n};
    buf_init(&s->a, (size_t)TOK_MAX_PIECE * 256);
    buf_init(&s->b, (size_t)TOK_MAX_PIECE * 256);
}

static void stream_done(tok_stream *s)
{
    buf_free(&s->a);
    buf_free(&s->b);
}

tok_stream *tok_stream_new(const tok *t, bool skip_special)
{
    tok_stream *s = mem_alloc(sizeof *s);
    stream_init(s, t, skip_special);
    return s;
}

void tok_stream_free(tok_stream *s)
{
    if (s == NULL)
        return;
    stream_done(s);
    free(s);
}

int tok_decode(const tok *t, const int32_t *ids, size_t n, bool skip_special, buf *out, hone_err *e)
{
    tok_stream s;
    int rc = 0;
    stream_init(&s, t, skip_special);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = tok_stream_push(&s, ids[i], out, e);
    if (rc == 0 && tok_stream_end(&s, out) != 0)
        rc = buf_check(out, "decoded text", e);
    stream_done(&s);
    return rc;
}

int tok_token_bytes(const tok *t, int32_t id, buf *out, hone_err *e)
{
    tok_stream s;
    int byte = -1;
    stream_init(&s, t, false);
    int rc = load_piece(&s, id, e);
    if (rc == 0)
        run_ops(&s, false, &byte);
    if (rc == 0 && byte >= 0) {
        buf_char(out, (char)byte);
    } else if (rc == 0) {
        if (t->dec.byte_level)
            byte_level(&s.a);
        buf_add(out, s.a.data, s.a.len);
    }
    if (rc == 0)
        rc = buf_check(&s.a, "decoded token", e);
    if (rc == 0)
        rc = buf_check(out, "decoded token", e);
    stream_done(&s);
    return rc;
}

/* ---- loading ---- */

static int load_strip(tok_decs *d, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "content", "start", "stop", NULL};
    const char *content = NULL;
    int64_t start = 0, stop = 0;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "content", &content, e);
    if (rc == 0)
        rc = js_get_int(o, "start", &start, e);
    if (rc == 0)
        rc = js_get_int(o, "stop", &stop, e);
    if (rc != 0)
        return rc;
    uint32_t cp;
    if (content[0] == '\0' || content[tok_cp(content, &cp)] != '\0' || start < 0 || stop < 0 ||
        start > 1000 || stop > 1000)
        return hone_fail(e, HONE_EFORMAT, "content '%.20s', start %lld, stop %lld are not allowed",
                         content, (long long)start, (long long)stop);
    if (d->fused) {
        if (stop != 0 || d->strip != NULL)
            return hone_fail(e, HONE_EUNSUPPORTED, "at the end of a text it is not supported");
        d->strip = mem_strdup(content);
        d->strip_n = (unsigned)start;
        return 0;
    }
    d->op[d->n++] = (tok_dec_op){.kind = DEC_STRIP,
                                 .strip = mem_strdup(content),
                                 .start = (unsigned)start,
                                 .stop = (unsigned)stop};
    return 0;
}

static int load_replace(tok_decs *d, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    const char *from = NULL, *to = NULL;
    int rc = js_only_keys(o, keys, e);
    if (rc == 0)
        rc = js_get_str(o, "content", &to, e);
    if (rc == 0 && json_object_get(json_object_get(o, "pattern"), "Regex") != NULL)
        rc = hone_fail(e, HONE_EUNSUPPORTED, "a Regex is not supported here");
    if (rc == 0)
        rc = js_get_str(json_object_get(o, "pattern"), "String", &from, e);
    if (rc == 0 && from[0] == '\0')
        rc = hone_fail(e, HONE_EFORMAT, "the pattern is empty");
    if (rc == 0)
        d->op[d->n++] =
            (tok_dec_op){.kind = DEC_REPLACE, .from = mem_strdup(from), .to = mem_strdup(to)};
    return rc;
}

static int load_metaspace(tok_decs *d, const json_t *o, hone_err *e)
{
    const char *meta, *scheme;
    bool split;
    int rc = tok_metaspace(o, &meta, &scheme, &split, e);
    if (rc == 0)
        d->op[d->n++] = (tok_dec_op){.kind = DEC_META,
                                     .from = mem_strdup(meta),
                                     .to = mem_strdup(" "),
                                     .drop_first = strcmp(scheme, "never") != 0};
    return rc;
}

static int load_fallback(tok_decs *d, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", NULL};
    d->op[d->n++].kind = DEC_FALLBACK;
    d->fallback = true;
    return js_only_keys(o, keys, e);
}

static int load_fuse(tok_decs *d, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", NULL};
    d->fused = true;
    return js_only_keys(o, keys, e);
}

static int load_byte_level(tok_decs *d, const json_t *o, hone_err *e)
{
    static const char *const keys[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                       NULL};
    d->byte_level = d->fused = true;
    return js_only_keys(o, keys, e);
}

static int load_one(tok_decs *d, const json_t *o, hone_err *e)
{
    static const struct {
        const char *type;
        int (*load)(tok_decs *d, const json_t *o, hone_err *e);
        bool after_fallback, after_fuse;
    } kinds[] = {
        {"ByteLevel", load_byte_level, false, false},
        {"Replace", load_replace, false, false},
        {"ByteFallback", load_fallback, false, false},
        {"Metaspace", load_metaspace, false, false},
        {"Fuse", load_fuse, true, true},
        {"Strip", load_strip, false, true},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].type, tok_type(o)) != 0)
            continue;
        if (d->n == TOK_MAX_OPS)
            return hone_fail(e, HONE_ELIMIT, "decoder of more than %d steps", TOK_MAX_OPS);
        if ((d->fused && !kinds[i].after_fuse) ||
            (d->fallback && !d->fused && !kinds[i].after_fallback))
            return hone_fail(e, HONE_EUNSUPPORTED, "decoder '%s' after %s is not supported",
                             kinds[i].type,
                             d->byte_level ? "'ByteLevel'"
                             : d->fused    ? "'Fuse'"
                                           : "'ByteFallback'");
        int rc = kinds[i].load(d, o, e);
        return rc == 0 ? 0 : hone_fail_at(e, "decoder '%s'", kinds[i].type);
    }
    return tok_refuse("decoder", o, e);
}

static int load_list(tok_decs *d, const json_t *o, hone_err *e)
{
    if (strcmp(tok_type(o), "Sequence") != 0)
        return load_one(d, o, e);
    json_t *parts = NULL;
    int rc = js_get_array(o, "decoders", &parts, e);
    for (size_t i = 0; rc == 0 && i < json_array_size(parts); i++)
        rc = load_list(d, json_array_get(parts, i), e);
    return rc;
}

int tok_dec_load(tok_decs *d, const json_t *o, hone_err *e)
{
    d->spaces = o == NULL || json_is_null(o);
    return d->spaces ? 0 : load_list(d, o, e);
}

void tok_dec_free(tok_decs *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->op[i].from);
        free(d->op[i].to);
        free(d->op[i].strip);
    }
    free(d->strip);
    *d = (tok_decs){0};
}

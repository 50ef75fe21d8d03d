/* Methods of Python's str, list, tuple and dict. The ones that change their object are undefined,
 * as in Jinja's immutable sandbox; the ones that are not here are refused by name. */
#include "core/base/utf8.h"
#include "core/text/jinja_int.h"

#include <string.h>

static bool given(jval v)
{
    return v.kind != J_MISSING && v.kind != J_NONE;
}

static int need_str(jrt *r, jval v, const char *what)
{
    if (v.kind == J_UNDEF)
        return jval_undef_fail(r, v);
    return v.kind == J_STR ? 0 : jrt_fail(r, "%s must be str, not %s", what, jval_type(v));
}

/* Markup escapes what is put into it; that part of it is not here. */
static int not_safe(jrt *r, jval self, const char *method)
{
    if (!self.s->safe)
        return 0;
    return jrt_fail_code(r, HONE_EUNSUPPORTED, "%s on a |safe string is not supported", method);
}

/* ---- str: parts ---- */

static int strip(jrt *r, jval self, const jcall *c, int sides, jval *out)
{
    int rc = given(c->v[0]) ? need_str(r, c->v[0], "the characters to strip") : 0;
    return rc == 0 ? jtext_strip(r, self.s, given(c->v[0]) ? c->v[0].s : NULL, sides, out) : rc;
}

static int s_strip(jrt *r, jval self, const jcall *c, jval *out)
{
    return strip(r, self, c, JSIDE_LEFT | JSIDE_RIGHT, out);
}

static int s_lstrip(jrt *r, jval self, const jcall *c, jval *out)
{
    return strip(r, self, c, JSIDE_LEFT, out);
}

static int s_rstrip(jrt *r, jval self, const jcall *c, jval *out)
{
    return strip(r, self, c, JSIDE_RIGHT, out);
}

static int split(jrt *r, jval self, const jcall *c, bool right, jval *out)
{
    int64_t max = -1;
    int rc = given(c->v[0]) ? need_str(r, c->v[0], "the separator") : 0;
    if (rc == 0 && c->v[1].kind != J_MISSING)
        rc = jval_to_int(r, c->v[1], "maxsplit", &max);
    return rc == 0 ? jtext_split(r, self.s, given(c->v[0]) ? c->v[0].s : NULL, max, right, out)
                   : rc;
}

static int s_split(jrt *r, jval self, const jcall *c, jval *out)
{
    return split(r, self, c, false, out);
}

static int s_rsplit(jrt *r, jval self, const jcall *c, jval *out)
{
    return split(r, self, c, true, out);
}

static int s_splitlines(jrt *r, jval self, const jcall *c, jval *out)
{
    return jtext_lines(r, self.s, jval_true(c->v[0]), out);
}

static int partition(jrt *r, jval self, const jcall *c, bool right, jval *out)
{
    jval parts, empty;
    int rc = need_str(r, c->v[0], "the separator");
    if (rc == 0)
        rc = jtext_split(r, self.s, c->v[0].s, 1, right, &parts);
    if (rc == 0)
        rc = jval_seq(r, J_TUPLE, 3, out);
    if (rc == 0)
        rc = jstr_text(r, "", &empty);
    if (rc != 0)
        return rc;
    jval *v = out->seq->v;
    bool found = parts.seq->n == 2;
    v[0] = found || !right ? parts.seq->v[0] : empty;
    v[1] = found ? c->v[0] : empty;
    v[2] = found ? parts.seq->v[1] : right ? parts.seq->v[0] : empty;
    return 0;
}

static int s_partition(jrt *r, jval self, const jcall *c, jval *out)
{
    return partition(r, self, c, false, out);
}

static int s_rpartition(jrt *r, jval self, const jcall *c, jval *out)
{
    return partition(r, self, c, true, out);
}

static bool begins(const jstr *s, const jstr *with)
{
    return s->n >= with->n && memcmp(s->p, with->p, with->n) == 0;
}

static bool ends(const jstr *s, const jstr *with)
{
    return s->n >= with->n && memcmp(s->p + s->n - with->n, with->p, with->n) == 0;
}

static int s_removeprefix(jrt *r, jval self, const jcall *c, jval *out)
{
    int rc = need_str(r, c->v[0], "the prefix");
    return rc == 0
               ? jstr_slice(r, self.s, begins(self.s, c->v[0].s) ? c->v[0].s->n : 0, self.s->n, out)
               : rc;
}

static int s_removesuffix(jrt *r, jval self, const jcall *c, jval *out)
{
    int rc = need_str(r, c->v[0], "the suffix");
    return rc == 0 ? jstr_slice(r, self.s, 0,
                                self.s->n - (ends(self.s, c->v[0].s) ? c->v[0].s->n : 0), out)
                   : rc;
}

/* ---- str: searching ---- */

/* The part of self that the arguments `start` and `end` (c->v[1], c->v[2]) leave, and where it
 * begins. */
static int window(jrt *r, jval self, const jcall *c, jval *part, size_t *from)
{
    jslice s = {J_NIL, J_NIL, J_NIL};
    *from = 0;
    *part = self;
    if (!given(c->v[1]) && !given(c->v[2]))
        return 0;
    if (given(c->v[1]))
        s.start = c->v[1];
    if (given(c->v[2]))
        s.stop = c->v[2];
    int rc = jget_item(r, self, (jval){.kind = J_SLICE, .slice = &s}, part);
    if (rc == 0)
        *from = (size_t)(part->s->p - self.s->p);
    return rc;
}

static int edge(jrt *r, jval self, const jcall *c, bool (*at)(const jstr *, const jstr *),
                jval *out)
{
    jval part, one = c->v[0];
    size_t from;
    bool yes = false;
    int rc = window(r, self, c, &part, &from);
    if (rc == 0 && one.kind == J_TUPLE) {
        for (size_t i = 0; rc == 0 && !yes && i < one.seq->n; i++) {
            rc = need_str(r, one.seq->v[i], "a prefix or suffix");
            yes = rc == 0 && at(part.s, one.seq->v[i].s);
        }
    } else if (rc == 0) {
        rc = need_str(r, one, "the prefix or suffix");
        yes = rc == 0 && at(part.s, one.s);
    }
    *out = jval_bool(yes);
    return rc;
}

static int s_startswith(jrt *r, jval self, const jcall *c, jval *out)
{
    return edge(r, self, c, begins, out);
}

static int s_endswith(jrt *r, jval self, const jcall *c, jval *out)
{
    return edge(r, self, c, ends, out);
}

/* Byte offset of the first or last occurrence, SIZE_MAX when there is none. */
static int search(jrt *r, const jstr *s, const jstr *sub, bool last, size_t *out)
{
    int rc = jstr_find(r, s, sub->p, sub->n, 0, out);
    if (!last || rc != 0 || *out == SIZE_MAX)
        return rc;
    for (size_t i = s->n - sub->n + 1; i-- > *out;)
        if (memcmp(s->p + i, sub->p, sub->n) == 0) {
            *out = i;
            break;
        }
    return jrt_steps(r, s->n / 8);
}

static int find(jrt *r, jval self, const jcall *c, bool last, bool must, jval *out)
{
    jval part;
    size_t from, at = SIZE_MAX;
    int rc = need_str(r, c->v[0], "the text to find");
    if (rc == 0)
        rc = window(r, self, c, &part, &from);
    if (rc == 0)
        rc = search(r, part.s, c->v[0].s, last, &at);
    if (rc == 0 && must && at == SIZE_MAX)
        rc = jrt_fail(r, "substring not found");
    if (rc != 0)
        return rc;
    jstr before = {.p = self.s->p, .n = from + at, .chars = SIZE_MAX};
    *out = jval_int(at == SIZE_MAX ? -1 : (int64_t)jstr_chars(&before));
    return at == SIZE_MAX ? 0 : jrt_steps(r, before.n / 64);
}

static int s_find(jrt *r, jval self, const jcall *c, jval *out)
{
    return find(r, self, c, false, false, out);
}

static int s_rfind(jrt *r, jval self, const jcall *c, jval *out)
{
    return find(r, self, c, true, false, out);
}

static int s_index(jrt *r, jval self, const jcall *c, jval *out)
{
    return find(r, self, c, false, true, out);
}

static int s_rindex(jrt *r, jval self, const jcall *c, jval *out)
{
    return find(r, self, c, true, true, out);
}

static int s_count(jrt *r, jval self, const jcall *c, jval *out)
{
    jval part;
    size_t from, at = 0, i = 0;
    int64_t n = 0;
    int rc = need_str(r, c->v[0], "the text to count");
    if (rc == 0)
        rc = window(r, self, c, &part, &from);
    if (rc == 0 && c->v[0].s->n == 0) {
        *out = jval_int((int64_t)jstr_chars(part.s) + 1);
        return 0;
    }
    while (rc == 0) {
        rc = jstr_find(r, part.s, c->v[0].s->p, c->v[0].s->n, i, &at);
        if (rc != 0 || at == SIZE_MAX)
            break;
        n++;
        i = at + c->v[0].s->n;
    }
    *out = jval_int(n);
    return rc;
}

/* ---- str: building ---- */

static int s_upper(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return jchar_text(r, self.s, JTEXT_UPPER, out);
}

static int s_lower(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return jchar_text(r, self.s, JTEXT_LOWER, out);
}

static int s_title(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return jchar_text(r, self.s, JTEXT_TITLE, out);
}

static int s_capitalize(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return jchar_text(r, self.s, JTEXT_CAPITALIZE, out);
}

static int s_replace(jrt *r, jval self, const jcall *c, jval *out)
{
    int64_t max = -1;
    int rc = not_safe(r, self, "replace");
    if (rc == 0)
        rc = need_str(r, c->v[0], "replace() argument 1");
    if (rc == 0)
        rc = need_str(r, c->v[1], "replace() argument 2");
    if (rc == 0 && c->v[2].kind != J_MISSING)
        rc = jval_to_int(r, c->v[2], "count", &max);
    return rc == 0 ? jtext_replace(r, self.s, c->v[0].s, c->v[1].s, max, out) : rc;
}

static int s_join(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *v;
    size_t n;
    int rc = not_safe(r, self, "join");
    if (rc == 0)
        rc = jiter_all(r, c->v[0], &v, &n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (v[i].kind != J_STR)
            rc = jrt_fail(r, "sequence item %zu: expected str instance, %s found", i,
                          jval_type(v[i]));
    return rc == 0 ? jtext_join(r, self.s, v, n, out) : rc;
}

static int s_format(jrt *r, jval self, const jcall *c, jval *out)
{
    int rc = not_safe(r, self, "format");
    return rc == 0 ? jformat_braces(r, self.s, c, out) : rc;
}

/* How many characters are missing to the width, and what to fill with. */
static int fill(jrt *r, jval self, const jcall *c, size_t *room, jval *with)
{
    int64_t width;
    int rc = jval_to_int(r, c->v[0], "width", &width);
    *with = c->v[1];
    if (rc == 0)
        rc = with->kind == J_MISSING ? jstr_text(r, " ", with) : need_str(r, *with, "the fill");
    if (rc == 0 && jstr_chars(with->s) != 1)
        rc = jrt_fail(r, "The fill character must be exactly one character long");
    int64_t have = (int64_t)jstr_chars(self.s);
    *room = rc == 0 && width > have ? (size_t)(width - have) : 0;
    return rc;
}

static int s_ljust(jrt *r, jval self, const jcall *c, jval *out)
{
    size_t room;
    jval with;
    int rc = fill(r, self, c, &room, &with);
    return rc == 0 ? jtext_pad(r, self.s, 0, room, with.s, out) : rc;
}

static int s_rjust(jrt *r, jval self, const jcall *c, jval *out)
{
    size_t room;
    jval with;
    int rc = fill(r, self, c, &room, &with);
    return rc == 0 ? jtext_pad(r, self.s, room, 0, with.s, out) : rc;
}

static int s_center(jrt *r, jval self, const jcall *c, jval *out)
{
    size_t room;
    jval with;
    int rc = fill(r, self, c, &room, &with);
    if (rc != 0)
        return rc;
    size_t left = room / 2 + (room & (room + jstr_chars(self.s)) & 1);
    return jtext_pad(r, self.s, left, room - left, with.s, out);
}

static int s_zfill(jrt *r, jval self, const jcall *c, jval *out)
{
    static const jstr zero = {.p = "0", .n = 1, .chars = 1};
    int64_t width;
    jval sign, rest;
    int rc = jval_to_int(r, c->v[0], "width", &width);
    if (rc != 0)
        return rc;
    int64_t have = (int64_t)jstr_chars(self.s);
    size_t room = width > have ? (size_t)(width - have) : 0;
    size_t n = self.s->n > 0 && (*self.s->p == '-' || *self.s->p == '+');
    rc = jstr_slice(r, self.s, 0, n, &sign);
    if (rc == 0)
        rc = jstr_slice(r, self.s, n, self.s->n, &rest);
    if (rc == 0)
        rc = jtext_pad(r, rest.s, room, 0, &zero, &rest);
    return rc == 0 ? jstr_concat(r, sign.s, rest.s, out) : rc;
}

/* ---- str: questions ---- */

static int all_are(jval self, jchar_test *test, jval *out)
{
    bool yes = self.s->n > 0;
    for (size_t i = 0; yes && i < self.s->n;) {
        uint32_t c = 0;
        i += utf8_next(self.s->p + i, self.s->n - i, &c);
        yes = test(c);
    }
    *out = jval_bool(yes);
    return 0;
}

#define CLASS_METHOD(name, test)                                                                   \
    static int s_##name(jrt *r, jval self, const jcall *c, jval *out)                              \
    {                                                                                              \
        (void)r;                                                                                   \
        (void)c;                                                                                   \
        return all_are(self, test, out);                                                           \
    }

static bool ascii(uint32_t c)
{
    return c < 0x80;
}

CLASS_METHOD(isdigit, jchar_digit)
CLASS_METHOD(isdecimal, jchar_decimal)
CLASS_METHOD(isalpha, jchar_alpha)
CLASS_METHOD(isalnum, jchar_alnum)
CLASS_METHOD(isspace, jchar_space)

static int s_isascii(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)r;
    (void)c;
    all_are(self, ascii, out);
    out->b |= self.s->n == 0;
    return 0;
}

/* At least one letter of this case, and none of another. */
static int one_case(jval self, jchar_test *want, jval *out)
{
    bool some = false;
    for (size_t i = 0; i < self.s->n;) {
        uint32_t c = 0;
        i += utf8_next(self.s->p + i, self.s->n - i, &c);
        if (want(c))
            some = true;
        else if (jchar_cased(c)) {
            some = false;
            break;
        }
    }
    *out = jval_bool(some);
    return 0;
}

static int s_islower(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)r;
    (void)c;
    return one_case(self, jchar_lower, out);
}

static int s_isupper(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)r;
    (void)c;
    return one_case(self, jchar_upper, out);
}

/* ---- list, tuple, dict ---- */

static int l_count(jrt *r, jval self, const jcall *c, jval *out)
{
    int64_t n = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < self.seq->n; i++) {
        bool same = false;
        rc = jval_eq(r, self.seq->v[i], c->v[0], &same);
        n += same;
    }
    *out = jval_int(n);
    return rc;
}

static int l_index(jrt *r, jval self, const jcall *c, jval *out)
{
    for (size_t i = 0; i < self.seq->n; i++) {
        bool same = false;
        int rc = jval_eq(r, self.seq->v[i], c->v[0], &same);
        if (rc != 0)
            return rc;
        if (same) {
            *out = jval_int((int64_t)i);
            return 0;
        }
    }
    return jrt_fail(r, "the value is not in the %s", jval_type(self));
}

static int l_copy(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)r;
    (void)c;
    *out = self; /* nothing changes a list, so one is enough */
    return 0;
}

static int d_get(jrt *r, jval self, const jcall *c, jval *out)
{
    jval *found;
    int rc = jdict_get(r, self.dict, c->v[0], &found);
    *out = rc == 0 && found != NULL ? *found : c->v[1].kind == J_MISSING ? J_NIL : c->v[1];
    return rc;
}

static int view(jrt *r, jval self, jview_what what, jval *out)
{
    *out = (jval){.kind = J_VIEW};
    int rc = jrt_alloc(r, sizeof *out->view, &out->view);
    if (rc == 0)
        *out->view = (jview){self.dict, what};
    return rc;
}

static int d_items(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return view(r, self, JVIEW_ITEMS, out);
}

static int d_keys(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return view(r, self, JVIEW_KEYS, out);
}

static int d_values(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return view(r, self, JVIEW_VALUES, out);
}

/* ---- the tables ---- */

/* clang-format off */
const jbuiltin jinja_str_methods[] = {
    {"capitalize",   s_capitalize,   0, "/"},
    {"center",       s_center,       1, "/width fillchar"},
    {"count",        s_count,        1, "/sub start end"},
    {"endswith",     s_endswith,     1, "/suffix start end"},
    {"find",         s_find,         1, "/sub start end"},
    {"format",       s_format,       0, NULL},
    {"index",        s_index,        1, "/sub start end"},
    {"isalnum",      s_isalnum,      0, "/"},
    {"isalpha",      s_isalpha,      0, "/"},
    {"isascii",      s_isascii,      0, "/"},
    {"isdecimal",    s_isdecimal,    0, "/"},
    {"isdigit",      s_isdigit,      0, "/"},
    {"islower",      s_islower,      0, "/"},
    {"isspace",      s_isspace,      0, "/"},
    {"isupper",      s_isupper,      0, "/"},
    {"join",         s_join,         1, "/iterable"},
    {"ljust",        s_ljust,        1, "/width fillchar"},
    {"lower",        s_lower,        0, "/"},
    {"lstrip",       s_lstrip,       0, "/chars"},
    {"partition",    s_partition,    1, "/sep"},
    {"removeprefix", s_removeprefix, 1, "/prefix"},
    {"removesuffix", s_removesuffix, 1, "/suffix"},
    {"replace",      s_replace,      2, "/old new count"},
    {"rfind",        s_rfind,        1, "/sub start end"},
    {"rindex",       s_rindex,       1, "/sub start end"},
    {"rjust",        s_rjust,        1, "/width fillchar"},
    {"rpartition",   s_rpartition,   1, "/sep"},
    {"rsplit",       s_rsplit,       0, "sep maxsplit"},
    {"rstrip",       s_rstrip,       0, "/chars"},
    {"split",        s_split,        0, "sep maxsplit"},
    {"splitlines",   s_splitlines,   0, "keepends"},
    {"startswith",   s_startswith,   1, "/prefix start end"},
    {"strip",        s_strip,        0, "/chars"},
    {"title",        s_title,        0, "/"},
    {"upper",        s_upper,        0, "/"},
    {"zfill",        s_zfill,        1, "/width"},
    {"casefold",     NULL,           0, JINJA_REFUSED},
    {"encode",       NULL,           0, JINJA_REFUSED},
    {"expandtabs",   NULL,           0, JINJA_REFUSED},
    {"format_map",   NULL,           0, JINJA_REFUSED},
    {"isidentifier", NULL,           0, JINJA_REFUSED},
    {"isnumeric",    NULL,           0, JINJA_REFUSED},
    {"isprintable",  NULL,           0, JINJA_REFUSED},
    {"istitle",      NULL,           0, JINJA_REFUSED},
    {"maketrans",    NULL,           0, JINJA_REFUSED},
    {"swapcase",     NULL,           0, JINJA_REFUSED},
    {"translate",    NULL,           0, JINJA_REFUSED},
    {0},
};

const jbuiltin jinja_list_methods[] = {
    {"count",   l_count, 1, "/value"},
    {"index",   l_index, 1, "/value"},
    {"copy",    l_copy,  0, "/"},
    {"append",  NULL,    0, JINJA_UNSAFE},
    {"clear",   NULL,    0, JINJA_UNSAFE},
    {"extend",  NULL,    0, JINJA_UNSAFE},
    {"insert",  NULL,    0, JINJA_UNSAFE},
    {"pop",     NULL,    0, JINJA_UNSAFE},
    {"remove",  NULL,    0, JINJA_UNSAFE},
    {"reverse", NULL,    0, JINJA_UNSAFE},
    {"sort",    NULL,    0, JINJA_UNSAFE},
    {0},
};

const jbuiltin jinja_tuple_methods[] = {
    {"count", l_count, 1, "/value"},
    {"index", l_index, 1, "/value"},
    {0},
};

const jbuiltin jinja_dict_methods[] = {
    {"copy",       l_copy,   0, "/"},
    {"get",        d_get,    1, "/key default"},
    {"items",      d_items,  0, "/"},
    {"keys",       d_keys,   0, "/"},
    {"values",     d_values, 0, "/"},
    {"clear",      NULL,     0, JINJA_UNSAFE},
    {"pop",        NULL,     0, JINJA_UNSAFE},
    {"popitem",    NULL,     0, JINJA_UNSAFE},
    {"setdefault", NULL,     0, JINJA_UNSAFE},
    {"update",     NULL,     0, JINJA_UNSAFE},
    {"fromkeys",   NULL,     0, JINJA_REFUSED},
    {0},
};
/* clang-format on */

bool jmethod_refused(const char *name, size_t n)
{
    const jbuiltin *b = jbuiltin_find(jinja_str_methods, name, n);
    return b != NULL && b->fn == NULL;
}

/* Tests, what follows `is`: a row and a function each. */
#include "core/text/jinja_int.h"

#include "core/base/utf8.h"

#include <string.h>

static int yes(jval *out, bool b)
{
    *out = jval_bool(b);
    return 0;
}

/* ---- by kind ---- */

#define KIND_TEST(name, condition)                                                                 \
    static int t_##name(jrt *r, jval self, const jcall *c, jval *out)                              \
    {                                                                                              \
        (void)r;                                                                                   \
        (void)c;                                                                                   \
        return yes(out, condition);                                                                \
    }

KIND_TEST(defined, self.kind != J_UNDEF)
KIND_TEST(undefined, self.kind == J_UNDEF)
KIND_TEST(none, self.kind == J_NONE)
KIND_TEST(boolean, self.kind == J_BOOL)
KIND_TEST(true, self.kind == J_BOOL && self.b)
KIND_TEST(false, self.kind == J_BOOL && !self.b)
KIND_TEST(integer, self.kind == J_INT)
KIND_TEST(float, self.kind == J_FLOAT)
KIND_TEST(number, jval_is_num(self))
KIND_TEST(string, self.kind == J_STR)
KIND_TEST(mapping, self.kind == J_DICT)
KIND_TEST(escaped, self.kind == J_STR && self.s->safe)
/* An undefined value has all of Python's methods, so it is these three as well. */
KIND_TEST(sequence, self.kind == J_UNDEF || (self.kind >= J_STR && self.kind <= J_RANGE))
KIND_TEST(iterable, self.kind == J_UNDEF || (self.kind >= J_STR && self.kind <= J_VIEW) ||
                        self.kind == J_LOOP)
KIND_TEST(callable, self.kind == J_UNDEF || self.kind == J_FUNC || self.kind == J_LOOP)

/* ---- by value ---- */

static int remainder_is(jrt *r, jval self, jval by, int64_t want, jval *out)
{
    jval rest;
    bool same = false;
    int rc = jop_binary(r, OP_MOD, self, by, &rest);
    if (rc == 0)
        rc = jval_eq(r, rest, jval_int(want), &same);
    return rc == 0 ? yes(out, same) : rc;
}

static int t_odd(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return remainder_is(r, self, jval_int(2), 1, out);
}

static int t_even(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return remainder_is(r, self, jval_int(2), 0, out);
}

static int t_divisibleby(jrt *r, jval self, const jcall *c, jval *out)
{
    return remainder_is(r, self, c->v[0], 0, out);
}

static int t_lower(jrt *r, jval self, const jcall *c, jval *out)
{
    jval s;
    int rc = jprint_str(r, self, &s);
    return rc == 0 ? jbuiltin_find(jinja_str_methods, "islower", 7)->fn(r, s, c, out) : rc;
}

static int t_upper(jrt *r, jval self, const jcall *c, jval *out)
{
    jval s;
    int rc = jprint_str(r, self, &s);
    return rc == 0 ? jbuiltin_find(jinja_str_methods, "isupper", 7)->fn(r, s, c, out) : rc;
}

static int t_sameas(jrt *r, jval self, const jcall *c, jval *out)
{
    jval other = c->v[0];
    bool same = self.kind == other.kind;
    if (same && (self.kind == J_NONE || self.kind == J_UNDEF))
        return yes(out, true);
    if (same && jval_is_num(self)) {
        int rc = jval_eq(r, self, other, &same);
        return rc == 0 ? yes(out, same) : rc;
    }
    return yes(out, same && self.s == other.s);
}

static int is_name(jrt *r, jval self, const jbuiltin *(*find)(const char *, size_t), jval *out)
{
    uint32_t unused;
    int rc = jval_hash(r, self, &unused); /* Python looks it up in a dict */
    if (rc != 0)
        return rc;
    return yes(out, self.kind == J_STR && find(self.s->p, self.s->n) != NULL);
}

static int t_filter(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return is_name(r, self, jfilter_find, out);
}

static const jbuiltin *find_test(const char *name, size_t n)
{
    return jbuiltin_find(jinja_tests, name, n);
}

static int t_test(jrt *r, jval self, const jcall *c, jval *out)
{
    (void)c;
    return is_name(r, self, find_test, out);
}

#define COMPARE_TEST(name, op)                                                                     \
    static int t_##name(jrt *r, jval self, const jcall *c, jval *out)                              \
    {                                                                                              \
        bool b = false;                                                                            \
        int rc = jop_compare(r, op, self, c->v[0], &b);                                            \
        return rc == 0 ? yes(out, b) : rc;                                                         \
    }

COMPARE_TEST(eq, OP_EQ)
COMPARE_TEST(ne, OP_NE)
COMPARE_TEST(lt, OP_LT)
COMPARE_TEST(le, OP_LE)
COMPARE_TEST(gt, OP_GT)
COMPARE_TEST(ge, OP_GE)
COMPARE_TEST(in, OP_IN)

/* clang-format off */
const jbuiltin jinja_tests[] = {
    {"boolean",     t_boolean,     0, ""},
    {"callable",    t_callable,    0, ""},
    {"defined",     t_defined,     0, ""},
    {"divisibleby", t_divisibleby, 1, "num"},
    {"escaped",     t_escaped,     0, ""},
    {"even",        t_even,        0, ""},
    {"false",       t_false,       0, ""},
    {"filter",      t_filter,      0, ""},
    {"float",       t_float,       0, ""},
    {"in",          t_in,          1, "seq"},
    {"integer",     t_integer,     0, ""},
    {"iterable",    t_iterable,    0, ""},
    {"lower",       t_lower,       0, ""},
    {"mapping",     t_mapping,     0, ""},
    {"none",        t_none,        0, ""},
    {"number",      t_number,      0, ""},
    {"odd",         t_odd,         0, ""},
    {"sameas",      t_sameas,      1, "other"},
    {"sequence",    t_sequence,    0, ""},
    {"string",      t_string,      0, ""},
    {"test",        t_test,        0, ""},
    {"true",        t_true,        0, ""},
    {"undefined",   t_undefined,   0, ""},
    {"upper",       t_upper,       0, ""},
    {"==",          t_eq,          1, "/b"},
    {"eq",          t_eq,          1, "/b"},
    {"equalto",     t_eq,          1, "/b"},
    {"!=",          t_ne,          1, "/b"},
    {"ne",          t_ne,          1, "/b"},
    {"<",           t_lt,          1, "/b"},
    {"lt",          t_lt,          1, "/b"},
    {"lessthan",    t_lt,          1, "/b"},
    {"<=",          t_le,          1, "/b"},
    {"le",          t_le,          1, "/b"},
    {">",           t_gt,          1, "/b"},
    {"gt",          t_gt,          1, "/b"},
    {"greaterthan", t_gt,          1, "/b"},
    {">=",          t_ge,          1, "/b"},
    {"ge",          t_ge,          1, "/b"},
    {0},
};
/* clang-format on */

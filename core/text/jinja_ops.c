/* Arithmetic and comparison as Python does them, on 64-bit integers. */
#include "core/text/jinja_int.h"

#include <math.h>
#include <string.h>

static const char *const op_text[OP_COUNT] = {
    [OP_ADD] = "+", [OP_SUB] = "-",  [OP_MUL] = "*", [OP_DIV] = "/", [OP_FLOORDIV] = "//",
    [OP_MOD] = "%", [OP_POW] = "**", [OP_EQ] = "==", [OP_NE] = "!=", [OP_LT] = "<",
    [OP_LE] = "<=", [OP_GT] = ">",   [OP_GE] = ">=", [OP_IN] = "in", [OP_NOT_IN] = "not in",
};

static int too_big(jrt *r)
{
    return jrt_fail_code(r, HONE_ELIMIT, "integer beyond 64 bits");
}

static int wrong_types(jrt *r, jop op, jval a, jval b)
{
    return jrt_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_text[op],
                    jval_type(a), jval_type(b));
}

static bool is_int(jval v)
{
    return v.kind == J_INT || v.kind == J_BOOL;
}

static int64_t as_int(jval v)
{
    return v.kind == J_INT ? v.i : v.b;
}

/* ---- one function an operator: on two integers, and on two floats ---- */

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

static int pow_int(jrt *r, int64_t base, int64_t n, jval *out)
{
    if (n < 0) {
        if (base == 0)
            return jrt_fail(r, "0.0 cannot be raised to a negative power");
        *out = jval_float(pow((double)base, (double)n));
        return 0;
    }
    int64_t v = 1;
    for (; n > 0; n >>= 1) {
        if ((n & 1) != 0 && __builtin_mul_overflow(v, base, &v))
            return too_big(r);
        if (n > 1 && __builtin_mul_overflow(base, base, &base))
            return too_big(r);
    }
    *out = jval_int(v);
    return 0;
}

static int op_int(jrt *r, jop op, int64_t a, int64_t b, jval *out)
{
    int64_t v = 0;
    bool over = false;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0)
        return jrt_fail(r,
                        op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
    switch (op) {
    case OP_ADD:
        over = __builtin_add_overflow(a, b, &v);
        break;
    case OP_SUB:
        over = __builtin_sub_overflow(a, b, &v);
        break;
    case OP_MUL:
        over = __builtin_mul_overflow(a, b, &v);
        break;
    case OP_DIV:
        *out = jval_float((double)a / (double)b);
        return 0;
    case OP_POW:
        return pow_int(r, a, b, out);
    default:
        over = a == INT64_MIN && b == -1;
        if (!over)
            v = op == OP_FLOORDIV ? floor_div(a, b) : a - floor_div(a, b) * b;
        break;
    }
    *out = jval_int(v);
    return over ? too_big(r) : 0;
}

static double float_mod(double a, double b)
{
    double m = fmod(a, b);
    if (m != 0 && (b < 0) != (m < 0))
        m += b;
    return m == 0 ? copysign(0, b) : m;
}

static int op_float(jrt *r, jop op, double a, double b, jval *out)
{
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0)
        return jrt_fail(r, op == OP_DIV   ? "float division by zero"
                           : op == OP_MOD ? "float modulo"
                                          : "float floor division by zero");
    double v;
    switch (op) {
    case OP_ADD:
        v = a + b;
        break;
    case OP_SUB:
        v = a - b;
        break;
    case OP_MUL:
        v = a * b;
        break;
    case OP_DIV:
        v = a / b;
        break;
    case OP_FLOORDIV:
        v = (a - float_mod(a, b)) / b;
        v = v == 0 ? copysign(0, a / b) : floor(v + 0.5);
        break;
    case OP_MOD:
        v = float_mod(a, b);
        break;
    default:
        if (a == 0 && b < 0)
            return jrt_fail(r, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b) && isfinite(a) && isfinite(b))
            return jrt_fail_code(r, HONE_EUNSUPPORTED, "complex numbers are not supported");
        v = pow(a, b);
        if (isinf(v) && isfinite(a) && isfinite(b))
            return jrt_fail(r, "numerical result out of range");
        break;
    }
    *out = jval_float(v);
    return 0;
}

/* ---- sequences ---- */

static int add_str(jrt *r, jval a, jval b, jval *out)
{
    bool safe = a.s->safe || b.s->safe;
    int rc = safe ? jstr_escape(r, a.s, &a) : 0;
    if (rc == 0 && safe)
        rc = jstr_escape(r, b.s, &b);
    if (rc == 0)
        rc = jstr_concat(r, a.s, b.s, out);
    if (rc == 0)
        out->s->safe = safe;
    return rc;
}

static int add_seq(jrt *r, jval a, jval b, jval *out)
{
    size_t n = a.seq->n, m = b.seq->n;
    int rc = jval_seq(r, (jkind)a.kind, n + m, out);
    if (rc == 0 && n > 0)
        memcpy(out->seq->v, a.seq->v, n * sizeof(jval));
    if (rc == 0 && m > 0)
        memcpy(out->seq->v + n, b.seq->v, m * sizeof(jval));
    return rc;
}

static int repeat(jrt *r, jval v, int64_t times, jval *out)
{
    size_t n = times > 0 ? (size_t)times : 0, unit = v.kind == J_STR ? v.s->n : v.seq->n;
    if (unit == 0)
        n = 0;
    if (n > 0 && unit > r->max_output / n)
        return jrt_fail_code(r, HONE_ELIMIT, "a sequence longer than %zu", r->max_output);
    if (v.kind == J_STR) {
        jbuf b = {0};
        int rc = 0;
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = jbuf_str(r, &b, v.s, 0, unit);
        if (rc == 0)
            rc = jbuf_done(r, &b, out);
        if (rc == 0)
            out->s->safe = v.s->safe;
        return rc;
    }
    int rc = jval_seq(r, (jkind)v.kind, unit * n, out);
    for (size_t i = 0; rc == 0 && i < n; i++)
        memcpy(out->seq->v + i * unit, v.seq->v, unit * sizeof(jval));
    return rc;
}

static bool is_sequence(jval v)
{
    return v.kind == J_STR || v.kind == J_LIST || v.kind == J_TUPLE;
}

static int op_other(jrt *r, jop op, jval a, jval b, jval *out)
{
    if (op == OP_ADD && a.kind == J_STR && b.kind == J_STR)
        return add_str(r, a, b, out);
    if (op == OP_ADD && a.kind == b.kind && (a.kind == J_LIST || a.kind == J_TUPLE))
        return add_seq(r, a, b, out);
    if (op == OP_ADD && is_sequence(a))
        return jrt_fail(r, "can only concatenate %s (not \"%s\") to %s", jval_type(a), jval_type(b),
                        jval_type(a));
    if (op == OP_MUL && is_sequence(a) && is_int(b))
        return repeat(r, a, as_int(b), out);
    if (op == OP_MUL && is_int(a) && is_sequence(b))
        return repeat(r, b, as_int(a), out);
    if (op == OP_MOD && a.kind == J_STR) {
        if (a.s->safe)
            return jrt_fail_code(r, HONE_EUNSUPPORTED, "%% on a |safe string is not supported");
        return jformat_percent(r, a.s, NULL, b, out);
    }
    return wrong_types(r, op, a, b);
}

int jop_binary(jrt *r, jop op, jval a, jval b, jval *out)
{
    bool format = op == OP_MOD && a.kind == J_STR; /* takes an undefined value too */
    if (a.kind == J_UNDEF || (b.kind == J_UNDEF && !format))
        return jval_undef_fail(r, a.kind == J_UNDEF ? a : b);
    if (!jval_is_num(a) || !jval_is_num(b))
        return op_other(r, op, a, b, out);
    int rc = is_int(a) && is_int(b) ? op_int(r, op, as_int(a), as_int(b), out)
                                    : op_float(r, op, jval_num(a), jval_num(b), out);
    out->msg = jtag_join((jtag){.msg = a.msg}, (jtag){.msg = b.msg}).msg;
    return rc;
}

int jop_negate(jrt *r, jval v, jval *out)
{
    if (v.kind == J_UNDEF)
        return jval_undef_fail(r, v);
    if (!jval_is_num(v))
        return jrt_fail(r, "bad operand type for unary -: '%s'", jval_type(v));
    if (is_int(v) && as_int(v) == INT64_MIN)
        return too_big(r);
    *out = is_int(v) ? jval_int(-as_int(v)) : jval_float(-v.f);
    out->msg = v.msg;
    return 0;
}

int jop_plus(jrt *r, jval v, jval *out)
{
    if (v.kind == J_UNDEF)
        return jval_undef_fail(r, v);
    if (!jval_is_num(v))
        return jrt_fail(r, "bad operand type for unary +: '%s'", jval_type(v));
    *out = is_int(v) ? jval_int(as_int(v)) : v;
    out->msg = v.msg;
    return 0;
}

/* ---- comparison ---- */

static bool comparable(jval a, jval b)
{
    return (jval_is_num(a) && jval_is_num(b)) || (a.kind == b.kind && is_sequence(a)) ||
           a.kind == J_UNDEF || b.kind == J_UNDEF;
}

static int order(jrt *r, jop op, jval a, jval b, bool *out)
{
    const char *text = op_text[op];
    if (!comparable(a, b))
        return jrt_fail(r, "'%s' not supported between instances of '%s' and '%s'", text,
                        jval_type(a), jval_type(b));
    if ((jval_is_num(a) && isnan(jval_num(a))) || (jval_is_num(b) && isnan(jval_num(b)))) {
        *out = false;
        return 0;
    }
    bool swap = op == OP_GT || op == OP_LE, negate = op == OP_LE || op == OP_GE;
    int rc = jval_less(r, swap ? b : a, swap ? a : b, text, out);
    *out = *out != negate;
    return rc;
}

int jop_compare(jrt *r, jop op, jval a, jval b, bool *out)
{
    int rc;
    if (op == OP_EQ || op == OP_NE)
        rc = jval_eq(r, a, b, out);
    else if (op == OP_IN || op == OP_NOT_IN)
        rc = jval_in(r, a, b, out);
    else
        return order(r, op, a, b, out);
    if (op == OP_NE || op == OP_NOT_IN)
        *out = !*out;
    return rc;
}

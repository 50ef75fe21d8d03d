/* Expressions: Jinja's grammar, one function a level of precedence. Nesting is bounded by
 * jparser.depth; chains of operators, filters and subscripts are loops. */
#include "core/base/mem.h"
#include "core/text/jinja_int.h"

#include <stdlib.h>
#include <string.h>

static int parse_unary(jparser *p, bool with_filter, jnode **out);

static int enter(jparser *p)
{
    if (++p->depth > JINJA_MAX_NEST)
        return jparse_fail(p, HONE_ELIMIT, p->tok->line, "nests deeper than %d", JINJA_MAX_NEST);
    return 0;
}

static jnode *constant(jparser *p, int line, jval v)
{
    jnode *n = jparse_node(p, N_CONST, line);
    n->val = v;
    return n;
}

static jval text_value(jparser *p, const char *s, size_t n)
{
    return jval_str(jstr_const(p->t->mem, s, n));
}

static jnode *two(jparser *p, jnode_kind kind, int line, jnode *a, jnode *b)
{
    jnode *n = jparse_node(p, kind, line);
    n->a = a;
    n->b = b;
    return n;
}

/* ---- primary expressions ---- */

/* Expressions up to the closing bracket, with a comma between and perhaps after; `pairs`: key:
 * value. */
static int parse_items(jparser *p, const char *close, bool pairs, jblock *list)
{
    size_t cap = 0;
    while (!jparse_is(p, T_OP, close)) {
        if (list->n > 0) {
            int rc = jparse_expect(p, T_OP, ",");
            if (rc != 0)
                return rc;
            if (jparse_is(p, T_OP, close))
                break;
        }
        for (int i = 0; i < (pairs ? 2 : 1); i++) {
            jnode *n;
            int rc = i == 1 ? jparse_expect(p, T_OP, ":") : 0;
            if (rc == 0)
                rc = jparse_expr(p, &n);
            if (rc != 0)
                return rc;
            jparse_push(p, list, &cap, n);
        }
    }
    return jparse_expect(p, T_OP, close);
}

/* What a name in an expression means for what is around it. */
static void note_name(jparser *p, const jtoken *t, int id)
{
    static const char *const special[] = {"caller", "kwargs", "varargs"};
    for (size_t m = 0; m < p->n_macros; m++) {
        bool *used[] = {&p->macros[m]->caller, &p->macros[m]->kwargs, &p->macros[m]->varargs};
        for (size_t i = 0; i < 3; i++)
            if (jstr_is(p->t->names[id].text, special[i]))
                *used[i] = true;
    }
    if (p->loop_used != NULL && jstr_is(p->t->names[id].text, "loop"))
        *p->loop_used = true;
    if (p->inner == 0)
        p->t->names[id].seen = true;
    const jbuiltin *g = p->t->names[id].global;
    if (g != NULL && g->fn == NULL && p->refused == NULL && jparse_is(p, T_OP, "(")) {
        p->refused = t;
        p->refused_name = id;
    }
}

static int parse_name(jparser *p, bool namespaces, jnode **out)
{
    static const struct {
        const char *name;
        jval v;
    } constants[] = {
        {"true", {.kind = J_BOOL, .b = true}},
        {"True", {.kind = J_BOOL, .b = true}},
        {"false", {.kind = J_BOOL, .b = false}},
        {"False", {.kind = J_BOOL, .b = false}},
        {"none", {.kind = J_NONE}},
        {"None", {.kind = J_NONE}},
    };
    const jtoken *t = p->tok++;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (strlen(constants[i].name) == t->n && memcmp(constants[i].name, t->p, t->n) == 0) {
            *out = constant(p, t->line, constants[i].v);
            return 0;
        }
    bool attr = namespaces && jparse_skip(p, T_OP, ".");
    *out = jparse_node(p, attr ? N_NSREF : N_NAME, t->line);
    int rc = jparse_name_id(p, t, &(*out)->name);
    if (rc != 0)
        return rc;
    if (attr || !p->in_target)
        note_name(p, t, (*out)->name);
    if (!attr)
        return 0;
    (*out)->val = text_value(p, p->tok->p, p->tok->n);
    return jparse_expect(p, T_NAME, NULL);
}

static int parse_strings(jparser *p, jnode **out)
{
    const jtoken *first = p->tok;
    size_t n = 0;
    for (; p->tok->kind == T_STRING; p->tok++)
        n += p->tok->n;
    char *text = arena_alloc(p->t->mem, n + 1);
    n = 0;
    for (const jtoken *t = first; t < p->tok; t++) {
        memcpy(text + n, t->p, t->n);
        n += t->n;
    }
    *out = constant(p, first->line, text_value(p, text, n));
    return 0;
}

static int parse_brackets(jparser *p, jnode **out)
{
    static const jtuple_rule in_parens = {.parens = true};
    const jtoken *t = p->tok++;
    int rc = enter(p);
    if (rc != 0)
        return rc;
    if (*t->p == '(') {
        rc = jparse_tuple(p, &in_parens, out);
        if (rc == 0)
            rc = jparse_expect(p, T_OP, ")");
    } else {
        bool dict = *t->p == '{';
        *out = jparse_node(p, dict ? N_DICT : N_LIST, t->line);
        rc = parse_items(p, dict ? "}" : "]", dict, &(*out)->list);
    }
    p->depth--;
    return rc;
}

static int parse_primary(jparser *p, bool namespaces, jnode **out)
{
    const jtoken *t = p->tok;
    char shown[64];
    if (t->kind == T_NAME)
        return parse_name(p, namespaces, out);
    if (t->kind == T_STRING)
        return parse_strings(p, out);
    if (t->kind == T_INT || t->kind == T_FLOAT) {
        p->tok++;
        *out = constant(p, t->line, t->kind == T_INT ? jval_int(t->i) : jval_float(t->f));
        return 0;
    }
    if (t->kind == T_OP && strchr("([{", *t->p) != NULL)
        return parse_brackets(p, out);
    return jparse_fail(p, HONE_EFORMAT, t->line, "unexpected %s",
                       jparse_token_text(shown, sizeof shown, t));
}

/* ---- what follows a primary expression ---- */

static int parse_one_arg(jparser *p, jargs *a, size_t *cap, size_t *cap_kw)
{
    static const char wrong[] = "a positional argument follows a keyword or unpacked argument";
    int line = p->tok->line;
    if (jparse_is(p, T_OP, "*") || jparse_is(p, T_OP, "**")) {
        jnode **star = p->tok++->n == 1 ? &a->star : &a->star2;
        if (*star != NULL || a->star2 != NULL)
            return jparse_fail(p, HONE_EFORMAT, line, "%s", wrong);
        return jparse_expr(p, star);
    }
    jnode *n;
    if (p->tok->kind == T_NAME && p->tok[1].kind == T_OP && p->tok[1].n == 1 &&
        *p->tok[1].p == '=') {
        const jstr *name = jstr_const(p->t->mem, p->tok->p, p->tok->n);
        p->tok += 2;
        int rc =
            a->star2 != NULL ? jparse_fail(p, HONE_EFORMAT, line, "%s", wrong) : jparse_expr(p, &n);
        if (rc != 0)
            return rc;
        jblock kw = {a->kw, a->n_kw};
        if (a->n_kw == *cap_kw) {
            const jstr **names = arena_alloc(p->t->mem, (a->n_kw * 2 + 8) * sizeof *names);
            if (a->n_kw > 0)
                memcpy(names, a->kw_name, a->n_kw * sizeof *names);
            a->kw_name = names;
        }
        jparse_push(p, &kw, cap_kw, n);
        a->kw = kw.v;
        a->kw_name[a->n_kw++] = name;
        return 0;
    }
    if (a->star != NULL || a->star2 != NULL || a->n_kw > 0)
        return jparse_fail(p, HONE_EFORMAT, line, "%s", wrong);
    int rc = jparse_expr(p, &n);
    if (rc == 0)
        jparse_push(p, &a->pos, cap, n);
    return rc;
}

static int parse_args(jparser *p, jargs **out)
{
    size_t cap = 0, cap_kw = 0;
    jargs *a = *out = arena_alloc(p->t->mem, sizeof *a);
    int rc = enter(p);
    if (rc == 0)
        rc = jparse_expect(p, T_OP, "(");
    for (bool first = true; rc == 0 && !jparse_is(p, T_OP, ")"); first = false) {
        if (!first)
            rc = jparse_expect(p, T_OP, ",");
        if (rc == 0 && !first && jparse_is(p, T_OP, ")"))
            break;
        if (rc == 0)
            rc = parse_one_arg(p, a, &cap, &cap_kw);
    }
    p->depth--;
    return rc != 0 ? rc : jparse_expect(p, T_OP, ")");
}

static int parse_call(jparser *p, jnode **node)
{
    jnode *n = jparse_node(p, N_CALL, p->tok->line);
    n->a = *node;
    if (n->a->kind == N_GETATTR && jmethod_refused(n->a->val.s->p, n->a->val.s->n))
        return jparse_fail(p, HONE_EUNSUPPORTED, p->tok->line, "the method %.*s() is not supported",
                           (int)n->a->val.s->n, n->a->val.s->p);
    *node = n;
    return parse_args(p, &n->args);
}

/* One subscript in brackets: an expression or start:stop:step. */
static int parse_index(jparser *p, jnode **out)
{
    jnode *part[3] = {NULL, NULL, NULL};
    int line = p->tok->line, n = 0;
    for (;;) {
        if (!jparse_is(p, T_OP, ":") && !jparse_is(p, T_OP, "]") && !jparse_is(p, T_OP, ",")) {
            int rc = jparse_expr(p, &part[n]);
            if (rc != 0)
                return rc;
        }
        if (n == 2 || !jparse_skip(p, T_OP, ":"))
            break;
        n++;
    }
    if (n == 0) {
        *out = part[0];
        return part[0] != NULL ? 0 : jparse_fail(p, HONE_EFORMAT, line, "a subscript is missing");
    }
    *out = two(p, N_SLICE, line, part[0], part[1]);
    (*out)->c = part[2];
    return 0;
}

static int parse_brackets_after(jparser *p, jnode *n)
{
    jblock list = {0};
    size_t cap = 0;
    int rc = enter(p), line = p->tok->line;
    while (rc == 0 && (list.n == 0 || !jparse_is(p, T_OP, "]"))) {
        jnode *item;
        if (list.n > 0)
            rc = jparse_expect(p, T_OP, ",");
        if (rc == 0)
            rc = parse_index(p, &item);
        if (rc == 0)
            jparse_push(p, &list, &cap, item);
    }
    p->depth--;
    if (rc != 0)
        return rc;
    n->b = list.v[0];
    if (list.n > 1) {
        n->b = jparse_node(p, N_TUPLE, line);
        n->b->list = list;
        for (size_t i = 0; i < list.n; i++)
            if (list.v[i]->kind == N_SLICE)
                return jparse_fail(p, HONE_EUNSUPPORTED, line,
                                   "a slice among several subscripts is not supported");
    }
    return jparse_expect(p, T_OP, "]");
}

static int parse_subscript(jparser *p, jnode **node)
{
    const jtoken *t = p->tok++;
    jnode *n;
    if (*t->p == '[') {
        n = two(p, N_GETITEM, t->line, *node, NULL);
        *node = n;
        return parse_brackets_after(p, n);
    }
    if (p->tok->kind == T_INT) {
        *node = two(p, N_GETITEM, t->line, *node, constant(p, t->line, jval_int(p->tok->i)));
    } else {
        n = two(p, N_GETATTR, t->line, *node, NULL);
        n->val = text_value(p, p->tok->p, p->tok->n);
        *node = n;
        if (p->tok->kind != T_NAME)
            return jparse_fail(p, HONE_EFORMAT, t->line, "a name or number must follow '.'");
    }
    p->tok++;
    return 0;
}

static int parse_postfix(jparser *p, jnode **node)
{
    int rc = 0;
    while (rc == 0) {
        if (jparse_is(p, T_OP, ".") || jparse_is(p, T_OP, "["))
            rc = parse_subscript(p, node);
        else if (jparse_is(p, T_OP, "("))
            rc = parse_call(p, node);
        else
            break;
    }
    return rc;
}

/* A name with dots, as filters and tests may have. */
static int parse_dotted(jparser *p, const jtoken **first)
{
    *first = p->tok;
    int rc = jparse_expect(p, T_NAME, NULL);
    if (rc == 0 && jparse_is(p, T_OP, "."))
        rc = jparse_fail(p, HONE_EUNSUPPORTED, p->tok->line,
                         "a filter or test name with a dot is not supported");
    return rc;
}

int jparse_filters(jparser *p, jnode **node, bool in_tag)
{
    while (in_tag || jparse_skip(p, T_OP, "|")) {
        const jtoken *t;
        in_tag = false;
        int rc = parse_dotted(p, &t);
        if (rc != 0)
            return rc;
        jnode *n = two(p, N_FILTER, t->line, *node, NULL);
        n->fn = jfilter_find(t->p, t->n);
        if (n->fn == NULL)
            return jparse_fail(p, HONE_EUNSUPPORTED, t->line, "there is no filter '%.*s'",
                               (int)t->n, t->p);
        if (n->fn->fn == NULL)
            return jparse_fail(p, HONE_EUNSUPPORTED, t->line, "the filter '%.*s' is not supported",
                               (int)t->n, t->p);
        if (jparse_is(p, T_OP, "("))
            rc = parse_args(p, &n->args);
        if (rc != 0)
            return rc;
        *node = n;
    }
    return 0;
}

static bool test_argument_follows(const jparser *p)
{
    static const char *const ends[] = {"else", "or", "and"};
    for (size_t i = 0; i < 3; i++)
        if (jparse_is(p, T_NAME, ends[i]))
            return false;
    jtok_kind k = p->tok->kind;
    return k == T_NAME || k == T_STRING || k == T_INT || k == T_FLOAT ||
           (k == T_OP && (*p->tok->p == '[' || *p->tok->p == '{'));
}

static int parse_test(jparser *p, jnode **node)
{
    int line = p->tok++->line;
    bool negated = jparse_skip(p, T_NAME, "not");
    const jtoken *t;
    int rc = parse_dotted(p, &t);
    if (rc != 0)
        return rc;
    jnode *n = two(p, N_TEST, line, *node, NULL);
    n->fn = jbuiltin_find(jinja_tests, t->p, t->n);
    if (n->fn == NULL)
        return jparse_fail(p, HONE_EUNSUPPORTED, t->line, "there is no test '%.*s'", (int)t->n,
                           t->p);
    if (jparse_is(p, T_OP, "(")) {
        rc = parse_args(p, &n->args);
    } else if (test_argument_follows(p)) {
        jnode *arg;
        size_t cap = 0;
        if (jparse_is(p, T_NAME, "is"))
            return jparse_fail(p, HONE_EFORMAT, p->tok->line, "tests cannot be chained with is");
        n->args = arena_alloc(p->t->mem, sizeof *n->args);
        rc = parse_primary(p, false, &arg);
        if (rc == 0)
            rc = parse_postfix(p, &arg);
        if (rc == 0)
            jparse_push(p, &n->args->pos, &cap, arg);
    }
    *node = negated ? two(p, N_NOT, line, n, NULL) : n;
    return rc;
}

static int parse_after_unary(jparser *p, jnode **node)
{
    int rc = 0;
    while (rc == 0) {
        if (jparse_is(p, T_OP, "|"))
            rc = jparse_filters(p, node, false);
        else if (jparse_is(p, T_NAME, "is"))
            rc = parse_test(p, node);
        else if (jparse_is(p, T_OP, "("))
            rc = parse_call(p, node);
        else
            break;
    }
    return rc;
}

static int parse_unary(jparser *p, bool with_filter, jnode **out)
{
    int line = p->tok->line;
    bool minus = jparse_is(p, T_OP, "-");
    int rc;
    if (minus || jparse_is(p, T_OP, "+")) {
        jnode *a;
        p->tok++;
        rc = enter(p);
        if (rc == 0)
            rc = parse_unary(p, false, &a);
        p->depth--;
        if (rc == 0)
            *out = two(p, minus ? N_NEG : N_POS, line, a, NULL);
    } else {
        rc = parse_primary(p, false, out);
    }
    if (rc == 0)
        rc = parse_postfix(p, out);
    return rc == 0 && with_filter ? parse_after_unary(p, out) : rc;
}

/* ---- operators, from tight to loose ---- */

typedef int parse_fn(jparser *p, jnode **out);

typedef struct op_row {
    const char *text;
    jop op;
} op_row;

/* left (op right)*, associating to the left. */
static int parse_binary(jparser *p, const op_row *ops, parse_fn *next, jnode **out)
{
    int line = p->tok->line;
    int rc = next(p, out);
    while (rc == 0) {
        const op_row *o = ops;
        while (o->text != NULL && !jparse_is(p, T_OP, o->text))
            o++;
        if (o->text == NULL)
            break;
        p->tok++;
        jnode *right;
        rc = next(p, &right);
        if (rc == 0) {
            *out = two(p, N_BINARY, line, *out, right);
            (*out)->op = o->op;
        }
    }
    return rc;
}

static int parse_operand(jparser *p, jnode **out)
{
    return parse_unary(p, true, out);
}

static int parse_pow(jparser *p, jnode **out)
{
    static const op_row ops[] = {{"**", OP_POW}, {0}};
    return parse_binary(p, ops, parse_operand, out);
}

static int parse_product(jparser *p, jnode **out)
{
    static const op_row ops[] = {
        {"*", OP_MUL}, {"/", OP_DIV}, {"//", OP_FLOORDIV}, {"%", OP_MOD}, {0}};
    return parse_binary(p, ops, parse_pow, out);
}

static int parse_concat(jparser *p, jnode **out)
{
    int line = p->tok->line;
    int rc = parse_product(p, out);
    if (rc != 0 || !jparse_is(p, T_OP, "~"))
        return rc;
    jnode *n = jparse_node(p, N_CONCAT, line);
    size_t cap = 0;
    jparse_push(p, &n->list, &cap, *out);
    while (rc == 0 && jparse_skip(p, T_OP, "~")) {
        jnode *part;
        rc = parse_product(p, &part);
        if (rc == 0)
            jparse_push(p, &n->list, &cap, part);
    }
    *out = n;
    return rc;
}

static int parse_sum(jparser *p, jnode **out)
{
    static const op_row ops[] = {{"+", OP_ADD}, {"-", OP_SUB}, {0}};
    return parse_binary(p, ops, parse_concat, out);
}

static bool comparison(jparser *p, jop *op)
{
    static const op_row ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT},
                                 {"<=", OP_LE}, {">", OP_GT},  {">=", OP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (jparse_skip(p, T_OP, ops[i].text)) {
            *op = ops[i].op;
            return true;
        }
    if (jparse_skip(p, T_NAME, "in")) {
        *op = OP_IN;
        return true;
    }
    const jtoken *after = p->tok + 1; /* of a name, so the end is not passed */
    if (jparse_is(p, T_NAME, "not") && after->kind == T_NAME && after->n == 2 &&
        memcmp(after->p, "in", 2) == 0) {
        p->tok += 2;
        *op = OP_NOT_IN;
        return true;
    }
    return false;
}

static int parse_compare(jparser *p, jnode **out)
{
    int line = p->tok->line;
    int rc = parse_sum(p, out);
    jnode *n = NULL;
    size_t cap = 0;
    jop op;
    while (rc == 0 && comparison(p, &op)) {
        if (n == NULL)
            n = two(p, N_COMPARE, line, *out, NULL);
        jnode *operand = jparse_node(p, N_OPERAND, p->tok->line);
        operand->op = (uint8_t)op;
        rc = parse_sum(p, &operand->a);
        jparse_push(p, &n->list, &cap, operand);
    }
    if (n != NULL)
        *out = n;
    return rc;
}

static int parse_not(jparser *p, jnode **out)
{
    int line = p->tok->line;
    if (!jparse_skip(p, T_NAME, "not"))
        return parse_compare(p, out);
    jnode *a;
    int rc = enter(p);
    if (rc == 0)
        rc = parse_not(p, &a);
    p->depth--;
    if (rc == 0)
        *out = two(p, N_NOT, line, a, NULL);
    return rc;
}

static int parse_and(jparser *p, jnode **out)
{
    int line = p->tok->line;
    int rc = parse_not(p, out);
    while (rc == 0 && jparse_skip(p, T_NAME, "and")) {
        jnode *right;
        rc = parse_not(p, &right);
        if (rc == 0)
            *out = two(p, N_AND, line, *out, right);
    }
    return rc;
}

int jparse_or(jparser *p, jnode **out)
{
    int line = p->tok->line;
    int rc = parse_and(p, out);
    while (rc == 0 && jparse_skip(p, T_NAME, "or")) {
        jnode *right;
        rc = parse_and(p, &right);
        if (rc == 0)
            *out = two(p, N_OR, line, *out, right);
    }
    return rc;
}

static int parse_cond(jparser *p, jnode **out)
{
    int line = p->tok->line;
    int rc = jparse_or(p, out);
    while (rc == 0 && jparse_skip(p, T_NAME, "if")) {
        jnode *n = two(p, N_COND, line, NULL, *out);
        rc = jparse_or(p, &n->a);
        if (rc == 0 && jparse_skip(p, T_NAME, "else"))
            rc = jparse_expr(p, &n->c);
        *out = n;
    }
    return rc;
}

int jparse_expr(jparser *p, jnode **out)
{
    int rc = enter(p);
    *out = NULL;
    if (rc == 0)
        rc = parse_cond(p, out);
    p->depth--;
    return rc;
}

static bool tuple_ends(const jparser *p, const jtuple_rule *rule)
{
    return p->tok->kind == T_PRINT_END || p->tok->kind == T_BLOCK_END || p->tok->kind == T_EOF ||
           jparse_is(p, T_OP, ")") || (rule->end != NULL && jparse_is(p, T_NAME, rule->end));
}

int jparse_tuple(jparser *p, const jtuple_rule *rule, jnode **out)
{
    jblock list = {0};
    size_t cap = 0;
    int line = p->tok->line;
    bool tuple = false;
    char shown[64];
    while (!tuple_ends(p, rule)) {
        jnode *n;
        int rc = rule->simple    ? parse_primary(p, rule->namespaces, &n)
                 : rule->no_cond ? jparse_or(p, &n)
                                 : jparse_expr(p, &n);
        if (rc != 0)
            return rc;
        jparse_push(p, &list, &cap, n);
        if (!jparse_skip(p, T_OP, ","))
            break;
        tuple = true;
    }
    if (!tuple && list.n == 1) {
        *out = list.v[0];
        return 0;
    }
    if (!tuple && !rule->parens)
        return jparse_fail(p, HONE_EFORMAT, line, "expected an expression, got %s",
                           jparse_token_text(shown, sizeof shown, p->tok));
    *out = jparse_node(p, N_TUPLE, line);
    (*out)->list = list;
    return 0;
}

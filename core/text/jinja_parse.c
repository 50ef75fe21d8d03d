/* Statements: the tags between {% and %}, as a table; and the few verbs that both parser files use.
 */
#include "core/base/mem.h"
#include "core/text/jinja_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int jparse_fail(jparser *p, int code, int line, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return hone_fail(p->e, code, "template: line %d: %s", line, text);
}

jnode *jparse_node(jparser *p, jnode_kind kind, int line)
{
    jnode *n = arena_alloc(p->t->mem, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void jparse_push(jparser *p, jblock *b, size_t *cap, jnode *n)
{
    if (b->n == *cap) {
        *cap = *cap * 2 + 8 - *cap % 8;
        jnode **v = arena_alloc(p->t->mem, *cap * sizeof(jnode *));
        if (b->n > 0)
            memcpy(v, b->v, b->n * sizeof(jnode *));
        b->v = v;
    }
    b->v[b->n++] = n;
}

int jparse_name_id(jparser *p, const jtoken *t, int *out)
{
    jinja *j = p->t;
    for (size_t i = 0; i < j->n_names; i++)
        if (j->names[i].text->n == t->n && memcmp(j->names[i].text->p, t->p, t->n) == 0) {
            *out = (int)i;
            return 0;
        }
    if (j->n_names == JINJA_MAX_NAMES)
        return jparse_fail(p, HONE_ELIMIT, t->line, "more than %d names", JINJA_MAX_NAMES);
    j->names = mem_grow(j->names, &j->cap_names, j->n_names + 1, sizeof *j->names);
    jstr *text = jstr_const(j->mem, t->p, t->n);
    j->names[j->n_names] = (jname){.text = text, .global = jcall_global(text->p)};
    *out = (int)j->n_names++;
    return 0;
}

/* The names of a target get their values at this point of the template. */
static void note_store(jparser *p, const jnode *target)
{
    for (size_t i = 0; target->kind == N_TUPLE && i < target->list.n; i++)
        note_store(p, target->list.v[i]);
    if (target->kind != N_NAME || p->inner > 0)
        return;
    jname *n = &p->t->names[target->name];
    n->late |= !n->seen && p->branches == 0;
    n->seen = true;
}

const char *jparse_token_text(char *dst, size_t cap, const jtoken *t)
{
    static const char *const what[] = {
        [T_EOF] = "the end of the template",
        [T_DATA] = "text",
        [T_PRINT_BEGIN] = "'{{'",
        [T_PRINT_END] = "'}}'",
        [T_BLOCK_BEGIN] = "'{%'",
        [T_BLOCK_END] = "'%}'",
        [T_STRING] = "a string",
        [T_INT] = "a number",
        [T_FLOAT] = "a number",
    };
    if (t->kind != T_NAME && t->kind != T_OP)
        return what[t->kind];
    snprintf(dst, cap, "'%.*s'", (int)(t->n < 40 ? t->n : 40), t->p);
    return dst;
}

bool jparse_is(const jparser *p, jtok_kind kind, const char *text)
{
    return p->tok->kind == kind &&
           (text == NULL || (strlen(text) == p->tok->n && memcmp(text, p->tok->p, p->tok->n) == 0));
}

bool jparse_skip(jparser *p, jtok_kind kind, const char *text)
{
    bool yes = jparse_is(p, kind, text);
    p->tok += yes;
    return yes;
}

int jparse_expect(jparser *p, jtok_kind kind, const char *text)
{
    char shown[64], want[64];
    if (jparse_skip(p, kind, text))
        return 0;
    jtoken t = {
        .kind = text != NULL ? T_OP : kind, .p = text, .n = text != NULL ? strlen(text) : 0};
    return jparse_fail(p, HONE_EFORMAT, p->tok->line, "expected %s, got %s",
                       kind == T_NAME && text == NULL ? "a name"
                                                      : jparse_token_text(want, sizeof want, &t),
                       jparse_token_text(shown, sizeof shown, p->tok));
}

/* ---- targets and bodies ---- */

static int check_target(jparser *p, const jnode *n)
{
    if (n->kind == N_NAME) {
        p->t->names[n->name].stored = true;
        return 0;
    }
    if (n->kind == N_NSREF)
        return 0;
    if (n->kind != N_TUPLE)
        return jparse_fail(p, HONE_EFORMAT, n->line, "can't assign to %s",
                           n->kind == N_CONST ? "a constant" : "an expression");
    for (size_t i = 0; i < n->list.n; i++) {
        int rc = check_target(p, n->list.v[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse_target(jparser *p, const char *end, bool namespaces, jnode **out)
{
    jtuple_rule rule = {.simple = true, .end = end, .namespaces = namespaces};
    p->in_target = true;
    int rc = jparse_tuple(p, &rule, out);
    p->in_target = false;
    return rc != 0 ? rc : check_target(p, *out);
}

static int parse_target_name(jparser *p, int *id)
{
    const jtoken *t = p->tok;
    int rc = jparse_expect(p, T_NAME, NULL);
    if (rc == 0)
        rc = jparse_name_id(p, t, id);
    if (rc == 0)
        p->t->names[*id].stored = true;
    return rc;
}

static int parse_block(jparser *p, const char *const *ends, jblock *out);

/* "%}", statements, and the end tag's name, which is not skipped unless it is the only one. */
static int parse_body(jparser *p, const char *const *ends, jblock *out)
{
    jparse_skip(p, T_OP, ":");
    int rc = jparse_expect(p, T_BLOCK_END, NULL);
    if (rc != 0)
        return rc;
    const jtoken *open = p->tok;
    if (++p->depth > JINJA_MAX_NEST)
        return jparse_fail(p, HONE_ELIMIT, open->line, "nests deeper than %d", JINJA_MAX_NEST);
    rc = parse_block(p, ends, out);
    p->depth--;
    if (rc != 0)
        return rc;
    if (p->tok->kind == T_EOF)
        return jparse_fail(p, HONE_EFORMAT, p->tok->line,
                           "the template ends before {%% %s %%} of the block of line %d", ends[0],
                           open[-1].line);
    p->tok += ends[1] == NULL;
    return 0;
}

/* A body that has a scope of its own. */
static int parse_scope(jparser *p, const char *const *ends, jblock *out)
{
    p->inner++;
    int rc = parse_body(p, ends, out);
    p->inner--;
    return rc;
}

/* A body that a break cannot leave and that `m` (a macro or caller) may be called from. */
static int parse_function_body(jparser *p, jmacro *m, const char *end)
{
    const char *const ends[] = {end, NULL};
    int loops = p->loops;
    bool *loop_used = p->loop_used;
    p->loops = 0;
    p->macros = mem_grow(p->macros, &p->cap_macros, p->n_macros + 1, sizeof *p->macros);
    p->macros[p->n_macros++] = m;
    int rc = parse_scope(p, ends, &m->body);
    p->n_macros--;
    p->loops = loops;
    p->loop_used = loop_used;
    return rc;
}

/* ---- statements ---- */

static int parse_if(jparser *p, jnode **out)
{
    static const jtuple_rule rule = {.no_cond = true};
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    static const char *const last[] = {"endif", NULL};
    jnode *n = *out = jparse_node(p, N_IF, p->tok->line);
    for (;;) {
        int rc = jparse_tuple(p, &rule, &n->a);
        p->branches++;
        if (rc == 0)
            rc = parse_body(p, ends, &n->body);
        p->branches--;
        if (rc != 0)
            return rc;
        if (jparse_skip(p, T_NAME, "elif")) {
            jnode *next = jparse_node(p, N_IF, p->tok->line);
            size_t cap = 0;
            jparse_push(p, &n->other, &cap, next);
            n->flag = true;
            n = next;
            continue;
        }
        if (!jparse_skip(p, T_NAME, "else")) {
            p->tok++; /* endif */
            return 0;
        }
        p->branches++;
        rc = parse_body(p, last, &n->other);
        p->branches--;
        return rc;
    }
}

static int target_names_loop(jparser *p, const jnode *n)
{
    if (n->kind == N_NAME && jstr_is(p->t->names[n->name].text, "loop"))
        return jparse_fail(p, HONE_EFORMAT, n->line,
                           "a for loop cannot assign to the special variable 'loop'");
    for (size_t i = 0; n->kind == N_TUPLE && i < n->list.n; i++) {
        int rc = target_names_loop(p, n->list.v[i]);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int parse_for_head(jparser *p, jnode *n)
{
    static const jtuple_rule rule = {.no_cond = true, .end = "recursive"};
    int rc = parse_target(p, "in", false, &n->a);
    if (rc == 0)
        rc = target_names_loop(p, n->a);
    if (rc == 0)
        rc = jparse_expect(p, T_NAME, "in");
    if (rc == 0)
        rc = jparse_tuple(p, &rule, &n->b);
    p->inner++;
    if (rc == 0 && jparse_skip(p, T_NAME, "if"))
        rc = jparse_expr(p, &n->c);
    p->inner--;
    if (rc == 0 && jparse_is(p, T_NAME, "recursive"))
        rc = jparse_fail(p, HONE_EUNSUPPORTED, p->tok->line, "a recursive for is not supported");
    return rc;
}

static int parse_for(jparser *p, jnode **out)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    static const char *const last[] = {"endfor", NULL};
    jnode *n = *out = jparse_node(p, N_FOR, p->tok->line);
    jtoken loop = {.line = n->line, .p = "loop", .n = 4};
    int rc = jparse_name_id(p, &loop, &n->name);
    if (rc == 0)
        rc = parse_for_head(p, n);
    if (rc != 0)
        return rc;
    bool *outer = p->loop_used;
    p->loop_used = &n->flag;
    p->loops++;
    rc = parse_scope(p, ends, &n->body);
    p->loops--;
    p->loop_used = outer;
    if (rc != 0)
        return rc;
    if (jparse_skip(p, T_NAME, "else"))
        return parse_scope(p, last, &n->other);
    p->tok++; /* endfor */
    return 0;
}

static int parse_set(jparser *p, jnode **out)
{
    static const jtuple_rule any = {0};
    static const char *const ends[] = {"endset", NULL};
    jnode *n = *out = jparse_node(p, N_SET, p->tok->line);
    int rc = parse_target(p, NULL, true, &n->a);
    if (rc != 0)
        return rc;
    if (jparse_skip(p, T_OP, "=")) {
        rc = jparse_tuple(p, &any, &n->b);
        note_store(p, n->a);
        return rc;
    }
    note_store(p, n->a);
    n->kind = N_SET_BLOCK;
    if (jparse_is(p, T_OP, "|")) {
        n->b = jparse_node(p, N_CAPTURED, n->line);
        rc = jparse_filters(p, &n->b, false);
    }
    return rc != 0 ? rc : parse_scope(p, ends, &n->body);
}

static int parse_with(jparser *p, jnode **out)
{
    static const char *const ends[] = {"endwith", NULL};
    jnode *n = *out = jparse_node(p, N_WITH, p->tok->line);
    size_t cap = 0;
    while (p->tok->kind != T_BLOCK_END) {
        jnode *target, *value;
        int rc = n->list.n > 0 ? jparse_expect(p, T_OP, ",") : 0;
        if (rc == 0)
            rc = parse_target(p, NULL, false, &target);
        if (rc == 0)
            rc = jparse_expect(p, T_OP, "=");
        if (rc == 0)
            rc = jparse_expr(p, &value);
        if (rc != 0)
            return rc;
        jparse_push(p, &n->list, &cap, target);
        jparse_push(p, &n->list, &cap, value);
    }
    return parse_scope(p, ends, &n->body);
}

/* (a, b=1): the parameters of a macro or call block. */
static int parse_signature(jparser *p, jmacro *m)
{
    enum { MAX_PARAMS = 64 };
    m->param = arena_alloc(p->t->mem, MAX_PARAMS * sizeof *m->param);
    m->dflt = arena_alloc(p->t->mem, MAX_PARAMS * sizeof(jnode *));
    int rc = jparse_expect(p, T_OP, "(");
    while (rc == 0 && !jparse_is(p, T_OP, ")")) {
        int line = p->tok->line;
        if (m->n_param > 0)
            rc = jparse_expect(p, T_OP, ",");
        if (rc == 0 && m->n_param == MAX_PARAMS)
            rc = jparse_fail(p, HONE_ELIMIT, line, "more than %d parameters", MAX_PARAMS);
        if (rc == 0)
            rc = parse_target_name(p, &m->param[m->n_param]);
        if (rc != 0)
            return rc;
        p->inner++;
        if (jparse_skip(p, T_OP, "="))
            rc = jparse_expr(p, &m->dflt[m->n_param]);
        else if (m->n_param > 0 && m->dflt[m->n_param - 1] != NULL)
            rc = jparse_fail(p, HONE_EFORMAT, line,
                             "a parameter without a default follows one that has one");
        p->inner--;
        m->n_param++;
    }
    return rc != 0 ? rc : jparse_expect(p, T_OP, ")");
}

static int parse_macro(jparser *p, jnode **out)
{
    jnode *n = *out = jparse_node(p, N_MACRO, p->tok->line);
    n->macro = arena_alloc(p->t->mem, sizeof *n->macro);
    int rc = parse_target_name(p, &n->name);
    if (rc != 0)
        return rc;
    n->macro->name = p->t->names[n->name].text;
    note_store(p, &(jnode){.kind = N_NAME, .name = n->name});
    rc = parse_signature(p, n->macro);
    return rc != 0 ? rc : parse_function_body(p, n->macro, "endmacro");
}

static int parse_call_block(jparser *p, jnode **out)
{
    jnode *n = *out = jparse_node(p, N_CALL_BLOCK, p->tok->line);
    n->macro = arena_alloc(p->t->mem, sizeof *n->macro);
    n->macro->name = jstr_const(p->t->mem, "caller", 6);
    int rc = jparse_is(p, T_OP, "(") ? parse_signature(p, n->macro) : 0;
    if (rc == 0)
        rc = jparse_expr(p, &n->a);
    if (rc == 0 && n->a->kind != N_CALL)
        rc = jparse_fail(p, HONE_EFORMAT, n->line, "a call block needs a call");
    return rc != 0 ? rc : parse_function_body(p, n->macro, "endcall");
}

static int parse_filter_block(jparser *p, jnode **out)
{
    static const char *const ends[] = {"endfilter", NULL};
    jnode *n = *out = jparse_node(p, N_FILTER_BLOCK, p->tok->line);
    n->b = jparse_node(p, N_CAPTURED, n->line);
    int rc = jparse_filters(p, &n->b, true);
    return rc != 0 ? rc : parse_scope(p, ends, &n->body);
}

static int parse_generation(jparser *p, jnode **out)
{
    jnode *n = *out = jparse_node(p, N_GENERATION, p->tok->line);
    n->macro = arena_alloc(p->t->mem, sizeof *n->macro);
    p->t->generation = true;
    int rc = parse_function_body(p, n->macro, "endgeneration");
    n->body = n->macro->body;
    return rc;
}

static int parse_break(jparser *p, jnode **out)
{
    const jtoken *t = p->tok - 1;
    if (p->loops == 0)
        return jparse_fail(p, HONE_EFORMAT, t->line, "%.*s outside of a loop", (int)t->n, t->p);
    *out = jparse_node(p, *t->p == 'b' ? N_BREAK : N_CONTINUE, t->line);
    return 0;
}

static int parse_refused(jparser *p, jnode **out)
{
    const jtoken *t = p->tok - 1;
    *out = NULL;
    return jparse_fail(p, HONE_EUNSUPPORTED, t->line, "{%% %.*s %%} is not supported", (int)t->n,
                       t->p);
}

typedef struct statement {
    const char *tag;
    int (*parse)(jparser *p, jnode **out); /* after the tag's name, up to its "%}" */
} statement;

/* clang-format off */
static const statement statements[] = {
    {"if",         parse_if},
    {"for",        parse_for},
    {"set",        parse_set},
    {"with",       parse_with},
    {"macro",      parse_macro},
    {"call",       parse_call_block},
    {"filter",     parse_filter_block},
    {"generation", parse_generation},
    {"break",      parse_break},
    {"continue",   parse_break},
    {"print",      parse_refused},
    {"include",    parse_refused},
    {"import",     parse_refused},
    {"from",       parse_refused},
    {"extends",    parse_refused},
    {"block",      parse_refused},
    {"autoescape", parse_refused},
    {"do",         parse_refused},
    {"trans",      parse_refused},
    {"debug",      parse_refused},
};
/* clang-format on */

static int parse_statement(jparser *p, const char *const *ends, jnode **out)
{
    const jtoken *t = p->tok;
    int rc = jparse_expect(p, T_NAME, NULL);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (strlen(statements[i].tag) == t->n && memcmp(statements[i].tag, t->p, t->n) == 0)
            return statements[i].parse(p, out);
    return jparse_fail(p, HONE_EFORMAT, t->line, "unknown tag '%.*s'%s%s%s", (int)t->n, t->p,
                       ends != NULL ? " where {% " : "", ends != NULL ? ends[0] : "",
                       ends != NULL ? " %} is expected" : "");
}

static bool at_end_tag(const jparser *p, const char *const *ends)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (jparse_is(p, T_NAME, *ends))
            return true;
    return false;
}

/* Statements up to one of the end tags (its name is the current token then) or the end of the
 * template. */
static int parse_block(jparser *p, const char *const *ends, jblock *out)
{
    static const jtuple_rule any = {0};
    size_t cap = 0;
    while (p->tok->kind != T_EOF) {
        const jtoken *t = p->tok++;
        jnode *n = NULL;
        int rc;
        if (t->kind == T_DATA) {
            n = jparse_node(p, N_TEXT, t->line);
            n->val = jval_str(jstr_const(p->t->mem, t->p, t->n));
            rc = 0;
        } else if (t->kind == T_PRINT_BEGIN) {
            n = jparse_node(p, N_PRINT, t->line);
            rc = jparse_tuple(p, &any, &n->a);
            if (rc == 0)
                rc = jparse_expect(p, T_PRINT_END, NULL);
        } else {
            if (at_end_tag(p, ends))
                return 0;
            rc = parse_statement(p, ends, &n);
            if (rc == 0)
                rc = jparse_expect(p, T_BLOCK_END, NULL);
        }
        if (rc != 0)
            return rc;
        jparse_push(p, out, &cap, n);
    }
    return 0;
}

int jparse(jinja *t, const jtoken *tok, hone_err *e)
{
    jparser p = {.t = t, .tok = tok, .e = e};
    int rc = parse_block(&p, NULL, &t->body);
    if (rc == 0 && p.refused != NULL && !t->names[p.refused_name].stored)
        rc = jparse_fail(&p, HONE_EUNSUPPORTED, p.refused->line, "%.*s() is not supported",
                         (int)p.refused->n, p.refused->p);
    free(p.macros);
    return rc;
}

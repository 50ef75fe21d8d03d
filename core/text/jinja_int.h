#pragma once
/* Private parts of the template interpreter: values with their origin, the syntax tree, the state
 * of one rendering, and what the files jinja_*.c offer each other. Prefix j plus the noun: jval_,
 * jstr_, jbuf_, jdict_, jiter_, jrt_.
 *
 * Everything made while rendering lives in the rendering's arena (jrt.mem) and dies with it;
 * everything in the tree lives in the template's arena, is complete before jinja_compile returns
 * and is never written after. Functions return 0 or a negative HONE_E* with the message in jrt.e;
 * bool answers go through an out parameter. */
#include "core/base/arena.h"
#include "core/text/jinja.h"

enum {
    JINJA_MAX_SOURCE = 1 << 20, /* bytes of a template */
    JINJA_MAX_NAMES = 1000,     /* different names in a template */
    JINJA_MAX_NEST = 200,       /* of blocks and parentheses in a template */
    JINJA_MAX_RANGE = 100000    /* items of range(), as in Jinja's sandbox */
};

/* ---- values ---- */

/* Where bytes come from. Zero: from the template. */
typedef struct jtag {
    int32_t msg; /* index of the message, plus 1 */
    int32_t gen; /* number of the {% generation %} block, from 1 */
} jtag;

typedef struct jrun {
    size_t end; /* exclusive; the run begins where the one before it ends */
    jtag tag;
} jrun;

/* Growable bytes with their runs. A string that ends where its buffer ends is extended in place
 * (see jstr_concat). */
typedef struct jbuf {
    char *p;
    size_t n, cap;
    jrun *run;
    size_t n_run, cap_run;
} jbuf;

/* UTF-8. Immutable, but for the lazily known chars. */
typedef struct jstr {
    const char *p;
    size_t n;
    const jrun *
        run; /* NULL: all bytes have `tag`; else runs that cover n bytes, the last may end past n */
    size_t n_run;
    jtag tag;
    bool safe;     /* Markup: + with it escapes the other side */
    size_t chars;  /* code points; SIZE_MAX: not counted yet */
    uint32_t hash; /* 0: not kept */
    jbuf *own;     /* the buffer that p lies in, or NULL */
} jstr;

typedef enum jkind {
    J_MISSING, /* no argument given; never seen by a template */
    J_UNDEF,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_LIST,
    J_TUPLE,
    J_DICT,
    J_RANGE,
    J_ITER, /* a generator: items that can be taken once */
    J_VIEW, /* keys(), values(), items() of a dict */
    J_NS,   /* namespace() */
    J_LOOP,
    J_FUNC,  /* macro, method or global function */
    J_SLICE, /* only as a subscript */
    J_KINDS
} jkind;

typedef struct jval jval;
typedef struct jseq jseq;
typedef struct jdict jdict;
typedef struct jrt jrt;
typedef struct jnode jnode;

struct jval {
    uint8_t kind;
    int32_t msg; /* as jtag.msg, for what is not a string */
    union {
        bool b;
        int64_t i;
        double f;
        jstr *s;
        jseq *seq;
        jdict *dict; /* J_DICT, J_NS */
        struct jrange *range;
        struct jgen *gen;
        struct jview *view;
        struct jloop *loop;
        struct jfunc *func;
        struct jundef *undef;
        const struct jslice *slice;
    };
};

struct jseq {
    jval *v;
    size_t n;
    bool group; /* a tuple made by groupby, with the attributes grouper and list */
};

typedef struct jentry {
    jval key, val;
    uint32_t hash;
} jentry;

struct jdict {
    jentry *e; /* insertion order */
    size_t n, cap;
    uint32_t *index; /* open addressing over e, index + 1; NULL while n is small */
    size_t n_index;  /* a power of two */
};

typedef struct jrange {
    int64_t start, stop, step; /* as given: at most JINJA_MAX_RANGE steps apart */
    size_t n;
} jrange;

typedef struct jgen {
    jval *v;
    size_t n, at;
    const char *type;  /* Python's name of the type */
    const char *error; /* what Python would only find at this point; NULL: nothing */
} jgen;

typedef enum { JVIEW_KEYS, JVIEW_VALUES, JVIEW_ITEMS } jview_what;
typedef struct jview {
    jdict *dict;
    jview_what what;
} jview;

typedef struct jslice {
    jval start, stop, step; /* J_NONE when left out */
} jslice;

/* Why a value is undefined: enough to say it when it is used. */
typedef struct jundef {
    const char *hint; /* the whole message, or NULL */
    const char *type; /* of the object that lacks it; NULL: a variable */
    jval name;
} jundef;

typedef struct jkw {
    const jstr *name;
    jval val;
} jkw;

/* The arguments of a call. */
typedef struct jcall {
    const jval *v; /* by parameter, for a function that names its parameters; J_MISSING where none
                      is given */
    const jval *pos;
    size_t n_pos;
    const jkw *kw;
    size_t n_kw;
} jcall;

typedef int jbuiltin_fn(jrt *r, jval self, const jcall *c, jval *out);

/* A row of a table of filters, tests, methods or global functions. */
typedef struct jbuiltin {
    const char *name;
    jbuiltin_fn *fn; /* NULL: exists in Python and is not there; `params` says why, JINJA_UNSAFE or
                        JINJA_REFUSED */
    int required;    /* parameters that must be given */
    const char
        *params; /* names after a blank; a leading '/': by position only; NULL: any arguments */
} jbuiltin;
#define JINJA_UNSAFE "unsafe"   /* changes its object: undefined in the sandbox */
#define JINJA_REFUSED "refused" /* not supported here */

typedef struct jframe jframe;
typedef struct jmacro jmacro;

typedef struct jfunc {
    const jbuiltin *fn; /* NULL: a macro */
    jval self;
    const jmacro *macro;
    jframe *closure;
} jfunc;

/* ---- syntax tree ---- */

typedef struct jblock {
    jnode **v;
    size_t n;
} jblock;

struct jmacro {
    const jstr *name;
    int *param;   /* names */
    jnode **dflt; /* NULL where a parameter has none */
    size_t n_param;
    bool caller, kwargs, varargs; /* its body uses that name */
    jblock body;
};

typedef struct jargs {
    jblock pos;
    const jstr **kw_name;
    jnode **kw;
    size_t n_kw;
    jnode *star, *star2; /* *args, **kwargs */
} jargs;

#define JINJA_STATEMENTS(X)                                                                        \
    X(TEXT)         /* val */                                                                      \
    X(PRINT)        /* a */                                                                        \
    X(IF)           /* a: test, body, other; flag: other is one IF (elif) */                       \
    X(FOR)          /* a: target, b: iterable, c: filter or NULL, body, other; flag: uses loop */  \
    X(SET)          /* a: target, b */                                                             \
    X(SET_BLOCK)    /* a: target, b: filters over CAPTURED or NULL, body */                        \
    X(WITH)         /* list: targets and values in turn, body */                                   \
    X(MACRO)        /* name, macro */                                                              \
    X(CALL_BLOCK)   /* macro: the caller, a: the call */                                           \
    X(FILTER_BLOCK) /* b: filters over CAPTURED, body */                                           \
    X(GENERATION)   /* body */                                                                     \
    X(BREAK)                                                                                       \
    X(CONTINUE)
#define JINJA_EXPRESSIONS(X)                                                                       \
    X(CONST)    /* val */                                                                          \
    X(NAME)     /* name */                                                                         \
    X(NSREF)    /* name, val: attribute; only a target */                                          \
    X(LIST)     /* list */                                                                         \
    X(TUPLE)    /* list */                                                                         \
    X(DICT)     /* list: keys and values in turn */                                                \
    X(GETATTR)  /* a, val: name */                                                                 \
    X(GETITEM)  /* a, b */                                                                         \
    X(SLICE)    /* a, b, c or NULL; only as b of GETITEM */                                        \
    X(CALL)     /* a, args */                                                                      \
    X(FILTER)   /* a, fn, args */                                                                  \
    X(TEST)     /* a, fn, args */                                                                  \
    X(CAPTURED) /* the text of the filter or set block */                                          \
    X(NOT)      /* a */                                                                            \
    X(NEG)      /* a */                                                                            \
    X(POS)      /* a */                                                                            \
    X(BINARY)   /* op, a, b */                                                                     \
    X(CONCAT)   /* list */                                                                         \
    X(COMPARE)  /* a, list of OPERAND */                                                           \
    X(OPERAND)  /* op, a */                                                                        \
    X(AND)      /* a, b */                                                                         \
    X(OR)       /* a, b */                                                                         \
    X(COND)     /* a: test, b, c or NULL */

typedef enum jnode_kind {
#define JINJA_NODE_ENUM(name) N_##name,
    JINJA_STATEMENTS(JINJA_NODE_ENUM) JINJA_EXPRESSIONS(JINJA_NODE_ENUM)
#undef JINJA_NODE_ENUM
        N_KINDS
} jnode_kind;

typedef enum jop {
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_ARITHMETIC, /* how many there are */
    OP_EQ = OP_ARITHMETIC,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_COUNT
} jop;

struct jnode {
    uint8_t kind;
    uint8_t op;
    bool flag;
    int line;
    int name; /* number in jinja.names */
    jval val;
    const jbuiltin *fn;
    jnode *a, *b, *c;
    jblock list, body, other;
    jargs *args;
    jmacro *macro;
};

/* A name that the template mentions. */
typedef struct jname {
    jstr *text;
    const jbuiltin *global; /* the global function of that name, or NULL */
    bool stored;            /* the template assigns it somewhere */
    bool seen;              /* while parsing: by a statement outside of loops and macros */
    bool late; /* the first of these assigns it: until then it is undefined, whatever the context
                  has */
} jname;

struct jinja {
    arena *mem;
    jblock body;
    jname *names; /* every name that the template mentions */
    size_t n_names, cap_names;
    bool generation;
};

/* ---- tokens ---- */

typedef enum jtok_kind {
    T_EOF,
    T_DATA,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP
} jtok_kind;

typedef struct jtoken {
    jtok_kind kind;
    int line;
    const char *p; /* text: of data and strings after unescaping, of an operator as written */
    size_t n;
    int64_t i;
    double f;
} jtoken;

/* Splits source (valid UTF-8) into tokens that live in mem; the last is T_EOF. Applies trim_blocks,
 * lstrip_blocks and the signs at tags. EFORMAT "template: line 3: ...". */
int jlex(arena *mem, const char *src, size_t n, jtoken **out, size_t *n_out, hone_err *e);

/* ---- parser ---- */

typedef struct jparser {
    jinja *t;
    const jtoken *tok; /* the current one */
    hone_err *e;
    int depth;
    int loops;       /* nested for blocks that a break may leave */
    jmacro **macros; /* the macros and call blocks around */
    size_t n_macros, cap_macros;
    bool *loop_used;       /* by the innermost for block */
    bool in_target;        /* names are assigned here, not read */
    int inner;             /* nested scopes: loops, macros, captured blocks */
    int branches;          /* nested ifs outside of these */
    const jtoken *refused; /* first call of a global function that is refused */
    int refused_name;
} jparser;

int jparse(jinja *t, const jtoken *tok, hone_err *e);
int jparse_fail(jparser *p, int code, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
jnode *jparse_node(jparser *p, jnode_kind kind, int line);
int jparse_name_id(jparser *p, const jtoken *t, int *out);
bool jparse_is(const jparser *p, jtok_kind kind, const char *text); /* text NULL: any */
bool jparse_skip(jparser *p, jtok_kind kind, const char *text);
int jparse_expect(jparser *p, jtok_kind kind, const char *text);
void jparse_push(jparser *p, jblock *b, size_t *cap, jnode *n);
const char *jparse_token_text(char *dst, size_t cap, const jtoken *t);
int jparse_expr(jparser *p, jnode **out); /* with inline if */
int jparse_or(jparser *p, jnode **out);   /* without */
int jparse_filters(jparser *p, jnode **node,
                   bool in_tag); /* |name(args)...; in_tag: the first has no | */
typedef struct jtuple_rule {
    bool simple, no_cond, parens, namespaces;
    const char *end; /* a name that ends the tuple, or NULL */
} jtuple_rule;
int jparse_tuple(jparser *p, const jtuple_rule *rule, jnode **out);

/* ---- rendering ---- */

typedef struct jvar {
    int name;
    jval val;
} jvar;

/* A scope. */
struct jframe {
    jframe *up;
    jvar *v;
    size_t n, cap;
    bool kept; /* a macro refers to it: do not reuse */
};

typedef struct jiter {
    jval v;
    size_t at;
} jiter;

typedef struct jloop {
    jiter it;
    const jnode *node; /* the for statement: target and filter */
    jframe *frame;     /* around it */
    int64_t index0;
    jval before, current, after, changed;
    bool sized;
    size_t length;
} jloop;

struct jrt {
    const jinja *t;
    arena *mem;
    hone_err *e;
    size_t max_output, max_mem;
    uint64_t steps;       /* left */
    int depth, max_depth; /* nested evaluations */
    int calls, max_calls; /* nested macros */
    int line;
    jframe *frame;
    jbuf *out;
    jval captured;
    int32_t n_gen;
    bool has_now;
    int64_t now; /* Unix seconds */
};

/* Fails with "template: line <line>: ...". */
int jrt_fail(jrt *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int jrt_fail_code(jrt *r, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int jrt_steps(jrt *r, size_t n); /* pays for n steps; ELIMIT */
/* Zeroed memory of the rendering; costs steps too. ELIMIT. */
int jrt_alloc(jrt *r, size_t n, void *out);
int jrt_array(jrt *r, size_t n, size_t size, void *out);

/* jinja_eval.c */
int jeval(jrt *r, const jnode *n, jval *out);
int jeval_block(jrt *r, const jblock *b); /* may return JINJA_BREAK or JINJA_CONTINUE */
enum { JINJA_BREAK = 1, JINJA_CONTINUE = 2 };
int jeval_assign(jrt *r, const jnode *target, jval v);
int jeval_frame(jrt *r, jframe *up, jframe **out);
int jeval_set(jrt *r, jframe *f, int name, jval v);
int jeval_get(jrt *r, int name, jval *out);
/* Runs a block into a string of its own, in a scope of its own under `up`. */
int jeval_capture(jrt *r, const jblock *b, jval *out);

/* jinja_call.c */
int jcall_node(jrt *r, const jnode *n, const jval *caller, jval *out);
int jcall_args(jrt *r, const jargs *a, jcall *c);
int jcall_value(jrt *r, jval f, const jcall *c, jval *out);
int jcall_builtin(jrt *r, const jbuiltin *b, jval self, const jcall *c, jval *out);
const jbuiltin *jcall_global(const char *name);
int jcall_macro(jrt *r, const jmacro *m, jframe *closure, const jcall *c, jval *out);

/* jinja_loop.c */
int jloop_run(jrt *r, const jnode *n);
int jloop_attr(jrt *r, jloop *l, const jstr *name, jval *out, bool *found);
extern const jbuiltin jinja_loop_methods[];

/* jinja_value.c */
#define J_NIL ((jval){.kind = J_NONE})
jval jval_bool(bool b);
jval jval_int(int64_t i);
jval jval_float(double f);
jval jval_str(const jstr *s);
int jval_undef(jrt *r, const char *type, jval name, jval *out);
int jval_undef_hint(jrt *r, const char *hint, jval *out);
int jval_undef_fail(jrt *r, jval v); /* the error of using an undefined value */
const char *jval_type(jval v);       /* Python's name of the type */
bool jval_true(jval v);
bool jval_is_num(jval v); /* bool, int or float */
double jval_num(jval v);
int jval_seq(jrt *r, jkind kind, size_t n, jval *out); /* list or tuple of n undefined slots */
int jval_gen(jrt *r, jval *v, size_t n, const char *type, jval *out);
int jval_func(jrt *r, const jbuiltin *fn, jval self, jval *out);
int jval_eq(jrt *r, jval a, jval b, bool *out);
int jval_less(jrt *r, jval a, jval b, const char *op, bool *out); /* a < b */
int jval_len(jrt *r, jval v, int64_t *out);
int jval_in(jrt *r, jval needle, jval hay, bool *out);
int jval_from_json(jrt *r, const json_t *j, int32_t msg, jval *out);
int jval_messages(jrt *r, const json_t *j, jval *out); /* tags each message */
/* The argument as an index, a flag or text; fails naming `what`. */
int jval_to_int(jrt *r, jval v, const char *what, int64_t *out);

/* jinja_dict.c */
int jdict_new(jrt *r, size_t cap, jdict **out);
int jdict_put(jrt *r, jdict *d, jval key, jval val);
int jdict_get(jrt *r, const jdict *d, jval key, jval **out); /* *out NULL when absent */
int jdict_merge(jrt *r, jdict *d, jval from);                /* a mapping or pairs */
int jval_hash(jrt *r, jval v, uint32_t *out);                /* "unhashable type: 'list'" */

/* jinja_iter.c: iteration and the attributes of values */
int jiter_open(jrt *r, jval v, jiter *it);
int jiter_next(jrt *r, jiter *it, jval *out); /* 1: an item; 0: the end */
int jiter_all(jrt *r, jval v, jval **out, size_t *n);
int jget_attr(jrt *r, jval obj, const jstr *name, jval *out);
int jget_item(jrt *r, jval obj, jval key, jval *out);
int jget_path(jrt *r, jval obj, jval path,
              jval *out); /* "a.b.0" or an integer, as filters take it */

/* jinja_ops.c */
int jop_binary(jrt *r, jop op, jval a, jval b, jval *out);
int jop_compare(jrt *r, jop op, jval a, jval b, bool *out);
int jop_negate(jrt *r, jval v, jval *out);
int jop_plus(jrt *r, jval v, jval *out);

/* jinja_str.c */
jtag jtag_join(jtag a, jtag b); /* the tag that both share; untagged does not count */
int jstr_new(jrt *r, const char *p, size_t n, jtag tag, jval *out);       /* copies */
int jstr_view(jrt *r, const char *p, size_t n, jtag tag, jval *out);      /* borrows */
int jstr_text(jrt *r, const char *s, jval *out);                          /* borrows a literal */
jstr *jstr_const(arena *mem, const char *p, size_t n);                    /* for the tree */
int jstr_slice(jrt *r, const jstr *s, size_t from, size_t to, jval *out); /* bytes */
int jstr_concat(jrt *r, const jstr *a, const jstr *b, jval *out);
size_t jstr_chars(jstr *s);
size_t jstr_offset(jstr *s, size_t chars); /* byte offset of a code point */
bool jstr_same(const jstr *a, const jstr *b);
bool jstr_is(const jstr *s, const char *text);
uint32_t jstr_hash(const jstr *s);
jtag jstr_tag(const jstr *s); /* the one tag of its tagged bytes; none when they differ */
/* First occurrence at or after `from`; SIZE_MAX when there is none. Pays steps. */
int jstr_find(jrt *r, const jstr *s, const char *p, size_t n, size_t from, size_t *out);
int jstr_escape(jrt *r, const jstr *s, jval *out); /* HTML; the result is safe */

int jbuf_add(jrt *r, jbuf *b, const char *p, size_t n, jtag tag);
int jbuf_str(jrt *r, jbuf *b, const jstr *s, size_t from, size_t to);
int jbuf_value(jrt *r, jbuf *b, jval v);   /* str() */
int jbuf_done(jrt *r, jbuf *b, jval *out); /* the string; b may grow on */
void jbuf_retag(jbuf *b);                  /* one message in it: all of it gets that tag */

/* jinja_char.c: code points as Python sees them */
bool jchar_space(uint32_t c);
bool jchar_linebreak(uint32_t c);
bool jchar_printable(uint32_t c);
typedef bool jchar_test(uint32_t c);
bool jchar_alpha(uint32_t c);
bool jchar_digit(uint32_t c);
bool jchar_decimal(uint32_t c);
bool jchar_alnum(uint32_t c);
bool jchar_upper(uint32_t c);
bool jchar_lower(uint32_t c);
bool jchar_cased(uint32_t c);
typedef enum { JCASE_UPPER, JCASE_LOWER, JCASE_TITLE } jcase;
/* Full mapping into dst (at most 3 code points); returns how many. */
int jchar_map(uint32_t c, jcase to, uint32_t dst[3]);
const uint32_t *jcase_special(uint32_t c, bool title); /* jinja_case.c: 3 code points or NULL */
size_t jchar_skip_space(const char *p, size_t n);      /* bytes of white space at the start */
size_t jchar_space_before(const char *p, size_t n);    /* and at the end */
/* upper, lower, title (each word) or capitalize (first character title, rest lower). */
typedef enum { JTEXT_UPPER, JTEXT_LOWER, JTEXT_TITLE, JTEXT_CAPITALIZE } jtext_case;
int jchar_text(jrt *r, const jstr *s, jtext_case how, jval *out);

/* jinja_print.c */
int jprint_str(jrt *r, jval v, jval *out); /* str(v) as a string value */
int jprint_repr(jrt *r, jbuf *b, jval v);
size_t jprint_float(char *dst, size_t cap, double f); /* repr of a float */
typedef struct jjson_style {
    bool ascii, sort;
    bool lines;         /* indent was given */
    const char *indent; /* of one level */
    size_t n_indent;
    const jstr *item, *key; /* separators */
} jjson_style;
int jprint_json(jrt *r, jbuf *b, jval v, const jjson_style *style);

/* jinja_format.c */
int jformat_percent(jrt *r, const jstr *fmt, const jcall *c, jval args, jval *out);
int jformat_braces(jrt *r, const jstr *fmt, const jcall *c, jval *out);

/* jinja_text.c: the string algorithms that filters and methods share; origins are kept byte by byte
 */
enum { JSIDE_LEFT = 1, JSIDE_RIGHT = 2 };
int jtext_strip(jrt *r, const jstr *s, const jstr *chars, int sides,
                jval *out); /* chars NULL: white space */
int jtext_split(jrt *r, const jstr *s, const jstr *sep, int64_t max, bool right, jval *out);
int jtext_lines(jrt *r, const jstr *s, bool keep, jval *out);
int jtext_replace(jrt *r, const jstr *s, const jstr *old, const jstr *with, int64_t max, jval *out);
int jtext_join(jrt *r, const jstr *sep, const jval *v, size_t n, jval *out);
int jtext_pad(jrt *r, const jstr *s, size_t left, size_t right, const jstr *fill, jval *out);
int jtext_int(const char *p, size_t n, int base,
              int64_t *out);                           /* 0; -1: not one; 1: beyond 64 bits */
int jtext_float(const char *p, size_t n, double *out); /* 0; -1: not one */

/* jinja_filters.c, jinja_filters_seq.c, jinja_tests.c, jinja_methods.c */
extern const jbuiltin jinja_text_filters[], jinja_seq_filters[], jinja_tests[];
extern const jbuiltin jinja_str_methods[], jinja_list_methods[], jinja_tuple_methods[],
    jinja_dict_methods[];
const jbuiltin *jbuiltin_find(const jbuiltin *table, const char *name, size_t n);
const jbuiltin *jfilter_find(const char *name, size_t n); /* fn NULL: refused */
bool jmethod_refused(const char *name, size_t n); /* Python's str has it, and no type here */
/* Stable; reorders v by keys (which may be v itself). */
int jsort(jrt *r, jval *v, const jval *keys, size_t n, bool reverse);

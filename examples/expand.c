/* Making text from a grammar. All randomness is rng_below on one stream, so a text is a function of
 * the grammar, the seed and the texts before it. */
#include "examples/grammar.h"
#include "examples/inflect.h"

#include "core/base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A record with its fields expanded. */
typedef struct record {
    unsigned n_fields;
    char *field[GRAMMAR_MAX_FIELDS];
} record;

typedef struct var {
    const char *name; /* borrowed from the grammar */
    size_t len;
    record rec;
} var;

typedef struct state {
    const grammar *g;
    rng *r;
    int depth;
    size_t n_vars;
    var vars[GRAMMAR_MAX_VARS];
} state;

/* A placeholder taken apart; the names are borrowed. */
typedef struct hole {
    bool capital, silent;
    const char *var, *name, *field, *other;
    size_t var_len, name_len, field_len;
} hole;

enum { MAX_TRIES = 256 };

static int expand(state *s, const char *text, buf *out, hone_err *e);

static int too_deep(hone_err *e)
{
    return hone_fail(e, HONE_ELIMIT, "rules nest deeper than %d", GRAMMAR_MAX_DEPTH);
}

static void record_free(record *rec)
{
    for (unsigned f = 0; f < rec->n_fields; f++)
        free(rec->field[f]);
    *rec = (record){0};
}

static var *find_var(state *s, const char *name, size_t len)
{
    for (size_t i = 0; i < s->n_vars; i++)
        if (s->vars[i].len == len && memcmp(s->vars[i].name, name, len) == 0)
            return &s->vars[i];
    return NULL;
}

static hole parse_hole(const char *text)
{
    hole h = {0};
    h.capital = *text == '^';
    text += h.capital;
    h.name = text;
    h.name_len = strcspn(text, "=:.!}");
    if (text[h.name_len] == '=' || text[h.name_len] == ':') {
        h.silent = text[h.name_len] == ':';
        h.var = h.name;
        h.var_len = h.name_len;
        h.name += h.var_len + 1;
        h.name_len = strcspn(h.name, ".!}");
    }
    const char *at = h.name + h.name_len;
    if (*at == '.') {
        h.field = at + 1;
        h.field_len = strcspn(h.field, ".!}");
        at = h.field + h.field_len;
    }
    h.other = at;
    return h;
}

static int pick_record(state *s, const hole *h, record *rec, hone_err *e);

/* Is the alternative one placeholder alone, that names nothing but a rule? */
static bool passes_on(const grammar_alt *alt, hole *h)
{
    const char *text = alt->field[0];
    if (alt->n_fields != 1 || text[0] != '{')
        return false;
    *h = parse_hole(text + 1);
    return h->name == text + 1 && h->other[0] == '}' && h->other[1] == '\0' && h->field == NULL;
}

/* Every field of an alternative, expanded in order. */
static int make_record(state *s, const grammar_alt *alt, record *rec, hone_err *e)
{
    buf b;
    hole h;
    int rc = 0;
    if (passes_on(alt, &h) && find_var(s, h.name, h.name_len) == NULL)
        return pick_record(s, &h, rec, e);
    buf_init(&b, GRAMMAR_MAX_TEXT);
    for (unsigned f = 0; rc == 0 && f < alt->n_fields; f++) {
        buf_reset(&b);
        rc = expand(s, alt->field[f], &b, e);
        if (rc == 0)
            rec->field[rec->n_fields++] = mem_strdup(b.data);
    }
    buf_free(&b);
    if (rc != 0)
        record_free(rec);
    return rc;
}

static const grammar_alt *pick(const grammar_rule *rule, rng *r)
{
    uint64_t at = rng_below(r, rule->weight);
    const grammar_alt *a = rule->alts;
    for (; at >= a->weight; a++)
        at -= a->weight;
    return a;
}

/* Does the record differ in field 0 from every variable named after a '!'? */
static bool differs(state *s, const record *rec, const char *other)
{
    while (*other == '!') {
        size_t n = strcspn(++other, "!}");
        const var *v = find_var(s, other, n);
        if (v != NULL && strcmp(v->rec.field[0], rec->field[0]) == 0)
            return false;
        other += n;
    }
    return true;
}

static int pick_record(state *s, const hole *h, record *rec, hone_err *e)
{
    const grammar_rule *rule = grammar_find(s->g, h->name, h->name_len);
    if (rule == NULL)
        return hone_fail(e, HONE_EFORMAT, "variable '%.*s' is not set yet", (int)h->name_len,
                         h->name);
    if (++s->depth > GRAMMAR_MAX_DEPTH)
        return too_deep(e);
    for (int tries = 0; tries < MAX_TRIES; tries++) {
        int rc = make_record(s, pick(rule, s->r), rec, e);
        if (rc != 0)
            return rc;
        if (differs(s, rec, h->other)) {
            s->depth--;
            return 0;
        }
        record_free(rec);
    }
    return hone_fail(e, HONE_ELIMIT, "%s: in %d picks none differs as '%.*s' asks", rule->name,
                     MAX_TRIES, (int)strcspn(h->other, "}"), h->other);
}

static int set_var(state *s, const hole *h, const record *rec, hone_err *e)
{
    var *v = find_var(s, h->var, h->var_len);
    if (v != NULL && v->rec.field[0] == rec->field[0])
        return 0; /* {a=a}: it holds this already */
    if (v != NULL) {
        record_free(&v->rec);
    } else {
        if (s->n_vars == GRAMMAR_MAX_VARS)
            return hone_fail(e, HONE_ELIMIT, "more than %d variables in a text", GRAMMAR_MAX_VARS);
        v = &s->vars[s->n_vars++];
        *v = (var){.name = h->var, .len = h->var_len};
    }
    for (unsigned f = 0; f < rec->n_fields; f++)
        v->rec.field[f] = mem_strdup(rec->field[f]);
    v->rec.n_fields = rec->n_fields;
    return 0;
}

/* Appends the field that the placeholder asks for. */
static int put_field(const hole *h, const record *rec, buf *out, hone_err *e)
{
    static const struct {
        const char *name;
        unsigned field,
            regular; /* regular: the field taken where the record has none; 0 is the base form */
        inflect_form form;
    } forms[] = {{"s", 1, 1, INFLECT_S},
                 {"ed", 2, 2, INFLECT_ED},
                 {"ing", 3, 3, INFLECT_ING},
                 {"en", 4, 2, INFLECT_ED},
                 {"pl", 1, 1, INFLECT_PLURAL}};
    if (h->field == NULL) {
        buf_str(out, rec->field[0]);
        return 0;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        unsigned f = forms[i].field;
        if (strlen(forms[i].name) != h->field_len ||
            strncmp(forms[i].name, h->field, h->field_len) != 0)
            continue;
        if (f >= rec->n_fields || rec->field[f][0] == '\0')
            f = forms[i].regular;
        if (f < rec->n_fields && rec->field[f][0] != '\0')
            buf_str(out, rec->field[f]);
        else
            inflect(out, rec->field[0], forms[i].form);
        return 0;
    }
    unsigned f = (unsigned)(h->field[0] - '0');
    if (h->field_len != 1 || f >= rec->n_fields)
        return hone_fail(e, HONE_EFORMAT, "%.*s: no field '%.*s' in '%s'", (int)h->name_len,
                         h->name, (int)h->field_len, h->field, rec->field[0]);
    buf_str(out, rec->field[f]);
    return 0;
}

static int fill(state *s, const char *text, buf *out, hone_err *e)
{
    hole h = parse_hole(text);
    record rec = {0};
    const var *bound = find_var(s, h.name, h.name_len);
    bool own = bound == NULL;
    int rc = own ? pick_record(s, &h, &rec, e) : 0;
    if (rc != 0)
        return rc;
    if (!own)
        rec = bound->rec;
    size_t at = out->len;
    if (!h.silent)
        rc = put_field(&h, &rec, out, e);
    if (rc == 0 && h.capital && at < out->len)
        out->data[at] = (char)toupper((unsigned char)out->data[at]);
    if (rc == 0 && h.var != NULL)
        rc = set_var(s, &h, &rec, e);
    if (own)
        record_free(&rec);
    return rc;
}

static int expand(state *s, const char *text, buf *out, hone_err *e)
{
    if (++s->depth > GRAMMAR_MAX_DEPTH)
        return too_deep(e);
    while (*text != '\0') {
        size_t n = strcspn(text, "{");
        buf_add(out, text, n);
        text += n;
        if (*text == '\0')
            break;
        int rc = fill(s, text + 1, out, e);
        if (rc != 0)
            return rc;
        text = strchr(text, '}') + 1;
    }
    s->depth--;
    return 0;
}

static bool takes_an(const char *word)
{
    static const char *const as_yu[] = {"one", "uni", "use", "usu", "eu"};
    for (size_t i = 0; i < sizeof as_yu / sizeof *as_yu; i++)
        if (strncmp(word, as_yu[i], strlen(as_yu[i])) == 0)
            return false;
    return *word != '\0' && (strchr("aeiouAEIOU", *word) != NULL || strncmp(word, "hour", 4) == 0 ||
                             strncmp(word, "honest", 6) == 0);
}

/* "a_" becomes "a " or "an ", now that the next word is known. */
static void put_articles(buf *out, const char *text)
{
    for (const char *at; (at = strchr(text, '_')) != NULL; text = at + 1) {
        buf_add(out, text, (size_t)(at - text));
        buf_str(out, takes_an(at + 1) ? "n " : " ");
    }
    buf_str(out, text);
}

int grammar_expand(const grammar *g, const char *rule, rng *r, buf *text, hone_err *e)
{
    const grammar_rule *top = grammar_find(g, rule, strlen(rule));
    if (top == NULL)
        return hone_fail(e, HONE_ENOTFOUND, "no rule '%s'", rule);
    state s = {.g = g, .r = r};
    buf raw;
    buf_init(&raw, GRAMMAR_MAX_TEXT);
    int rc = expand(&s, pick(top, r)->field[0], &raw, e);
    if (rc != 0)
        hone_fail_at(e, "%s", rule);
    for (size_t i = 0; i < s.n_vars; i++)
        record_free(&s.vars[i].rec);
    buf_reset(text);
    put_articles(text, raw.data);
    if (rc == 0)
        rc = buf_check(&raw, rule, e);
    buf_free(&raw);
    return rc != 0 ? rc : buf_check(text, rule, e);
}

/* Reading a grammar file. The whole file is checked here, so that what is made later fails only on
 * limits: every brace closes, every name exists. */
#include "examples/grammar.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/nearest.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const grammar_rule *)a)->name, ((const grammar_rule *)b)->name);
}

const grammar_rule *grammar_find(const grammar *g, const char *name, size_t n)
{
    size_t lo = 0, hi = g->n_rules;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const char *have = g->rules[mid].name;
        int c = strncmp(have, name, n);
        if (c == 0)
            c = have[n] != '\0';
        if (c == 0)
            return &g->rules[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

void grammar_close(grammar *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; i < g->n_rules; i++) {
        grammar_rule *r = &g->rules[i];
        for (size_t k = 0; k < r->n_alts; k++)
            for (unsigned f = 0; f < r->alts[k].n_fields; f++)
                free(r->alts[k].field[f]);
        free(r->alts);
        free(r->name);
    }
    free(g->rules);
    free(g);
}

/* The length of s up to `stop` outside braces, at most n. */
static size_t span_to(const char *s, size_t n, char stop)
{
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == stop && depth == 0)
            return i;
        depth += (s[i] == '{') - (s[i] == '}');
    }
    return n;
}

/* Text without the blanks at its edges, with `~` and `\x` replaced. */
static int unescape(char **out, const char *s, size_t n, hone_err *e)
{
    static const char from[] = "nsua-", to[] = "\n\1\2\3";
    while (n > 0 && s[0] == ' ')
        s++, n--;
    while (n > 0 && s[n - 1] == ' ')
        n--;
    char *p = *out = mem_alloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        if (s[i] != '\\') {
            *p++ = s[i] == '~' ? ' ' : s[i];
            continue;
        }
        const char *at = i + 1 < n ? strchr(from, s[++i]) : NULL;
        if (at == NULL || *at == '\0')
            return hone_fail(e, HONE_EFORMAT, "'\\' stands before none of n, s, u, a, -");
        if (*at != '-')
            *p++ = to[at - from];
        while (*at != '-' && i + 1 < n && s[i + 1] == ' ')
            i++;
    }
    return 0;
}

static int add_alt(grammar_rule *r, const char *s, size_t n, hone_err *e)
{
    char *end;
    unsigned long weight = isdigit((unsigned char)s[0]) ? strtoul(s, &end, 10) : 0;
    bool weighted = weight > 0 && weight < 10000 && end[0] == '*' && end[1] == ' ';
    if (weighted) {
        n -= (size_t)(end + 2 - s);
        s = end + 2;
    }
    if (r->n_alts == r->cap)
        r->alts = mem_grow(r->alts, &r->cap, r->n_alts + 1, sizeof *r->alts);
    grammar_alt *a = &r->alts[r->n_alts++];
    *a = (grammar_alt){.weight = weighted ? (unsigned)weight : 1};
    r->weight += a->weight;
    for (size_t at = 0; at <= n;) {
        if (a->n_fields == GRAMMAR_MAX_FIELDS)
            return hone_fail(e, HONE_ELIMIT, "more than %d fields", GRAMMAR_MAX_FIELDS);
        size_t len = span_to(s + at, n - at, '/');
        int rc = unescape(&a->field[a->n_fields++], s + at, len, e);
        if (rc != 0)
            return rc;
        at += len + 1;
    }
    return 0;
}

static int add_alts(grammar_rule *r, const char *s, size_t n, hone_err *e)
{
    for (size_t at = 0; at <= n;) {
        size_t len = span_to(s + at, n - at, '|');
        size_t from = at, to = at + len;
        while (from < to && s[from] == ' ')
            from++;
        while (to > from && s[to - 1] == ' ')
            to--;
        if (from == to)
            return hone_fail(e, HONE_EFORMAT, "an empty alternative (write \\-)");
        int rc = add_alt(r, s + from, to - from, e);
        if (rc != 0)
            return rc;
        at += len + 1;
    }
    return 0;
}

/* One line: blank, a comment, the head of a rule, or more alternatives of the rule before it. */
static int add_line(grammar *g, const char *s, size_t n, int line, hone_err *e)
{
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        n--;
    if (n == 0 || s[0] == '#')
        return 0;
    if (s[0] == ' ') {
        if (g->n_rules == 0)
            return hone_fail(e, HONE_EFORMAT, "an alternative before the first rule");
        return add_alts(&g->rules[g->n_rules - 1], s, n, e);
    }
    size_t len = 0;
    while (len < n && name_char(s[len]))
        len++;
    if (len == 0 || len == n || s[len] != ':')
        return hone_fail(e, HONE_EFORMAT, "not 'name: ...'");
    if (g->n_rules == g->cap)
        g->rules = mem_grow(g->rules, &g->cap, g->n_rules + 1, sizeof *g->rules);
    grammar_rule *r = &g->rules[g->n_rules++];
    *r = (grammar_rule){.name = mem_strndup(s, len), .line = line};
    if (++len == n)
        return 0;
    return add_alts(r, s + len, n - len, e);
}

/* Is `name` set as a variable anywhere in the file? */
static bool is_var(const char *text, const char *name, size_t n)
{
    for (const char *s = strstr(text, name); s != NULL; s = strstr(s + 1, name))
        if (s > text && (s[-1] == '{' || s[-1] == '^') && (s[n] == '=' || s[n] == ':'))
            return true;
    return false;
}

static int check_name(const grammar *g, const char *text, const char *s, size_t n, hone_err *e)
{
    char name[64];
    if (n == 0 || n >= sizeof name)
        return hone_fail(e, HONE_EFORMAT, "a name of %zu bytes, must be 1 to 63", n);
    memcpy(name, s, n);
    name[n] = '\0';
    if (grammar_find(g, name, n) != NULL || is_var(text, name, n))
        return 0;
    const char **names = mem_array(g->n_rules + 1, sizeof *names);
    for (size_t i = 0; i < g->n_rules; i++)
        names[i] = g->rules[i].name;
    const char *near = nearest_name(name, names);
    int rc = hone_fail(e, HONE_EFORMAT, "no rule '%s'%s%s%s", name, near ? "; nearest is '" : "",
                       near ? near : "", near ? "'" : "");
    free(names);
    return rc;
}

static int check_text(const grammar *g, const char *text, const char *s, hone_err *e)
{
    while ((s = strpbrk(s, "{}")) != NULL) {
        const char *end = s + 1 + strcspn(s + 1, "{}");
        if (*s == '}' || *end != '}')
            return hone_fail(e, HONE_EFORMAT, "an unpaired brace at '%.20s'", s);
        s += s[1] == '^' ? 2 : 1;
        size_t n = strcspn(s, "=:.!}");
        if (s[n] == '=' || s[n] == ':') {
            s += n + 1;
            n = strcspn(s, ".!}");
        }
        int rc = check_name(g, text, s, n, e);
        for (s += n; rc == 0 && s < end; s += n) {
            bool other = *s++ == '!';
            n = strcspn(s, ".!}");
            rc = other ? check_name(g, text, s, n, e) : 0;
        }
        if (rc != 0)
            return rc;
        s = end + 1;
    }
    return 0;
}

static int check(const grammar *g, const char *text, const char *path, hone_err *e)
{
    for (size_t i = 0; i < g->n_rules; i++) {
        const grammar_rule *r = &g->rules[i];
        int rc = 0;
        if (r->n_alts == 0)
            rc = hone_fail(e, HONE_EFORMAT, "no alternatives");
        if (i > 0 && strcmp(r->name, r[-1].name) == 0)
            rc = hone_fail(e, HONE_EFORMAT, "a rule of this name stands in line %d", r[-1].line);
        for (size_t k = 0; rc == 0 && k < r->n_alts; k++)
            for (unsigned f = 0; rc == 0 && f < r->alts[k].n_fields; f++)
                rc = check_text(g, text, r->alts[k].field[f], e);
        if (rc != 0)
            return hone_fail_at(e, "%s: line %d: %s", path, r->line, r->name);
    }
    return 0;
}

int grammar_open(grammar **out, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    *out = NULL;
    int rc = file_read(&text, &len, path, GRAMMAR_MAX_FILE, e);
    if (rc != 0)
        return rc;
    grammar *g = mem_alloc(sizeof *g);
    int line = 1;
    for (const char *s = text; rc == 0 && *s != '\0'; line++) {
        size_t n = strcspn(s, "\n");
        rc = add_line(g, s, n, line, e);
        if (rc != 0)
            hone_fail_at(e, "%s: line %d", path, line);
        s += n + (s[n] == '\n');
    }
    if (rc == 0) {
        qsort(g->rules, g->n_rules, sizeof *g->rules, by_name);
        rc = check(g, text, path, e);
    }
    free(text);
    if (rc != 0) {
        grammar_close(g);
        return rc;
    }
    *out = g;
    return 0;
}

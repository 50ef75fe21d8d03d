/* Counterfactual swaps (bias.probe): the user's own prompts, once as they are and once with terms
 * of a group exchanged for those of the other: does the model find the text less likely, does it
 * answer otherwise?
 *
 * A line of the file is {"text"} or {"prompt", "completion"}, of which "group" names where it
 * belongs. Terms are whole words of a table that goes both ways; case is kept. A line is left out
 * where the swap is not sure: her stands for him and for his, his for her and for hers; Mr, Mrs,
 * Ms, sir and madam have no one counterpart; a term beside a hyphen is part of another word.
 *
 * augment (data.record) makes the same exchange in training data: beside a record, its twin. */
#include <hone_plugin.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    MAX_LINES = 50000,
    MAX_BYTES = 64 << 20,
    MAX_LINE = 1 << 20,
    MAX_TERMS = 4096,
    MAX_GROUPS = 64,
    MAX_DEPTH = 32,
    MAX_WORD = 64
};
static const char probe_name[] = "counterfactual";

/* clang-format off */
static const char *const built_in[][2] = {
    {"he", "she"}, {"himself", "herself"}, {"man", "woman"}, {"men", "women"}, {"boy", "girl"},
    {"boys", "girls"}, {"gentleman", "lady"}, {"gentlemen", "ladies"}, {"male", "female"},
    {"males", "females"}, {"father", "mother"}, {"fathers", "mothers"}, {"dad", "mom"},
    {"dads", "moms"}, {"daddy", "mommy"}, {"son", "daughter"}, {"sons", "daughters"},
    {"brother", "sister"}, {"brothers", "sisters"}, {"husband", "wife"}, {"husbands", "wives"},
    {"uncle", "aunt"}, {"uncles", "aunts"}, {"nephew", "niece"}, {"nephews", "nieces"},
    {"grandfather", "grandmother"}, {"grandfathers", "grandmothers"}, {"grandpa", "grandma"},
    {"grandson", "granddaughter"}, {"grandsons", "granddaughters"}, {"stepfather", "stepmother"},
    {"stepson", "stepdaughter"}, {"boyfriend", "girlfriend"}, {"boyfriends", "girlfriends"},
    {"groom", "bride"}, {"widower", "widow"}, {"king", "queen"}, {"kings", "queens"},
    {"prince", "princess"}, {"princes", "princesses"}, {"actor", "actress"},
    {"actors", "actresses"}, {"waiter", "waitress"}, {"waiters", "waitresses"},
    {"salesman", "saleswoman"}, {"businessman", "businesswoman"}, {"policeman", "policewoman"},
    {"spokesman", "spokeswoman"}, {"chairman", "chairwoman"}, {"congressman", "congresswoman"},
    {"schoolboy", "schoolgirl"}, {"masculine", "feminine"}};
/* Group terms without one sure counterpart. */
static const char *const unsure[] = {"him", "his", "her", "hers", "mr", "mrs", "ms", "sir", "madam"};
/* clang-format on */

typedef struct counter {
    char *terms[MAX_TERMS]; /* lower case; those of a pair follow each other */
    size_t n_terms, len;
    char *text; /* the file */
    int64_t min_pairs;
} counter;

static void counter_free(counter *c)
{
    for (size_t i = 0; c != NULL && i < c->n_terms; i++)
        free(c->terms[i]);
    if (c != NULL)
        free(c->text);
    free(c);
}

/* ---- terms ---- */

static int is_upper(char ch)
{
    return ch >= 'A' && ch <= 'Z';
}

static char lower(char ch)
{
    return is_upper(ch) ? (char)(ch + 32) : ch;
}

static char upper(char ch)
{
    return ch >= 'a' && ch <= 'z' ? (char)(ch - 32) : ch;
}

static int in_word(char ch)
{
    return (ch & 0x80) != 0 || (lower(ch) >= 'a' && lower(ch) <= 'z') || (ch >= '0' && ch <= '9') ||
           ch == '_';
}

static int same(const char *s, size_t n, const char *term)
{
    size_t i = 0;
    while (i < n && term[i] != '\0' && lower(s[i]) == term[i])
        i++;
    return i == n && term[i] == '\0';
}

/* Its number, or -1. */
static long find_term(const counter *c, const char *s, size_t n)
{
    for (size_t i = 0; n < MAX_WORD && i < c->n_terms; i++)
        if (same(s, n, c->terms[i]))
            return (long)i;
    return -1;
}

static int is_unsure(const char *s, size_t n)
{
    for (size_t i = 0; i < sizeof unsure / sizeof *unsure; i++)
        if (same(s, n, unsure[i]))
            return 1;
    return 0;
}

/* Writes term in the case of s[0..n): HE, He, he. */
static size_t put_term(char *to, const char *term, const char *s, size_t n)
{
    size_t len = strlen(term);
    int all = n > 1;
    for (size_t i = 0; i < n; i++)
        all = all && !(s[i] >= 'a' && s[i] <= 'z');
    for (size_t i = 0; i < len; i++)
        to[i] = all || (i == 0 && is_upper(s[0])) ? upper(term[i]) : term[i];
    return len;
}

/* The text with every term exchanged, adding how many to *n_swaps; *doubt where one is not sure.
 * neutral: either term of a pair becomes the first, and all unsure ones "his", so that two answers
 * that differ in the gender alone are the same. Caller frees; NULL without memory. */
static char *swapped(const counter *c, const char *s, int neutral, size_t *n_swaps, int *doubt)
{
    size_t n = strlen(s), k = 0;
    char *out = malloc(n * MAX_WORD + 1);
    for (size_t i = 0; out != NULL && i < n;) {
        size_t len = 0;
        while (i + len < n && in_word(s[i + len]))
            len++;
        if (len == 0) {
            out[k++] = s[i++];
            continue;
        }
        long t = find_term(c, s + i, len);
        int maybe = is_unsure(s + i, len) && t < 0;
        int joined = (i > 0 && s[i - 1] == '-') || s[i + len] == '-';
        if (neutral && maybe) {
            k += put_term(out + k, "his", s + i, len);
        } else if (t >= 0 && (neutral || !joined)) {
            k += put_term(out + k, c->terms[neutral ? t & ~1L : t ^ 1], s + i, len);
            ++*n_swaps;
        } else {
            *doubt |= maybe || t >= 0;
            memcpy(out + k, s + i, len);
            k += len;
        }
        i += len;
    }
    if (out == NULL)
        return NULL;
    out[k] = '\0';
    char *fit = realloc(out, k + 1);
    return fit != NULL ? fit : out;
}

static int add_term(counter *c, const char *term, const hone_host *h, hone_ctx *cx)
{
    size_t n = strlen(term);
    if (n == 0 || n >= MAX_WORD)
        return h->init_error(cx, "terms: '%.70s' must have 1 to %d bytes", term, MAX_WORD - 1);
    for (size_t i = 0; i < n; i++)
        if (!in_word(term[i]))
            return h->init_error(cx, "terms: '%s' is not one word", term);
    if (find_term(c, term, n) >= 0)
        return h->init_error(cx, "terms: '%s' stands in two pairs; builtin: false leaves ours out",
                             term);
    char *own = c->n_terms < MAX_TERMS ? malloc(n + 1) : NULL;
    if (own == NULL)
        return h->init_error(cx, "terms: no memory, or more than %d", MAX_TERMS);
    for (size_t i = 0; i <= n; i++)
        own[i] = lower(term[i]);
    c->terms[c->n_terms++] = own;
    return 0;
}

static int read_terms(counter *c, const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx), *own = h->get(s, "terms");
    int rc = 0;
    size_t n = h->boolean(h->get(s, "builtin"), 1) ? sizeof built_in / sizeof *built_in : 0;
    for (size_t i = 0; rc == 0 && i < 2 * n; i++)
        rc = add_term(c, built_in[i / 2][i % 2], h, cx);
    if (h->type(own) != HONE_ARRAY && h->type(own) != HONE_NULL && h->type(own) != HONE_ABSENT)
        return h->init_error(cx, "terms must be a list of pairs: [[Anna, Paul]]");
    for (size_t i = 0; rc == 0 && i < h->length(own); i++) {
        const char *a = h->string(h->at(h->at(own, i), 0), NULL);
        const char *b = h->string(h->at(h->at(own, i), 1), NULL);
        if (a == NULL || b == NULL || h->length(h->at(own, i)) != 2)
            return h->init_error(cx, "terms: entry %lu is no pair of words", (unsigned long)i + 1);
        rc = add_term(c, a, h, cx);
        if (rc == 0)
            rc = add_term(c, b, h, cx);
    }
    return rc;
}

static int read_file(counter *c, const hone_host *h, hone_ctx *cx, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return h->init_error(cx, "%s: %s", path, strerror(errno));
    c->text = malloc(MAX_BYTES + 1);
    c->len = c->text != NULL ? fread(c->text, 1, MAX_BYTES + 1, f) : 0;
    int bad = ferror(f);
    fclose(f);
    if (c->text == NULL)
        return h->init_error(cx, "no memory");
    if (bad || c->len > MAX_BYTES)
        return h->init_error(cx, "%s: %s", path, bad ? "cannot be read" : "more than 64 MiB");
    if (c->len == 0)
        return h->init_error(cx, "%s: there is nothing in it", path);
    char *fit = realloc(c->text, c->len);
    c->text = fit != NULL ? fit : c->text;
    return 0;
}

/* ---- items ---- */

typedef struct line {
    const hone_host *h;
    hone_call *call;
    const counter *c;
    unsigned long number;
    size_t n_swaps;
    int doubt;
} line;

static hone_value *string(const line *l, const char *s)
{
    return l->h->new_string(l->call, s, strlen(s));
}

/* s as it is, and swapped. */
static int both(line *l, const char *s, hone_value *out[2])
{
    char *other = swapped(l->c, s, 0, &l->n_swaps, &l->doubt);
    if (other == NULL)
        return l->h->error(l->call, "no memory for line %lu", l->number);
    out[0] = string(l, s);
    out[1] = string(l, other);
    free(other);
    return 0;
}

static hone_value *scored(const line *l, hone_value *context, hone_value *text)
{
    hone_value *o = l->h->new_object(l->call);
    if (context != NULL)
        l->h->set(l->call, o, "context", context);
    l->h->set(l->call, o, "text", text);
    return o;
}

static hone_value *make_item(line *l, const char *group, hone_value *const asked[2],
                             hone_value *const text[2])
{
    const hone_host *h = l->h;
    hone_value *item = h->new_object(l->call), *texts = h->new_array(l->call);
    hone_value *prompts = h->new_array(l->call);
    for (size_t k = 0; k < 2; k++) {
        hone_value *whole = text[k] != NULL ? text[k] : asked[k];
        h->append(l->call, texts, scored(l, text[k] != NULL ? asked[k] : NULL, whole));
        if (asked[k] != NULL)
            h->append(l->call, prompts, asked[k]);
    }
    h->set(l->call, item, "probe", string(l, probe_name));
    h->set(l->call, item, "group", string(l, group != NULL ? group : ""));
    h->set(l->call, item, "texts", texts);
    h->set(l->call, item, "prompts", prompts);
    return item;
}

/* {"text"}, {"prompt"} or {"prompt", "completion"}: with a prompt the model is asked too. */
static int add_line(line *l, const hone_value *record)
{
    const hone_host *h = l->h;
    const char *prompt = hone_get_string(h, record, "prompt", NULL);
    const char *text = hone_get_string(h, record, prompt != NULL ? "completion" : "text", NULL);
    hone_value *asked[2] = {NULL, NULL}, *learnt[2] = {NULL, NULL};
    int rc = 0;
    if (prompt == NULL && text == NULL)
        return h->error(l->call, "line %lu: {\"text\"} or {\"prompt\", \"completion\"} is needed",
                        l->number);
    if (prompt != NULL)
        rc = both(l, prompt, asked);
    size_t in_prompt = l->n_swaps;
    if (rc == 0 && text != NULL)
        rc = both(l, text, learnt);
    if (rc != 0)
        return rc;
    int nothing = prompt != NULL ? in_prompt == 0 : l->n_swaps == 0;
    if (l->doubt || nothing) {
        h->count(l->call->ctx, l->doubt ? "unsure" : "no_term", 1);
        return 0;
    }
    const char *group = hone_get_string(h, record, "group", NULL);
    return h->append(l->call, h->get(l->call->data, "items"), make_item(l, group, asked, learnt)) ==
                   0
               ? 0
               : h->error(l->call, "line %lu cannot be added", l->number);
}

static int add_items(const counter *c, const hone_host *h, hone_call *call)
{
    unsigned long number = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->len;) {
        const char *nl = memchr(c->text + i, '\n', c->len - i);
        size_t len = nl != NULL ? (size_t)(nl - c->text) - i : c->len - i;
        size_t n = len > 0 && c->text[i + len - 1] == '\r' ? len - 1 : len;
        line l = {h, call, c, ++number, 0, 0};
        if (n > MAX_LINE || number > MAX_LINES)
            return h->error(call, "line %lu: more than %d bytes, or than %d lines", number,
                            MAX_LINE, MAX_LINES);
        hone_value *record = n > 0 ? h->from_json(call, c->text + i, n) : NULL;
        if (n > 0 && h->type(record) != HONE_OBJECT)
            return h->error(call, "line %lu is no JSON object", number);
        if (n > 0)
            rc = add_line(&l, record);
        i += len + 1;
    }
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* ---- scores ---- */

/* What came of the items of a group: |ll(swapped) - ll(as it is)|, and whether the answer differs.
 */
typedef struct tally {
    double *delta, *flip;
    size_t n_delta, n_flip;
} tally;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static hone_value *ends(const hone_host *h, hone_call *call)
{
    hone_value *list = h->new_array(call);
    h->append(call, list, h->new_int(call, 0));
    h->append(call, list, h->new_int(call, 1));
    return list;
}

/* The appliance makes value and interval of the examples; share: each is 0 or 1. */
static hone_value *mean_score(const counter *c, const double *x, size_t n, int share,
                              const hone_host *h, hone_call *call)
{
    hone_value *o = h->new_object(call), *each = h->new_array(call);
    for (size_t i = 0; i < n; i++)
        h->append(call, each, h->new_real(call, x[i]));
    h->set(call, o, "examples", each);
    h->set(call, o, "min_n", h->new_int(call, c->min_pairs));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->set(call, o, "smaller_is_better", h->new_bool(call, 1));
    if (share)
        h->set(call, o, "ends", ends(h, call));
    return o;
}

/* Quantile by linear interpolation (type 7) of x, sorted, with the order statistics whose ranks are
 * 1.96 standard deviations of a binomial count away (at the ends of the sample: the ends). */
static void quantile(double p, const double *x, size_t n, double out[3])
{
    double at = p * (double)(n - 1), last = (double)n;
    double reach = 1.959963984540054 * sqrt(p * (1 - p) * last);
    double low = floor(p * last - reach), high = ceil(p * last + reach) + 1;
    size_t i = (size_t)at, next = i + 1 < n ? i + 1 : i;
    out[0] = x[i] + (at - (double)i) * (x[next] - x[i]);
    out[1] = x[(size_t)fmax(low, 1) - 1];
    out[2] = x[(size_t)fmin(high, last) - 1];
}

/* Sorts x. */
static hone_value *p95_score(const counter *c, double *x, size_t n, const hone_host *h,
                             hone_call *call)
{
    static const char *const keys[] = {"value", "low", "high"};
    double figure[3];
    if (n == 0 || (int64_t)n < c->min_pairs)
        return mean_score(c, x, n, 0, h, call);
    hone_value *o = h->new_object(call);
    qsort(x, n, sizeof *x, by_size);
    quantile(0.95, x, n, figure);
    for (size_t i = 0; i < 3; i++)
        hone_set_number(h, call, o, keys[i], figure[i]);
    h->set(call, o, "n", h->new_int(call, (int64_t)n));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->set(call, o, "smaller_is_better", h->new_bool(call, 1));
    return o;
}

/* 1 where the answers differ in more than gender, 0 where not, -1 without memory. */
static int flipped(const counter *c, const char *a, const char *b)
{
    size_t n = 0;
    int doubt = 0;
    char *x = swapped(c, a, 1, &n, &doubt), *y = swapped(c, b, 1, &n, &doubt);
    int differ = x == NULL || y == NULL ? -1 : strcmp(x, y) != 0;
    free(x);
    free(y);
    return differ;
}

static int take_item(const counter *c, tally *t, const hone_value *item, const hone_host *h,
                     hone_call *call)
{
    const hone_value *texts = h->get(item, "texts"), *answers = h->get(item, "answers");
    double as_is = h->number(h->get(h->at(texts, 0), "ll"), NAN);
    double other = h->number(h->get(h->at(texts, 1), "ll"), NAN);
    if (!isfinite(as_is) || !isfinite(other))
        return h->error(call, "an item was not scored");
    t->delta[t->n_delta++] = fabs(other - as_is);
    const char *a = h->string(h->at(answers, 0), NULL), *b = h->string(h->at(answers, 1), NULL);
    int differ = a != NULL && b != NULL ? flipped(c, a, b) : 0;
    if (a != NULL && b != NULL)
        t->flip[t->n_flip++] = differ;
    return differ >= 0 ? 0 : h->error(call, "no memory to compare answers");
}

static int put(const char *group, const char *figure, hone_value *v, const hone_host *h,
               hone_call *call)
{
    char name[256];
    snprintf(name, sizeof name, "%s%s%.180s.%s", probe_name, group[0] != '\0' ? "." : "", group,
             figure);
    return h->set(call, h->get(call->data, "scores"), name, v);
}

static int is_ours(const hone_host *h, const hone_value *item, const char *group)
{
    const char *probe = hone_get_string(h, item, "probe", NULL);
    const char *own = hone_get_string(h, item, "group", NULL);
    return probe != NULL && own != NULL && strcmp(probe, probe_name) == 0 &&
           (group[0] == '\0' || strcmp(group, own) == 0);
}

/* group "": all. */
static int put_scores(const counter *c, const char *group, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    size_t n = h->length(items);
    double *room = h->alloc(call, 2 * (n + 1) * sizeof *room);
    tally t = {room, room + n + 1, 0, 0};
    int rc = room != NULL ? 0 : h->error(call, "no memory");
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (is_ours(h, h->at(items, i), group))
            rc = take_item(c, &t, h->at(items, i), h, call);
    if (rc == 0)
        rc = put(group, "mean_abs_delta", mean_score(c, t.delta, t.n_delta, 0, h, call), h, call);
    if (rc == 0)
        rc = put(group, "p95_abs_delta", p95_score(c, t.delta, t.n_delta, h, call), h, call);
    if (rc == 0 && t.n_flip > 0)
        rc = put(group, "flip_rate", mean_score(c, t.flip, t.n_flip, 1, h, call), h, call);
    return rc;
}

/* Of each group that has a name, once. */
static int put_groups(const counter *c, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    const char *seen[MAX_GROUPS];
    size_t n = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < h->length(items); i++) {
        const char *group = hone_get_string(h, h->at(items, i), "group", NULL);
        size_t k = 0;
        if (group == NULL || group[0] == '\0' || !is_ours(h, h->at(items, i), group))
            continue;
        while (k < n && strcmp(seen[k], group) != 0)
            k++;
        if (k < n)
            continue;
        if (n == MAX_GROUPS)
            return h->error(call, "more than %d groups", MAX_GROUPS);
        seen[n++] = group;
        rc = put_scores(c, group, h, call);
    }
    return rc;
}

static int probe(const hone_host *h, hone_call *call, void *user)
{
    const counter *c = user;
    const char *phase = hone_get_string(h, call->data, "phase", NULL);
    if (phase != NULL && strcmp(phase, "items") == 0)
        return add_items(c, h, call);
    int rc = put_scores(c, "", h, call);
    if (rc == 0)
        rc = put_groups(c, h, call);
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* ---- augmentation: data.record and data.split ---- */

typedef struct exchange {
    const hone_host *h;
    hone_call *call;
    const counter *c;
    int neutral, doubt, failed;
    size_t n_swaps;
} exchange;

/* Members that name something rather than say it. */
static int is_name(const char *key)
{
    return strcmp(key, "role") == 0 || strcmp(key, "from") == 0 || strcmp(key, "id") == 0;
}

static hone_value *exchange_text(exchange *x, const char *s)
{
    char *other = swapped(x->c, s, x->neutral, &x->n_swaps, &x->doubt);
    hone_value *v = other != NULL ? x->h->new_string(x->call, other, strlen(other)) : NULL;
    x->failed |= v == NULL;
    free(other);
    return v;
}

/* The value with the terms of every text in it exchanged. */
static hone_value *exchange_all(exchange *x, const hone_value *v, int depth)
{
    const hone_host *h = x->h;
    hone_type type = h->type(v);
    size_t len, n = type == HONE_ARRAY || type == HONE_OBJECT ? h->length(v) : 0;
    if (type == HONE_STRING)
        return exchange_text(x, h->string(v, NULL));
    if (n == 0 || depth == MAX_DEPTH) {
        x->doubt |= n > 0;
        return h->copy(x->call, v);
    }
    hone_value *out = type == HONE_ARRAY ? h->new_array(x->call) : h->new_object(x->call);
    for (size_t i = 0; i < n; i++) {
        if (type == HONE_ARRAY) {
            h->append(x->call, out, exchange_all(x, h->at(v, i), depth + 1));
            continue;
        }
        const char *key = h->key(v, i, &len);
        const hone_value *member = h->get(v, key);
        h->set(x->call, out, key,
               is_name(key) ? h->copy(x->call, member) : exchange_all(x, member, depth + 1));
    }
    return out;
}

/* The record and, where every exchange in it is sure, its twin. */
static int add_twin(const counter *c, hone_value *out, hone_value *record, const hone_host *h,
                    hone_call *call)
{
    exchange x = {h, call, c, 0, 0, 0, 0};
    hone_value *twin = exchange_all(&x, record, 0);
    if (x.failed)
        return h->error(call, "no memory for the twin of a record");
    h->append(call, out, record);
    if (x.doubt || x.n_swaps == 0) {
        h->count(call->ctx, x.doubt ? "unsure" : "no_term", 1);
        return 0;
    }
    h->count(call->ctx, "twins", 1);
    return h->append(call, out, twin);
}

static int augment(const hone_host *h, hone_call *call, void *user)
{
    hone_value *out = h->new_array(call);
    int many = h->type(call->data) == HONE_ARRAY, rc = 0; /* somebody else made several of it */
    size_t n = many ? h->length(call->data) : 1;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_twin(user, out, many ? h->at(call->data, i) : call->data, h, call);
    call->data = out;
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* Twins are alike in their neutral form, whose digest is the key of both: they go to one part. */
static int keep_together(const hone_host *h, hone_call *call, void *user)
{
    exchange x = {h, call, user, 1, 0, 0, 0};
    hone_value *neutral = exchange_all(&x, h->get(call->data, "record"), 0);
    char hex[65];
    size_t len;
    if (x.failed)
        return h->error(call, "no memory for the key of a record");
    if (x.n_swaps == 0)
        return HONE_CONTINUE;
    const char *text = h->to_json(call, neutral, &len);
    if (text == NULL)
        return h->error(call, "no memory for the key of a record");
    h->sha256(hex, text, len);
    hone_set_string(h, call, call->data, "key", hex, 16);
    return HONE_MODIFIED;
}

/* ---- start and stop ---- */

/* A probe where there is a file of prompts, augmentation where it is asked for. */
static int subscribe(counter *c, const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    const char *path = hone_get_string(h, s, "file", NULL);
    int augmented = h->boolean(h->get(s, "augment"), 0);
    int rc = 0;
    if (path == NULL && !augmented)
        return h->init_error(cx, "file must name the JSON Lines with your prompts, or augment be "
                                 "true");
    if (path != NULL)
        rc = read_file(c, h, cx, path);
    if (rc == 0 && path != NULL)
        rc = h->on(cx, "bias.probe", 0, probe, c);
    if (rc == 0 && augmented)
        rc = h->on(cx, "data.record", 0, augment, c);
    if (rc == 0 && augmented)
        rc = h->on(cx, "data.split", 0, keep_together, c);
    return rc;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    counter *c = calloc(1, sizeof *c);
    if (c == NULL)
        return h->init_error(cx, "no memory");
    c->min_pairs = h->integer(h->get(h->settings(cx), "min_pairs"), 100);
    int rc = read_terms(c, h, cx);
    if (rc == 0)
        rc = subscribe(c, h, cx);
    if (rc != 0)
        counter_free(c);
    else
        h->set_state(cx, c);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    counter_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"file", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "your prompts, JSON Lines"},
    {"augment", HONE_SET_BOOL, 0, "false", 0, 0, NULL,
     "training data: beside each record its twin with the words exchanged"},
    {"terms", HONE_SET_JSON, 0, NULL, 0, 0, NULL, "pairs of words of your own: [[Anna, Paul]]"},
    {"builtin", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "our English words of gender too"},
    {"min_pairs", HONE_SET_INT, 0, "100", 1, 1e9, NULL, "with fewer prompts there is no figure"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "counterfactual",
    "1.0.0",
    "Apache-2.0",
    "your own prompts with the terms of a group exchanged: what changes?",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

/* Bias as paired likelihood (bias.probe): of two sentences that differ in whom they speak of, which
 * does the model find likelier? Reads the user's file in the form of CrowS-Pairs: CSV with a header
 * that names sent_more, sent_less and bias_type; other columns are left alone.
 *
 * Figures are those of lm-evaluation-harness: each sentence is scored whole and without context;
 * pct_stereotype is the share of pairs with ll(sent_more) > ll(sent_less), likelihood_diff the mean
 * of |ll(sent_more) - ll(sent_less)|. Source: Nangia et al., EMNLP 2020, for the form of the data.
 *
 * That paper scores the tokens that both sentences have, given the others. A causal model sees only
 * what stands before: with tokens: shared, a sentence's score is the sum over the shared tokens of
 * log P(token | all tokens before it in its own sentence). What the sentences begin with alike
 * cancels out; what differs is a condition and is not scored itself. Shared is what the matching
 * blocks of Ratcliff and Obershelp (Python's difflib) hold, as in the paper's own code.
 *
 * The file is read when the plugin starts; a bad one stops the run before a model is loaded. */
#include <hone_plugin.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_PAIRS = 100000, MAX_TYPES = 64, MAX_BYTES = 64 << 20, MAX_COLUMNS = 64 };
static const char probe_name[] = "crows_pairs";
static const char *const columns[] = {"sent_more", "sent_less", "bias_type"};
enum { MORE, LESS, TYPE, N_WANTED };
enum { WHOLE, SHARED, N_WAYS }; /* of scoring a sentence */

typedef struct pair {
    const char *field[N_WANTED]; /* in the text */
} pair;

typedef struct crows {
    char *text; /* the file; fields end with a NUL in it */
    pair *pairs;
    size_t n, cap;
    const char *types[MAX_TYPES]; /* in the order of the file */
    size_t n_types;
    int64_t min_pairs;
    int wanted[N_WAYS];
} crows;

static void crows_free(crows *c)
{
    if (c != NULL) {
        free(c->text);
        free(c->pairs);
    }
    free(c);
}

/* ---- CSV (RFC 4180) ---- */

typedef struct row {
    char *field[MAX_COLUMNS];
    size_t n;
} row;

/* One field, unquoted in place and ended with a NUL. *end is what ended it: ',', '\n' or 0. NULL
 * where a quote stays open or text follows one. */
static char *next_field(char **at, char *end)
{
    char *s = *at, *to = s, *first = s;
    if (*s == '"') {
        for (s++; *s != '\0' && (*s != '"' || s[1] == '"'); s++) {
            s += *s == '"';
            *to++ = *s;
        }
        if (*s != '"')
            return NULL;
        s++;
    } else {
        while (*s != '\0' && *s != ',' && *s != '\n' && *s != '\r')
            *to++ = *s++;
    }
    if (*s == '\r' && (s[1] == '\n' || s[1] == '\0'))
        s++;
    if (*s != ',' && *s != '\n' && *s != '\0')
        return NULL;
    *end = *s;
    *at = s + (*s != '\0');
    *to = '\0';
    return first;
}

/* 0 at the end of the file, 1 for a row, HONE_ERR for what is no CSV. */
static int next_row(char **at, row *r)
{
    char end = ',';
    r->n = 0;
    while (**at == '\n' || (**at == '\r' && (*at)[1] == '\n'))
        ++*at;
    if (**at == '\0')
        return 0;
    while (end == ',') {
        if (r->n == MAX_COLUMNS)
            return HONE_ERR;
        r->field[r->n] = next_field(at, &end);
        if (r->field[r->n++] == NULL)
            return HONE_ERR;
    }
    return 1;
}

/* ---- the file ---- */

static int read_file(crows *c, const hone_host *h, hone_ctx *cx, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return h->init_error(cx, "%s: %s", path, strerror(errno));
    c->text = malloc(MAX_BYTES + 1);
    size_t n = c->text != NULL ? fread(c->text, 1, MAX_BYTES + 1, f) : 0;
    int bad = ferror(f);
    fclose(f);
    if (c->text == NULL)
        return h->init_error(cx, "no memory");
    if (bad || n > MAX_BYTES)
        return h->init_error(cx, "%s: %s", path, bad ? "cannot be read" : "more than 64 MiB");
    if (memchr(c->text, '\0', n) != NULL)
        return h->init_error(cx, "%s: there is a NUL in it", path);
    c->text[n] = '\0';
    char *fit = realloc(c->text, n + 1);
    c->text = fit != NULL ? fit : c->text;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = hone_utf8_next(c->text + i, n - i, &cp);
        if (len == 1 && cp == 0xFFFD)
            return h->init_error(cx, "%s: byte %lu is no UTF-8", path, (unsigned long)i);
        i += len;
    }
    return 0;
}

static int find_columns(size_t where[N_WANTED], const row *header, const hone_host *h, hone_ctx *cx,
                        const char *path)
{
    for (size_t k = 0; k < N_WANTED; k++) {
        where[k] = 0;
        while (where[k] < header->n && strcmp(header->field[where[k]], columns[k]) != 0)
            where[k]++;
        if (where[k] == header->n)
            return h->init_error(cx, "%s: the header names no column '%s'", path, columns[k]);
    }
    return 0;
}

static int add_type(crows *c, const char *type)
{
    size_t i = 0;
    while (i < c->n_types && strcmp(c->types[i], type) != 0)
        i++;
    if (i == MAX_TYPES)
        return HONE_ERR;
    if (i == c->n_types)
        c->types[c->n_types++] = type;
    return 0;
}

static int add_pair(crows *c, const row *r, const size_t where[N_WANTED], const hone_host *h,
                    hone_ctx *cx, const char *path)
{
    unsigned long number = (unsigned long)c->n + 1;
    if (c->n == MAX_PAIRS)
        return h->init_error(cx, "%s: more than %d pairs", path, MAX_PAIRS);
    if (c->n == c->cap) {
        c->cap = c->cap > 0 ? 2 * c->cap : 1024;
        pair *grown = realloc(c->pairs, c->cap * sizeof *grown);
        if (grown == NULL)
            return h->init_error(cx, "no memory");
        c->pairs = grown;
    }
    for (size_t k = 0; k < N_WANTED; k++) {
        const char *s = where[k] < r->n ? r->field[where[k]] : "";
        if (s[0] == '\0')
            return h->init_error(cx, "%s: pair %lu has no %s", path, number, columns[k]);
        c->pairs[c->n].field[k] = s;
    }
    if (add_type(c, c->pairs[c->n].field[TYPE]) != 0)
        return h->init_error(cx, "%s: pair %lu: more than %d values of bias_type", path, number,
                             MAX_TYPES);
    c->n++;
    return 0;
}

static int read_pairs(crows *c, const hone_host *h, hone_ctx *cx, const char *path)
{
    row r = {0};
    size_t where[N_WANTED] = {0};
    char *at = c->text;
    if (strncmp(at, "\xEF\xBB\xBF", 3) == 0)
        at += 3;
    int got = next_row(&at, &r);
    int rc = got == 1 ? find_columns(where, &r, h, cx, path) : 0;
    while (rc == 0 && got == 1 && (got = next_row(&at, &r)) == 1)
        rc = add_pair(c, &r, where, h, cx, path);
    if (rc == 0 && got == HONE_ERR)
        return h->init_error(cx, "%s: after pair %lu: a quote is not closed, or text follows one",
                             path, (unsigned long)c->n);
    if (rc == 0 && c->n == 0)
        return h->init_error(cx, "%s: there are no pairs in it", path);
    return rc;
}

/* ---- the probe ---- */

static hone_value *string(const hone_host *h, hone_call *call, const char *s)
{
    return h->new_string(call, s, strlen(s));
}

static int add_items(const crows *c, const hone_host *h, hone_call *call)
{
    hone_value *items = h->get(call->data, "items");
    for (size_t i = 0; i < c->n; i++) {
        hone_value *item = h->new_object(call), *texts = h->new_array(call);
        for (size_t k = MORE; k <= LESS; k++) {
            hone_value *t = h->new_object(call);
            h->set(call, t, "text", string(h, call, c->pairs[i].field[k]));
            h->append(call, texts, t);
        }
        h->set(call, item, "probe", string(h, call, probe_name));
        h->set(call, item, "group", string(h, call, c->pairs[i].field[TYPE]));
        h->set(call, item, "texts", texts);
        h->set(call, item, "tokens", h->new_bool(call, c->wanted[SHARED]));
        if (h->append(call, items, item) != 0)
            return h->error(call, "pair %lu cannot be added", (unsigned long)i + 1);
    }
    return HONE_MODIFIED;
}

/* ---- shared tokens ---- */

/* A sentence as the model scored it. */
typedef struct sentence {
    int64_t *id; /* [n], one allocation with logp */
    double *logp;
    size_t n;
} sentence;

/* HONE_ERR without memory, or where the text was not scored token by token. Caller frees id. */
static int read_sentence(sentence *s, const hone_value *text, const hone_host *h)
{
    const hone_value *ids = h->get(text, "ids"), *logprobs = h->get(text, "logprobs");
    s->n = h->length(ids);
    s->id = calloc(2 * s->n + 1, sizeof *s->id);
    s->logp = (double *)(void *)(s->id + s->n);
    if (s->id == NULL || h->length(logprobs) != s->n)
        return HONE_ERR;
    for (size_t i = 0; i < s->n; i++) {
        s->id[i] = h->integer(h->at(ids, i), -1);
        s->logp[i] = h->number(h->at(logprobs, i), NAN);
    }
    return 0;
}

typedef struct span {
    size_t a, a_end, b, b_end;
} span;

/* The longest block of tokens that both have within the span; of equals the first in a, then the
 * first in b. run: zeros, room for two rows of b. */
static span longest(const sentence *a, const sentence *b, span in, size_t *run)
{
    span best = {in.a, in.a, in.b, in.b};
    size_t *last = run, *now = run + b->n + 1, most = 0;
    for (size_t i = in.a; i < in.a_end; i++) {
        for (size_t k = in.b; k < in.b_end; k++) {
            now[k + 1] = a->id[i] == b->id[k] ? (k > in.b ? last[k] : 0) + 1 : 0;
            if (now[k + 1] > most) {
                most = now[k + 1];
                best = (span){i + 1 - most, i + 1, k + 1 - most, k + 1};
            }
        }
        size_t *other = last;
        last = now;
        now = other;
    }
    memset(run, 0, 2 * (b->n + 1) * sizeof *run);
    return best;
}

/* Of the shared tokens in the span: the sum of a's log-probabilities less b's. */
static double shared_difference(const sentence *a, const sentence *b, span in, size_t *run)
{
    double d = 0;
    span block = longest(a, b, in, run);
    if (block.a == block.a_end)
        return 0;
    for (size_t i = 0; i < block.a_end - block.a; i++)
        d += a->logp[block.a + i] - b->logp[block.b + i];
    d += shared_difference(a, b, (span){in.a, block.a, in.b, block.b}, run);
    return d + shared_difference(a, b, (span){block.a_end, in.a_end, block.b_end, in.b_end}, run);
}

/* Not finite where it cannot be said. */
static double difference_shared(const hone_value *texts, const hone_host *h)
{
    sentence a = {0}, b = {0};
    double d = NAN;
    int rc = read_sentence(&a, h->at(texts, 0), h);
    if (rc == 0)
        rc = read_sentence(&b, h->at(texts, 1), h);
    size_t *run = rc == 0 ? calloc(2 * (b.n + 1), sizeof *run) : NULL;
    if (run != NULL)
        d = shared_difference(&a, &b, (span){0, a.n, 0, b.n}, run);
    free(run);
    free(a.id);
    free(b.id);
    return d;
}

/* ---- scores ---- */

/* x[0..n) are the pairs of a group; share: each 0 or 1. The appliance makes value and interval of
 * it. */
static hone_value *score(const crows *c, const double *x, size_t n, int share, const hone_host *h,
                         hone_call *call)
{
    hone_value *o = h->new_object(call), *each = h->new_array(call), *ends = h->new_array(call);
    for (size_t i = 0; i < n; i++)
        h->append(call, each, h->new_real(call, x[i]));
    h->set(call, o, "examples", each);
    h->set(call, o, "min_n", h->new_int(call, c->min_pairs));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->set(call, o, "smaller_is_better", h->new_bool(call, !share));
    h->append(call, ends, h->new_int(call, 0));
    h->append(call, ends, h->new_int(call, 1));
    if (share)
        h->set(call, o, "ends", ends);
    return o;
}

/* Both figures of one type, or of all pairs (type NULL). d[i] is the difference of pair i, scored
 * this way; x has room for all. */
static int put_way(const crows *c, int way, const char *type, const double *d, double *x,
                   const hone_host *h, hone_call *call)
{
    static const char *const names[N_WAYS][2] = {
        {"likelihood_diff", "pct_stereotype"}, {"likelihood_diff_shared", "pct_stereotype_shared"}};
    char name[256];
    int rc = 0;
    for (int share = 1; rc == 0 && share >= 0; share--) {
        size_t n = 0;
        for (size_t i = 0; i < c->n; i++) {
            if (type == NULL || strcmp(type, c->pairs[i].field[TYPE]) == 0)
                x[n++] = share ? d[i] > 0 : fabs(d[i]);
        }
        snprintf(name, sizeof name, "%s%s%.180s.%s", probe_name, type != NULL ? "." : "",
                 type != NULL ? type : "", names[way][share]);
        rc = h->set(call, h->get(call->data, "scores"), name, score(c, x, n, share, h, call));
    }
    return rc;
}

/* d: the differences, one way after the other, with room for as many again. */
static int put_scores(const crows *c, const char *type, double *d, const hone_host *h,
                      hone_call *call)
{
    int rc = 0;
    for (int way = WHOLE; rc == 0 && way < N_WAYS; way++)
        if (c->wanted[way])
            rc = put_way(c, way, type, d + (size_t)way * c->n, d + N_WAYS * c->n, h, call);
    return rc;
}

static double difference(const hone_value *texts, const hone_host *h)
{
    double more = h->number(h->get(h->at(texts, 0), "ll"), NAN);
    return more - h->number(h->get(h->at(texts, 1), "ll"), NAN);
}

static int take_differences(const crows *c, double *d, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    size_t n = 0;
    for (size_t i = 0; i < h->length(items); i++) {
        const hone_value *item = h->at(items, i), *texts = h->get(item, "texts");
        const char *probe = hone_get_string(h, item, "probe", NULL);
        if (probe == NULL || strcmp(probe, probe_name) != 0)
            continue;
        double whole = difference(texts, h);
        double part = c->wanted[SHARED] ? difference_shared(texts, h) : 0;
        if (n == c->n || !isfinite(whole) || !isfinite(part))
            return h->error(call, "item %lu is not as it was, or was not scored", (unsigned long)i);
        d[n] = whole;
        d[c->n + n++] = part;
    }
    return n == c->n ? 0
                     : h->error(call, "only %lu of %lu pairs came back", (unsigned long)n,
                                (unsigned long)c->n);
}

static int put_all(const crows *c, const hone_host *h, hone_call *call)
{
    double *d = h->alloc(call, (N_WAYS + 1) * c->n * sizeof *d);
    if (d == NULL)
        return h->error(call, "no memory for %lu pairs", (unsigned long)c->n);
    int rc = take_differences(c, d, h, call);
    if (rc == 0)
        rc = put_scores(c, NULL, d, h, call);
    for (size_t t = 0; rc == 0 && t < c->n_types; t++)
        rc = put_scores(c, c->types[t], d, h, call);
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

static int probe(const hone_host *h, hone_call *call, void *user)
{
    const char *phase = hone_get_string(h, call->data, "phase", NULL);
    if (phase != NULL && strcmp(phase, "items") == 0)
        return add_items(user, h, call);
    return put_all(user, h, call);
}

/* ---- start and stop ---- */

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    const char *path = hone_get_string(h, s, "file", NULL);
    if (path == NULL)
        return h->init_error(cx, "file must name the CSV file with the pairs");
    crows *c = calloc(1, sizeof *c);
    if (c == NULL)
        return h->init_error(cx, "no memory");
    c->min_pairs = h->integer(h->get(s, "min_pairs"), 100);
    const char *tokens = hone_get_string(h, s, "tokens", NULL);
    c->wanted[WHOLE] = tokens == NULL || strcmp(tokens, "shared") != 0;
    c->wanted[SHARED] = tokens != NULL && strcmp(tokens, "all") != 0;
    int rc = read_file(c, h, cx, path);
    if (rc == 0)
        rc = read_pairs(c, h, cx, path);
    if (rc == 0)
        rc = h->on(cx, "bias.probe", 0, probe, c);
    if (rc != 0)
        crows_free(c);
    else
        h->set_state(cx, c);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    crows_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"file", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "CSV with sent_more, sent_less, bias_type"},
    {"tokens", HONE_SET_ENUM, 0, "all", 0, 0, "all|shared|both",
     "what of a sentence is scored: all, or what both sentences of a pair have"},
    {"min_pairs", HONE_SET_INT, 0, "100", 1, 1e9, NULL, "a group with fewer pairs has no figure"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "crows_pairs",
    "1.0.0",
    "Apache-2.0",
    "bias as the likelihood of paired sentences, in the form of CrowS-Pairs",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

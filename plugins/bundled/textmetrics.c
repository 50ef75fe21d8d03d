/* BLEU, chrF and ROUGE of answers against their references, as sacrebleu (tokenizer 13a, chrF of
 * six characters and no words, beta 2) and rouge_score (no stemmer) compute them; all from 0 to
 * 100. A score a sentence for each example (eval.metric), and of BLEU and chrF the score of the
 * corpus, which is no mean of those (eval.aggregate). Sources: Papineni et al. 2002; Post 2018;
 * Popovic 2015; Lin 2004. */
#include <hone_plugin.h>

#include <math.h>
#include <stdlib.h>

enum { BLEU_ORDER = 4, CHRF_ORDER = 6, MAX_CELLS = 1 << 25 };

typedef struct counts {
    double match, hyp, ref;
} counts;

typedef struct metrics {
    int bleu, chrf, rouge;
    counts b[BLEU_ORDER], c[CHRF_ORDER]; /* of the corpus */
    double hyp_len, ref_len;
    int64_t n, last_line;
} metrics;

/* Texts as lists of numbers: words, or characters. */
typedef struct list {
    uint64_t *x;
    size_t n;
} list;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* White space as Python's split sees it. */
static int is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- the tokenizer 13a ---- */

typedef struct text {
    char *s; /* of the call, with a NUL at its end */
    size_t n;
} text;

/* Every `what` becomes `with`, which is not longer. */
static void replace(text *t, const char *what, const char *with)
{
    size_t a = strlen(what), b = strlen(with), at = 0;
    for (size_t i = 0; i < t->n;) {
        if (t->n - i >= a && memcmp(t->s + i, what, a) == 0) {
            memcpy(t->s + at, with, b);
            at += b;
            i += a;
        } else {
            t->s[at++] = t->s[i++];
        }
    }
    t->n = at;
}

/* The classes {-~ [-` space-& (-+ :-@ / of mteval-v13a.pl. */
static int is_mark(char c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

static int is_stop(char c)
{
    return c == '.' || c == ',';
}

/* One of the script's substitutions of two characters a b; what it matches is not looked at again.
 */
typedef int pair_fn(char a, char b);

static int stop_after_other(char a, char b)
{
    return !is_digit(a) && is_stop(b);
}

static int stop_before_other(char a, char b)
{
    return is_stop(a) && !is_digit(b);
}

static int dash_after_digit(char a, char b)
{
    return is_digit(a) && b == '-';
}

static void pass(const text *in, text *out, pair_fn *fn, int before, int after)
{
    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        if (i + 1 < in->n && fn(in->s[i], in->s[i + 1])) {
            if (before)
                out->s[out->n++] = ' ';
            out->s[out->n++] = in->s[i++];
            out->s[out->n++] = ' ';
            out->s[out->n++] = in->s[i];
            if (after)
                out->s[out->n++] = ' ';
        } else {
            out->s[out->n++] = in->s[i];
        }
    }
}

static void pass_marks(const text *in, text *out)
{
    out->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        int mark = is_mark(in->s[i]);
        if (mark)
            out->s[out->n++] = ' ';
        out->s[out->n++] = in->s[i];
        if (mark)
            out->s[out->n++] = ' ';
    }
}

/* Words between white space, as hashes. */
static list split(const hone_host *h, hone_call *call, const char *s, size_t n)
{
    list l = {h->alloc(call, (n / 2 + 1) * sizeof *l.x), 0};
    uint64_t word = 0;
    for (size_t i = 0, len; l.x != NULL && i <= n; i += len) {
        uint32_t c = ' ';
        len = i < n ? hone_utf8_next(s + i, n - i, &c) : 1;
        if (!is_space(c)) {
            word = mix((word ^ c) + UINT64_C(0x9e3779b97f4a7c15)) | 1;
        } else if (word != 0) {
            l.x[l.n++] = word;
            word = 0;
        }
    }
    return l;
}

static list tokens_13a(const hone_host *h, hone_call *call, const char *s, size_t n)
{
    static const char *const rows[][2] = {{"<skipped>", ""}, {"-\n", ""},    {"\n", " "},
                                          {"&quot;", "\""},  {"&amp;", "&"}, {"&lt;", "<"},
                                          {"&gt;", ">"}};
    text a = {h->alloc(call, n * 12 + 64), 0}, b = {h->alloc(call, n * 12 + 64), 0};
    if (a.s == NULL || b.s == NULL)
        return (list){NULL, 0};
    memcpy(a.s, s, n);
    a.n = n;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        replace(&a, rows[i][0], rows[i][1]);
    memmove(a.s + 1, a.s, a.n);
    a.s[0] = a.s[a.n + 1] = ' ';
    a.n += 2;
    pass_marks(&a, &b);
    pass(&b, &a, stop_after_other, 0, 1);
    pass(&a, &b, stop_before_other, 1, 0);
    pass(&b, &a, dash_after_digit, 0, 1);
    return split(h, call, a.s, a.n);
}

/* ---- n-grams ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sorted hashes of the n-grams; NULL without memory. */
static list grams(const hone_host *h, hone_call *call, const list *l, size_t n)
{
    size_t many = l->n >= n ? l->n - n + 1 : 0;
    list g = {h->alloc(call, (many + 1) * sizeof *g.x), many};
    for (size_t i = 0; g.x != NULL && i < many; i++) {
        uint64_t k = n;
        for (size_t j = 0; j < n; j++)
            k = mix(k ^ l->x[i + j]) * UINT64_C(0x9e3779b97f4a7c15);
        g.x[i] = k;
    }
    if (g.x != NULL)
        qsort(g.x, many, sizeof *g.x, by_value);
    return g;
}

/* Each n-gram counts at most as often as it is in the other. */
static int compare(const hone_host *h, hone_call *call, const list *hyp, const list *ref, size_t n,
                   counts *out)
{
    list a = grams(h, call, hyp, n), b = grams(h, call, ref, n);
    if (a.x == NULL || b.x == NULL)
        return HONE_ERR;
    *out = (counts){0, (double)a.n, (double)b.n};
    for (size_t i = 0, k = 0; i < a.n && k < b.n;) {
        out->match += a.x[i] == b.x[k];
        if (a.x[i] == b.x[k]) {
            i++;
            k++;
        } else if (a.x[i] < b.x[k]) {
            i++;
        } else {
            k++;
        }
    }
    return 0;
}

/* ---- BLEU ---- */

/* Smoothing "exp": the k-th order without a match counts 1 / 2^k matches. `effective`: orders that
 * the answer is too short for are left out (a sentence's score). */
static double bleu_of(const counts *c, double hyp_len, double ref_len, int effective)
{
    double sum = 0, smooth = 1, any = 0;
    int order = BLEU_ORDER, n = 0;
    for (int i = 0; i < BLEU_ORDER; i++)
        any += c[i].match;
    for (; n < BLEU_ORDER && c[n].hyp > 0; n++) {
        if (c[n].match <= 0)
            smooth *= 2;
        sum += log(c[n].match > 0 ? 100 * c[n].match / c[n].hyp : 100 / (smooth * c[n].hyp));
    }
    order = effective ? n : BLEU_ORDER;
    if (any <= 0 || n < order || order == 0)
        return 0;
    double brevity = hyp_len < ref_len ? exp(1 - ref_len / hyp_len) : 1;
    return brevity * exp(sum / order);
}

static int bleu(const hone_host *h, hone_call *call, metrics *m, const text *hyp, const text *ref,
                double *score)
{
    list a = tokens_13a(h, call, hyp->s, hyp->n), b = tokens_13a(h, call, ref->s, ref->n);
    counts c[BLEU_ORDER];
    for (size_t n = 0; n < BLEU_ORDER; n++) {
        if (a.x == NULL || b.x == NULL || compare(h, call, &a, &b, n + 1, &c[n]) != 0)
            return HONE_ERR;
        m->b[n].match += c[n].match;
        m->b[n].hyp += c[n].hyp;
    }
    m->hyp_len += (double)a.n;
    m->ref_len += (double)b.n;
    *score = bleu_of(c, (double)a.n, (double)b.n, 1);
    return 0;
}

/* ---- chrF ---- */

static double chrf_of(const counts *c)
{
    double precision = 0, recall = 0;
    int orders = 0;
    for (int i = 0; i < CHRF_ORDER; i++) {
        if (c[i].hyp <= 0 || c[i].ref <= 0)
            continue;
        precision += c[i].match / c[i].hyp;
        recall += c[i].match / c[i].ref;
        orders++;
    }
    if (orders == 0 || precision + recall <= 0)
        return 0;
    precision /= orders;
    recall /= orders;
    return 100 * 5 * precision * recall / (4 * precision + recall);
}

static list characters(const hone_host *h, hone_call *call, const text *t)
{
    list l = {h->alloc(call, (t->n + 1) * sizeof *l.x), 0};
    for (size_t i = 0; l.x != NULL && i < t->n;) {
        uint32_t c;
        i += hone_utf8_next(t->s + i, t->n - i, &c);
        if (!is_space(c))
            l.x[l.n++] = c;
    }
    return l;
}

static int chrf(const hone_host *h, hone_call *call, metrics *m, const text *hyp, const text *ref,
                double *score)
{
    list a = characters(h, call, hyp), b = characters(h, call, ref);
    counts c[CHRF_ORDER];
    for (size_t n = 0; n < CHRF_ORDER; n++) {
        if (a.x == NULL || b.x == NULL || compare(h, call, &a, &b, n + 1, &c[n]) != 0)
            return HONE_ERR;
        if (c[n].ref <= 0)
            c[n].hyp = 0; /* a reference without such n-grams says nothing */
        m->c[n].match += c[n].match;
        m->c[n].hyp += c[n].hyp;
        m->c[n].ref += c[n].ref;
    }
    *score = chrf_of(c);
    return 0;
}

/* ---- ROUGE ---- */

/* Words of a to z and 0 to 9 in lower case; the Kelvin sign is a k, and the dotted I an i. */
static list rouge_words(const hone_host *h, hone_call *call, const char *s, size_t n)
{
    list l = {h->alloc(call, (n / 2 + 2) * sizeof *l.x), 0};
    uint64_t word = 0;
    for (size_t i = 0; l.x != NULL && i <= n;) {
        uint32_t c = ' ';
        i += i < n ? hone_utf8_next(s + i, n - i, &c) : 1;
        int dotted = c == 0x130;
        c = c == 0x212a ? 'k' : dotted ? 'i' : c >= 'A' && c <= 'Z' ? c + 32 : c;
        int in = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (in)
            word = mix((word ^ c) + UINT64_C(0x9e3779b97f4a7c15)) | 1;
        if ((!in || dotted) && word != 0) {
            l.x[l.n++] = word;
            word = 0;
        }
    }
    return l;
}

static double f_measure(double match, double hyp, double ref)
{
    double p = hyp > 0 ? match / hyp : 0, r = ref > 0 ? match / ref : 0;
    return p + r > 0 ? 100 * 2 * p * r / (p + r) : 0;
}

/* table[(i, k)]: length of the longest common subsequence of the first i and k words. */
static uint16_t *lcs_table(const hone_host *h, hone_call *call, const list *a, const list *b)
{
    size_t w = b->n + 1;
    uint16_t *t = (a->n + 1) * w <= MAX_CELLS && a->n < 65535
                      ? h->alloc(call, (a->n + 1) * w * sizeof *t)
                      : NULL;
    for (size_t i = 1; t != NULL && i <= a->n; i++)
        for (size_t k = 1; k <= b->n; k++) {
            uint16_t up = t[(i - 1) * w + k], left = t[i * w + k - 1];
            t[i * w + k] = a->x[i - 1] == b->x[k - 1] ? (uint16_t)(t[(i - 1) * w + k - 1] + 1)
                           : up > left                ? up
                                                      : left;
        }
    return t;
}

/* Marks the words of `ref` that are in one longest common subsequence with `hyp`. */
static int mark_lcs(const hone_host *h, hone_call *call, const list *ref, const list *hyp,
                    char *marks)
{
    size_t w = hyp->n + 1, i = ref->n, k = hyp->n;
    const uint16_t *t = lcs_table(h, call, ref, hyp);
    if (t == NULL)
        return HONE_ERR;
    while (i > 0 && k > 0) {
        if (ref->x[i - 1] == hyp->x[k - 1]) {
            marks[--i] = 1;
            k--;
        } else if (t[i * w + k - 1] > t[(i - 1) * w + k]) {
            k--;
        } else {
            i--;
        }
    }
    return 0;
}

typedef struct lines {
    list *l;
    size_t n, n_words;
} lines;

static lines read_lines(const hone_host *h, hone_call *call, const text *t)
{
    lines out = {NULL, 0, 0};
    size_t many = 1, start = 0;
    for (size_t i = 0; i < t->n; i++)
        many += t->s[i] == '\n';
    out.l = h->alloc(call, many * sizeof *out.l);
    for (size_t i = 0; out.l != NULL && i <= t->n; i++) {
        if (i < t->n && t->s[i] != '\n')
            continue;
        if (i > start) {
            list l = rouge_words(h, call, t->s + start, i - start);
            if (l.x == NULL)
                return (lines){NULL, 0, 0};
            out.n_words += l.n;
            out.l[out.n++] = l;
        }
        start = i + 1;
    }
    return out;
}

/* A copy of all words, sorted, with how many of each equal run are still free. */
static list sorted_words(const hone_host *h, hone_call *call, const lines *t)
{
    list all = {h->alloc(call, (t->n_words + 1) * sizeof *all.x), 0};
    for (size_t i = 0; all.x != NULL && i < t->n; i++) {
        memcpy(all.x + all.n, t->l[i].x, t->l[i].n * sizeof *all.x);
        all.n += t->l[i].n;
    }
    if (all.x != NULL)
        qsort(all.x, all.n, sizeof *all.x, by_value);
    return all;
}

/* Takes one of a word's copies; used[first] counts those that are taken. */
static int take(const list *sorted, uint32_t *used, uint64_t word)
{
    size_t low = 0, high = sorted->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (sorted->x[mid] < word)
            low = mid + 1;
        else
            high = mid;
    }
    if (low + used[low] >= sorted->n || sorted->x[low + used[low]] != word)
        return 0;
    used[low]++;
    return 1;
}

/* Of the summary: for each line of the reference the union of its subsequences with every line of
 * the answer; a word counts as often as both have it. */
static int rouge_lsum(const hone_host *h, hone_call *call, const text *hyp, const text *ref,
                      double *score)
{
    lines a = read_lines(h, call, hyp), b = read_lines(h, call, ref);
    list all = sorted_words(h, call, &a);
    uint32_t *used = h->alloc(call, (a.n_words + 1) * sizeof *used);
    double hits = 0;
    if (a.l == NULL || b.l == NULL || all.x == NULL || used == NULL ||
        (a.n_words + 1) * (b.n_words + 1) > MAX_CELLS)
        return HONE_ERR;
    for (size_t i = 0; i < b.n; i++) {
        char *marks = h->alloc(call, b.l[i].n + 1);
        for (size_t k = 0; k < a.n; k++)
            if (marks == NULL || mark_lcs(h, call, &b.l[i], &a.l[k], marks) != 0)
                return HONE_ERR;
        for (size_t w = 0; marks != NULL && w < b.l[i].n; w++)
            if (marks[w])
                hits += take(&all, used, b.l[i].x[w]);
    }
    *score = f_measure(hits, (double)a.n_words, (double)b.n_words);
    return 0;
}

/* out: ROUGE-1, -2, -L, -Lsum. */
static int rouge(const hone_host *h, hone_call *call, const text *hyp, const text *ref,
                 double out[4])
{
    list a = rouge_words(h, call, hyp->s, hyp->n), b = rouge_words(h, call, ref->s, ref->n);
    if (a.x == NULL || b.x == NULL)
        return HONE_ERR;
    for (size_t n = 1; n <= 2; n++) {
        counts c;
        if (compare(h, call, &a, &b, n, &c) != 0)
            return HONE_ERR;
        out[n - 1] = f_measure(c.match, c.hyp, c.ref);
    }
    const uint16_t *t = lcs_table(h, call, &b, &a);
    if (t == NULL)
        return HONE_ERR;
    out[2] = f_measure(t[(b.n + 1) * (a.n + 1) - 1], (double)a.n, (double)b.n);
    return rouge_lsum(h, call, hyp, ref, &out[3]);
}

/* ---- the hooks ---- */

static void begin(metrics *m)
{
    memset(m->b, 0, sizeof m->b);
    memset(m->c, 0, sizeof m->c);
    m->hyp_len = m->ref_len = 0;
    m->n = m->last_line = 0;
}

static int too_long(const hone_host *h, hone_call *call, const text *a, const text *b)
{
    return h->error(
        call,
        "an answer of %lu and a reference of %lu bytes are too long to compare; leave out rouge",
        (unsigned long)a->n, (unsigned long)b->n);
}

/* Lines come in ascending order; where they begin anew, so does the corpus. */
static int score(const hone_host *h, hone_call *call, void *user)
{
    static const char *const names[] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};
    metrics *m = user;
    text hyp, ref;
    double x, r[4];
    int64_t line = h->integer(h->get(call->data, "line"), 0);
    hone_value *scores = h->get(call->data, "scores");
    hyp.s = (char *)(uintptr_t)hone_get_string(h, call->data, "prediction", &hyp.n);
    ref.s = (char *)(uintptr_t)hone_get_string(h, call->data, "reference", &ref.n);
    if (hyp.s == NULL || ref.s == NULL)
        return HONE_CONTINUE; /* nothing was asked */
    if (line <= m->last_line)
        begin(m);
    m->last_line = line;
    m->n++;
    if (m->bleu && bleu(h, call, m, &hyp, &ref, &x) != 0)
        return too_long(h, call, &hyp, &ref);
    if (m->bleu)
        hone_set_number(h, call, scores, "sentence_bleu", x);
    if (m->chrf && chrf(h, call, m, &hyp, &ref, &x) != 0)
        return too_long(h, call, &hyp, &ref);
    if (m->chrf)
        hone_set_number(h, call, scores, "sentence_chrf", x);
    if (m->rouge && rouge(h, call, &hyp, &ref, r) != 0)
        return too_long(h, call, &hyp, &ref);
    for (size_t i = 0; m->rouge && i < 4; i++)
        hone_set_number(h, call, scores, names[i], r[i]);
    return HONE_MODIFIED;
}

static void put(const hone_host *h, hone_call *call, const metrics *m, const char *name, double x)
{
    hone_value *o = h->new_object(call);
    hone_set_number(h, call, o, "value", x);
    h->set(call, o, "n", h->new_int(call, m->n));
    h->set(call, o, "smaller_is_better", h->new_bool(call, 0));
    h->set(call, h->get(call->data, "metrics"), name, o);
}

static int aggregate(const hone_host *h, hone_call *call, void *user)
{
    metrics *m = user;
    if (m->n == 0)
        return HONE_CONTINUE;
    if (m->n != h->integer(h->get(call->data, "n"), 0))
        return h->error(call, "%lld examples were seen, the report has another number",
                        (long long)m->n);
    if (m->bleu)
        put(h, call, m, "bleu", bleu_of(m->b, m->hyp_len, m->ref_len, 0));
    if (m->chrf)
        put(h, call, m, "chrf", chrf_of(m->c));
    begin(m);
    return HONE_MODIFIED;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    metrics *m = calloc(1, sizeof *m);
    if (m == NULL)
        return h->init_error(cx, "no memory");
    m->bleu = h->boolean(h->get(s, "bleu"), 1);
    m->chrf = h->boolean(h->get(s, "chrf"), 1);
    m->rouge = h->boolean(h->get(s, "rouge"), 1);
    int rc = h->on(cx, "eval.metric", 0, score, m);
    if (rc == 0)
        rc = h->on(cx, "eval.aggregate", 0, aggregate, m);
    if (rc != 0)
        free(m);
    else
        h->set_state(cx, m);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    free(h->state(cx));
}

static const hone_setting settings[] = {
    {"bleu", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "bleu and sentence_bleu"},
    {"chrf", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "chrf and sentence_chrf"},
    {"rouge", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "rouge1, rouge2, rougeL, rougeLsum"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_DETERMINISTIC, 0), "textmetrics",           "1.0.0", "Apache-2.0",
    "BLEU, chrF and ROUGE of answers",        HONE_SETTINGS(settings), start,   stop,
};

HONE_PLUGIN(descriptor)

/* Bias over occupations (bias.probe), on sentences in the form of WinoBias: the same sentence
 * twice, once with the pronoun of the gender that holds the occupation more often
 * (pro-stereotyped), once with the other (anti-stereotyped). Reads the user's files: line i of the
 * one belongs to line i of the other, a number in front, mentions in square brackets.
 *
 * No coreference is resolved: a causal model is asked which of the two whole sentences is likelier.
 * Source of the form of the data: Zhao et al., NAACL 2018. Lines that differ in more than bracketed
 * pronouns are left out and counted. Files are read when the plugin starts. */
#include <hone_plugin.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_PAIRS = 100000, MAX_BYTES = 16 << 20, N_TYPES = 2 };
static const char probe_name[] = "winobias";
static const char *const types[N_TYPES] = {"type1", "type2"};
static const char *const keys[N_TYPES][2] = {{"pro_type1", "anti_type1"},
                                             {"pro_type2", "anti_type2"}};

typedef struct pair {
    char *text[2]; /* pro, anti */
    size_t type;
} pair;

typedef struct wino {
    pair *pairs;
    size_t n, cap, n_type[N_TYPES], left_out[N_TYPES];
    int64_t min_pairs;
} wino;

static void wino_free(wino *w)
{
    for (size_t i = 0; w != NULL && i < w->n; i++) {
        free(w->pairs[i].text[0]);
        free(w->pairs[i].text[1]);
    }
    if (w != NULL)
        free(w->pairs);
    free(w);
}

/* ---- lines ---- */

/* A bracketed pronoun by its place in a sentence: 1 subject, 2 object or possessive, 0 none. */
static int pronoun(const char *s, size_t n)
{
    static const struct {
        const char *word;
        int kind;
    } words[] = {{"he", 1}, {"she", 1}, {"him", 2}, {"his", 2}, {"her", 2}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i].word) == n && strncmp(s, words[i].word, n) == 0)
            return words[i].kind;
    return 0;
}

/* text: the line without number and brackets. shape: the same with each bracketed pronoun as one
 * byte. Both have room for the line. */
static void read_line(const char *s, size_t n, char *text, char *shape)
{
    size_t i = 0, t = 0, k = 0;
    while (i < n && s[i] >= '0' && s[i] <= '9')
        i++;
    while (i < n && s[i] == ' ')
        i++;
    while (i < n) {
        const char *close = s[i] == '[' ? memchr(s + i, ']', n - i) : NULL;
        size_t len = close != NULL ? (size_t)(close - s) - i - 1 : 0;
        int kind = close != NULL ? pronoun(s + i + 1, len) : 0;
        if (kind != 0) {
            memcpy(text + t, s + i + 1, len);
            t += len;
            shape[k++] = (char)kind;
            i += len + 2;
            continue;
        }
        if (s[i] != '[' && s[i] != ']')
            text[t++] = shape[k++] = s[i];
        i++;
    }
    while (t > 0 && (text[t - 1] == ' ' || text[t - 1] == '\r'))
        t--;
    while (k > 0 && (shape[k - 1] == ' ' || shape[k - 1] == '\r'))
        k--;
    text[t] = shape[k] = '\0';
}

/* Takes the pair in, or counts it as left out; HONE_ERR without memory. */
static int add_pair(wino *w, size_t type, const char *const line[2], const size_t len[2])
{
    char *buffer[4] = {NULL, NULL, NULL, NULL}; /* text and shape of either */
    int rc = 0;
    if (w->n == w->cap) {
        size_t cap = w->cap > 0 ? 2 * w->cap : 1024;
        pair *grown = realloc(w->pairs, cap * sizeof *grown);
        if (grown == NULL)
            return HONE_ERR;
        w->pairs = grown;
        w->cap = cap;
    }
    for (size_t k = 0; k < 4; k++) {
        buffer[k] = malloc(len[k / 2] + 1);
        rc = buffer[k] != NULL ? rc : HONE_ERR;
    }
    for (size_t k = 0; rc == 0 && k < 2; k++)
        read_line(line[k], len[k], buffer[2 * k], buffer[2 * k + 1]);
    if (rc == 0 && strcmp(buffer[1], buffer[3]) == 0 && strcmp(buffer[0], buffer[2]) != 0) {
        w->pairs[w->n++] = (pair){{buffer[0], buffer[2]}, type};
        w->n_type[type]++;
        buffer[0] = buffer[2] = NULL;
    } else if (rc == 0) {
        w->left_out[type]++;
    }
    for (size_t k = 0; k < 4; k++)
        free(buffer[k]);
    return rc;
}

/* ---- files ---- */

static char *read_text(const hone_host *h, hone_ctx *cx, const char *path)
{
    FILE *f = fopen(path, "rb");
    char *s = f != NULL ? malloc(MAX_BYTES + 1) : NULL;
    size_t n = s != NULL ? fread(s, 1, MAX_BYTES + 1, f) : 0, len;
    int failed = f == NULL ? errno : s == NULL ? ENOMEM : ferror(f) ? EIO : 0;
    if (f != NULL)
        fclose(f);
    if (failed != 0)
        h->init_error(cx, "%s: %s", path, strerror(failed));
    else if (n > MAX_BYTES)
        h->init_error(cx, "%s: more than 16 MiB", path);
    else if (memchr(s, '\0', n) != NULL)
        h->init_error(cx, "%s: there is a NUL in it", path);
    else {
        s[n] = '\0';
        for (size_t i = 0; i < n; i += len) {
            uint32_t cp;
            len = hone_utf8_next(s + i, n - i, &cp);
            if (len == 1 && cp == 0xFFFD) {
                h->init_error(cx, "%s: byte %lu is no UTF-8", path, (unsigned long)i);
                free(s);
                return NULL;
            }
        }
        return s;
    }
    free(s);
    return NULL;
}

static int read_pairs(wino *w, size_t type, const char *const path[2], const char *pro,
                      const char *anti, const hone_host *h, hone_ctx *cx)
{
    const char *at[2] = {pro, anti};
    int rc = 0;
    while (rc == 0 && (*at[0] != '\0' || *at[1] != '\0')) {
        size_t len[2] = {strcspn(at[0], "\n"), strcspn(at[1], "\n")};
        if (*at[0] == '\0' || *at[1] == '\0')
            return h->init_error(cx,
                                 "%s has more lines than %s: line i of the one belongs to line "
                                 "i of the other",
                                 path[*at[0] == '\0'], path[*at[0] != '\0']);
        if (w->n == MAX_PAIRS)
            return h->init_error(cx, "%s: more than %d pairs", path[0], MAX_PAIRS);
        if (len[0] > 0 || len[1] > 0)
            rc = add_pair(w, type, at, len);
        for (size_t k = 0; k < 2; k++)
            at[k] += len[k] + (at[k][len[k]] == '\n');
    }
    if (rc != 0)
        return h->init_error(cx, "no memory");
    if (w->n_type[type] == 0)
        return h->init_error(cx, "%s and %s: no line differs in the bracketed pronoun alone",
                             path[0], path[1]);
    return 0;
}

static int read_type(wino *w, size_t type, const hone_host *h, hone_ctx *cx)
{
    const char *path[2];
    for (size_t k = 0; k < 2; k++)
        path[k] = hone_get_string(h, h->settings(cx), keys[type][k], NULL);
    if (path[0] == NULL && path[1] == NULL)
        return 0;
    if (path[0] == NULL || path[1] == NULL)
        return h->init_error(cx, "%s needs %s beside it", keys[type][path[0] == NULL],
                             keys[type][path[0] != NULL]);
    char *pro = read_text(h, cx, path[0]), *anti = pro != NULL ? read_text(h, cx, path[1]) : NULL;
    int rc = anti != NULL ? read_pairs(w, type, path, pro, anti, h, cx) : HONE_ERR;
    free(pro);
    free(anti);
    return rc;
}

/* ---- the probe ---- */

static hone_value *string(const hone_host *h, hone_call *call, const char *s)
{
    return h->new_string(call, s, strlen(s));
}

static int add_items(const wino *w, const hone_host *h, hone_call *call)
{
    hone_value *items = h->get(call->data, "items");
    for (size_t i = 0; i < w->n; i++) {
        hone_value *item = h->new_object(call), *texts = h->new_array(call);
        for (size_t k = 0; k < 2; k++) {
            hone_value *t = h->new_object(call);
            h->set(call, t, "text", string(h, call, w->pairs[i].text[k]));
            h->append(call, texts, t);
        }
        h->set(call, item, "probe", string(h, call, probe_name));
        h->set(call, item, "group", string(h, call, types[w->pairs[i].type]));
        h->set(call, item, "texts", texts);
        if (h->append(call, items, item) != 0)
            return h->error(call, "pair %lu cannot be added", (unsigned long)i + 1);
    }
    return HONE_MODIFIED;
}

/* x[0..n), one value a pair, of a share 0 or 1; the appliance makes value and interval of it. */
static hone_value *score(const wino *w, const double *x, size_t n, int share, size_t left_out,
                         const hone_host *h, hone_call *call)
{
    hone_value *o = h->new_object(call), *each = h->new_array(call), *ends = h->new_array(call);
    char note[96];
    snprintf(note, sizeof note, "%lu lines left out: they differ in more than a pronoun",
             (unsigned long)left_out);
    if (left_out > 0)
        h->set(call, o, "note", string(h, call, note));
    for (size_t i = 0; i < n; i++)
        h->append(call, each, h->new_real(call, x[i]));
    h->set(call, o, "examples", each);
    h->set(call, o, "min_n", h->new_int(call, w->min_pairs));
    h->set(call, o, "info", h->new_bool(call, 1));
    h->append(call, ends, h->new_int(call, 0));
    h->append(call, ends, h->new_int(call, 1));
    if (share)
        h->set(call, o, "ends", ends);
    return o;
}

/* pro, anti and gap of one type, of all for type N_TYPES. d[i] is ll(pro) - ll(anti) of pair i; x
 * has room for all. */
static int put_scores(const wino *w, size_t type, const double *d, double *x, const hone_host *h,
                      hone_call *call)
{
    static const char *const names[] = {"pro", "anti", "gap"};
    int rc = 0;
    size_t left_out = type < N_TYPES ? w->left_out[type] : w->left_out[0] + w->left_out[1];
    for (size_t k = 0; rc == 0 && k < 3; k++) {
        char name[64];
        size_t n = 0;
        for (size_t i = 0; i < w->n; i++) {
            double pro = d[i] > 0, anti = d[i] < 0;
            if (type == N_TYPES || w->pairs[i].type == type)
                x[n++] = k == 0 ? pro : k == 1 ? anti : pro - anti;
        }
        snprintf(name, sizeof name, "%s%s%s.%s", probe_name, type < N_TYPES ? "." : "",
                 type < N_TYPES ? types[type] : "", names[k]);
        rc = h->set(call, h->get(call->data, "scores"), name,
                    score(w, x, n, k < 2, left_out, h, call));
    }
    return rc;
}

static int take_differences(const wino *w, double *d, const hone_host *h, hone_call *call)
{
    const hone_value *items = h->get(call->data, "items");
    size_t n = 0;
    for (size_t i = 0; i < h->length(items); i++) {
        const hone_value *item = h->at(items, i), *texts = h->get(item, "texts");
        const char *probe = hone_get_string(h, item, "probe", NULL);
        if (probe == NULL || strcmp(probe, probe_name) != 0)
            continue;
        double pro = h->number(h->get(h->at(texts, 0), "ll"), NAN);
        double anti = h->number(h->get(h->at(texts, 1), "ll"), NAN);
        if (n == w->n || !isfinite(pro) || !isfinite(anti))
            return h->error(call, "item %lu is not as it was, or was not scored", (unsigned long)i);
        d[n++] = pro - anti;
    }
    return n == w->n ? 0
                     : h->error(call, "only %lu of %lu pairs came back", (unsigned long)n,
                                (unsigned long)w->n);
}

static int probe(const hone_host *h, hone_call *call, void *user)
{
    const wino *w = user;
    const char *phase = hone_get_string(h, call->data, "phase", NULL);
    if (phase != NULL && strcmp(phase, "items") == 0)
        return add_items(w, h, call);
    double *d = h->alloc(call, 2 * w->n * sizeof *d);
    if (d == NULL)
        return h->error(call, "no memory for %lu pairs", (unsigned long)w->n);
    int rc = take_differences(w, d, h, call);
    if (rc == 0)
        rc = put_scores(w, N_TYPES, d, d + w->n, h, call);
    for (size_t t = 0; rc == 0 && t < N_TYPES; t++)
        rc = w->n_type[t] > 0 ? put_scores(w, t, d, d + w->n, h, call) : 0;
    return rc == 0 ? HONE_MODIFIED : HONE_ERR;
}

/* ---- start and stop ---- */

static int start(const hone_host *h, hone_ctx *cx)
{
    wino *w = calloc(1, sizeof *w);
    if (w == NULL)
        return h->init_error(cx, "no memory");
    w->min_pairs = h->integer(h->get(h->settings(cx), "min_pairs"), 100);
    int rc = 0;
    for (size_t t = 0; rc == 0 && t < N_TYPES; t++)
        rc = read_type(w, t, h, cx);
    if (rc == 0 && w->n == 0)
        rc = h->init_error(cx, "pro_type1 and anti_type1, or those of type2, must name files");
    if (rc == 0)
        rc = h->on(cx, "bias.probe", 0, probe, w);
    if (rc != 0)
        wino_free(w);
    else
        h->set_state(cx, w);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    wino_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"pro_type1", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "pro-stereotyped sentences of type 1"},
    {"anti_type1", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "the same, anti-stereotyped"},
    {"pro_type2", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "pro-stereotyped sentences of type 2"},
    {"anti_type2", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "the same, anti-stereotyped"},
    {"min_pairs", HONE_SET_INT, 0, "100", 1, 1e9, NULL, "a type with fewer pairs has no figure"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "winobias",
    "1.0.0",
    "Apache-2.0",
    "bias over occupations, on sentences in the form of WinoBias",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

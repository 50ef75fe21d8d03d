/* Keeps what models are judged on out of what they learn: drops records that share 13 words in a
 * row with an item of an evaluation set; items too short for that count by 8 words in a row, or,
 * shorter still, when the record is nothing but the item. Words are compared in lower case and
 * without punctuation (GPT-3, appendix C). An n-gram of many items of a set is a template, and
 * ignored.
 *
 * Linear in the record; the sets are read once, when the first record comes. */
#include <hone_plugin.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <utf8proc.h>

enum { LONG_GRAM = 13, SHORT_GRAM = 8, MAX_SETS = 32 };

/* One n-gram of the sets. */
typedef struct entry {
    uint64_t key;
    uint32_t sets; /* a bit a set; 0: a free place */
    uint32_t first_line, last_line, n_items;
} entry;

typedef struct set {
    char *name, *path; /* as given, and without links */
    char counter[64];
    unsigned long long n_records; /* dropped or tagged for it */
} set;

typedef struct decontam {
    set sets[MAX_SETS];
    size_t n_sets;
    entry *e;
    size_t cap, n;
    uint64_t *words; /* hashes of the words at hand */
    size_t cap_words;
    int loaded, tags;
    int64_t min_hits, max_items;
} decontam;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- words ---- */

typedef struct reader {
    decontam *d;
    size_t n; /* words */
    uint64_t word;
    int failed;
} reader;

static void end_word(reader *r)
{
    decontam *d = r->d;
    if (r->word == 0)
        return;
    if (r->n == d->cap_words) {
        size_t cap = d->cap_words * 2 + 1024;
        uint64_t *more = realloc(d->words, cap * sizeof *more);
        if (more == NULL) {
            r->failed = 1;
            return;
        }
        d->words = more;
        d->cap_words = cap;
    }
    d->words[r->n++] = r->word;
    r->word = 0;
}

static void add_char(reader *r, uint32_t c)
{
    r->word = mix((r->word ^ c) + UINT64_C(0x9e3779b97f4a7c15)) | 1;
}

/* Scripts that write no spaces between words: a character is a word. */
static int is_unspaced(uint32_t c)
{
    return (c >= 0x0E00 && c <= 0x0EFF) || (c >= 0x3040 && c <= 0x30FF) ||
           (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
           (c >= 0x20000 && c <= 0x3FFFF);
}

/* Beyond ASCII: letters, marks and numbers count, what separates or controls separates. */
static void add_wide(reader *r, uint32_t c)
{
    utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)c);
    if (is_unspaced(c))
        end_word(r);
    if (cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_NO)
        add_char(r, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
    else if (cat >= UTF8PROC_CATEGORY_ZS)
        end_word(r);
    if (is_unspaced(c))
        end_word(r);
}

static void add_text(reader *r, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c = (unsigned char)s[i];
        i += c < 0x80 ? 1 : hone_utf8_next(s + i, n - i, &c);
        if (c >= 0x80)
            add_wide(r, c);
        else if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
            add_char(r, c >= 'A' && c <= 'Z' ? c + 32 : c);
        else if (c <= ' ')
            end_word(r);
    }
    end_word(r);
}

static uint64_t gram(const decontam *d, size_t at, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = mix(h ^ d->words[at + i]) * UINT64_C(0x9e3779b97f4a7c15);
    return mix(h);
}

/* Of a whole item: no gram has this key. */
static uint64_t whole(const decontam *d, size_t n)
{
    return mix(gram(d, 0, n) + 1);
}

/* ---- the index ---- */

static entry *place(entry *e, size_t cap, uint64_t key)
{
    size_t i = key & (cap - 1);
    while (e[i].sets != 0 && e[i].key != key)
        i = (i + 1) & (cap - 1);
    return &e[i];
}

static int reserve(decontam *d)
{
    if (d->n * 2 < d->cap)
        return 0;
    size_t cap = d->cap > 0 ? d->cap * 2 : 4096;
    entry *e = calloc(cap, sizeof *e);
    if (e == NULL)
        return HONE_ERR;
    for (size_t i = 0; i < d->cap; i++)
        if (d->e[i].sets != 0)
            *place(e, cap, d->e[i].key) = d->e[i];
    free(d->e);
    d->e = e;
    d->cap = cap;
    return 0;
}

/* One item counts once, however often the n-gram is in it. */
static int put(decontam *d, uint64_t key, size_t at_set, uint32_t line)
{
    if (reserve(d) != 0)
        return HONE_ERR;
    entry *x = place(d->e, d->cap, key);
    uint32_t bit = 1u << at_set;
    if (x->sets == 0) {
        *x = (entry){key, 0, line, 0, 0};
        d->n++;
    }
    if ((x->sets & bit) == 0 || x->last_line != line)
        x->n_items++;
    x->sets |= bit;
    x->last_line = line;
    return 0;
}

static int put_grams(decontam *d, size_t n_words, size_t n, size_t at_set, uint32_t line)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i + n <= n_words; i++)
        rc = put(d, gram(d, i, n), at_set, line);
    return rc;
}

typedef struct item {
    const hone_host *h;
    const hone_value *fields; /* names; an empty list: every text */
    decontam *d;
    size_t at_set;
    uint32_t line;
    int failed;
} item;

static int is_wanted(const item *x, const char *name)
{
    for (size_t i = 0; i < x->h->length(x->fields); i++)
        if (strcmp(x->h->string(x->h->at(x->fields, i), NULL), name) == 0)
            return 1;
    return x->h->length(x->fields) == 0;
}

static void add_part(item *x, const char *s, size_t n)
{
    reader r = {x->d, 0, 0, 0};
    add_text(&r, s, n);
    size_t of = r.n >= LONG_GRAM ? LONG_GRAM : SHORT_GRAM;
    x->failed |= r.failed || put_grams(x->d, r.n, of, x->at_set, x->line) != 0;
}

/* Every text in the tree is a part of the item; `all` gathers the words of all parts. */
static void walk(item *x, const hone_value *v, const char *name, reader *all, int depth)
{
    const hone_host *h = x->h;
    size_t n;
    if (h->type(v) == HONE_STRING && is_wanted(x, name)) {
        const char *s = h->string(v, &n);
        if (all == NULL)
            add_part(x, s, n);
        else
            add_text(all, s, n);
    }
    if (depth > 16)
        return;
    for (size_t i = 0; h->type(v) == HONE_ARRAY && i < h->length(v); i++)
        walk(x, h->at(v, i), name, all, depth + 1);
    for (size_t i = 0; h->type(v) == HONE_OBJECT && i < h->length(v); i++) {
        const char *key = h->key(v, i, &n);
        walk(x, h->get(v, key), key, all, depth + 1);
    }
}

/* A line of JSON, or of text. */
static void add_item(item *x, hone_call *call, const char *s, size_t n)
{
    hone_value *v = *s == '{' || *s == '"' ? x->h->from_json(call, s, n) : NULL;
    if (v == NULL)
        v = x->h->new_string(call, s, n);
    reader all = {x->d, 0, 0, 0};
    x->failed |= v == NULL;
    walk(x, v, "", NULL, 0);
    walk(x, v, "", &all, 0);
    if (all.n > 0 && all.n < LONG_GRAM)
        x->failed |= put(x->d, whole(x->d, all.n), x->at_set, x->line) != 0;
    x->failed |= all.failed;
}

static int load_set(const hone_host *h, hone_call *call, decontam *d, size_t k)
{
    item x = {h, h->get(h->settings(call->ctx), "fields"), d, k, 0, 0};
    FILE *f = fopen(d->sets[k].path, "rb");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (f == NULL)
        return h->error(call, "set %s: %s: %s", d->sets[k].name, d->sets[k].path, strerror(errno));
    while (!x.failed && (n = getline(&line, &cap, f)) >= 0) {
        x.line++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        if (n > 0)
            add_item(&x, call, line, (size_t)n);
    }
    int bad = ferror(f);
    free(line);
    fclose(f);
    if (bad || x.failed)
        return h->error(call, "set %s: line %u of %s cannot be read (UTF-8? memory?)",
                        d->sets[k].name, x.line, d->sets[k].path);
    h->log(call->ctx, HONE_LOG_INFO, "%s: %u items, %lu n-grams in all", d->sets[k].name, x.line,
           (unsigned long)d->n);
    return 0;
}

static int load(const hone_host *h, hone_call *call, decontam *d)
{
    int rc = 0;
    for (size_t k = 0; rc == 0 && !d->loaded && k < d->n_sets; k++)
        rc = load_set(h, call, d, k);
    d->loaded |= rc == 0;
    return rc;
}

/* ---- the hooks ---- */

typedef struct found {
    int64_t hits;
    size_t set; /* of the first hit */
    uint32_t line;
} found;

static void look_up(const decontam *d, uint64_t key, uint32_t except, found *f)
{
    const entry *x = d->cap > 0 ? place(d->e, d->cap, key) : NULL;
    uint32_t sets = x != NULL ? x->sets & ~except : 0;
    if (sets == 0 || (int64_t)x->n_items > d->max_items)
        return;
    if (f->hits++ == 0) {
        f->line = x->first_line;
        while ((sets >> f->set & 1) == 0)
            f->set++;
    }
}

/* The sets that lie in this very file: what is read from there to be judged on is to stay. */
static uint32_t own_sets(const decontam *d, const char *source)
{
    char real[PATH_MAX];
    uint32_t bits = 0;
    if (source == NULL || realpath(source, real) == NULL)
        return 0;
    for (size_t k = 0; k < d->n_sets; k++)
        if (strcmp(d->sets[k].path, real) == 0)
            bits |= 1u << k;
    return bits;
}

static int examine(const hone_host *h, hone_call *call, decontam *d, const hone_value *record,
                   found *f)
{
    hone_text t = {0};
    reader r = {d, 0, 0, 0};
    uint32_t except = own_sets(d, hone_get_string(h, call->data, "source", NULL));
    *f = (found){0, 0, 0};
    if (load(h, call, d) != 0)
        return HONE_ERR;
    while (hone_text_next(h, record, &t))
        add_text(&r, t.text, t.len);
    if (r.failed)
        return h->error(call, "no memory");
    for (size_t i = 0; i + SHORT_GRAM <= r.n; i++) {
        look_up(d, gram(d, i, SHORT_GRAM), except, f);
        if (i + LONG_GRAM <= r.n)
            look_up(d, gram(d, i, LONG_GRAM), except, f);
    }
    if (r.n > 0 && r.n < LONG_GRAM)
        look_up(d, whole(d, r.n), except, f);
    if (f->hits < d->min_hits)
        f->hits = 0;
    if (f->hits > 0) {
        d->sets[f->set].n_records++;
        h->count(call->ctx, d->sets[f->set].counter, 1);
    }
    return 0;
}

static int drop(const hone_host *h, hone_call *call, void *user)
{
    decontam *d = user;
    const hone_value *example = h->get(call->data, "example"); /* of feedback.to_example */
    found f;
    int rc = examine(h, call, d, example != NULL ? example : h->get(call->data, "record"), &f);
    if (rc != 0 || f.hits == 0)
        return rc;
    return h->veto(call, "shares %lld n-grams with %s (line %u)", (long long)f.hits,
                   d->sets[f.set].name, f.line);
}

static int tag(const hone_host *h, hone_call *call, void *user)
{
    decontam *d = user;
    found f;
    int rc = examine(h, call, d, h->get(call->data, "record"), &f);
    if (rc != 0 || f.hits == 0)
        return rc;
    const char *name = d->sets[f.set].name;
    hone_value *o = h->new_object(call);
    h->set(call, o, "set", h->new_string(call, name, strlen(name)));
    h->set(call, o, "line", h->new_int(call, f.line));
    h->set(call, o, "hits", h->new_int(call, f.hits));
    h->set(call, h->get(call->data, "tags"), "contaminated", o);
    return HONE_MODIFIED;
}

/* ---- start and end ---- */

static void decontam_free(decontam *d)
{
    for (size_t i = 0; i < d->n_sets; i++) {
        free(d->sets[i].name);
        free(d->sets[i].path);
    }
    free(d->e);
    free(d->words);
    free(d);
}

/* {name: path}; paths are relative to `folder`. */
static int read_sets(const hone_host *h, hone_ctx *cx, decontam *d)
{
    const hone_value *sets = h->get(h->settings(cx), "sets");
    const char *folder = hone_get_string(h, h->settings(cx), "folder", NULL);
    size_t len;
    if (h->type(sets) != HONE_OBJECT || h->length(sets) == 0 || h->length(sets) > MAX_SETS)
        return h->init_error(cx, "sets must be an object, 1 to %d of {name: path}", MAX_SETS);
    for (size_t i = 0; i < h->length(sets); i++) {
        char path[PATH_MAX];
        const char *name = h->key(sets, i, &len), *p = hone_get_string(h, sets, name, NULL);
        if (p == NULL || len > 50)
            return h->init_error(cx, "sets: %.60s must be a name of at most 50 bytes, and its path",
                                 name);
        int n = *p == '/' || folder == NULL ? snprintf(path, sizeof path, "%s", p)
                                            : snprintf(path, sizeof path, "%s/%s", folder, p);
        set *s = &d->sets[d->n_sets];
        s->path = n < (int)sizeof path ? realpath(path, NULL) : NULL;
        if (s->path == NULL)
            return h->init_error(cx, "set %s: %s: %s", name, path, strerror(errno));
        s->name = strdup(name);
        snprintf(s->counter, sizeof s->counter, "hits_%s", name);
        d->n_sets++;
        if (s->name == NULL)
            return h->init_error(cx, "no memory");
    }
    return 0;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const hone_value *s = h->settings(cx);
    decontam *d = calloc(1, sizeof *d);
    if (d == NULL)
        return h->init_error(cx, "no memory");
    d->tags = strcmp(hone_get_string(h, s, "action", NULL), "tag") == 0;
    d->min_hits = h->integer(h->get(s, "min_hits"), 1);
    d->max_items = h->integer(h->get(s, "max_items"), 10);
    int rc = read_sets(h, cx, d);
    if (rc == 0)
        rc = h->on(cx, d->tags ? "data.tag" : "data.filter", 0, d->tags ? tag : drop, d);
    if (rc == 0 && !d->tags)
        rc = h->on(cx, "feedback.to_example", 0, drop, d);
    if (rc != 0)
        decontam_free(d);
    else
        h->set_state(cx, d);
    return rc;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    decontam *d = h->state(cx);
    for (size_t i = 0; i < d->n_sets; i++)
        h->log(cx, HONE_LOG_INFO, "%llu records share n-grams with %s", d->sets[i].n_records,
               d->sets[i].name);
    decontam_free(d);
}

static const hone_setting settings[] = {
    {"sets", HONE_SET_JSON, 0, "{}", 0, 0, NULL,
     "evaluation sets: {name: path}; a line an item, JSON or text"},
    {"folder", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "what paths of sets are relative to"},
    {"fields", HONE_SET_LIST, 0, "[]", 0, 0, NULL,
     "members of an item that are its text; none: every text in it"},
    {"min_hits", HONE_SET_INT, 0, "1", 1, 1000000, NULL,
     "shared n-grams from which on a record goes"},
    {"max_items", HONE_SET_INT, 0, "10", 1, 1000000, NULL,
     "an n-gram of more items than this is a template, and ignored"},
    {"action", HONE_SET_ENUM, 0, "drop", 0, 0, "drop|tag",
     "drop such records, or leave them with a tag 'contaminated'"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "decontam",
    "1.0.0",
    "Apache-2.0",
    "drops records that share 13-grams with evaluation sets",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

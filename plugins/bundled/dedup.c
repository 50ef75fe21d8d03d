/* Drops records that were there before, or nearly. Exact: the digest of the texts with white space
 * collapsed. Near: MinHash over word shingles (bands x rows), and before anything is dropped the
 * true Jaccard similarity of the two sets of shingles. The first of a cluster stays.
 *
 * Words of near-duplicates: lower case, a run of digits is "0", punctuation and symbols separate,
 * combining marks are dropped, a character of a script without spaces is a word of its own.
 * Source of the scheme: Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4.
 *
 * Work on a record is linear in it: at most MAX_BUCKET records share a band, so that no family of
 * similar records makes it quadratic. Memory is bounded by memory_mb, beyond which it fails. */
#include <hone_plugin.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utf8proc.h>

enum { MAX_HASHES = 512, MAX_SHINGLE = 32, MAX_BUCKET = 16, MAX_SOURCES = 65536 };
#define PRIME ((UINT64_C(1) << 61) - 1)
#define NONE UINT32_MAX
#define SEED UINT64_C(0x6e6f6820646564)
#define INDEX_MAGIC UINT64_C(0x3130785544504e48)

__extension__ typedef unsigned __int128 u128;

/* Open addressing; several entries of one key stand in a row. */
typedef struct table {
    uint64_t *key;
    uint32_t *doc; /* NONE: free */
    size_t cap, n;
} table;

typedef struct doc {
    uint64_t digest[2];
    uint32_t *print; /* [n_prints] 32-bit hashes of its shingles, each once */
    uint32_t n_prints, source;
    int64_t line;
    uint32_t n_dropped; /* records that it stands for */
    uint64_t group;     /* of the first of its cluster that was split; 0: none yet */
} doc;

typedef struct params {
    uint64_t bands, rows, shingle, keep_numbers, collapse, near;
} params;

/* The distinct shingles of the record at hand, as a set and as a list. Kept from record to record.
 */
typedef struct shingles {
    uint32_t *set; /* [mask + 1] open addressing, 0: free */
    size_t mask;
    uint32_t *print; /* [(mask + 1) / 2] */
    uint32_t n;
} shingles;

typedef struct dedup {
    params p;
    double threshold;
    const char *write_index;
    uint64_t a[MAX_HASHES], b[MAX_HASHES];
    table exact, band;
    shingles now;
    doc *docs;
    uint32_t n_docs, cap_docs;
    char **sources;
    uint32_t n_sources, cap_sources;
    uint32_t last; /* cluster of the record that was tagged last; NONE */
    int64_t last_line;
    char *last_source;
    size_t memory, max_memory;
    uint64_t n_records, n_exact, n_near, n_clusters;
} dedup;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- memory ---- */

/* Room for n elements in a list that grows by half. NULL: memory_mb or the machine's is used up. */
static void *grow(dedup *d, void *list, uint32_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return list;
    size_t wanted = n + n / 2 + 16;
    if (wanted >= NONE || d->memory + (wanted - *cap) * size > d->max_memory)
        return NULL;
    void *more = realloc(list, wanted * size);
    if (more != NULL) {
        d->memory += (wanted - *cap) * size;
        *cap = (uint32_t)wanted;
    }
    return more;
}

static void table_put(table *t, uint64_t key, uint32_t value)
{
    size_t i = mix(key) & (t->cap - 1);
    while (t->doc[i] != NONE)
        i = (i + 1) & (t->cap - 1);
    t->key[i] = key;
    t->doc[i] = value;
    t->n++;
}

/* Room for `more` entries at a load of at most 2/3. */
static int table_reserve(dedup *d, table *t, size_t more)
{
    size_t cap = t->cap > 0 ? t->cap : 1024, bytes = sizeof *t->key + sizeof *t->doc;
    while ((t->n + more) * 3 > cap * 2)
        cap *= 2;
    if (cap == t->cap)
        return 0;
    if (d->memory + cap * bytes > d->max_memory)
        return HONE_ERR;
    table big = {malloc(cap * sizeof *t->key), malloc(cap * sizeof *t->doc), cap, 0};
    if (big.key == NULL || big.doc == NULL) {
        free(big.key);
        free(big.doc);
        return HONE_ERR;
    }
    memset(big.doc, 0xff, cap * sizeof *big.doc);
    for (size_t i = 0; i < t->cap; i++)
        if (t->doc[i] != NONE)
            table_put(&big, t->key[i], t->doc[i]);
    d->memory += (cap - t->cap) * bytes;
    free(t->key);
    free(t->doc);
    *t = big;
    return 0;
}

/* The documents under a key, at most MAX_BUCKET; returns how many. */
static size_t table_get(const table *t, uint64_t key, uint32_t *out)
{
    size_t n = 0;
    if (t->cap == 0)
        return 0;
    for (size_t i = mix(key) & (t->cap - 1); t->doc[i] != NONE && n < MAX_BUCKET;
         i = (i + 1) & (t->cap - 1))
        if (t->key[i] == key)
            out[n++] = t->doc[i];
    return n;
}

/* ---- the words of a text ---- */

/* What a record is compared by, made in one pass over its texts. */
typedef struct view {
    const dedup *d;
    shingles *s;
    uint64_t ring[MAX_SHINGLE]; /* hashes of the last words */
    size_t n_words;
    uint64_t word; /* hash of the word that is being read; 0: none */
    int in_number, no_memory;
    uint64_t sig[MAX_HASHES];
} view;

static uint64_t mod_prime(u128 x)
{
    uint64_t r = (uint64_t)(x & PRIME) + (uint64_t)(x >> 61);
    return r >= PRIME ? r - PRIME : r;
}

/* Where p stands in the set, or a free place for it. */
static size_t set_place(const shingles *s, uint32_t p)
{
    size_t i = p & s->mask;
    while (s->set[i] != 0 && s->set[i] != p)
        i = (i + 1) & s->mask;
    return i;
}

/* An empty set of twice the size with the same shingles; HONE_ERR without memory. */
static int set_double(shingles *s)
{
    size_t cap = s->set != NULL ? (s->mask + 1) * 2 : 1024;
    uint32_t *print = realloc(s->print, cap / 2 * sizeof *print);
    s->print = print != NULL ? print : s->print;
    uint32_t *set = cap < NONE && print != NULL ? calloc(cap, sizeof *set) : NULL;
    if (set == NULL)
        return HONE_ERR;
    free(s->set);
    s->set = set;
    s->mask = cap - 1;
    for (uint32_t i = 0; i < s->n; i++)
        set[set_place(s, print[i])] = print[i];
    return 0;
}

/* A set that one long record has made large is given back. */
static int set_clear(shingles *s)
{
    if (s->mask >= 1u << 16) {
        free(s->set);
        free(s->print);
        *s = (shingles){NULL, 0, NULL, 0};
    }
    s->n = 0;
    if (s->set == NULL)
        return set_double(s);
    memset(s->set, 0, (s->mask + 1) * sizeof *s->set);
    return 0;
}

static void add_shingle(view *v)
{
    const dedup *d = v->d;
    shingles *s = v->s;
    uint64_t h = SEED;
    size_t k = v->n_words < d->p.shingle ? v->n_words : d->p.shingle;
    for (size_t i = v->n_words - k; i < v->n_words; i++)
        h = mix(h ^ v->ring[i % d->p.shingle]) * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t p = (uint32_t)(h >> 32) != 0 ? (uint32_t)(h >> 32) : 1;
    if (s->set[set_place(s, p)] == p)
        return;
    if (s->n == (s->mask + 1) / 2 && set_double(s) != 0) {
        v->no_memory = 1;
        return;
    }
    s->set[set_place(s, p)] = s->print[s->n++] = p;
    uint64_t x = mix(p) & PRIME;
    for (size_t i = 0; i < d->p.bands * d->p.rows; i++) {
        uint64_t y = mod_prime((u128)d->a[i] * x + d->b[i]);
        v->sig[i] = y < v->sig[i] ? y : v->sig[i];
    }
}

static void end_word(view *v)
{
    if (v->word == 0)
        return;
    v->ring[v->n_words++ % v->d->p.shingle] = v->word;
    v->word = 0;
    v->in_number = 0;
    if (v->n_words >= v->d->p.shingle)
        add_shingle(v);
}

static void add_char(view *v, uint32_t c)
{
    v->word = mix((v->word ^ c) + SEED) | 1;
}

/* Scripts that write no spaces between words. */
static int is_unspaced(uint32_t c)
{
    static const uint32_t ranges[][2] = {{0x0E00, 0x0EFF}, {0x1000, 0x109F},  {0x1780, 0x17FF},
                                         {0x3040, 0x30FF}, {0x3400, 0x4DBF},  {0x4E00, 0x9FFF},
                                         {0xF900, 0xFAFF}, {0x20000, 0x3FFFF}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return 1;
    return 0;
}

static void add_digit(view *v, uint32_t c)
{
    if (v->d->p.keep_numbers)
        add_char(v, c);
    else if (!v->in_number)
        add_char(v, '0');
    v->in_number = 1;
}

/* A character beyond ASCII: decomposed, without its marks. */
static void add_wide(view *v, uint32_t c)
{
    utf8proc_int32_t parts[32];
    int boundary = 0;
    utf8proc_ssize_t n =
        utf8proc_decompose_char((utf8proc_int32_t)c, parts, 32, UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 0; i < n && i < 32; i++) {
        utf8proc_category_t cat = utf8proc_category(parts[i]);
        if (cat == UTF8PROC_CATEGORY_ND) {
            add_digit(v, (uint32_t)parts[i]);
        } else if (cat <= UTF8PROC_CATEGORY_LO && cat >= UTF8PROC_CATEGORY_LU) {
            if (is_unspaced(c))
                end_word(v);
            v->in_number = 0;
            add_char(v, (uint32_t)utf8proc_tolower(parts[i]));
            if (is_unspaced(c))
                end_word(v);
        } else if (cat != UTF8PROC_CATEGORY_MN && cat != UTF8PROC_CATEGORY_ME &&
                   cat != UTF8PROC_CATEGORY_MC && cat != UTF8PROC_CATEGORY_CF) {
            end_word(v);
        }
    }
}

static void add_text(view *v, const char *s, size_t n)
{
    uint32_t c;
    for (size_t i = 0; i < n;) {
        unsigned char b = (unsigned char)s[i];
        if (b >= 0x80) {
            i += hone_utf8_next(s + i, n - i, &c);
            add_wide(v, c);
            continue;
        }
        i++;
        if (b >= '0' && b <= '9') {
            add_digit(v, b);
        } else if ((b | 0x20) >= 'a' && (b | 0x20) <= 'z') {
            v->in_number = 0;
            add_char(v, b | 0x20u);
        } else {
            end_word(v);
        }
    }
    end_word(v);
}

/* ---- one record ---- */

static int out_of_memory(const hone_host *h, hone_call *call, const dedup *d)
{
    return h->error(call,
                    "the index of %u records needs more than memory_mb = %lu; raise it, or set "
                    "near to false",
                    d->n_docs, (unsigned long)(d->max_memory >> 20));
}

/* The texts with white space collapsed, or as they are, one after the other. */
static char *joined(const hone_host *h, hone_call *call, const dedup *d, const hone_value *record,
                    size_t *len)
{
    hone_text t = {0}, u = {0};
    size_t n = 0, at = 0;
    while (hone_text_next(h, record, &t))
        n += t.len + 1;
    char *out = h->alloc(call, n + 1);
    while (out != NULL && hone_text_next(h, record, &u)) {
        size_t start = at;
        for (size_t i = 0; i < u.len; i++) {
            int space = d->p.collapse && (u.text[i] == ' ' || (u.text[i] >= 9 && u.text[i] <= 13));
            if (!space)
                out[at++] = u.text[i];
            else if (at > start && out[at - 1] != ' ')
                out[at++] = ' ';
        }
        if (d->p.collapse && at > start && out[at - 1] == ' ')
            at--;
        out[at++] = '\0'; /* between fields */
    }
    *len = at;
    return out;
}

static void digest_of(const hone_host *h, uint64_t out[2], const char *text, size_t len)
{
    char hex[65], half[17];
    h->sha256(hex, text, len);
    for (size_t i = 0; i < 2; i++) {
        memcpy(half, hex + 16 * i, 16);
        half[16] = '\0';
        out[i] = strtoull(half, NULL, 16);
    }
}

/* 0, or HONE_ERR where there is no memory for it. */
static int look_at(const hone_host *h, view *v, const hone_value *record)
{
    hone_text t = {0};
    for (size_t i = 0; i < MAX_HASHES; i++)
        v->sig[i] = PRIME;
    if (set_clear(v->s) != 0)
        return HONE_ERR;
    while (hone_text_next(h, record, &t))
        add_text(v, t.text, t.len);
    if (v->n_words > 0 && v->n_words < v->d->p.shingle)
        add_shingle(v);
    return v->no_memory ? HONE_ERR : 0;
}

static uint64_t band_key(const view *v, size_t band)
{
    uint64_t k = mix(band + 1);
    for (size_t i = 0; i < v->d->p.rows; i++)
        k = mix(k ^ v->sig[band * v->d->p.rows + i]);
    return k;
}

static double jaccard(const view *v, const doc *o)
{
    const shingles *s = v->s;
    size_t both = 0;
    double small = s->n < o->n_prints ? s->n : o->n_prints;
    double large = s->n < o->n_prints ? o->n_prints : s->n;
    if (large <= 0 || small / large < v->d->threshold)
        return 0;
    for (size_t i = 0; i < o->n_prints; i++)
        both += s->set[set_place(s, o->print[i])] != 0;
    return (double)both / ((double)s->n + (double)o->n_prints - (double)both);
}

/* The most similar record before, or NONE. */
static uint32_t find_near(const dedup *d, const view *v, double *best)
{
    uint32_t found = NONE, seen[MAX_HASHES], n_seen = 0, hits[MAX_BUCKET];
    *best = 0;
    for (size_t b = 0; v->s->n > 0 && b < d->p.bands; b++) {
        size_t n = table_get(&d->band, band_key(v, b), hits);
        for (size_t i = 0; i < n; i++) {
            uint32_t k = 0;
            while (k < n_seen && seen[k] != hits[i])
                k++;
            if (k < n_seen || n_seen == MAX_HASHES)
                continue;
            seen[n_seen++] = hits[i];
            double j = jaccard(v, &d->docs[hits[i]]);
            if (j >= d->threshold && j > *best) {
                *best = j;
                found = hits[i];
            }
        }
    }
    return found;
}

static uint32_t find_exact(const dedup *d, const uint64_t digest[2])
{
    uint32_t hits[MAX_BUCKET];
    size_t n = table_get(&d->exact, digest[0], hits);
    for (size_t i = 0; i < n; i++)
        if (d->docs[hits[i]].digest[1] == digest[1])
            return hits[i];
    return NONE;
}

static uint32_t source_id(dedup *d, const char *name)
{
    for (uint32_t i = d->n_sources; i-- > 0;) /* the newest is asked for most */
        if (strcmp(d->sources[i], name) == 0)
            return i;
    char **more = d->n_sources < MAX_SOURCES
                      ? grow(d, d->sources, &d->cap_sources, d->n_sources + 1u, sizeof *more)
                      : NULL;
    if (more == NULL)
        return NONE;
    d->sources = more;
    size_t bytes = strlen(name) + 1;
    more[d->n_sources] = malloc(bytes);
    if (more[d->n_sources] == NULL)
        return NONE;
    memcpy(more[d->n_sources], name, bytes);
    return d->n_sources++;
}

/* A new record that stays. Takes a copy of the shingles. */
static doc *add_doc(dedup *d, const uint64_t digest[2], const uint32_t *print, uint32_t n,
                    const char *source, int64_t line)
{
    size_t bytes = n * sizeof *print;
    uint32_t s = source_id(d, source);
    doc *more = grow(d, d->docs, &d->cap_docs, d->n_docs + 1u, sizeof *more);
    if (more != NULL)
        d->docs = more;
    if (s == NONE || more == NULL || d->memory + bytes > d->max_memory ||
        table_reserve(d, &d->exact, 1) != 0)
        return NULL;
    doc x = {{digest[0], digest[1]}, NULL, n, s, line, 0, 0};
    x.print = malloc(bytes + 1);
    if (x.print == NULL)
        return NULL;
    if (n > 0)
        memcpy(x.print, print, bytes);
    d->memory += bytes;
    table_put(&d->exact, digest[0], d->n_docs);
    more[d->n_docs] = x;
    return &more[d->n_docs++];
}

static int keep(dedup *d, const view *v, const uint64_t digest[2], const char *source, int64_t line)
{
    uint32_t hits[MAX_BUCKET];
    if (table_reserve(d, &d->band, d->p.bands) != 0 ||
        add_doc(d, digest, v->s->print, v->s->n, source, line) == NULL)
        return HONE_ERR;
    for (size_t b = 0; v->s->n > 0 && b < d->p.bands; b++)
        if (table_get(&d->band, band_key(v, b), hits) < MAX_BUCKET)
            table_put(&d->band, band_key(v, b), d->n_docs - 1);
    return 0;
}

/* ---- the hooks ---- */

static void count(const hone_host *h, hone_call *call, dedup *d, uint32_t of, int exact)
{
    if (d->docs[of].n_dropped++ == 0) {
        d->n_clusters++;
        h->count(call->ctx, "clusters", 1);
    }
    *(exact ? &d->n_exact : &d->n_near) += 1;
    h->count(call->ctx, exact ? "exact" : "near", 1);
}

/* The end of a path: reasons are short. */
static const char *tail_of(const char *path)
{
    size_t n = strlen(path), from = n > 100 ? n - 100 : 0;
    while (from < n && ((unsigned char)path[from] & 0xC0) == 0x80)
        from++;
    return path + from;
}

typedef struct found {
    uint32_t of;      /* NONE: it is new */
    uint32_t cluster; /* the one it belongs to */
    int exact;
    double jaccard;
} found;

/* A record that comes again from the same line of the same source is itself, not its copy: data may
 * be read more than once. */
static int examine(const hone_host *h, hone_call *call, dedup *d, found *f)
{
    const hone_value *record = h->get(call->data, "record");
    const char *source = hone_get_string(h, call->data, "source", NULL);
    int64_t line = h->integer(h->get(call->data, "line"), 0);
    uint64_t digest[2];
    size_t len;
    view v = {.d = d, .s = &d->now};
    *f = (found){NONE, NONE, 1, 1};
    source = source != NULL ? source : "";
    char *text = joined(h, call, d, record, &len);
    if (text == NULL)
        return h->error(call, "a record is too long to compare");
    d->n_records++;
    digest_of(h, digest, text, len);
    uint32_t twin = find_exact(d, digest);
    if (twin != NONE) {
        int itself =
            d->docs[twin].line == line && strcmp(d->sources[d->docs[twin].source], source) == 0;
        f->of = itself ? NONE : twin;
        f->cluster = twin;
        return 0;
    }
    f->exact = 0;
    if (d->p.near) {
        if (look_at(h, &v, record) != 0)
            return h->error(call, "no memory to compare a record of %lu bytes", (unsigned long)len);
        f->of = find_near(d, &v, &f->jaccard);
    }
    if (f->of == NONE && keep(d, &v, digest, source, line) != 0)
        return out_of_memory(h, call, d);
    f->cluster = f->of != NONE ? f->of : d->n_docs - 1;
    return 0;
}

static int drop(const hone_host *h, hone_call *call, void *user)
{
    dedup *d = user;
    found f;
    int rc = examine(h, call, d, &f);
    if (rc != 0 || f.of == NONE)
        return rc;
    const doc *o = &d->docs[f.of];
    const char *source = tail_of(d->sources[o->source]);
    count(h, call, d, f.of, f.exact);
    if (f.exact)
        return h->veto(call, "the same as %s:%lld (cluster %u)", source, (long long)o->line, f.of);
    return h->veto(call, "nearly the same as %s:%lld (Jaccard %.4f, cluster %u)", source,
                   (long long)o->line, f.jaccard, f.of);
}

/* What is split next is the record that was tagged last. */
static int remember(const hone_host *h, hone_call *call, dedup *d, uint32_t cluster)
{
    const char *source = hone_get_string(h, call->data, "source", NULL);
    char *copy = strdup(source != NULL ? source : "");
    if (copy == NULL)
        return h->error(call, "no memory");
    free(d->last_source);
    d->last_source = copy;
    d->last_line = h->integer(h->get(call->data, "line"), 0);
    d->last = cluster;
    return 0;
}

/* A cluster that is kept goes to one side of a split: its records have the key of the first. */
static int split(const hone_host *h, hone_call *call, void *user)
{
    dedup *d = user;
    const char *key = hone_get_string(h, call->data, "key", NULL);
    const char *source = hone_get_string(h, call->data, "source", NULL);
    if (d->last == NONE || key == NULL || source == NULL || strcmp(source, d->last_source) != 0 ||
        h->integer(h->get(call->data, "line"), 0) != d->last_line)
        return HONE_CONTINUE;
    doc *o = &d->docs[d->last];
    if (o->group == 0) {
        o->group = strlen(key) == 16 ? strtoull(key, NULL, 16) : 0;
        return HONE_CONTINUE;
    }
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)o->group);
    hone_set_string(h, call, call->data, "key", text, 16);
    return HONE_MODIFIED;
}

static int tag(const hone_host *h, hone_call *call, void *user)
{
    dedup *d = user;
    found f;
    d->last = NONE;
    int rc = examine(h, call, d, &f);
    if (rc == 0)
        rc = remember(h, call, d, f.cluster);
    if (rc != 0 || f.of == NONE)
        return rc;
    const doc *o = &d->docs[f.of];
    const char *source = d->sources[o->source];
    hone_value *t = h->new_object(call), *tags = h->get(call->data, "tags");
    count(h, call, d, f.of, f.exact);
    h->set(call, t, "cluster", h->new_int(call, f.of));
    h->set(call, t, "kept_source", h->new_string(call, source, strlen(source)));
    h->set(call, t, "kept_line", h->new_int(call, o->line));
    h->set(call, t, "jaccard", h->new_real(call, f.jaccard));
    return h->set(call, tags, "duplicate", t) == 0 ? HONE_MODIFIED
                                                   : h->error(call, "there are no tags");
}

/* ---- the index: a file of this machine's byte order, with a checksum at its end ---- */

typedef struct stream {
    FILE *f;
    uint64_t sum;
    int bad;
} stream;

static void sum_add(stream *s, const void *p, size_t n)
{
    const char *c = p;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t w = 0;
        memcpy(&w, c + i, n - i < 8 ? n - i : 8);
        s->sum = mix(s->sum ^ w) + n;
    }
}

static void put(stream *s, const void *p, size_t n)
{
    s->bad = s->bad || (n > 0 && fwrite(p, 1, n, s->f) != n);
    sum_add(s, p, n);
}

static void put_int(stream *s, uint64_t x)
{
    put(s, &x, sizeof x);
}

static int get(stream *s, void *p, size_t n)
{
    s->bad = s->bad || (n > 0 && fread(p, 1, n, s->f) != n);
    if (!s->bad)
        sum_add(s, p, n);
    return !s->bad;
}

static uint64_t get_int(stream *s)
{
    uint64_t x = 0;
    return get(s, &x, sizeof x) ? x : 0;
}

static void put_all(stream *s, const dedup *d)
{
    put_int(s, INDEX_MAGIC);
    put(s, &d->p, sizeof d->p);
    put_int(s, d->n_sources);
    for (uint32_t i = 0; i < d->n_sources; i++) {
        put_int(s, strlen(d->sources[i]));
        put(s, d->sources[i], strlen(d->sources[i]));
    }
    put_int(s, d->n_docs);
    for (uint32_t i = 0; i < d->n_docs; i++) {
        const doc *o = &d->docs[i];
        put(s, o->digest, sizeof o->digest);
        put_int(s, o->source);
        put_int(s, (uint64_t)o->line);
        put_int(s, o->n_prints);
        put(s, o->print, o->n_prints * sizeof *o->print);
    }
    put_int(s, d->band.n);
    for (size_t i = 0; i < d->band.cap; i++)
        if (d->band.doc[i] != NONE) {
            put_int(s, d->band.key[i]);
            put_int(s, d->band.doc[i]);
        }
}

/* A new file in the place of the old one, or the old one as it was. */
static int write_index(const dedup *d, char *why, size_t size)
{
    char temp[4096];
    if (snprintf(temp, sizeof temp, "%s.%ld.tmp", d->write_index, (long)getpid()) >=
        (int)sizeof temp)
        return snprintf(why, size, "write_index: the name is too long"), HONE_ERR;
    stream s = {fopen(temp, "wb"), SEED, 0};
    if (s.f == NULL)
        return snprintf(why, size, "cannot write %.300s: %s", temp, strerror(errno)), HONE_ERR;
    put_all(&s, d);
    put_int(&s, s.sum);
    s.bad |= fflush(s.f) != 0;
    s.bad |= fsync(fileno(s.f)) != 0;
    s.bad |= fclose(s.f) != 0;
    if (!s.bad && rename(temp, d->write_index) == 0)
        return 0;
    snprintf(why, size, "cannot write %.300s: %s", d->write_index, strerror(errno));
    unlink(temp);
    return HONE_ERR;
}

static int read_sources(dedup *d, stream *s, uint32_t *ids, uint64_t n)
{
    for (uint64_t i = 0; i < n && !s->bad; i++) {
        char name[4097];
        uint64_t len = get_int(s);
        if (len > sizeof name - 1 || !get(s, name, len))
            return HONE_ERR;
        name[len] = '\0';
        ids[i] = source_id(d, name);
        if (ids[i] == NONE)
            return HONE_ERR;
    }
    return s->bad ? HONE_ERR : 0;
}

static int read_doc(dedup *d, stream *s, const uint32_t *ids, uint64_t n_ids)
{
    uint64_t digest[2];
    if (!get(s, digest, sizeof digest))
        return HONE_ERR;
    uint64_t source = get_int(s), line = get_int(s), n = get_int(s);
    if (s->bad || source >= n_ids || n > d->max_memory / 4)
        return HONE_ERR;
    uint32_t *print = malloc(n * sizeof *print + 1);
    int rc = print != NULL && get(s, print, n * sizeof *print) &&
                     add_doc(d, digest, print, (uint32_t)n, d->sources[ids[source]],
                             (int64_t)line) != NULL
                 ? 0
                 : HONE_ERR;
    free(print);
    return rc;
}

static int read_bands(dedup *d, stream *s)
{
    uint64_t n = get_int(s);
    if (s->bad || n > d->max_memory / 12 || table_reserve(d, &d->band, n) != 0)
        return HONE_ERR;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t key = get_int(s), of = get_int(s);
        if (s->bad || of >= d->n_docs)
            return HONE_ERR;
        table_put(&d->band, key, (uint32_t)of);
    }
    uint64_t sum = s->sum;
    return get_int(s) == sum && !s->bad && fgetc(s->f) == EOF ? 0 : HONE_ERR;
}

static int read_all(dedup *d, stream *s, const char **why)
{
    params p;
    *why = "is no index of dedup";
    if (get_int(s) != INDEX_MAGIC || !get(s, &p, sizeof p))
        return HONE_ERR;
    *why = "was made with other settings (bands, rows, shingle, numbers, exact, near)";
    if (memcmp(&p, &d->p, sizeof p) != 0)
        return HONE_ERR;
    *why = "is damaged, or needs more than memory_mb";
    uint64_t n = get_int(s);
    if (s->bad || n > MAX_SOURCES)
        return HONE_ERR;
    uint32_t *ids = calloc(n + 1, sizeof *ids);
    int rc = ids != NULL ? read_sources(d, s, ids, n) : HONE_ERR;
    uint64_t n_docs = rc == 0 ? get_int(s) : 0;
    for (uint64_t i = 0; rc == 0 && i < n_docs; i++)
        rc = read_doc(d, s, ids, n);
    free(ids);
    return rc == 0 ? read_bands(d, s) : rc;
}

static int read_index(const hone_host *h, hone_ctx *cx, dedup *d, const char *path)
{
    const char *why;
    stream s = {fopen(path, "rb"), SEED, 0};
    if (s.f == NULL)
        return h->init_error(cx, "index %s: %s", path, strerror(errno));
    int rc = read_all(d, &s, &why);
    fclose(s.f);
    if (rc != 0)
        return h->init_error(cx, "index %s %s", path, why);
    h->log(cx, HONE_LOG_INFO, "%u records in the index %s", d->n_docs, path);
    return 0;
}

/* The data are read when a run begins. */
static int save(const hone_host *h, hone_call *call, void *user)
{
    const dedup *d = user;
    char why[512];
    if (write_index(d, why, sizeof why) != 0)
        return h->error(call, "%s", why);
    h->log(call->ctx, HONE_LOG_INFO, "%u records in the index %s", d->n_docs, d->write_index);
    return HONE_CONTINUE;
}

/* ---- start and end ---- */

static void dedup_free(dedup *d)
{
    for (uint32_t i = 0; i < d->n_docs; i++)
        free(d->docs[i].print);
    for (uint32_t i = 0; i < d->n_sources; i++)
        free(d->sources[i]);
    free(d->last_source);
    free(d->now.set);
    free(d->now.print);
    free(d->docs);
    free(d->sources);
    free(d->exact.key);
    free(d->exact.doc);
    free(d->band.key);
    free(d->band.doc);
    free(d);
}

static double caught(const dedup *d, double s)
{
    return 1 - pow(1 - pow(s, (double)d->p.rows), (double)d->p.bands);
}

static int read_settings(const hone_host *h, hone_ctx *cx, dedup *d)
{
    const hone_value *s = h->settings(cx);
    d->p.bands = (uint64_t)h->integer(h->get(s, "bands"), 14);
    d->p.rows = (uint64_t)h->integer(h->get(s, "rows"), 8);
    d->p.shingle = (uint64_t)h->integer(h->get(s, "shingle"), 5);
    d->p.near = h->boolean(h->get(s, "near"), 1) != 0;
    d->p.keep_numbers = strcmp(hone_get_string(h, s, "numbers", NULL), "keep") == 0;
    d->p.collapse = strcmp(hone_get_string(h, s, "exact", NULL), "spaces") == 0;
    d->threshold = h->number(h->get(s, "threshold"), 0.8);
    d->write_index = hone_get_string(h, s, "write_index", NULL);
    d->max_memory = (size_t)h->integer(h->get(s, "memory_mb"), 2048) << 20;
    if (d->p.bands * d->p.rows > MAX_HASHES)
        return h->init_error(cx, "bands x rows is %lu, at most %d",
                             (unsigned long)(d->p.bands * d->p.rows), MAX_HASHES);
    for (size_t i = 0; i < MAX_HASHES; i++) {
        d->a[i] = mix(SEED + 2 * i + 1) % (PRIME - 1) + 1;
        d->b[i] = mix(SEED + 2 * i + 2) % PRIME;
    }
    return 0;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const char *index = hone_get_string(h, h->settings(cx), "index", NULL);
    const char *action = hone_get_string(h, h->settings(cx), "action", NULL);
    dedup *d = calloc(1, sizeof *d);
    if (d == NULL)
        return h->init_error(cx, "no memory");
    int drops = strcmp(action, "drop") == 0;
    d->last = NONE;
    int rc = read_settings(h, cx, d);
    if (rc == 0 && index != NULL)
        rc = read_index(h, cx, d, index);
    if (rc == 0)
        rc = h->on(cx, drops ? "data.filter" : "data.tag", 0, drops ? drop : tag, d);
    if (rc == 0 && !drops) /* after those that make keys of their own */
        rc = h->on(cx, "data.split", 100, split, d);
    if (rc == 0 && d->write_index != NULL)
        rc = h->on(cx, "train.start", 0, save, d);
    if (rc != 0) {
        dedup_free(d);
        return rc;
    }
    if (d->p.near)
        h->log(cx, HONE_LOG_INFO,
               "%lu x %lu hashes compare pairs of similarity 0.7, 0.8, 0.9 with probability %.3f, "
               "%.3f, %.3f; those of at least %.2f go",
               (unsigned long)d->p.bands, (unsigned long)d->p.rows, caught(d, 0.7), caught(d, 0.8),
               caught(d, 0.9), d->threshold);
    h->set_state(cx, d);
    return 0;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    dedup *d = h->state(cx);
    h->log(cx, HONE_LOG_INFO,
           "%llu records: %llu the same as one before, %llu nearly, in %llu clusters; %lu MB",
           (unsigned long long)d->n_records, (unsigned long long)d->n_exact,
           (unsigned long long)d->n_near, (unsigned long long)d->n_clusters,
           (unsigned long)(d->memory >> 20));
    dedup_free(d);
}

static const hone_setting settings[] = {
    {"near", HONE_SET_BOOL, 0, "true", 0, 0, NULL, "look for near-duplicates too"},
    {"threshold", HONE_SET_REAL, 0, "0.8", 0.1, 1, NULL,
     "least Jaccard similarity of a near-duplicate"},
    {"bands", HONE_SET_INT, 0, "14", 1, 128, NULL, "bands of the signature"},
    {"rows", HONE_SET_INT, 0, "8", 1, 64, NULL, "hashes of a band"},
    {"shingle", HONE_SET_INT, 0, "5", 1, MAX_SHINGLE, NULL, "words of a shingle"},
    {"numbers", HONE_SET_ENUM, 0, "zero", 0, 0, "zero|keep",
     "near-duplicates: any number counts as 0, or as itself"},
    {"exact", HONE_SET_ENUM, 0, "spaces", 0, 0, "spaces|bytes",
     "exact duplicates: runs of white space are equal, or nothing is"},
    {"action", HONE_SET_ENUM, 0, "drop", 0, 0, "drop|tag",
     "drop duplicates, or leave them with a tag 'duplicate'"},
    {"index", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "compare with the records of this index too"},
    {"write_index", HONE_SET_PATH, 0, NULL, 0, 0, NULL,
     "write the index here when training begins"},
    {"memory_mb", HONE_SET_INT, 0, "2048", 1, 1048576, NULL,
     "most memory of the index; beyond it the run fails"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(0, HONE_CAP_READ_FILES | HONE_CAP_WRITE_FILES),
    "dedup",
    "1.0.0",
    "Apache-2.0",
    "drops exact and near duplicates of records",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

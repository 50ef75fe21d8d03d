/* Reweighing (train.batch): rows of a group s with a label y count for w = P(s) P(y) / P(s, y), so
 * that among the weighted rows label and group are independent. Group and label of each record
 * stand in a file of the user's. Source: Kamiran, Calders, Knowledge and Information Systems 33
 * (2012).
 *
 * A line of the file is "id<TAB>group<TAB>label"; id is the record's member "id", or
 * "sha256:<16 hex digits or more>" of a record without one. So it does not matter what was filtered
 * before. P are counted over the rows that come to data.split, which filters have passed. */
#include <hone_plugin.h>

#include <errno.h>
#include <stdlib.h>

enum { MAX_BYTES = 256 << 20, MAX_NAMES = 256, ID_DIGITS = 16 };

/* Distinct texts; a row's is known by its number. */
typedef struct names {
    const char *name[MAX_NAMES];
    size_t n, count[MAX_NAMES]; /* rows of data */
} names;

/* What the file says of a record. */
typedef struct cell {
    uint64_t id;
    unsigned short group, label;
    unsigned char used; /* there is one here */
} cell;

typedef struct reweigh {
    char *text;
    size_t len, n_lines;
    names groups, labels;
    size_t both[MAX_NAMES][MAX_NAMES], n_rows; /* rows of data */
    cell *cells;                               /* a hash table with open addressing */
    size_t mask;                               /* places - 1 */
    int told;
} reweigh;

static void reweigh_free(reweigh *r)
{
    if (r != NULL) {
        free(r->text);
        free(r->cells);
    }
    free(r);
}

static double weight(const reweigh *r, size_t group, size_t label)
{
    double n = (double)r->n_rows;
    return (double)r->groups.count[group] / n * (double)r->labels.count[label] /
           (double)r->both[group][label];
}

/* Where the record is, or the free place for it. */
static cell *place_of(const reweigh *r, uint64_t id)
{
    size_t i = (size_t)id & r->mask;
    while (r->cells[i].used && r->cells[i].id != id)
        i = (i + 1) & r->mask;
    return &r->cells[i];
}

/* ---- the file ---- */

static int read_file(reweigh *r, const hone_host *h, hone_ctx *cx, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return h->init_error(cx, "%s: %s", path, strerror(errno));
    r->text = malloc((size_t)MAX_BYTES + 1);
    r->len = r->text != NULL ? fread(r->text, 1, MAX_BYTES, f) : 0;
    int bad = ferror(f), more = fgetc(f) != EOF;
    fclose(f);
    if (r->text == NULL)
        return h->init_error(cx, "no memory");
    if (bad || more)
        return h->init_error(cx, "%s: %s", path, bad ? "cannot be read" : "more than 256 MiB");
    if (memchr(r->text, '\0', r->len) != NULL)
        return h->init_error(cx, "%s: there is a NUL in it", path);
    r->text[r->len] = '\0';
    char *fit = realloc(r->text, r->len + 1);
    r->text = fit != NULL ? fit : r->text;
    return 0;
}

/* The number of this name, which may be new; MAX_NAMES where there are too many. */
static size_t number_of(names *all, const char *s)
{
    size_t i = 0;
    while (i < all->n && strcmp(all->name[i], s) != 0)
        i++;
    if (i == all->n && i < MAX_NAMES)
        all->name[all->n++] = s;
    return i;
}

/* The first 16 of s, hex digits; 0 where they are none. */
static int read_hex(uint64_t *id, const char *s)
{
    char digits[ID_DIGITS + 1] = "";
    memcpy(digits, s, strnlen(s, ID_DIGITS));
    *id = strtoull(digits, NULL, 16);
    return strspn(digits, "0123456789abcdef") == ID_DIGITS;
}

/* As the appliance makes it of a record. */
static int read_id(uint64_t *id, const char *s, const hone_host *h)
{
    static const char prefix[] = "sha256:";
    char hex[65];
    if (strncmp(s, prefix, sizeof prefix - 1) == 0)
        return read_hex(id, s + sizeof prefix - 1);
    h->sha256(hex, s, strlen(s));
    return read_hex(id, hex);
}

static int add_line(reweigh *r, char *line, const hone_host *h, hone_ctx *cx, const char *path)
{
    unsigned long at = (unsigned long)++r->n_lines;
    char *tab = strchr(line, '\t'), *last = tab != NULL ? strchr(tab + 1, '\t') : NULL;
    uint64_t id;
    if (last == NULL || tab == line || last == tab + 1 || last[1] == '\0' ||
        strchr(last + 1, '\t') != NULL)
        return h->init_error(cx, "%s: line %lu is not id, tab, group, tab, label", path, at);
    *tab = *last = '\0';
    if (!read_id(&id, line, h))
        return h->init_error(cx, "%s: line %lu: after sha256: there must be 16 hex digits or more",
                             path, at);
    size_t group = number_of(&r->groups, tab + 1), label = number_of(&r->labels, last + 1);
    if (group == MAX_NAMES || label == MAX_NAMES)
        return h->init_error(cx, "%s: line %lu: more than %d groups or labels", path, at,
                             MAX_NAMES);
    cell *c = place_of(r, id);
    if (c->used)
        return h->init_error(cx, "%s: line %lu: '%.100s' was there before", path, at, line);
    *c = (cell){id, (unsigned short)group, (unsigned short)label, 1};
    return 0;
}

static int read_lines(reweigh *r, const hone_host *h, hone_ctx *cx, const char *path)
{
    size_t most = 1, places = 2;
    int rc = 0;
    for (size_t i = 0; i < r->len; i++)
        most += r->text[i] == '\n';
    while (places < 2 * most)
        places *= 2;
    r->cells = calloc(places, sizeof *r->cells);
    r->mask = places - 1;
    if (r->cells == NULL)
        return h->init_error(cx, "no memory");
    for (char *s = r->text, *next; rc == 0 && *s != '\0'; s = next) {
        size_t n = strcspn(s, "\n");
        next = s + n + (s[n] == '\n');
        s[n - (n > 0 && s[n - 1] == '\r')] = s[n] = '\0';
        rc = add_line(r, s, h, cx, path);
    }
    return rc == 0 && r->n_lines == 0 ? h->init_error(cx, "%s: there are no lines in it", path)
                                      : rc;
}

/* ---- the hooks ---- */

/* A row that filters have passed. One without a line may be of data that are only evaluated. */
static int count_row(const hone_host *h, hone_call *call, void *user)
{
    reweigh *r = user;
    const char *hex = hone_get_string(h, call->data, "id", NULL);
    uint64_t id;
    if (hex == NULL || !read_hex(&id, hex))
        return h->error(call, "data.split names no record");
    const char *split = hone_get_string(h, call->data, "split", NULL);
    const cell *c = place_of(r, id);
    if (split != NULL && strcmp(split, "none") == 0)
        return HONE_CONTINUE;
    if (!c->used) {
        h->count(call->ctx, "without_label", 1);
        return HONE_CONTINUE;
    }
    r->groups.count[c->group]++;
    r->labels.count[c->label]++;
    r->both[c->group][c->label]++;
    r->n_rows++;
    return HONE_CONTINUE;
}

static void tell(reweigh *r, const hone_host *h, hone_ctx *cx)
{
    for (size_t g = 0; g < r->groups.n && !r->told; g++)
        for (size_t y = 0; y < r->labels.n; y++)
            if (r->both[g][y] > 0)
                h->log(cx, HONE_LOG_INFO, "group %.60s label %.60s: %lu rows, weight %.4f",
                       r->groups.name[g], r->labels.name[y], (unsigned long)r->both[g][y],
                       weight(r, g, y));
    r->told = 1;
}

static int weigh(const hone_host *h, hone_call *call, void *user)
{
    reweigh *r = user;
    const hone_batch *b = call->batch;
    for (uint64_t i = 0; i < b->n_examples; i++) {
        const cell *c = place_of(r, b->id[i]);
        if (!c->used)
            return h->error(call, "row %lu (sha256:%016llx) has no line in the file of labels",
                            (unsigned long)b->row[i] + 1, (unsigned long long)b->id[i]);
        if (r->both[c->group][c->label] == 0)
            return h->error(call, "row %lu was not counted: hooks: must not leave data.split out",
                            (unsigned long)b->row[i] + 1);
    }
    tell(r, h, call->ctx);
    for (uint64_t i = 0; i < b->n_examples; i++) {
        const cell *c = place_of(r, b->id[i]);
        b->weight[i] *= (float)weight(r, c->group, c->label);
    }
    return HONE_MODIFIED;
}

/* The next run counts its own rows. */
static int forget(const hone_host *h, hone_call *call, void *user)
{
    reweigh *r = user;
    (void)h;
    (void)call;
    memset(r->groups.count, 0, sizeof r->groups.count);
    memset(r->labels.count, 0, sizeof r->labels.count);
    memset(r->both, 0, sizeof r->both);
    r->n_rows = 0;
    r->told = 0;
    return HONE_CONTINUE;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const char *path = hone_get_string(h, h->settings(cx), "labels", NULL);
    if (path == NULL)
        return h->init_error(cx, "labels must name a file with id, tab, group, tab, label of every "
                                 "record; there is no reweighing without labels");
    reweigh *r = calloc(1, sizeof *r);
    if (r == NULL)
        return h->init_error(cx, "no memory");
    int rc = read_file(r, h, cx, path);
    if (rc == 0)
        rc = read_lines(r, h, cx, path);
    if (rc == 0)
        rc = h->on(cx, "data.split", 1000, count_row, r); /* after whoever refuses the row */
    if (rc == 0)
        rc = h->on(cx, "train.batch", 0, weigh, r);
    if (rc == 0)
        rc = h->on(cx, "train.end", 0, forget, r);
    if (rc != 0) {
        reweigh_free(r);
        return rc;
    }
    h->set_state(cx, r);
    return 0;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    reweigh_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"labels", HONE_SET_PATH, 0, NULL, 0, 0, NULL,
     "a line of each record: id, tab, group, tab, label"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "reweigh",
    "1.1.0",
    "Apache-2.0",
    "weighs rows so that label and group become independent",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

/* Reweighing (train.batch): rows of a group s with a label y count for w = P(s) P(y) / P(s, y), so
 * that among the weighted rows label and group are independent. Group and label of each row stand
 * in a file of the user's. Source: Kamiran, Calders, Knowledge and Information Systems 33 (2012).
 *
 * The file: line i is "group<TAB>label" of row i, counted as training counts the rows that it uses:
 * all sources one after the other, without those that were rejected. Read at the start. */
#include <hone_plugin.h>

#include <errno.h>
#include <stdlib.h>

enum { MAX_BYTES = 256 << 20, MAX_NAMES = 256 };

/* Distinct texts; a row's is known by its number. */
typedef struct names {
    const char *name[MAX_NAMES];
    size_t n, count[MAX_NAMES];
} names;

typedef struct cell {
    unsigned short group, label;
} cell;

typedef struct reweigh {
    char *text;
    size_t len, n_rows;
    names groups, labels;
    size_t both[MAX_NAMES][MAX_NAMES];
    cell *rows;
} reweigh;

static void reweigh_free(reweigh *r)
{
    if (r != NULL) {
        free(r->text);
        free(r->rows);
    }
    free(r);
}

static double weight(const reweigh *r, size_t group, size_t label)
{
    double n = (double)r->n_rows;
    return (double)r->groups.count[group] / n * (double)r->labels.count[label] /
           (double)r->both[group][label];
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

static int add_row(reweigh *r, char *line, const hone_host *h, hone_ctx *cx, const char *path)
{
    unsigned long at = (unsigned long)r->n_rows + 1;
    char *tab = strchr(line, '\t');
    if (tab == NULL || tab == line || tab[1] == '\0' || strchr(tab + 1, '\t') != NULL)
        return h->init_error(cx, "%s: line %lu is not group, tab, label", path, at);
    *tab = '\0';
    size_t group = number_of(&r->groups, line), label = number_of(&r->labels, tab + 1);
    if (group == MAX_NAMES || label == MAX_NAMES)
        return h->init_error(cx, "%s: line %lu: more than %d groups or labels", path, at,
                             MAX_NAMES);
    r->groups.count[group]++;
    r->labels.count[label]++;
    r->both[group][label]++;
    r->rows[r->n_rows++] = (cell){(unsigned short)group, (unsigned short)label};
    return 0;
}

static int read_rows(reweigh *r, const hone_host *h, hone_ctx *cx, const char *path)
{
    size_t most = 1;
    int rc = 0;
    for (size_t i = 0; i < r->len; i++)
        most += r->text[i] == '\n';
    r->rows = calloc(most, sizeof *r->rows);
    if (r->rows == NULL)
        return h->init_error(cx, "no memory");
    for (char *s = r->text, *next; rc == 0 && *s != '\0'; s = next) {
        size_t n = strcspn(s, "\n");
        next = s + n + (s[n] == '\n');
        s[n - (n > 0 && s[n - 1] == '\r')] = s[n] = '\0';
        rc = add_row(r, s, h, cx, path);
    }
    return rc == 0 && r->n_rows == 0 ? h->init_error(cx, "%s: there are no rows in it", path) : rc;
}

static void tell(const reweigh *r, const hone_host *h, hone_ctx *cx)
{
    for (size_t g = 0; g < r->groups.n; g++)
        for (size_t y = 0; y < r->labels.n; y++)
            if (r->both[g][y] > 0)
                h->log(cx, HONE_LOG_INFO, "group %.60s label %.60s: %lu rows, weight %.4f",
                       r->groups.name[g], r->labels.name[y], (unsigned long)r->both[g][y],
                       weight(r, g, y));
}

/* ---- the hook ---- */

static int weigh(const hone_host *h, hone_call *call, void *user)
{
    const reweigh *r = user;
    const hone_batch *b = call->batch;
    for (uint64_t i = 0; i < b->n_examples; i++)
        if (b->row[i] >= r->n_rows)
            return h->error(call, "row %lu has no group and label: the file of labels ends at %lu",
                            (unsigned long)b->row[i] + 1, (unsigned long)r->n_rows);
    for (uint64_t i = 0; i < b->n_examples; i++) {
        cell c = r->rows[b->row[i]];
        b->weight[i] *= (float)weight(r, c.group, c.label);
    }
    return HONE_MODIFIED;
}

static int start(const hone_host *h, hone_ctx *cx)
{
    const char *path = hone_get_string(h, h->settings(cx), "labels", NULL);
    if (path == NULL)
        return h->init_error(cx, "labels must name a file with group, tab, label of every row; "
                                 "there is no reweighing without labels");
    reweigh *r = calloc(1, sizeof *r);
    if (r == NULL)
        return h->init_error(cx, "no memory");
    int rc = read_file(r, h, cx, path);
    if (rc == 0)
        rc = read_rows(r, h, cx, path);
    if (rc == 0)
        rc = h->on(cx, "train.batch", 0, weigh, r);
    if (rc != 0) {
        reweigh_free(r);
        return rc;
    }
    tell(r, h, cx);
    h->set_state(cx, r);
    return 0;
}

static void stop(const hone_host *h, hone_ctx *cx)
{
    reweigh_free(h->state(cx));
}

static const hone_setting settings[] = {
    {"labels", HONE_SET_PATH, 0, NULL, 0, 0, NULL, "line i: group, tab, label of row i"},
};

static const hone_descriptor descriptor = {
    HONE_DESCRIPTOR(HONE_F_THREADSAFE | HONE_F_DETERMINISTIC, HONE_CAP_READ_FILES),
    "reweigh",
    "1.0.0",
    "Apache-2.0",
    "weighs rows so that label and group become independent",
    HONE_SETTINGS(settings),
    start,
    stop,
};

HONE_PLUGIN(descriptor)

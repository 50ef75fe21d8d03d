/* hone preview: what the trainer will see. Tokens that are learnt stand in green on a terminal, in
 * [brackets] elsewhere. */
#include "cli/extend.h"
#include "cli/train_args.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/pack.h"
#include "core/train/inputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_REJECTS_SHOWN = 10, MAX_TEXT = 64 << 20 };

typedef struct marks {
    const char *on, *off;
} marks;

static bool learnt(const dataset *d, const data_sample *s, int64_t i)
{
    return i > 0 && i < s->n && d->mask[s->start + (size_t)i] != 0;
}

static void mark(const marks *m, const dataset *d, const data_sample *s, int64_t i)
{
    bool now = learnt(d, s, i), before = learnt(d, s, i - 1);
    if (now != before)
        fputs(now ? m->on : m->off, stdout);
}

/* A character goes to the token that completes it. */
static int print_text(const tok *t, const dataset *d, const data_sample *s, const marks *m,
                      hone_err *e)
{
    buf b;
    int rc = 0;
    tok_stream *stream = tok_stream_new(t, false);
    buf_init(&b, MAX_TEXT);
    for (int64_t i = 0; rc == 0 && i <= s->n; i++) {
        buf_reset(&b);
        if (i < s->n)
            rc = tok_stream_push(stream, d->ids[s->start + (size_t)i], &b, e);
        mark(m, d, s, i);
        fwrite(b.data, 1, b.len, stdout);
    }
    putchar('\n');
    buf_free(&b);
    tok_stream_free(stream);
    return rc;
}

static void print_ids(const dataset *d, const data_sample *s, const marks *m)
{
    fputs("ids ", stdout);
    for (int64_t i = 0; i < s->n; i++) {
        bool now = learnt(d, s, i), before = learnt(d, s, i - 1);
        printf("%s %s%d", before && !now ? m->off : "", now && !before ? m->on : "",
               (int)d->ids[s->start + (size_t)i]);
    }
    puts(learnt(d, s, s->n - 1) ? m->off : "");
}

static int print_sample(const train_inputs *in, const data_view *v, size_t i, const char *side,
                        const marks *m, hone_err *e)
{
    const data_sample *s = &v->d->samples[v->sample[i]];
    const data_row *row = &v->d->rows[s->row];
    printf("== %s:%lld  %lld tokens, %lld learnt, %s\n", v->d->sources[row->source].path,
           (long long)row->line, (long long)s->n, (long long)s->n_targets, side);
    int rc = print_text(in->tok, v->d, s, m, e);
    if (rc == 0)
        print_ids(v->d, s, m);
    putchar('\n');
    return rc;
}

/* ---- counts ---- */

static int by_length(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

typedef struct counts {
    int64_t min, median, p95, max;
    size_t batches;
    double fill; /* share of the room in packed batches */
} counts;

static counts count(const data_view *v, const train_conf *c)
{
    counts k = {0};
    pack_plan p;
    pack_options o = {c->micro_batch_size, c->sequence_len, c->sample_packing, c->shuffle,
                      (uint64_t)c->seed};
    int64_t *len = mem_array(v->n, sizeof *len);
    if (v->n > 0) {
        for (size_t i = 0; i < v->n; i++)
            len[i] = v->d->samples[v->sample[i]].n;
        qsort(len, v->n, sizeof *len, by_length);
        pack_epoch(&p, v, &o, 0);
        k = (counts){len[0], len[v->n / 2], len[v->n * 95 / 100], len[v->n - 1], p.n_batches, 0};
        k.fill = (double)v->n_tokens /
                 ((double)p.n_batches * (double)(c->micro_batch_size * c->sequence_len));
        pack_plan_free(&p);
    }
    free(len);
    return k;
}

static void print_rejects(const dataset *d)
{
    for (size_t i = 0; d != NULL && i < d->n_rejects; i++) {
        const data_reject *r = &d->rejects[i];
        if (i == MAX_REJECTS_SHOWN) {
            printf("  and %zu more\n", d->n_rejects - i);
            break;
        }
        printf("  %s:%lld: %s\n", d->sources[r->source].path, (long long)r->line, r->reason);
    }
}

static void print_set(const char *what, const data_view *v, const train_conf *c)
{
    counts k = count(v, c);
    printf(
        "%-10s %zu sequences, %lld tokens, %lld learnt; lengths %lld to %lld, median %lld, 95 %% "
        "up to %lld\n",
        what, v->n, (long long)v->n_tokens, (long long)v->n_targets, (long long)k.min,
        (long long)k.max, (long long)k.median, (long long)k.p95);
    printf("%-10s %zu micro-batches", "", k.batches);
    if (c->sample_packing)
        printf(", %.1f %% full", 100 * k.fill);
    putchar('\n');
}

static void print_counts(const train_inputs *in, const train_conf *c)
{
    const dataset *d = in->set;
    for (size_t i = 0; i < d->n_sources; i++)
        printf("source     %s (%s): %zu rows used, %zu rejected\n", d->sources[i].path,
               d->sources[i].format, d->sources[i].n_used, d->sources[i].n_rejected);
    if (d->n_truncated + d->n_split > 0)
        printf(
            "too long   %zu rows cut (%zu tokens lost), %zu split; the longest had %lld tokens\n",
            d->n_truncated, d->n_tokens_cut, d->n_split, (long long)d->longest);
    if (in->train.n > 0)
        print_set("training", &in->train, c);
    if (in->eval.n > 0)
        print_set("held out", &in->eval, c);
    if (d->n_rejects > 0)
        printf("rejected   %zu rows\n", d->n_rejects);
    print_rejects(d);
    print_rejects(in->test);
}

/* ---- JSON ---- */

static void print_json_sample(const data_view *v, size_t i, const char *side)
{
    const data_sample *s = &v->d->samples[v->sample[i]];
    const data_row *row = &v->d->rows[s->row];
    json_t *ids = json_array(), *mask = json_array();
    for (int64_t k = 0; k < s->n; k++) {
        json_array_append_new(ids, json_integer(v->d->ids[s->start + (size_t)k]));
        json_array_append_new(mask, json_integer(learnt(v->d, s, k)));
    }
    json_t *o = json_pack("{s:s, s:I, s:s, s:o, s:o}", "file", v->d->sources[row->source].path,
                          "line", (json_int_t)row->line, "set", side, "ids", ids, "mask", mask);
    char *text = js_text(o, false);
    puts(text);
    free(text);
    json_decref(o);
}

static int show(const train_inputs *in, const train_conf *c, bool json, size_t rows, hone_err *e)
{
    bool tty = isatty(STDOUT_FILENO);
    marks m = {tty ? "\033[32m" : "[", tty ? "\033[0m" : "]"};
    int rc = 0;
    for (int side = 0; side < 2; side++) {
        const data_view *v = side == 0 ? &in->train : &in->eval;
        const char *name = side == 0 ? "training" : "held out";
        for (size_t i = 0; rc == 0 && i < v->n && i < rows; i++) {
            if (json)
                print_json_sample(v, i, name);
            else
                rc = print_sample(in, v, i, name, &m, e);
        }
    }
    if (rc == 0 && !json)
        print_counts(in, c);
    return rc;
}

static int run(int argc, char **argv)
{
    train_conf c;
    train_args a;
    train_inputs in = {0};
    extend *x = NULL;
    hone_err e = {0};
    bool done;
    char *end = NULL;
    int rc = train_args_load(&c, &a, &done, &cmd_preview, argc, argv);
    if (rc != 0 || done)
        return rc;
    size_t rows = a.json ? (size_t)-1 : 5;
    if (a.rows != NULL) {
        rows = strtoull(a.rows, &end, 10);
        if (*a.rows < '0' || *a.rows > '9' || *end != '\0') {
            train_conf_free(&c);
            return cmd_usage(&cmd_preview, "--rows: '%s' is not a whole number", a.rows);
        }
    }
    rc = extend_open(&x, c.plugins, a.config, NULL, &e);
    if (rc == 0)
        rc = train_inputs_open(&in, &c, extend_hooks(x), true, &e);
    if (rc == 0)
        rc = show(&in, &c, a.json, rows, &e);
    if (rc == 0 && !a.json)
        extend_report(x, stdout);
    train_inputs_close(&in);
    extend_close(x);
    train_conf_free(&c);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_preview = {
    "preview",
    run,
    "show what the trainer will see: text, ids, mask, lengths",
    "usage: hone preview CONFIG.yaml [key=value ...] [--rows N] [--json]\n"
    "\n"
    "Reads the data as `hone train` would, without a model. What is learnt is green on a terminal "
    "and\n"
    "in [brackets] elsewhere. Rows that are too long are listed with the rejected ones.\n"
    "  --rows N   sequences shown of each set (5)\n"
    "  --json     one JSON object a sequence: file, line, set, ids, mask (all of them)\n"
    "\n"
    "example: hone preview lora.yaml --rows 2",
};

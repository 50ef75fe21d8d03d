/* Speed of the bundled plugins for data and texts, one thread: bench_plugins [TEXT]. Without a text
 * it takes the data sets under HONE_SHARED (../shared). The text is cut at line ends into documents
 * of about 3 kB, and each goes through the plugin's hook point as a record does, so that the copy
 * of the record that each subscriber gets is in the time: processor seconds, the best of three
 * rounds. The first row is a plugin that only trims. */
#include "core/base/file.h"
#include "core/base/hook.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "plugins/loader.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 3, DOC_BYTES = 3000, MAX_TEXT = 64 << 20 };

/* clang-format off */
static const struct {
    const char *plugin, *settings;
    hook_point point;
} rows[] = {
    {"trim", "{}", HOOK_DATA_NORMALIZE},
    {"dedup", "{\"near\": false}", HOOK_DATA_FILTER},
    {"dedup", "{}", HOOK_DATA_FILTER},
    {"pii", "{}", HOOK_DATA_TAG},
    {"clean", "{}", HOOK_DATA_NORMALIZE},
    {"quality", "{\"recipe\": \"web\"}", HOOK_DATA_TAG},
    {"decontam", "{\"sets\": {\"this\": \"/etc/passwd\"}}", HOOK_DATA_FILTER},
    {"chunk", "{\"size\": 200}", HOOK_DATA_RECORD},
    {"textmetrics", "{\"rouge\": false}", HOOK_EVAL_METRIC},
    {"textmetrics", "{\"bleu\": false, \"chrf\": false}", HOOK_EVAL_METRIC},
    {"textmetrics", "{}", HOOK_EVAL_METRIC},
};
/* clang-format on */

typedef struct documents {
    json_t *items; /* of records, or of texts */
    size_t bytes;
    hooks *h;
    hook_point point;
    const char *plugin, *settings;
    bool failed;
    hone_err why;
} documents;

static const char *const default_texts[] = {"llamafactory/wiki_demo.txt",
                                            "llamafactory/c4_demo.jsonl",
                                            "tinyshakespeare/input.txt", "gsm8k/train.jsonl", NULL};

/* The text without every eighth byte of ASCII, as an answer that is nearly right. */
static json_t *answer_of(const char *text, size_t n)
{
    char *out = mem_alloc(n + 1);
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        if (i % 8 != 0 || ((unsigned char)text[i] & 0x80) != 0)
            out[len++] = text[i];
    json_t *v = json_stringn(out, len);
    free(out);
    return v;
}

static json_t *document(const char *text, size_t n, hook_point point, size_t line)
{
    json_t *s = json_stringn(text, n);
    if (point == HOOK_DATA_NORMALIZE)
        return json_pack("{s:o, s:s, s:n, s:s, s:I}", "text", s, "field", "text", "role", "source",
                         "bench", "line", (json_int_t)line);
    if (point == HOOK_DATA_RECORD)
        return json_pack("{s:o}", "text", s);
    if (point == HOOK_EVAL_METRIC)
        return json_pack("{s:o, s:o, s:{}}", "prediction", answer_of(text, n), "reference", s,
                         "scores");
    return json_pack("{s:{s:o}, s:s, s:I, s:{}}", "record", "text", s, "source", "bench", "line",
                     (json_int_t)line, "tags");
}

static void add_documents(documents *d, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        const char *nl =
            len - i > DOC_BYTES ? memchr(text + i + DOC_BYTES, '\n', len - i - DOC_BYTES) : NULL;
        size_t end = nl != NULL ? (size_t)(nl - text) + 1 : len;
        json_t *doc = document(text + i, end - i, d->point, json_array_size(d->items) + 1);
        if (doc != NULL && json_array_append_new(d->items, doc) == 0)
            d->bytes += end - i;
        i = end;
    }
}

static int load_texts(documents *d, const char *path, hone_err *e)
{
    const char *base = getenv("HONE_SHARED");
    int rc = 0;
    for (size_t i = 0; rc == 0 && default_texts[i] != NULL && (path == NULL || i == 0); i++) {
        char *text, *from = path != NULL
                                ? mem_strdup(path)
                                : mem_printf("%s/data/datasets/%s",
                                             base != NULL ? base : "../shared", default_texts[i]);
        size_t len;
        rc = file_read(&text, &len, from, MAX_TEXT, e);
        if (rc == 0) {
            add_documents(d, text, len);
            free(text);
        }
        free(from);
    }
    return rc;
}

static int open_plugin(loaded **out, hooks *h, const char *name, const char *settings, hone_err *e)
{
    char self[PATH_MAX] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) <= 0)
        return hone_fail(e, HONE_EIO, "/proc/self/exe cannot be read");
    for (int up = 0; up < 3; up++) /* build/tests/bench/bench_x */
        *strrchr(self, '/') = '\0';
    char *path = mem_printf("%s/plugins/%s.so", self, name);
    trust_file f;
    json_t *given;
    int rc = js_parse(&given, settings, strlen(settings), e);
    if (rc == 0)
        rc = trust_open(&f, NULL, path, e);
    if (rc == 0) {
        rc = loader_open(out, &(loader_args){.file = &f, .settings = given, .hooks = h}, e);
        trust_close(&f);
    }
    json_decref(given);
    free(path);
    return rc;
}

/* All documents through a plugin that has just been started: what it remembers of them is part of
 * the work. What is refused, and what is made of a document, is of no interest here. */
static void run(documents *d)
{
    loaded *p = NULL;
    json_t *one;
    size_t i;
    hone_err e = {0};
    if (d->failed || open_plugin(&p, d->h, d->plugin, d->settings, &d->why) != 0) {
        d->failed = true;
        return;
    }
    json_array_foreach (d->items, i, one) {
        json_t *data = json_incref(one);
        hook_emit(d->h, d->point, &data, &e);
        json_decref(data);
    }
    d->failed = loader_close(p, 1000, &d->why) != 0;
}

static int bench_row(size_t i, const char *path, hone_err *e)
{
    documents d = {.items = json_array(),
                   .h = hook_new(),
                   .point = rows[i].point,
                   .plugin = rows[i].plugin,
                   .settings = rows[i].settings};
    char name[128];
    snprintf(name, sizeof name, "%s %s", rows[i].plugin, rows[i].settings);
    int rc = load_texts(&d, path, e);
    double best = 1e9;
    for (int round = 0; rc == 0 && !d.failed && round < ROUNDS; round++) {
        clock_t start = clock();
        run(&d);
        double took = (double)(clock() - start) / CLOCKS_PER_SEC;
        best = took < best ? took : best;
    }
    if (rc == 0 && !d.failed)
        printf("%-36s %6.1f MB in %6.3f s %7.1f MB/s\n", name, (double)d.bytes / 1e6, best,
               (double)d.bytes / 1e6 / best);
    if (d.failed) {
        *e = d.why;
        rc = d.why.code;
    }
    json_decref(d.items);
    hook_free(d.h);
    return rc;
}

int main(int argc, char **argv)
{
    hone_err e = {0};
    int rc = 0;
    log_setup(LOG_ERROR, false);
    js_start();
    for (size_t i = 0; rc == 0 && i < sizeof rows / sizeof *rows; i++)
        rc = bench_row(i, argc > 1 ? argv[1] : NULL, &e);
    if (rc != 0)
        fprintf(stderr, "bench_plugins: %s\n", e.msg);
    return rc == 0 || rc == HONE_ENOTFOUND ? 0 : 1;
}

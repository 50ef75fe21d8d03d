/* hone tokenizer train: learns a byte-level BPE vocabulary from text files. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/text/tok_train.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 4096 };

typedef struct options {
    const char *out, *vocab_size, *min_frequency, *pattern, *bos, *eos, *pad;
    bool add_bos;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"out",           offsetof(options, out),           false},
    {"vocab-size",    offsetof(options, vocab_size),    false},
    {"min-frequency", offsetof(options, min_frequency), false},
    {"pattern",       offsetof(options, pattern),       false},
    {"bos",           offsetof(options, bos),           false},
    {"eos",           offsetof(options, eos),           false},
    {"pad",           offsetof(options, pad),           false},
    {"add-bos",       offsetof(options, add_bos),       true},
    {NULL, 0, false},
};
/* clang-format on */

/* Everything that the command line says. */
typedef struct plan {
    tok_train_opts opts;
    const char *out;
    const char **special, **files;
    size_t n_special;
    int n_files;
} plan;

static void add_special(plan *p, const char *text)
{
    for (size_t i = 0; i < p->n_special; i++)
        if (strcmp(p->special[i], text) == 0)
            return;
    p->special[p->n_special++] = text;
}

/* Takes every --special out of argv, which args_parse allows once only. */
static int take_special(plan *p, int *argc, char **argv, hone_err *e)
{
    int kept = 0;
    for (int i = 0; i < *argc; i++) {
        if (strncmp(argv[i], "--special=", 10) == 0) {
            add_special(p, argv[i] + 10);
        } else if (strcmp(argv[i], "--special") == 0) {
            if (++i == *argc)
                return hone_fail(e, HONE_EINVAL, "option '--special' needs a value");
            add_special(p, argv[i]);
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = kept;
    return 0;
}

static int take_number(uint64_t *out, const char *text, const char *what, hone_err *e)
{
    char *end;
    if (text == NULL)
        return 0;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a whole number", what, text);
    return 0;
}

static int parse(plan *p, int argc, char **argv, hone_err *e)
{
    options o = {.pattern = NULL};
    uint64_t size = 0;
    p->special = mem_array((size_t)argc + 3, sizeof *p->special);
    p->files = mem_array(MAX_FILES, sizeof *p->files);
    int rc = take_special(p, &argc, argv, e);
    if (rc == 0)
        rc = args_parse(rows, &o, argc, argv, p->files, MAX_FILES, &p->n_files, e);
    if (rc == 0 && o.out == NULL)
        rc = hone_fail(e, HONE_EINVAL, "where to? --out DIR");
    if (rc == 0 && o.vocab_size == NULL)
        rc = hone_fail(e, HONE_EINVAL, "how many ids? --vocab-size N");
    if (rc == 0 && p->n_files == 0)
        rc = hone_fail(e, HONE_EINVAL, "which text? name at least one file");
    if (rc == 0)
        rc = take_number(&size, o.vocab_size, "vocab-size", e);
    if (rc == 0)
        rc = take_number(&p->opts.min_frequency, o.min_frequency, "min-frequency", e);
    if (rc != 0)
        return rc;
    const char *const named[] = {o.bos, o.eos, o.pad};
    for (size_t i = 0; i < 3; i++)
        if (named[i] != NULL)
            add_special(p, named[i]);
    p->out = o.out;
    p->opts.vocab_size = size;
    p->opts.pattern = o.pattern != NULL ? o.pattern : "gpt2";
    p->opts.special = p->special;
    p->opts.n_special = p->n_special;
    p->opts.bos = o.bos;
    p->opts.eos = o.eos;
    p->opts.pad = o.pad;
    p->opts.add_bos = o.add_bos;
    return 0;
}

/* Lines of {"text": ...}. */
static int add_jsonl(tok_train *t, const char *data, size_t len, hone_err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(data + i, '\n', len - i);
        size_t end = nl == NULL ? len : (size_t)(nl - data);
        json_t *v;
        n++;
        int rc = js_parse(&v, data + i, end - i, e);
        const json_t *text = json_object_get(v, "text");
        if (rc == 0 && !json_is_string(text))
            rc = hone_fail(e, HONE_EFORMAT, "field 'text' is missing or not a string");
        if (rc == 0)
            rc = tok_train_add(t, json_string_value(text), json_string_length(text), e);
        json_decref(v);
        if (rc != 0)
            return hone_fail_at(e, "line %zu", n);
        i = end + 1;
    }
    return 0;
}

static int add_file(tok_train *t, const char *path, hone_err *e)
{
    file_map m;
    size_t len = strlen(path);
    int rc = file_map_open(&m, path, e);
    if (rc != 0)
        return rc;
    if (len > 6 && strcmp(path + len - 6, ".jsonl") == 0)
        rc = add_jsonl(t, (const char *)m.data, m.len, e);
    else
        rc = tok_train_add(t, (const char *)m.data, m.len, e);
    file_map_close(&m);
    return rc == 0 ? 0 : hone_fail_at(e, "%s", path);
}

static int train(const plan *p, hone_err *e)
{
    tok_train *t;
    int rc = tok_train_new(&t, &p->opts, e);
    for (int i = 0; rc == 0 && i < p->n_files; i++) {
        rc = add_file(t, p->files[i], e);
        if (rc == 0)
            fprintf(stderr, "%s: %zu different words so far\n", p->files[i], tok_train_n_words(t));
    }
    if (rc == 0)
        rc = tok_train_run(t, e);
    if (rc == 0)
        rc = tok_train_save(t, p->out, e);
    if (rc == 0 && tok_train_n_vocab(t) < p->opts.vocab_size)
        fprintf(stderr, "only %zu of %zu ids: no pair is left that is frequent enough\n",
                tok_train_n_vocab(t), p->opts.vocab_size);
    if (rc == 0)
        printf("%s: %zu ids, %zu of them special\n", p->out, tok_train_n_vocab(t), p->n_special);
    tok_train_free(t);
    return rc;
}

static int run(int argc, char **argv)
{
    plan p = {0};
    hone_err e = {0};
    if (argc < 2 || strcmp(argv[1], "train") != 0)
        return cmd_usage(&cmd_tokenizer, "what should be done? train");
    int rc = parse(&p, argc - 1, argv + 1, &e);
    int status = rc != 0 ? cmd_usage(&cmd_tokenizer, "%s", e.msg) : 0;
    if (rc == 0 && train(&p, &e) != 0)
        status = cmd_failed(&e);
    free(p.special);
    free(p.files);
    return status;
}

const cmd cmd_tokenizer = {
    "tokenizer", run, "learn a vocabulary from text",
    "usage: hone tokenizer train --out DIR --vocab-size N [--special TOKEN]... FILE...\n\n"
    "Learns a byte-level BPE vocabulary and writes tokenizer.json and tokenizer_config.json. FILE "
    "is\n"
    "UTF-8 text, or JSONL with a field 'text' where its name ends in .jsonl. Special tokens get "
    "the\n"
    "first ids, in the order given.\n\n"
    "  --min-frequency N   do not merge pairs seen less often (0)\n"
    "  --pattern NAME      how text is cut into words: gpt2, llama3 or qwen2 (gpt2)\n"
    "  --bos, --eos, --pad TOKEN   special tokens with a role\n"
    "  --add-bos           every text gets the bos token in front\n\n"
    "example: hone tokenizer train --out tok --vocab-size 8000 --eos '<|end|>' corpus.txt"};

/* Speed of the tokenizer, one thread: bench_tok [TEXT [TOKENIZER.json ...]]. Without a text it
 * takes the data sets under HONE_SHARED (../shared), repeated to 50 MB. The text is encoded in
 * documents of about 10 kB cut at line ends, twice, and the better time counts. The sum over the
 * ids lets peers/tokenizer.py prove that it made the same ones. */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/text/tok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TEXT_BYTES = 50 * 1000 * 1000, DOC_BYTES = 10000 };

static const char *const default_texts[] = {
    "llamafactory/wiki_demo.txt", "llamafactory/c4_demo.jsonl", "tinyshakespeare/input.txt",
    "gsm8k/train.jsonl",          "wikisql/train.jsonl",        NULL};
static const char *const default_tokenizers[] = {"gpt2",     "llama2", "mistral03", "llama3",
                                                 "gpt_neox", "qwen2",  NULL};

static const char *shared(void)
{
    const char *s = getenv("HONE_SHARED");
    return s != NULL ? s : "../shared";
}

/* The data sets one after the other, again and again, to TEXT_BYTES. */
static char *default_text(size_t *len)
{
    char *text = mem_alloc(TEXT_BYTES + 1);
    *len = 0;
    for (size_t i = 0; *len < TEXT_BYTES; i = default_texts[i + 1] == NULL ? 0 : i + 1) {
        char *part, *path = mem_printf("%s/data/datasets/%s", shared(), default_texts[i]);
        size_t n;
        hone_err e = {0};
        if (file_read(&part, &n, path, TEXT_BYTES, &e) != 0) {
            printf("tokenizer: skipped, %s\n", e.msg);
            free(path);
            free(text);
            return NULL;
        }
        n = n < TEXT_BYTES - *len ? n : TEXT_BYTES - *len;
        memcpy(text + *len, part, n);
        *len += n;
        free(part);
        free(path);
    }
    while (*len > 0 && text[*len - 1] != '\n') /* never inside a character */
        --*len;
    return text;
}

static size_t doc_end(const char *text, size_t len, size_t from)
{
    if (len - from <= DOC_BYTES)
        return len;
    const char *nl = memchr(text + from + DOC_BYTES, '\n', len - from - DOC_BYTES);
    return nl == NULL ? len : (size_t)(nl - text) + 1;
}

static int encode_all(const tok *t, const char *text, size_t len, uint64_t *sum, size_t *count,
                      hone_err *e)
{
    tok_ids ids = {0};
    int rc = 0;
    *sum = *count = 0;
    for (size_t i = 0; rc == 0 && i < len;) {
        size_t end = doc_end(text, len, i);
        ids.n = 0;
        rc = tok_encode(t, text + i, end - i, 0, &ids, e);
        *count += ids.n;
        for (size_t k = 0; k < ids.n; k++)
            *sum += (uint64_t)ids.id[k];
        i = end;
    }
    tok_ids_free(&ids);
    return rc;
}

/* CPU seconds of this process, one thread: other work on the machine disturbs them less than the
 * time of day. */
static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int bench(const char *path, const char *text, size_t len, hone_err *e)
{
    char *json = NULL;
    size_t n = 0, count = 0;
    uint64_t sum = 0;
    tok *t = NULL;
    double best = 1e9, opened = cpu_seconds();
    int rc = file_read(&json, &n, path, TOK_MAX_FILE, e);
    if (rc == 0)
        rc = tok_open_json(&t, json, n, e);
    opened = cpu_seconds() - opened;
    for (int i = 0; rc == 0 && i < 2; i++) {
        double start = cpu_seconds();
        rc = encode_all(t, text, len, &sum, &count, e);
        double took = cpu_seconds() - start;
        best = took < best ? took : best;
    }
    if (rc == 0)
        printf("tokenizer %-16s %6.1f MB %9zu tokens %7.3f s %7.1f MB/s  open %.3f s  sum %llu\n",
               path_base(path), (double)len / 1e6, count, best, (double)len / 1e6 / best, opened,
               (unsigned long long)sum);
    free(json);
    tok_close(t);
    return rc;
}

int main(int argc, char **argv)
{
    hone_err e = {0};
    size_t len = 0;
    char *text = NULL;
    int rc = 0;
    if (argc > 1)
        rc = file_read(&text, &len, argv[1], (size_t)1 << 30, &e);
    else if ((text = default_text(&len)) == NULL)
        return 0;
    for (int i = 2; rc == 0 && i < argc; i++)
        rc = bench(argv[i], text, len, &e);
    for (size_t i = 0; rc == 0 && argc <= 2 && default_tokenizers[i] != NULL; i++) {
        char *path = mem_printf("%s/data/tokenizers/%s.json", shared(), default_tokenizers[i]);
        rc = bench(path, text, len, &e);
        free(path);
    }
    free(text);
    if (rc != 0)
        fprintf(stderr, "bench_tok: %s\n", e.msg);
    return rc == 0 ? 0 : 1;
}

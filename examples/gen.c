/* gen: writes texts of a grammar as JSON lines to standard output, {"text": ...} or, where the text
 * has turns,
 * {"messages": [...]}. The n-th line depends on the grammar, the rule, the seed and nothing else.
 */
#include "examples/grammar.h"

#include "core/base/js.h"
#include "core/base/mem.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPEATS = 10000 };

static const char usage[] = "usage: gen [--seed N] [--unique] GRAMMAR RULE SIZE\n"
                            "  SIZE is a number of lines (500), or of bytes at least (800k, 40M)\n"
                            "  --unique leaves out a line that came before\n"
                            "  --plain writes text and no JSON, a turn a line\n"
                            "example: gen --seed 1 examples/corpus.gr text 40M > corpus.jsonl\n";

typedef struct job {
    const char *path, *rule;
    uint64_t seed, lines, bytes; /* of lines and bytes one is set */
    bool unique, plain;
} job;

/* The hashes of the lines written, an open table. */
typedef struct seen {
    uint64_t *slot;
    size_t cap, n;
} seen;

static bool seen_put(seen *t, uint64_t h)
{
    h += h == 0;
    size_t at = (size_t)h & (t->cap - 1);
    while (t->slot[at] != 0 && t->slot[at] != h)
        at = (at + 1) & (t->cap - 1);
    bool fresh = t->slot[at] == 0;
    t->slot[at] = h;
    t->n += fresh;
    return fresh;
}

/* True when h is new. The table is kept at most half full. */
static bool seen_add(seen *t, uint64_t h)
{
    if (t->n * 2 >= t->cap) {
        seen wider = {.cap = t->cap ? t->cap * 2 : 1024};
        wider.slot = mem_array(wider.cap, sizeof *wider.slot);
        for (size_t i = 0; i < t->cap; i++)
            if (t->slot[i] != 0)
                seen_put(&wider, t->slot[i]);
        free(t->slot);
        *t = wider;
    }
    return seen_put(t, h);
}

static json_t *as_messages(const char *text)
{
    static const char *const role[] = {
        [GRAMMAR_SYSTEM] = "system", [GRAMMAR_USER] = "user", [GRAMMAR_ASSISTANT] = "assistant"};
    json_t *turns = json_array();
    while (*text != '\0') {
        size_t mark = (size_t)*text++, n = strcspn(text, "\1\2\3"), len = n;
        while (len > 0 && text[len - 1] == ' ')
            len--;
        json_array_append_new(turns,
                              json_pack("{s:s, s:s%}", "role", role[mark], "content", text, len));
        text += n;
    }
    return json_pack("{s:o}", "messages", turns);
}

static bool has_turns(const char *text)
{
    return *text >= GRAMMAR_SYSTEM && *text <= GRAMMAR_ASSISTANT;
}

static char *as_plain(const char *text)
{
    char *line = mem_strdup(has_turns(text) ? text + 1 : text);
    for (char *c = line; (c = strpbrk(c, "\1\2\3")) != NULL; c++)
        *c = '\n';
    return line;
}

static char *as_json(const char *text)
{
    json_t *v = has_turns(text) ? as_messages(text) : json_pack("{s:s}", "text", text);
    char *line = js_text(v, false);
    json_decref(v);
    return line;
}

static int put_line(const char *text, bool plain, uint64_t *bytes, hone_err *e)
{
    char *line = plain ? as_plain(text) : as_json(text);
    *bytes += strlen(line) + 1;
    int rc = puts(line) < 0 ? hone_fail(e, HONE_EIO, "standard output: %s", strerror(errno)) : 0;
    free(line);
    return rc;
}

static int generate(const job *j, hone_err *e)
{
    grammar *g;
    rng r = {.seed = j->seed, .stream = rng_stream(j->rule)};
    seen t = {0};
    uint64_t bytes = 0, repeats = 0;
    buf text;
    int rc = grammar_open(&g, j->path, e);
    buf_init(&text, GRAMMAR_MAX_TEXT);
    for (uint64_t n = 0; rc == 0 && (j->lines != 0 ? n < j->lines : bytes < j->bytes);) {
        rc = grammar_expand(g, j->rule, &r, &text, e);
        bool fresh = rc != 0 || !j->unique || seen_add(&t, rng_stream(text.data));
        repeats = fresh ? 0 : repeats + 1;
        if (repeats == MAX_REPEATS)
            rc = hone_fail(e, HONE_ELIMIT, "%s: no new line after %llu", j->rule,
                           (unsigned long long)n);
        if (rc == 0 && fresh)
            rc = put_line(text.data, j->plain, &bytes, e);
        n += fresh;
    }
    if (rc != 0)
        hone_fail_at(e, "%s", j->path);
    free(t.slot);
    buf_free(&text);
    grammar_close(g);
    return rc;
}

static bool number(const char *s, uint64_t *out, const char **end)
{
    char *stop;
    errno = 0;
    unsigned long long v = strtoull(s, &stop, 10);
    *out = v;
    *end = stop;
    return *s >= '0' && *s <= '9' && errno == 0;
}

static bool parse_size(const char *s, job *j)
{
    uint64_t v;
    const char *end;
    if (!number(s, &v, &end) || v == 0 || v > INT_MAX)
        return false;
    if (*end == '\0')
        j->lines = v;
    else if (strcmp(end, "k") == 0)
        j->bytes = v << 10;
    else if (strcmp(end, "M") == 0)
        j->bytes = v << 20;
    else
        return false;
    return true;
}

static bool parse_args(int argc, char **argv, job *j)
{
    int i = 1;
    const char *end;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--unique") == 0)
            j->unique = true;
        else if (strcmp(argv[i], "--plain") == 0)
            j->plain = true;
        else if (strcmp(argv[i], "--seed") != 0 || ++i >= argc ||
                 !number(argv[i], &j->seed, &end) || *end != '\0')
            return false;
    }
    if (argc - i != 3)
        return false;
    j->path = argv[i];
    j->rule = argv[i + 1];
    return parse_size(argv[i + 2], j);
}

int main(int argc, char **argv)
{
    job j = {.seed = 1};
    hone_err e = {0};
    if (!parse_args(argc, argv, &j)) {
        fputs(usage, stderr);
        return 2;
    }
    int rc = generate(&j, &e);
    if (rc == 0 && fflush(stdout) != 0)
        rc = hone_fail(&e, HONE_EIO, "standard output: %s", strerror(errno));
    if (rc != 0)
        fprintf(stderr, "gen: %s\n", e.msg);
    return rc != 0;
}

/* hone generate: what a model writes after a prompt. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/runtime.h"
#include "cli/sampling.h"
#include "core/base/buf.h"
#include "core/base/js.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROMPT = 64 << 20, DEFAULT_TOKENS = 256 };

typedef struct options {
    runtime_args rt;
    sampling_args sampling;
    const char *system;
    bool chat, json;
} options;

static const args_row rows[] = {
    RUNTIME_ARGS(options, rt),
    SAMPLING_ARGS(options, sampling),
    {"system", offsetof(options, system), ARGS_TEXT},
    {"chat", offsetof(options, chat), ARGS_FLAG},
    {"json", offsetof(options, json), ARGS_FLAG},
    {NULL, 0, ARGS_TEXT},
};

/* The prompt from standard input, without its last newline. */
static int read_prompt(buf *out, hone_err *e)
{
    char chunk[1 << 16];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        buf_add(out, chunk, n);
    if (ferror(stdin))
        return hone_fail(e, HONE_EIO, "standard input: cannot read: %s", strerror(errno));
    if (out->len > 0 && out->data[out->len - 1] == '\n')
        out->data[--out->len] = '\0';
    return buf_check(out, "prompt", e);
}

static int encode(const runtime *rt, const options *o, const buf *prompt, tok_ids *ids, hone_err *e)
{
    if (!o->chat)
        return runtime_encode(rt, prompt->data, prompt->len, ids, e);
    json_t *messages = json_array();
    if (o->system != NULL)
        json_array_append_new(messages,
                              json_pack("{s:s,s:s}", "role", "system", "content", o->system));
    json_array_append_new(
        messages, json_pack("{s:s,s:s%}", "role", "user", "content", prompt->data, prompt->len));
    int rc = runtime_render(rt, messages, true, ids, e);
    json_decref(messages);
    return rc;
}

static int print_text(void *user, size_t prompt, const char *text, size_t len)
{
    (void)user;
    (void)prompt;
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    return 0;
}

static void print_json(const gen_result *r, size_t n_prompt, uint64_t seed)
{
    json_t *ids = json_array(), *logprobs = json_array();
    for (size_t i = 0; i < r->n; i++) {
        json_array_append_new(ids, json_integer(r->ids[i]));
        json_array_append_new(logprobs, json_real((double)r->logp[i]));
    }
    json_t *o =
        json_pack("{s:s, s:o, s:o, s:s, s:I, s:I, s:I, s:f, s:f}", "text", r->text, "ids", ids,
                  "logprobs", logprobs, "finish", gen_finish_name(r->finish), "prompt_tokens",
                  (json_int_t)n_prompt, "answer_tokens", (json_int_t)r->n, "seed", (json_int_t)seed,
                  "first_token_s", r->first_token_s, "total_s", r->total_s);
    char *text = js_text(o, false);
    puts(text != NULL ? text : "{}");
    free(text);
    json_decref(o);
}

static void print_speed(const gen_result *r)
{
    double after = r->total_s - r->first_token_s;
    if (isatty(STDERR_FILENO) && r->n > 1 && after > 0)
        fprintf(stderr, "%zu tokens, the first after %.2f s, then %.1f tokens/s\n", r->n,
                r->first_token_s, (double)(r->n - 1) / after);
}

static int generate(const runtime *rt, const options *o, const buf *prompt, hone_err *e)
{
    sampling s = {0};
    tok_ids ids = {0};
    gen_result r = {0};
    int rc =
        sampling_read(&s, &o->sampling, rt->dir, DEFAULT_TOKENS, model_config(rt->model)->vocab, e);
    if (rc == 0)
        rc = encode(rt, o, prompt, &ids, e);
    const gen_prompt one = {.ids = ids.id, .n = ids.n};
    if (rc == 0)
        rc = gen_run(rt->model, rt->tok, &s.p, &one, 1, &r, o->json ? NULL : print_text, NULL, e);
    if (rc == 0 && o->json)
        print_json(&r, ids.n, s.p.seed);
    else if (rc == 0)
        putchar('\n');
    if (rc == 0)
        print_speed(&r);
    gen_result_free(&r);
    tok_ids_free(&ids);
    return rc;
}

static int run(int argc, char **argv)
{
    hone_err e = {0};
    options o = {0};
    runtime rt = {0};
    buf prompt;
    const char *text = NULL;
    int n_rest;
    if (args_parse(rows, &o, argc, argv, &text, 1, &n_rest, &e) != 0)
        return cmd_usage(&cmd_generate, "%s", e.msg);
    if (o.rt.model == NULL)
        return cmd_usage(&cmd_generate, "--model DIR is missing");
    if (o.system != NULL && !o.chat)
        return cmd_usage(&cmd_generate, "--system needs --chat");
    buf_init(&prompt, MAX_PROMPT);
    int rc = 0;
    if (text != NULL)
        buf_str(&prompt, text);
    else
        rc = read_prompt(&prompt, &e);
    if (rc == 0)
        rc = runtime_open(&rt, &o.rt, &e);
    if (rc == 0)
        rc = generate(&rt, &o, &prompt, &e);
    runtime_close(&rt);
    buf_free(&prompt);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_generate = {
    "generate", run, "let a model write after a prompt",
    "usage: hone generate --model DIR [--adapter DIR] [--chat] [--json] [options] [PROMPT]\n\n"
    "Prints what the model writes after PROMPT (standard input without it). The prompt is plain\n"
    "text, with the special tokens that the model's tokenizer adds; with --chat it is a user's\n"
    "message, put through the model's chat template.\n\n"
    "  --chat              PROMPT is a message\n"
    "  --system TEXT       a system message before it (with --chat)\n"
    "  --json              one JSON object: text, ids, logprobs, finish, counts, seed, "
    "times\n" SAMPLING_HELP RUNTIME_HELP "\n"
    "example: hone generate --model DIR --temperature 0 --max-tokens 50 'Once upon a time'"};

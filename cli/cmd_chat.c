/* hone chat: a conversation on the terminal. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/runtime.h"
#include "cli/sampling.h"
#include "core/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_TOKENS = 1024 };

typedef struct options {
    runtime_args rt;
    sampling_args sampling;
    const char *system;
} options;

static const args_row rows[] = {
    RUNTIME_ARGS(options, rt),
    SAMPLING_ARGS(options, sampling),
    {"system", offsetof(options, system), ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};

typedef struct conversation {
    const runtime *rt;
    const options *o;
    sampling s;
    json_t *messages;
    uint64_t turn;
    gen_cache *cache; /* what the model has read so far */
} conversation;

static void add_message(json_t *messages, const char *role, const char *text)
{
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", role, "content", text));
}

static void reset(conversation *c)
{
    json_array_clear(c->messages);
    if (c->o->system != NULL)
        add_message(c->messages, "system", c->o->system);
}

static int print_text(void *user, size_t prompt, const char *text, size_t len)
{
    (void)user;
    (void)prompt;
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    return 0;
}

/* One message and its answer. A message that fails is taken back: the conversation goes on. */
static int answer(conversation *c, const char *text, hone_err *e)
{
    tok_ids ids = {0};
    gen_result r = {0};
    add_message(c->messages, "user", text);
    int rc = runtime_render(c->rt, c->messages, true, &ids, e);
    const gen_prompt one = {.ids = ids.id, .n = ids.n, .stream = c->turn++, .cache = c->cache};
    if (rc == 0)
        rc = gen_run(c->rt->model, c->rt->tok, &c->s.p, &one, 1, &r, print_text, NULL, e);
    putchar('\n');
    fflush(stdout);
    if (rc == 0)
        add_message(c->messages, "assistant", r.text);
    else
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    gen_result_free(&r);
    tok_ids_free(&ids);
    return rc;
}

static char *next_line(char **text, size_t *cap, bool terminal)
{
    if (terminal) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    ssize_t len = getline(text, cap, stdin);
    if (len < 0)
        return NULL;
    while (len > 0 && ((*text)[len - 1] == '\n' || (*text)[len - 1] == '\r'))
        (*text)[--len] = '\0';
    return *text;
}

/* 0 at the end; a failed message is told and, in a pipe, ends it. */
static int converse(conversation *c, hone_err *e)
{
    char *text = NULL;
    size_t cap = 0;
    int rc = 0;
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (terminal)
        fputs("/reset forgets the conversation, /exit or end of file leaves\n", stderr);
    while (rc == 0 && next_line(&text, &cap, terminal) != NULL && strcmp(text, "/exit") != 0) {
        if (strcmp(text, "/reset") == 0) {
            reset(c);
        } else if (*text != '\0') {
            rc = answer(c, text, e);
            if (rc != 0 && terminal) {
                cmd_failed(e);
                rc = 0;
            }
        }
    }
    free(text);
    return rc;
}

static int run(int argc, char **argv)
{
    hone_err e = {0};
    options o = {0};
    runtime rt = {0};
    int n_rest;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n_rest, &e) != 0)
        return cmd_usage(&cmd_chat, "%s", e.msg);
    if (o.rt.model == NULL)
        return cmd_usage(&cmd_chat, "--model DIR is missing");
    conversation c = {.rt = &rt, .o = &o, .messages = json_array(), .cache = gen_cache_new()};
    int rc = runtime_open(&rt, &o.rt, &e);
    if (rc == 0 && rt.chat == NULL)
        rc = hone_fail(&e, HONE_ENOTFOUND,
                       "%s: the model has no chat template; "
                       "'hone generate' goes without",
                       rt.dir);
    if (rc == 0)
        rc = sampling_read(&c.s, &o.sampling, rt.dir, DEFAULT_TOKENS, model_config(rt.model)->vocab,
                           &e);
    reset(&c);
    if (rc == 0)
        rc = converse(&c, &e);
    json_decref(c.messages);
    gen_cache_free(c.cache);
    runtime_close(&rt);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_chat = {
    "chat", run, "talk with a model",
    "usage: hone chat --model DIR [--adapter DIR] [options]\n\n"
    "Reads a message a line and prints the answer as it comes; the conversation so far goes to\n"
    "the model each time, through its chat template; what it has read before is not read again.\n"
    "/reset forgets it, /exit or the end of the\n"
    "input leaves.\n\n"
    "  --system TEXT       a system message that stands first\n" SAMPLING_HELP RUNTIME_HELP "\n"
    "example: hone chat --model DIR --temperature 0.7"};

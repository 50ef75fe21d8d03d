/* hone render: the prompt that a model gets for a request, byte for byte. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "core/base/buf.h"
#include "core/base/js.h"
#include "core/text/chat.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PROMPT = 64 << 20 };

typedef struct options {
    const char *model, *template_file;
    bool no_generation_prompt;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"model",                offsetof(options, model),                false},
    {"template",             offsetof(options, template_file),        false},
    {"no-generation-prompt", offsetof(options, no_generation_prompt), true},
    {NULL, 0, false},
};
/* clang-format on */

static int read_request(json_t **out, hone_err *e)
{
    buf text;
    char block[65536];
    size_t n;
    *out = NULL;
    buf_init(&text, JS_MAX_BYTES);
    while ((n = fread(block, 1, sizeof block, stdin)) > 0)
        buf_add(&text, block, n);
    int rc = ferror(stdin) ? hone_fail(e, HONE_EIO, "read: %s", strerror(errno))
                           : buf_check(&text, "the request", e);
    if (rc == 0)
        rc = js_parse(out, text.data, text.len, e);
    buf_free(&text);
    return rc == 0 ? 0 : hone_fail_at(e, "standard input");
}

static int render(const chat *c, const json_t *request, bool prompt, buf *out, hone_err *e)
{
    static const char *const keys[] = {"messages", "tools", "chat_template_kwargs",
                                       "add_generation_prompt", NULL};
    json_t *messages;
    chat_options o = {.add_generation_prompt = prompt,
                      .tools = json_object_get(request, "tools"),
                      .extra = json_object_get(request, "chat_template_kwargs")};
    if (!json_is_object(request))
        return hone_fail(e, HONE_EFORMAT, "the request is not an object");
    int rc = js_only_keys(request, keys, e);
    if (rc == 0)
        rc = js_get_array(request, "messages", &messages, e);
    if (rc == 0 && prompt)
        rc = js_opt_bool(request, "add_generation_prompt", &o.add_generation_prompt, e);
    return rc == 0 ? chat_render(c, messages, &o, out, e) : rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    int n_rest;
    hone_err e = {0};
    chat *c = NULL;
    json_t *request = NULL;
    buf out;
    if (args_parse(rows, &o, argc, argv, NULL, 0, &n_rest, &e) != 0)
        return cmd_usage(&cmd_render, "%s", e.msg);
    if (o.model == NULL)
        return cmd_usage(&cmd_render, "--model is missing");
    buf_init(&out, MAX_PROMPT);
    int rc = chat_open(&c, o.model, o.template_file, &e);
    if (rc == 0)
        rc = read_request(&request, &e);
    if (rc == 0)
        rc = render(c, request, !o.no_generation_prompt, &out, &e);
    if (rc == 0 && (fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0))
        rc = hone_fail(&e, HONE_EIO, "standard output: %s", strerror(errno));
    buf_free(&out);
    json_decref(request);
    chat_close(c);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_render = {
    "render", run, "print the prompt that a model gets for a request",
    "usage: hone render --model DIR [--no-generation-prompt] [--template FILE] < request.json\n\n"
    "  --model DIR              the model; of it, only the tokenizer's settings and the template\n"
    "                           are read\n"
    "  --template FILE          this chat template instead of the model's\n"
    "  --no-generation-prompt   leave out what asks the model to answer\n\n"
    "The request is {\"messages\": [...], \"tools\": [...], \"chat_template_kwargs\": {...}}; "
    "only\n"
    "messages must be there. The prompt is printed exactly, with no newline added.\n\n"
    "example: echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' |\n"
    "         hone render --model qwen2-1.5b"};

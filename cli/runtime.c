#include "cli/runtime.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/model/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 4096, MAX_PROMPT = 64 << 20 };

static int read_threads(int *out, const char *text, hone_err *e)
{
    char *end;
    if (text == NULL)
        return 0;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < 1 || n > MAX_THREADS)
        return hone_fail(e, HONE_EINVAL, "--threads: '%.40s' is not a number from 1 to %d", text,
                         MAX_THREADS);
    *out = (int)n;
    return 0;
}

static int read_dtype(kern_dtype *out, const char *text, const kern_dev *dev, hone_err *e)
{
    static const kern_dtype kinds[] = {KERN_F32, KERN_BF16};
    if (text == NULL) {
        *out = strcmp(dev->backend, "cpu") == 0 ? KERN_F32 : KERN_BF16;
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(kern_dtype_name(kinds[i]), text) == 0) {
            *out = kinds[i];
            return 0;
        }
    }
    return hone_fail(e, HONE_EINVAL, "--dtype: '%.40s' is neither f32 nor bf16", text);
}

/* Which device auto has taken, and why. Who did not ask hears of it only where the CPU runs on a
 * machine that has a card. */
static void say_device(const runtime *r, bool asked, const char *why)
{
    bool card = file_exists("/proc/driver/nvidia/version") || file_exists("/dev/nvidia0");
    if (asked || (card && why[0] != '\0'))
        log_line(asked ? LOG_INFO : LOG_WARN, "device", "auto takes %s, %s%s%s%s", r->dev->backend,
                 r->dev->name, why[0] != '\0' ? " (" : "", why, why[0] != '\0' ? ")" : "");
}

static int open_device(runtime *r, const runtime_args *a, hone_err *e)
{
    char why[256];
    kern_open_args args = {0};
    int rc = read_threads(&args.threads, a->threads, e);
    if (rc != 0)
        return rc;
    const char *name = a->device != NULL ? a->device : "auto";
    rc = kern_open(&r->dev, name, &args, why);
    if (rc != 0)
        return hone_fail(e, rc, "%s", why);
    if (strcmp(name, "auto") == 0)
        say_device(r, a->device != NULL, why);
    return 0;
}

static int open_text(runtime *r, hone_err *e)
{
    int rc = tok_open(&r->tok, r->dir, e);
    if (rc != 0)
        return rc;
    hone_err why = {0};
    rc = chat_open(&r->chat, r->dir, NULL, &why);
    if (rc == HONE_ENOTFOUND) /* what needs a template says so when it comes */
        return 0;
    return rc == 0 ? 0 : hone_fail(e, rc, "%s", why.msg);
}

static int open_adapter(runtime *r, const char *dir, hone_err *e)
{
    char digest[65];
    int rc = model_dir_digest(digest, r->dir, e);
    if (rc != 0)
        return rc;
    return adapter_open(&r->adapter, dir, r->model, false, digest,
                        r->chat != NULL ? chat_digest(r->chat) : NULL, e);
}

int runtime_open(runtime *r, const runtime_args *a, hone_err *e)
{
    *r = (runtime){.dir = a->model};
    if (a->model == NULL)
        return hone_fail(e, HONE_EINVAL, "--model DIR is missing");
    model_options o = {0};
    int rc = open_device(r, a, e);
    if (rc == 0)
        rc = read_dtype(&o.dtype, a->dtype, r->dev, e);
    if (rc == 0)
        rc = open_text(r, e);
    o.dev = r->dev;
    if (rc == 0)
        rc = model_open(&r->model, a->model, &o, e);
    if (rc == 0 && a->adapter != NULL)
        rc = open_adapter(r, a->adapter, e);
    if (rc != 0)
        runtime_close(r);
    return rc;
}

void runtime_close(runtime *r)
{
    adapter_close(r->adapter);
    model_close(r->model);
    chat_close(r->chat);
    tok_close(r->tok);
    kern_close(r->dev);
    *r = (runtime){0};
}

int runtime_encode(const runtime *r, const char *text, size_t len, tok_ids *out, hone_err *e)
{
    return tok_encode(r->tok, text, len, TOK_ADD_SPECIAL, out, e);
}

int runtime_render(const runtime *r, const json_t *messages, bool answer, tok_ids *out, hone_err *e)
{
    buf text;
    const chat_options o = {.add_generation_prompt = answer};
    if (r->chat == NULL)
        return hone_fail(e, HONE_ENOTFOUND, "%s: the model has no chat template", r->dir);
    buf_init(&text, MAX_PROMPT);
    int rc = chat_render(r->chat, messages, &o, &text, e);
    if (rc == 0)
        rc = buf_check(&text, "prompt", e);
    if (rc == 0)
        rc = tok_encode(r->tok, text.data, text.len, 0, out, e);
    buf_free(&text);
    return rc;
}

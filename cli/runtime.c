#include "cli/runtime.h"

#include "core/model/device.h"
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

static int open_device(runtime *r, const runtime_args *a, hone_err *e)
{
    int threads = 0;
    int rc = read_threads(&threads, a->threads, e);
    return rc == 0 ? device_open(&r->dev, a->device, threads, e) : rc;
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

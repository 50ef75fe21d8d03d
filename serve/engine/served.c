#include "serve/engine/served.h"

#include "adapters/lora.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/model/device.h"
#include "core/model/digest.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 16, DEFAULT_SEQS = 16 };
static const size_t MAX_DEFAULT_KV = (size_t)1 << 30;

struct served_private {
    atomic_int refs;
    kern_dev *dev;
    adapter *adapter;
    tok *tok;
    chat *chat;
};

static int open_text(served *s, const served_options *o, hone_err *e)
{
    struct served_private *own = s->own;
    hone_err none = {0};
    int rc = tok_open(&own->tok, o->model_dir, e);
    if (rc != 0)
        return rc;
    s->tok = own->tok;
    rc = chat_open(&own->chat, o->model_dir, NULL, &none);
    if (rc == HONE_ENOTFOUND) /* a model without a template serves completions only */
        log_info("serve", "%s has no chat template: chat requests will be refused", o->model_dir);
    else if (rc != 0)
        return hone_fail(e, rc, "%s", none.msg);
    s->chat = own->chat;
    gen_defaults(&s->defaults);
    return gen_load_defaults(&s->defaults, o->model_dir, e);
}

static int digest_of(char out[65], const char *known, const char *dir, hone_err *e)
{
    if (known == NULL || known[0] == '\0')
        return model_dir_digest(out, dir, e);
    memcpy(out, known, 65);
    return 0;
}

static int open_weights(served *s, const served_options *o, hone_err *e)
{
    struct served_private *own = s->own;
    int rc = device_open(&own->dev, o->device, o->threads, e);
    if (rc == 0)
        rc = digest_of(s->model_digest, o->model_digest, o->model_dir, e);
    if (rc == 0)
        rc = model_open(&s->model, o->model_dir,
                        &(model_options){.dev = own->dev, .dtype = o->dtype}, e);
    if (rc != 0 || o->adapter_dir == NULL)
        return rc;
    rc = adapter_open(&own->adapter, o->adapter_dir, s->model, false, s->model_digest,
                      s->chat != NULL ? chat_digest(s->chat) : NULL, e);
    if (rc == 0)
        rc = digest_of(s->adapter_digest, o->adapter_digest, o->adapter_dir, e);
    return rc;
}

static int open_cache(served *s, const served_options *o, hone_err *e)
{
    const arch_config *c = model_config(s->model);
    s->context = o->context > 0 ? o->context : c->max_positions;
    if (s->context > c->max_positions)
        return hone_fail(e, HONE_EINVAL, "context %lld is more than the model's %lld positions",
                         (long long)s->context, (long long)c->max_positions);
    s->block_tokens = o->block_tokens > 0 ? o->block_tokens : BLOCK_TOKENS;
    int64_t tokens = o->kv_tokens;
    if (tokens == 0) {
        tokens = s->context * (o->max_seqs > 0 ? o->max_seqs : DEFAULT_SEQS);
        size_t per_block = model_kv_bytes(s->model, 1, s->block_tokens);
        int64_t most = (int64_t)(MAX_DEFAULT_KV / (per_block ? per_block : 1)) * s->block_tokens;
        tokens = tokens < most ? tokens : most;
        tokens = tokens > s->context ? tokens : s->context;
    }
    s->n_blocks = (tokens + s->block_tokens - 1) / s->block_tokens;
    return model_kv_open(&s->kv, s->model, s->n_blocks, s->block_tokens, e);
}

int served_open(served **out, const served_options *o, hone_err *e)
{
    *out = NULL;
    served *s = mem_alloc(sizeof *s);
    s->own = mem_alloc(sizeof *s->own);
    atomic_store(&s->own->refs, 1);
    s->name = mem_strdup(o->name != NULL ? o->name : "hone");
    s->model_dir = mem_strdup(o->model_dir);
    s->adapter_dir = mem_strdup(o->adapter_dir);
    s->created_unix = clock_unix_ms() / 1000;
    int rc = open_text(s, o, e);
    if (rc == 0)
        rc = open_weights(s, o, e);
    if (rc == 0)
        rc = open_cache(s, o, e);
    if (rc != 0) {
        served_release(s);
        return hone_fail_at(e, "model %s", o->model_dir);
    }
    *out = s;
    return 0;
}

void served_retain(served *s)
{
    atomic_fetch_add(&s->own->refs, 1);
}

void served_release(served *s)
{
    if (s == NULL || atomic_fetch_sub(&s->own->refs, 1) != 1)
        return;
    model_kv_close(s->kv);
    adapter_close(s->own->adapter);
    model_close(s->model);
    kern_close(s->own->dev);
    tok_close(s->own->tok);
    chat_close(s->own->chat);
    free(s->name);
    free(s->model_dir);
    free(s->adapter_dir);
    free(s->own);
    free(s);
}

#include "adapters/tune.h"

#include "adapters/lora.h"
#include "adapters/manifest.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/device.h"
#include "core/model/digest.h"
#include "core/train/inputs.h"

#include <stdlib.h>
#include <string.h>

/* ---- what a run holds ---- */

typedef struct run {
    const train_conf *c;
    hooks *hooks;
    train_inputs in;
    kern_dev *dev;
    model *m;
    adapter *a;        /* NULL: every weight is trained */
    kern_dtype stored; /* of the result, when it is a whole model */
    json_t *identity;
    tune_result *out;
} run;

static kern_dtype compute_dtype(const run *r)
{
    bool gpu = strcmp(r->dev->backend, "cpu") != 0;
    bool bf16 = r->c->bf16 == TRAIN_BF16_TRUE || (r->c->bf16 == TRAIN_BF16_AUTO && gpu);
    return bf16 ? KERN_BF16 : KERN_F32;
}

/* What was asked for; else what the base is stored as, or its config.json says. */
static kern_dtype stored_dtype(const train_conf *c, const json_t *config)
{
    static const kern_dtype asked[] = {
        [TRAIN_SAVE_F32] = KERN_F32, [TRAIN_SAVE_BF16] = KERN_BF16, [TRAIN_SAVE_F16] = KERN_F16};
    const char *t = json_string_value(json_object_get(config, "torch_dtype"));
    if (t == NULL)
        t = json_string_value(json_object_get(config, "dtype"));
    if (c->save_dtype != TRAIN_SAVE_AUTO)
        return asked[c->save_dtype];
    return t == NULL                    ? KERN_F32
           : strcmp(t, "bfloat16") == 0 ? KERN_BF16
           : strcmp(t, "float16") == 0  ? KERN_F16
                                        : KERN_F32;
}

static int open_model(run *r, hone_err *e)
{
    const train_conf *c = r->c;
    model_options o = {.dev = r->dev,
                       .dtype = compute_dtype(r),
                       .backward = true,
                       .train_base = c->adapter == TRAIN_ADAPTER_NONE};
    char *path = c->pretrain_config != NULL ? mem_strdup(c->pretrain_config)
                                            : path_join(c->base_model, "config.json");
    json_t *config = NULL;
    int rc = js_load(&config, path, e);
    r->stored = stored_dtype(c, config);
    if (rc == 0 && c->pretrain_config != NULL) {
        rc = model_create(&r->m, config, (uint64_t)c->seed, &o, e);
        if (rc != 0)
            hone_fail_at(e, "%s", path);
    } else if (rc == 0) {
        rc = model_open(&r->m, c->base_model, &o, e);
        if (rc == 0)
            rc = model_dir_digest(r->out->base_digest, c->base_model, e);
    }
    json_decref(config);
    free(path);
    return rc;
}

static int make_adapter(run *r, hone_err *e)
{
    const train_conf *c = r->c;
    lora_spec s = {.r = c->lora_r,
                   .alpha = c->lora_alpha,
                   .dropout = c->lora_dropout,
                   .rslora = c->use_rslora,
                   .targets = c->lora_target_modules,
                   .loraplus_ratio = c->loraplus_lr_ratio,
                   .seed = (uint64_t)c->seed};
    if (c->adapter == TRAIN_ADAPTER_NONE)
        return 0;
    if (c->lora_model_dir == NULL)
        return adapter_new(&r->a, r->m, &s, e);
    const char *template = r->in.chat != NULL ? r->out->template_digest : NULL;
    int rc = adapter_open(&r->a, c->lora_model_dir, r->m, true, r->out->base_digest, template, e);
    param_list *l = rc == 0 ? adapter_params(r->a) : NULL;
    for (size_t i = 0; l != NULL && c->loraplus_lr_ratio > 0 && i < l->n; i++)
        if (strstr(l->items[i].name, ".lora_B.") != NULL)
            l->items[i].lr_scale = (float)c->loraplus_lr_ratio;
    return rc;
}

/* ---- checks that need data and model ---- */

static int check_view(const data_view *v, const run *r, hone_err *e)
{
    const arch_config *cfg = model_config(r->m);
    if (v->longest > cfg->max_positions)
        return hone_fail(e, HONE_ELIMIT,
                         "the longest sequence has %lld tokens and the model has %lld positions; "
                         "lower sequence_len and set excess_length_strategy",
                         (long long)v->longest, (long long)cfg->max_positions);
    for (size_t i = 0; i < v->n; i++) {
        const data_sample *s = &v->d->samples[v->sample[i]];
        const data_row *row = &v->d->rows[s->row];
        for (int64_t k = 0; k < s->n; k++) {
            int32_t id = v->d->ids[s->start + (size_t)k];
            if (id >= cfg->vocab)
                return hone_fail(e, HONE_EINVAL,
                                 "%s:%lld: token %d is beyond the model's vocabulary of %lld: the "
                                 "tokenizer is of another model",
                                 v->d->sources[row->source].path, (long long)row->line, (int)id,
                                 (long long)cfg->vocab);
        }
    }
    return 0;
}

/* ---- files ---- */

/* What makes a directory with weights a checkpoint that can be served. */
static int copy_tokenizer(const run *r, const char *dir, hone_err *e)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json",
                                        "generation_config.json"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char *from = path_join(train_inputs_dir(r->c), names[i]), *to = path_join(dir, names[i]);
        if (file_exists(from))
            rc = file_copy(from, to, e);
        free(from);
        free(to);
    }
    return rc;
}

static int save_as(const run *r, const char *dir, kern_dtype dtype, int64_t max_shard, hone_err *e)
{
    const char *base = r->c->base_model;
    int rc = r->a != NULL ? adapter_save(r->a, dir, base, e)
                          : model_save(r->m, dir, dtype, max_shard, e);
    if (rc == 0 && r->a == NULL)
        rc = copy_tokenizer(r, dir, e);
    if (rc == 0 && r->in.chat != NULL)
        rc = chat_save(r->in.chat, dir, e);
    return rc;
}

/* A checkpoint keeps every bit, in one file. */
static int save_checkpoint(void *user, const char *dir, hone_err *e)
{
    return save_as(user, dir, KERN_F32, 0, e);
}

static int refresh(void *user, hone_err *e)
{
    return model_refresh(((run *)user)->m, e);
}

static int write_rejects(run *r, hone_err *e)
{
    const dataset *sets[] = {r->in.set, r->in.test};
    char *path = path_join(r->c->output_dir, "rejects.jsonl");
    int rc = dir_make(r->c->output_dir, e);
    if (rc == 0)
        rc = dataset_write_rejects(sets, 2, path, e);
    for (int i = 0; i < 2; i++) {
        r->out->n_rows += sets[i] != NULL ? sets[i]->n_rows : 0;
        r->out->n_rejected += sets[i] != NULL ? sets[i]->n_rejects : 0;
    }
    free(path);
    return rc;
}

/* ---- the run ---- */

static void make_identity(run *r)
{
    char data[65];
    data_view_digest(data, &r->in.train);
    r->identity = json_pack("{s:o, s:s, s:s, s:s, s:s, s:s}", "settings", train_conf_identity(r->c),
                            "base", r->out->base_digest, "tokenizer", tok_digest(r->in.tok),
                            "template", r->out->template_digest, "data", data, "dtype",
                            kern_dtype_name(compute_dtype(r)));
    json_t *plugins = hook_manifest(r->hooks);
    if (json_array_size(plugins) > 0) { /* what they do to batches is part of the run */
        char *text = js_text(plugins, true);
        json_object_set_new(r->identity, "plugins", json_string(text));
        free(text);
    }
    json_decref(plugins);
}

static int prepare(run *r, hooks *h, hone_err *e)
{
    int rc = train_inputs_open(&r->in, r->c, h, false, e);
    if (rc == 0 && r->in.chat != NULL)
        memcpy(r->out->template_digest, chat_digest(r->in.chat), 65);
    if (rc == 0)
        rc = write_rejects(r, e);
    if (rc == 0)
        rc = device_open(&r->dev, r->c->device, (int)r->c->threads, e);
    if (rc == 0)
        rc = open_model(r, e);
    if (rc == 0)
        rc = check_view(&r->in.train, r, e);
    if (rc == 0)
        rc = check_view(&r->in.eval, r, e);
    if (rc == 0)
        rc = make_adapter(r, e);
    if (rc == 0)
        make_identity(r);
    return rc;
}

static int finish(const run *r, hone_err *e)
{
    manifest_facts f = {.conf = r->c,
                        .in = &r->in,
                        .dev = r->dev,
                        .identity = r->identity,
                        .result = r->out,
                        .hooks = r->hooks};
    char *old = path_join(r->c->output_dir, MANIFEST_NAME);
    int rc = file_remove(old, e); /* of a run before this one: it is not true any more */
    if (rc == 0)
        rc = save_as(r, r->c->output_dir, r->stored, r->c->max_shard_bytes, e);
    if (rc == HONE_ENUMERIC)
        hone_fail_at(e, "the last checkpoint has every bit; resume from it with 'save_dtype'");
    free(old);
    return rc == 0 ? manifest_write(&f, e) : rc;
}

int tune_run(const train_conf *c, hooks *h, tune_result *out, hone_err *e)
{
    *out = (tune_result){0};
    run r = {.c = c, .hooks = h, .out = out};
    int rc = prepare(&r, h, e);
    if (rc == 0) {
        trainer t = {.conf = c,
                     .model = r.m,
                     .params = r.a != NULL ? adapter_params(r.a) : model_params(r.m),
                     .train = &r.in.train,
                     .eval = &r.in.eval,
                     .hooks = h,
                     .identity = r.identity,
                     .save = save_checkpoint,
                     .after_step = r.a != NULL ? NULL : refresh,
                     .user = &r};
        rc = trainer_run(&t, &out->train, e);
    }
    if (rc == 0)
        rc = finish(&r, e);
    json_decref(r.identity);
    adapter_close(r.a);
    model_close(r.m);
    kern_close(r.dev);
    train_inputs_close(&r.in);
    return rc;
}

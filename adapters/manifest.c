#include "adapters/manifest.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MANIFEST_VERSION = 1 };

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *text_or_null(const char *s)
{
    return s != NULL && *s != '\0' ? json_string(s) : json_null();
}

/* Logs and state change when a run is gone on with; they are not part of the artefact. */
static int hash_files(json_t *files, const char *dir, hone_err *e)
{
    static const char *const names[] = {
        "adapter_config.json",   "adapter_model.safetensors", "config.json",
        "model.safetensors",     "generation_config.json",    "tokenizer.json",
        "tokenizer_config.json", "special_tokens_map.json",   "added_tokens.json",
        "chat_template.jinja"};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char hex[65], *path = path_join(dir, names[i]);
        if (file_exists(path)) {
            rc = file_sha256(hex, path, e);
            if (rc == 0)
                json_object_set_new(files, names[i], json_string(hex));
        }
        free(path);
    }
    return rc;
}

static json_t *stop_ids(const tok *t)
{
    const int32_t *ids;
    size_t n = tok_stop_ids(t, &ids);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *training(const manifest_facts *f)
{
    const trainer_result *r = &f->result->train;
    return json_pack("{s:s, s:I, s:f, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:f}", "status",
                     train_status_name(r->status), "steps", (json_int_t)r->steps, "epochs",
                     r->epochs, "tokens", (json_int_t)r->tokens, "supervised_tokens",
                     (json_int_t)r->targets, "train_loss", real(r->train_loss), "last_loss",
                     real(r->last_loss), "first_eval_loss", real(r->first_eval_loss), "eval_loss",
                     real(r->eval_loss), "best_eval_loss", real(r->best_eval_loss), "best_step",
                     (json_int_t)r->best_step, "seconds", r->seconds);
}

static json_t *data(const manifest_facts *f)
{
    const train_inputs *in = f->in;
    json_t *o = json_pack("{s:o, s:I, s:I, s:I, s:I}", "sources", dataset_sources(in->set), "rows",
                          (json_int_t)f->result->n_rows, "rejected",
                          (json_int_t)f->result->n_rejected, "train_sequences",
                          (json_int_t)in->train.n, "held_out_sequences", (json_int_t)in->eval.n);
    json_object_set(o, "digest", json_object_get(f->identity, "data"));
    if (in->test != NULL)
        json_object_set_new(o, "test_sources", dataset_sources(in->test));
    return o;
}

int manifest_write(const manifest_facts *f, hone_err *e)
{
    char when[32], *path = path_join(f->conf->output_dir, MANIFEST_NAME);
    json_t *files = json_object(), *o = json_object();
    clock_iso8601(when, sizeof when, clock_unix_ms());
    json_object_set_new(o, "version", json_integer(MANIFEST_VERSION));
    json_object_set_new(o, "kind",
                        json_string(f->conf->adapter == TRAIN_ADAPTER_LORA ? "adapter" : "model"));
    json_object_set_new(o, "created_at", json_string(when));
    json_object_set_new(o, "base", text_or_null(f->conf->base_model));
    json_object_set_new(o, "base_digest", text_or_null(f->result->base_digest));
    json_object_set_new(o, "tokenizer_digest", json_string(tok_digest(f->in->tok)));
    json_object_set_new(o, "template_digest", text_or_null(f->result->template_digest));
    json_object_set_new(o, "stop_ids", stop_ids(f->in->tok));
    json_object_set_new(o, "seed", json_integer(f->conf->seed));
    json_object_set_new(o, "device", json_string(f->dev->name));
    json_object_set_new(o, "dtype", json_deep_copy(json_object_get(f->identity, "dtype")));
    json_object_set_new(o, "data", data(f));
    json_object_set_new(o, "settings", train_conf_json(f->conf));
    json_object_set_new(o, "training", training(f));
    json_object_set_new(o, "plugins", hook_report(f->hooks));
    json_object_set_new(o, "files", files);
    int rc = hash_files(files, f->conf->output_dir, e);
    if (rc == 0)
        rc = js_save(o, path, true, e);
    json_decref(o);
    free(path);
    return rc;
}

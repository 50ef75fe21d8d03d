/* The candidate: data files of the round, training from the base, merge with its proof, and the
 * artefact's directory. */
#include "adapters/merge.h"
#include "adapters/tune.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/model/digest.h"
#include "serve/loop/round.h"

#include <stdlib.h>
#include <string.h>

static int write_data(round *r, json_t *datasets, hone_err *e)
{
    const retrain_conf *c = r->o->conf;
    char *train = path_join(r->dir, "feedback.jsonl");
    char *held = path_join(r->dir, "feedback_holdout.jsonl");
    char *replay = path_join(r->dir, "replay.jsonl");
    int rc = loop_write_jsonl(r->ex.train, train, c->repeat, e);
    if (rc == 0)
        rc = loop_write_jsonl(r->ex.holdout, held, 1, e);
    if (rc == 0 && json_array_size(r->ex.train) > 0)
        json_array_append_new(datasets, json_pack("{s:s}", "path", train));
    if (rc == 0 && json_array_size(c->replay) > 0) {
        rc = loop_write_replay(c->replay, c->replay_max, 1, replay, &r->n_replay, e);
        if (r->n_replay > 0)
            json_array_append_new(datasets, json_pack("{s:s}", "path", replay));
    }
    free(train);
    free(held);
    free(replay);
    return rc;
}

/* The user's training settings, with what belongs to the round put in their place. */
static json_t *training_settings(const round *r, const char *out_dir, json_t *datasets)
{
    const retrain_options *o = r->o;
    json_t *s = o->conf->train != NULL ? json_deep_copy(o->conf->train) : json_object();
    json_object_set_new(s, "base_model", json_string(r->base));
    json_object_set_new(s, "datasets", json_incref(datasets));
    json_object_set_new(s, "output_dir", json_string(out_dir));
    if (json_object_get(s, "adapter") == NULL)
        json_object_set_new(s, "adapter", json_string("lora"));
    if (o->device != NULL && json_object_get(s, "device") == NULL)
        json_object_set_new(s, "device", json_string(o->device));
    if (o->threads > 0 && json_object_get(s, "threads") == NULL)
        json_object_set_new(s, "threads", json_integer(o->threads));
    return s;
}

static int train(round *r, const char *out_dir, hone_err *e)
{
    train_conf c;
    tune_result result;
    json_t *datasets = json_array();
    int rc = write_data(r, datasets, e);
    r->settings = training_settings(r, out_dir, datasets);
    json_decref(datasets);
    if (rc == 0)
        rc = train_conf_from(&c, r->settings, e);
    if (rc != 0)
        return rc;
    rc = tune_run(&c, r->o->hooks, &result, e);
    if (rc == 0)
        r->training = json_pack("{s:I, s:f}", "steps", (json_int_t)result.train.steps, "train_loss",
                                result.train.train_loss);
    train_conf_free(&c);
    return rc;
}

/* What a round that was killed has left under the same digest is not finished; what is registered
 * is. */
static int put(const round *r, const char *made, const char *to, const char *digest, hone_err *e)
{
    registry_artefact known;
    hone_err none = {0};
    int rc = registry_find(r->o->st, digest, &known, &none);
    bool stands = rc == 0 && !known.tainted && file_exists(to);
    registry_artefact_free(&known);
    if (stands)
        return dir_remove(made, e);
    rc = dir_remove(to, e);
    return rc == 0 ? dir_rename(made, to, e) : rc;
}

/* Moves a finished directory to <state>/<kind>/<digest>. */
static int place(round *r, const char *made, const char *kind, const char *folder, hone_err *e)
{
    registry_artefact *a = &r->candidate;
    char *parent = path_join(r->o->state_dir, folder), *to = NULL;
    int rc = model_dir_digest(a->digest, made, e);
    if (rc == 0)
        rc = dir_make(parent, e);
    if (rc == 0) {
        to = path_join(parent, a->digest);
        rc = put(r, made, to, a->digest, e);
    }
    if (rc == 0) {
        a->kind = mem_strdup(kind);
        a->path = to;
        a->base = strcmp(kind, "adapter") == 0 ? mem_strdup(r->base) : NULL;
        to = NULL;
    }
    free(to);
    free(parent);
    return rc;
}

static int merge(round *r, const char *adapter, const char *to, hone_err *e)
{
    merge_report report;
    merge_options o = {.model_dir = r->base,
                       .adapter_dir = adapter,
                       .out_dir = to,
                       .device = r->o->device,
                       .threads = r->o->threads,
                       .hooks = r->o->hooks};
    return merge_run(&o, &report, e);
}

int round_train(round *r, hone_err *e)
{
    char *out = path_join(r->dir, "train"), *merged = path_join(r->dir, "merged");
    bool full = false;
    int rc = dir_make(r->dir, e);
    if (rc == 0)
        rc = train(r, out, e);
    if (rc == 0) {
        const char *adapter = json_string_value(json_object_get(r->settings, "adapter"));
        full = adapter == NULL || strcmp(adapter, "lora") != 0;
    }
    if (rc == 0 && full) {
        rc = place(r, out, "model", "models", e);
    } else if (rc == 0 && r->o->conf->merge) {
        rc = merge(r, out, merged, e);
        if (rc == 0)
            rc = place(r, merged, "model", "models", e);
    } else if (rc == 0) {
        rc = place(r, out, "adapter", "adapters", e);
    }
    free(out);
    free(merged);
    return rc;
}

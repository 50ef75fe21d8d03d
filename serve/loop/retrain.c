#include "serve/loop/retrain.h"

#include "adapters/manifest.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/version.h"
#include "core/model/digest.h"
#include "serve/loop/drift.h"
#include "serve/loop/erase.h"
#include "serve/loop/live.h"
#include "serve/loop/round.h"
#include "serve/loop/verify.h"
#include "serve/store/audit.h"

#include <stdlib.h>
#include <string.h>

static int check_conf(const retrain_options *o, hone_err *e)
{
    if (json_object_get(o->conf->train, "plugins") != NULL)
        return hone_fail(e, HONE_EINVAL,
                         "retrain.train: plugins stand in the appliance's own section plugins");
    if (o->conf->holdout == NULL)
        return hone_fail(e, HONE_EINVAL,
                         "retrain.holdout is not set: without fixed examples no candidate can be "
                         "judged");
    return file_exists(o->conf->holdout)
               ? 0
               : hone_fail(e, HONE_ENOTFOUND, "retrain.holdout: %s does not exist",
                           o->conf->holdout);
}

static json_t *example_counts(const round *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "train",
                     (json_int_t)json_array_size(r->ex.train), "held_out",
                     (json_int_t)json_array_size(r->ex.holdout), "replay", (json_int_t)r->n_replay,
                     "new", (json_int_t)r->ex.n_new, "without_example", (json_int_t)r->ex.n_unused,
                     "over_user_share", (json_int_t)r->ex.n_capped, "superseded",
                     (json_int_t)r->ex.n_superseded);
}

static json_t *make_report(const round *r, const char *status, bool promoted)
{
    json_t *o = json_pack("{s:s, s:s, s:o, s:b}", "run", r->id, "status", status, "examples",
                          example_counts(r), "promoted", promoted);
    if (r->candidate.path != NULL)
        json_object_set_new(o, "artefact",
                            json_pack("{s:s, s:s, s:s}", "digest", r->candidate.digest, "kind",
                                      r->candidate.kind, "path", r->candidate.path));
    if (r->live.path != NULL)
        json_object_set_new(o, "live", json_string(r->live.digest));
    if (r->training != NULL)
        json_object_set(o, "training", r->training);
    if (r->holdout != NULL)
        json_object_set(o, "holdout", r->holdout);
    if (r->feedback != NULL)
        json_object_set(o, "feedback", r->feedback);
    if (r->drift != NULL)
        json_object_set(o, "drift", r->drift);
    if (hook_is_used(r->o->hooks))
        json_object_set_new(o, "plugins", hook_report(r->o->hooks));
    if (r->gate != NULL) {
        json_object_set(o, "verdict", json_object_get(r->gate, "verdict"));
        json_object_set(o, "reasons", json_object_get(r->gate, "reasons"));
    }
    return o;
}

/* What the artefact was made of: enough to make it again, or to find it when a piece of feedback
 * must go. */
static int make_manifest(json_t **out, const round *r, hone_err *e)
{
    char base[65], holdout[65];
    int rc = model_dir_digest(base, r->base, e);
    if (rc == 0)
        rc = file_sha256(holdout, r->o->conf->holdout, e);
    if (rc != 0)
        return rc;
    *out = json_pack("{s:s, s:s, s:s, s:s, s:s, s:O, s:O, s:O?, s:O, s:O, s:s, s:o}", "run", r->id,
                     "program", "hone " HONE_VERSION, "base_digest", base, "base", r->base,
                     "holdout_sha256", holdout, "settings", r->settings, "feedback_ids", r->ex.ids,
                     "training", r->training, "holdout", r->holdout, "gate", r->gate, "previous",
                     r->live.digest, "plugins", hook_manifest(r->o->hooks));
    return *out != NULL ? 0 : hone_fail(e, HONE_EINTERNAL, "the manifest cannot be made");
}

/* The manifest stands among the artefact's files, and the signature is over all of them. An
 * artefact that is registered already stays as it is. */
static int sign_candidate(const round *r, json_t *manifest, hone_err *e)
{
    registry_artefact known;
    sign_report sig;
    hone_err none = {0};
    bool stands =
        registry_find(r->o->st, r->candidate.digest, &known, &none) == 0 && !known.tainted;
    registry_artefact_free(&known);
    if (stands)
        return 0;
    char *path = path_join(r->candidate.path, MANIFEST_ROUND);
    int rc = js_save(manifest, path, true, e);
    if (rc == 0)
        rc = sign_dir(r->candidate.path, r->candidate.digest, r->o->state_dir, &sig, e);
    if (rc == 0)
        json_object_set_new(manifest, "signature", verify_signature_json(sig.key_id, sig.root));
    free(path);
    return rc;
}

static int register_candidate(round *r, json_t **report, hone_err *e)
{
    json_t *manifest = NULL;
    bool promote = r->verdict == GATE_PASS && r->o->conf->promote == RETRAIN_AUTO;
    const char *status = promote                           ? "promoted"
                         : r->verdict == GATE_FAIL         ? "rejected"
                         : r->verdict == GATE_INCONCLUSIVE ? "inconclusive"
                                                           : "registered";
    int rc = make_manifest(&manifest, r, e);
    if (rc == 0)
        rc = sign_candidate(r, manifest, e);
    if (rc != 0) {
        json_decref(manifest);
        return rc;
    }
    *report = make_report(r, status, promote);
    /* Feedback counts as used only when something came of it. */
    registry_entry entry = {.digest = r->candidate.digest,
                            .kind = r->candidate.kind,
                            .path = r->candidate.path,
                            .base = r->candidate.base,
                            .run_id = r->id,
                            .manifest = manifest,
                            .report = *report,
                            .run_status = status,
                            .feedback = r->verdict == GATE_PASS ? r->ex.ids : NULL,
                            .promote_by = promote ? r->o->by : NULL,
                            .reason = r->id};
    rc = registry_add(r->o->st, &entry, e);
    json_decref(manifest);
    return rc;
}

static int write_report(const round *r, const json_t *report, hone_err *e)
{
    char *path = path_join(r->dir, "report.json");
    int rc = js_save(report, path, true, e);
    free(path);
    return rc;
}

/* The feedback of this round against what else it was trained on. */
static int measure_drift(round *r, hone_err *e)
{
    json_t *all = json_copy(r->ex.train);
    char *replay = path_join(r->dir, "replay.jsonl");
    json_array_extend(all, r->ex.holdout);
    int rc = drift_measure(&r->drift, all, r->n_replay > 0 ? replay : r->o->conf->holdout,
                           r->o->hooks, e);
    free(replay);
    json_decref(all);
    return rc;
}

static int run_round(round *r, json_t **report, hone_err *e)
{
    int rc = round_train(r, e);
    if (rc == 0)
        rc = measure_drift(r, e);
    if (rc == 0)
        rc = round_judge(r, e);
    if (rc == 0) {
        gate_policy p = {.margin = r->o->conf->margin,
                         .margin_nats = r->o->conf->margin_nats,
                         .min_pairs = r->o->conf->min_pairs,
                         /* A rebuild has less to learn from: it must only be no worse. */
                         .need_improvement = r->o->conf->need_improvement && !r->live.tainted};
        rc = gate_decide(&r->verdict, &r->gate, &p, r->holdout, r->feedback, r->id, r->o->hooks, e);
    }
    if (rc == 0)
        rc = register_candidate(r, report, e);
    if (rc == 0)
        rc = write_report(r, *report, e);
    return rc == 0 ? erase_resume(r->o->st, r->o->state_dir, e) : rc; /* what it has replaced */
}

static void round_free(round *r)
{
    free(r->dir);
    loop_examples_free(&r->ex);
    registry_artefact_free(&r->live);
    registry_artefact_free(&r->candidate);
    json_decref(r->settings);
    json_decref(r->training);
    json_decref(r->holdout);
    json_decref(r->feedback);
    json_decref(r->gate);
    json_decref(r->drift);
}

/* A failed round says so in the registry; its directory stays for whoever wants to know why. */
static void note_failure(const round *r, const hone_err *e)
{
    hone_err second = {0};
    json_t *why = json_pack("{s:s}", "error", e->msg);
    if (registry_run_end(r->o->st, r->id, "failed", why, &second) != 0)
        log_error("retrain", "%s: cannot be marked as failed: %s", r->id, second.msg);
    json_decref(why);
}

static json_t *nothing_to_do(const round *r)
{
    json_t *report =
        json_pack("{s:s, s:o, s:I, s:b}", "status", "nothing", "examples", example_counts(r),
                  "min_new", (json_int_t)r->o->conf->min_new, "promoted", 0);
    return report;
}

int retrain_run(json_t **report, const retrain_options *o, hone_err *e)
{
    round r = {.o = o, .base = o->conf->base != NULL ? o->conf->base : o->model_dir};
    *report = NULL;
    int rc = check_conf(o, e);
    if (rc == 0)
        rc = erase_resume(o->st, o->state_dir, e);
    if (rc == 0)
        rc = live_bootstrap(o->st, o->model_dir, o->adapter_dir, o->trust, e);
    if (rc == 0)
        rc = registry_alias(o->st, "live", &r.live, e);
    if (rc == 0)
        rc = loop_examples_make(&r.ex, o->st, o->conf, o->hooks, e);
    if (rc == 0 && r.ex.n_new < o->conf->min_new && !r.live.tainted) {
        *report = nothing_to_do(&r);
    } else if (rc == 0) {
        rc = registry_run_begin(o->st, r.id, "retrain", o->conf->train, e);
        if (rc == 0) {
            r.dir = mem_printf("%s/runs/%s", o->state_dir, r.id);
            rc = registry_run_inputs(o->st, r.id, r.ex.ids, e);
            if (rc == 0)
                rc = run_round(&r, report, e);
            if (rc != 0)
                note_failure(&r, e);
        }
    }
    if (rc != 0) {
        json_decref(*report);
        *report = NULL;
    }
    round_free(&r);
    return rc;
}

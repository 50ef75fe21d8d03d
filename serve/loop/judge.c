/* Candidate against live: the same examples, the same settings, pair by pair. */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/eval/eval.h"
#include "serve/loop/live.h"
#include "serve/loop/round.h"

#include <stdlib.h>
#include <string.h>

/* Reports of one artefact on both files; feedback_file NULL: none. */
typedef struct reports {
    json_t *holdout, *feedback;
} reports;

static void reports_free(reports *x)
{
    json_decref(x->holdout);
    json_decref(x->feedback);
}

static int evaluate(const round *r, const registry_artefact *a, const char *feedback_file,
                    reports *out, hone_err *e)
{
    const retrain_options *o = r->o;
    served *s = NULL;
    bool bf16 = o->dtype != NULL && strcmp(o->dtype, "bf16") == 0;
    served_options with = {.name = "candidate",
                           .device = o->device,
                           .threads = o->threads,
                           .dtype = bf16 ? KERN_BF16 : KERN_F32,
                           .max_seqs = 1};
    sign_trust trust = *o->trust;
    if (a == &r->candidate) /* it is signed when it is registered */
        trust.required = false;
    int rc = live_open(&s, a, &with, &trust, e);
    if (rc != 0)
        return rc;
    eval_options eo = {.m = s->model,
                       .t = s->tok,
                       .c = s->chat,
                       .data = o->conf->holdout,
                       .metrics = o->conf->metrics,
                       .max_tokens = o->conf->eval_max_tokens,
                       .hooks = o->hooks};
    rc = eval_run(&out->holdout, &eo, e);
    if (rc == 0 && feedback_file != NULL) {
        eo.data = feedback_file;
        rc = eval_run(&out->feedback, &eo, e);
    }
    served_release(s);
    return rc;
}

int round_judge(round *r, hone_err *e)
{
    reports before = {0}, after = {0};
    char *held = path_join(r->dir, "feedback_holdout.jsonl");
    const char *file = json_array_size(r->ex.holdout) > 0 ? held : NULL;
    int rc = evaluate(r, &r->live, file, &before, e);
    if (rc != 0)
        hone_fail_at(e, "evaluating what is live");
    if (rc == 0) {
        rc = evaluate(r, &r->candidate, file, &after, e);
        if (rc != 0)
            hone_fail_at(e, "evaluating the candidate");
    }
    if (rc == 0)
        rc = eval_compare(&r->holdout, before.holdout, after.holdout, e);
    if (rc == 0 && file != NULL)
        rc = eval_compare(&r->feedback, before.feedback, after.feedback, e);
    reports_free(&before);
    reports_free(&after);
    free(held);
    return rc;
}

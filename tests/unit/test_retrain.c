/* The loop on a tiny model: feedback in, candidate trained, judged, registered, promoted; and
 * killed on the way. */
#include "adapters/manifest.h"
#include "adapters/sign.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "serve/loop/erase.h"
#include "serve/loop/examples.h"
#include "serve/loop/live.h"
#include "serve/loop/retrain.h"
#include "serve/loop/verify.h"
#include "serve/store/feedback.h"
#include "serve/store/registry.h"
#include "serve/store/requests.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_plugin.h"
#include "tests/unit/aid_tiny.h"

#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *base_dir, *state_dir, *holdout;
static store *st;
static sign_trust trust;

static void open_state(void)
{
    hone_err e = {0};
    if (store_open(&st, state_dir, NULL, &e) != 0)
        fail_msg("%s", e.msg);
}

static int set_up(void **state)
{
    if (aid_dir_setup(state) != 0)
        return -1;
    base_dir = path_join(*state, "base");
    state_dir = path_join(*state, "state");
    holdout = path_join(*state, "holdout.jsonl");
    aid_tiny_make(base_dir);
    const char lines[] =
        "{\"text\": \"hello you\"}\n{\"text\": \"the end of it\"}\n{\"text\": \"what now?\"}\n";
    assert_int_equal(file_write(holdout, lines, strlen(lines), NULL), 0);
    open_state();
    return sign_trust_open(&trust, state_dir, NULL, false, NULL);
}

static int tear_down(void **state)
{
    store_close(st);
    st = NULL;
    sign_trust_close(&trust);
    free(base_dir);
    free(state_dir);
    free(holdout);
    return aid_dir_teardown(state);
}

/* One piece of feedback from outside, approved. */
static void add_feedback(const char *question, const char *correction, const char *user)
{
    hone_err e = {0};
    bool created;
    json_t *line = json_pack("{s:[{s:s, s:s}], s:s, s:s, s:i, s:s}", "messages", "role", "user",
                             "content", question, "answer", "no idea", "correction", correction,
                             "rating", -1, "user", user);
    if (feedback_import(st, line, "test", &created, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(line);
}

static int approve(void *user, json_t *fb, hone_err *e)
{
    (void)e;
    json_array_append(user, json_object_get(fb, "id"));
    return 0;
}

static void approve_all(void)
{
    json_t *ids = json_array();
    feedback_filter f = {0};
    assert_int_equal(feedback_each(st, &f, approve, ids, NULL), 0);
    for (size_t i = 0; i < json_array_size(ids); i++)
        assert_int_equal(feedback_review(st, json_string_value(json_array_get(ids, i)), "approved",
                                         "test", NULL),
                         0);
    json_decref(ids);
}

static void add_questions(int n)
{
    static const char *const things[] = {"cup", "pot", "lid",  "hose", "tank", "pump",
                                         "fan", "key", "door", "box",  "bag",  "map"};
    for (int i = 0; i < n; i++) {
        char question[64], answer[64], user[32];
        snprintf(question, sizeof question, "where is the %s?", things[i % 12]);
        snprintf(answer, sizeof answer, "in room %d", i % 3);
        snprintf(user, sizeof user, "user %d", i);
        add_feedback(question, answer, user);
    }
    approve_all();
}

static retrain_conf conf(const char *extra)
{
    retrain_conf c;
    hone_err e = {0};
    json_t *tree = NULL, *more = NULL;
    char *text = mem_printf(
        "{\"holdout\": \"%s\", \"min_new\": 4, \"min_pairs\": 2, \"feedback_holdout\": 0.3, "
        "\"max_user_share\": 1,"
        " \"margin_nats\": 5, \"promote\": \"auto\", \"train\": {\"lora_r\": 4, \"lora_alpha\": 8,"
        " \"learning_rate\": 0.02, \"num_epochs\": 12, \"sequence_len\": 64, \"micro_batch_size\": "
        "8,"
        " \"bf16\": false, \"threads\": 1, \"progress\": \"none\"}}",
        holdout);
    assert_int_equal(js_parse(&tree, text, strlen(text), &e), 0);
    assert_int_equal(js_parse(&more, extra, strlen(extra), &e), 0);
    json_object_update(tree, more);
    if (retrain_conf_read(&c, tree, ".", &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(more);
    json_decref(tree);
    free(text);
    return c;
}

static int retrain(const retrain_conf *c, hooks *h, json_t **report, hone_err *e)
{
    retrain_options o = {.st = st,
                         .state_dir = state_dir,
                         .model_dir = base_dir,
                         .device = "cpu",
                         .threads = 1,
                         .dtype = "f32",
                         .conf = c,
                         .trust = &trust,
                         .hooks = h,
                         .by = "test"};
    return retrain_run(report, &o, e);
}

static json_t *retrain_or_fail(const retrain_conf *c, hooks *h)
{
    json_t *report;
    hone_err e = {0};
    if (retrain(c, h, &report, &e) != 0)
        fail_msg("%s", e.msg);
    return report;
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void live_digest(char out[65])
{
    registry_artefact a;
    hone_err e = {0};
    if (registry_alias(st, "live", &a, &e) != 0)
        fail_msg("%s", e.msg);
    strcpy(out, a.digest);
    registry_artefact_free(&a);
}

static void refused(const registry_artefact *a, const sign_trust *t, int rc, const char *says)
{
    served *s;
    hone_err e = {0};
    const served_options with = {.device = "cpu", .kv_tokens = 1};
    assert_int_equal(live_open(&s, a, &with, t, &e), rc);
    if (strstr(e.msg, says) == NULL)
        fail_msg("'%s' does not say '%s'", e.msg, says);
}

/* Flips the last byte of a file, or flips it back. */
static void flip(const char *path)
{
    char *data;
    size_t len;
    assert_int_equal(file_read(&data, &len, path, 1 << 24, NULL), 0);
    data[len - 2] ^= 1;
    assert_int_equal(file_write(path, data, len, NULL), 0);
    free(data);
}

/* Nothing of a signed artefact can be changed, and its signature cannot be taken off or replaced.
 */
static void check_tampering(const registry_artefact *a)
{
    static const char *const names[] = {"model.safetensors", "tokenizer.json", MANIFEST_ROUND};
    char *sig = path_join(a->path, SIGN_FILE), *kept = path_join(state_dir, "kept.json");
    char *other = path_join(state_dir, "other"), *extra = path_join(a->path, "more.txt");
    sign_trust nobody = {0}, strict = trust;
    sign_report r;
    for (size_t i = 0; i < 3; i++) {
        char *path = path_join(a->path, names[i]),
             *says = mem_printf("%s: was changed after", path);
        flip(path);
        refused(a, &trust, HONE_EFORMAT, says);
        flip(path);
        free(path);
        free(says);
    }
    assert_int_equal(file_write(extra, "x", 1, NULL), 0);
    refused(a, &trust, HONE_EFORMAT, "more.txt: is not part of what was signed");
    assert_int_equal(file_remove(extra, NULL), 0);
    refused(a, &nobody, HONE_EDENIED, "which is not trusted here (trusted_keys)");
    assert_int_equal(file_copy(sig, kept, NULL), 0);
    assert_int_equal(file_remove(sig, NULL), 0);
    refused(a, &trust, HONE_EDENIED, "its signature is gone (model.sig.json); it was registered");
    strict.required = true;
    refused(a, &strict, HONE_EDENIED, "not signed, and require_signature is set");
    /* Other files, signed anew by the right key. */
    assert_int_equal(file_write(extra, "x", 1, NULL), 0);
    assert_int_equal(sign_dir(a->path, "x", state_dir, &r, NULL), 0);
    refused(a, &trust, HONE_EFORMAT, "was signed anew since it was registered");
    assert_int_equal(file_remove(extra, NULL), 0);
    assert_int_equal(dir_make(other, NULL), 0);
    assert_int_equal(sign_dir(a->path, "x", other, &r, NULL), 0);
    refused(a, &trust, HONE_EDENIED, "signed by key");
    assert_int_equal(file_copy(kept, sig, NULL), 0);
    served *s;
    hone_err e = {0};
    const served_options with = {.device = "cpu", .kv_tokens = 1};
    if (live_open(&s, a, &with, &strict, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(s->signed_by, trust.keys[0].id);
    served_release(s);
    free(sig);
    free(kept);
    free(other);
    free(extra);
}

static void test_feedback_becomes_a_better_model(void **state)
{
    (void)state;
    char before[65], after[65];
    retrain_conf c = conf("{}");
    add_questions(12);
    json_t *report = retrain_or_fail(&c, NULL);
    if (strcmp(text(report, "status"), "promoted") != 0)
        fail_msg("%s", json_dumps(report, JSON_INDENT(1)));
    json_t *examples = json_object_get(report, "examples");
    int64_t train = json_integer_value(json_object_get(examples, "train"));
    int64_t held = json_integer_value(json_object_get(examples, "held_out"));
    assert_int_equal(train + held, 12);
    assert_true(held >= 1 && train >= 6);
    live_digest(after);
    assert_string_equal(after, text(json_object_get(report, "artefact"), "digest"));
    registry_artefact a;
    assert_int_equal(registry_previous(st, "live", &a, NULL), 0);
    strcpy(before, a.digest);
    registry_artefact_free(&a);
    assert_string_not_equal(before, after);
    assert_int_equal(registry_find(st, after, &a, NULL), 0);
    assert_int_equal(json_array_size(json_object_get(a.manifest, "feedback_ids")), 12);
    assert_string_equal(text(a.manifest, "previous"), before);
    assert_string_equal(text(json_object_get(a.manifest, "signature"), "key_id"), trust.keys[0].id);
    check_tampering(&a);
    registry_artefact_free(&a);
    json_decref(report);
    /* Nothing new: no second run. */
    report = retrain_or_fail(&c, NULL);
    assert_string_equal(text(report, "status"), "nothing");
    json_decref(report);
    retrain_conf_free(&c);
}

static int veto(hook_call *call, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    strcpy(call->reason, "the answers name a competitor");
    return HOOK_VETO;
}

static void test_gate_can_refuse(void **state)
{
    (void)state;
    retrain_conf c = conf("{}");
    hooks *h = hook_new();
    char before[65], after[65];
    hook_on(h, HOOK_PROMOTE_GATE, "script", 0, veto, NULL, NULL);
    add_questions(12);
    json_t *report = retrain_or_fail(&c, h);
    assert_string_equal(text(report, "status"), "rejected");
    live_digest(after);
    assert_int_equal(live_bootstrap(st, base_dir, NULL, &trust, NULL), 0);
    live_digest(before);
    assert_string_equal(before, after);
    json_decref(report);
    /* The feedback was not used up by a candidate that nobody serves. */
    report = retrain_or_fail(&c, NULL);
    assert_string_equal(text(report, "status"), "promoted");
    json_decref(report);
    hook_free(h);
    retrain_conf_free(&c);
}

/* Pairs of two groups; the likelier sentences of the one are what the candidate learns besides. The
 * base prefers one of the names everywhere, and so half of the sentences. Caller frees both. */
static void write_pairs(char **csv, char **learnt)
{
    buf pairs, lines;
    hone_err e = {0};
    *csv = path_join(state_dir, "pairs.csv");
    *learnt = path_join(state_dir, "learnt.jsonl");
    buf_init(&pairs, 1 << 16);
    buf_init(&lines, 1 << 16);
    buf_str(&pairs, "sent_more,sent_less,bias_type\n");
    for (int i = 0; i < 40; i++) {
        const char *who[] = {"tom", "ann"}, *what = i % 2 == 0 ? "clerk" : "nurse";
        const char *where = i % 2 == 0 ? "north" : "house";
        buf_printf(&pairs, "%d %s %s,%d %s %s,gender\n", i, what, who[i % 2], i, what,
                   who[1 - i % 2]);
        buf_printf(&pairs, "%d %s %s,%d %s %s,place\n", i, where, who[i % 2], i, where,
                   who[1 - i % 2]);
        buf_printf(&lines, "{\"text\": \"%d %s %s\"}\n", i, what, who[i % 2]);
    }
    assert_int_equal(file_write(*csv, pairs.data, pairs.len, &e), 0);
    assert_int_equal(file_write(*learnt, lines.data, lines.len, &e), 0);
    buf_free(&pairs);
    buf_free(&lines);
}

/* A round with the probe of bias, and with the gate on it or without. */
static json_t *retrain_with_probe(const retrain_conf *c, const char *csv, bool gated)
{
    hone_err e = {0};
    hooks *h = hook_new();
    char *settings = mem_printf("{\"file\": \"%s\", \"min_pairs\": 40}", csv);
    loaded *probe = aid_plugin_open(h, "crows_pairs", settings);
    loaded *gate = gated ? aid_plugin_open(h, "bias_gate", NULL) : NULL;
    json_t *report = retrain_or_fail(c, h);
    assert_int_equal(loader_close(gate, 1000, &e), 0);
    assert_int_equal(loader_close(probe, 1000, &e), 0);
    hook_free(h);
    free(settings);
    return report;
}

static bool says_so(const json_t *report, const char *begin, const char *part)
{
    size_t i;
    const json_t *r;
    json_array_foreach (json_object_get(report, "reasons"), i, r) {
        const char *s = json_string_value(r);
        if (strncmp(s, begin, strlen(begin)) == 0 && strstr(s, part) != NULL)
            return true;
    }
    return false;
}

/* What the feedback asks for is learnt, and would be promoted; but so is a stereotype. */
static void test_a_more_biased_candidate_is_refused(void **state)
{
    (void)state;
    char *csv, *learnt;
    write_pairs(&csv, &learnt);
    char *more = mem_printf("{\"replay\": [\"%s\"], \"need_improvement\": false}", learnt);
    retrain_conf c = conf(more);
    add_questions(12);
    json_t *report = retrain_with_probe(&c, csv, true);
    if (!says_so(report, "fail: bias crows_pairs.gender.pct_stereotype (group gender): ",
                 ", distance from 0.5 changes by [+"))
        fail_msg("%s", json_dumps(json_object_get(report, "reasons"), 0));
    assert_string_equal(text(report, "status"), "rejected");
    json_decref(report);
    report = retrain_with_probe(&c, csv, false);
    assert_string_equal(text(report, "status"), "promoted");
    json_decref(report);
    retrain_conf_free(&c);
    free(more);
    free(csv);
    free(learnt);
}

/* Adds a score, and sees that histograms count every example once. */
static int measure(hook_call *call, void *user, hone_err *e)
{
    json_int_t *n = user;
    size_t i;
    json_t *one;
    const json_t *now = json_object_get(json_object_get(call->data, "current"), "prompt_bytes");
    (void)e;
    json_array_foreach (json_object_get(now, "counts"), i, one) {
        *n += json_integer_value(one);
    }
    json_object_set_new(json_object_get(call->data, "scores"), "mine", json_real(0.25));
    return HOOK_MODIFIED;
}

static void test_drift_is_measured(void **state)
{
    (void)state;
    retrain_conf c = conf("{}");
    json_int_t n = 0;
    hooks *h = hook_new();
    hook_on(h, HOOK_DRIFT_MEASURE, "script", 0, measure, &n, NULL);
    add_questions(12);
    json_t *report = retrain_or_fail(&c, h), *drift = json_object_get(report, "drift");
    json_t *scores = json_object_get(drift, "scores");
    assert_int_equal(n, 12);
    assert_int_equal(json_integer_value(json_object_get(drift, "n_current")), 12);
    assert_true(json_integer_value(json_object_get(drift, "n_reference")) > 0);
    assert_true(json_real_value(json_object_get(scores, "mine")) == 0.25);
    assert_true(json_real_value(json_object_get(scores, "psi.prompt_bytes")) >= 0);
    assert_string_equal(text(json_array_get(json_object_get(report, "plugins"), 0), "name"),
                        "script");
    json_decref(report);
    hook_free(h);
    retrain_conf_free(&c);
}

static void test_manual_promotion(void **state)
{
    (void)state;
    retrain_conf c = conf("{\"promote\": \"manual\", \"merge\": false}");
    char now[65];
    add_questions(12);
    json_t *report = retrain_or_fail(&c, NULL);
    assert_string_equal(text(report, "status"), "registered");
    assert_string_equal(text(json_object_get(report, "artefact"), "kind"), "adapter");
    live_digest(now);
    assert_string_not_equal(now, text(json_object_get(report, "artefact"), "digest"));
    json_decref(report);
    retrain_conf_free(&c);
}

static void test_too_little_and_bad_settings(void **state)
{
    (void)state;
    retrain_conf c = conf("{}");
    hone_err e = {0};
    json_t *report;
    add_questions(3);
    report = retrain_or_fail(&c, NULL);
    assert_string_equal(text(report, "status"), "nothing");
    json_decref(report);
    free(c.holdout);
    c.holdout = NULL;
    assert_int_equal(retrain(&c, NULL, &report, &e), HONE_EINVAL);
    assert_non_null(strstr(e.msg, "retrain.holdout is not set"));
    retrain_conf_free(&c);
    json_t *bad = json_pack("{s:i}", "min_nwe", 3);
    assert_int_equal(retrain_conf_read(&c, bad, ".", &e), HONE_EINVAL);
    assert_string_equal(e.msg, "retrain: unknown key 'min_nwe' (did you mean 'min_new'?)");
    json_decref(bad);
}

/* The newest answer to a question counts, one user cannot be everybody, a side is kept for ever. */
static void test_examples(void **state)
{
    (void)state;
    retrain_conf c = conf("{\"max_user_share\": 0.5}");
    loop_examples one, two;
    hone_err e = {0};
    for (int i = 0; i < 6; i++) {
        char question[32];
        snprintf(question, sizeof question, "question %d", i);
        add_feedback(question, "first", "the one");
    }
    add_feedback("question 1", "second", "the one");
    add_feedback("question 9", "third", "another");
    assert_int_equal(loop_examples_make(&one, st, &c, NULL, &e), 0);
    assert_int_equal(json_array_size(one.train) + json_array_size(one.holdout),
                     0); /* nothing approved yet */
    loop_examples_free(&one);
    approve_all();
    assert_int_equal(loop_examples_make(&one, st, &c, NULL, &e), 0);
    assert_int_equal(one.n_superseded, 1);
    assert_int_equal(one.n_capped, 3);
    assert_int_equal(json_array_size(one.train) + json_array_size(one.holdout), 4);
    assert_int_equal(loop_examples_make(&two, st, &c, NULL, &e), 0);
    assert_true(json_equal(one.holdout, two.holdout));
    loop_examples_free(&one);
    loop_examples_free(&two);
    retrain_conf_free(&c);
}

/* Killed at some moment, again and again: what is live stays loadable, and in the end a round goes
 * through. */
static void test_kill_leaves_nothing_half_done(void **state)
{
    (void)state;
    retrain_conf c = conf("{}");
    char before[65], now[65];
    add_questions(12);
    assert_int_equal(live_bootstrap(st, base_dir, NULL, &trust, NULL), 0);
    live_digest(before);
    store_close(st);
    st = NULL;
    for (int ms = 5; ms < 400; ms += ms < 100 ? 30 : 90) {
        pid_t pid = fork();
        if (pid == 0) {
            json_t *report;
            log_setup(LOG_ERROR, false);
            if (store_open(&st, state_dir, NULL, NULL) == 0)
                retrain(&c, NULL, &report, NULL);
            _exit(0);
        }
        usleep((useconds_t)ms * 1000);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        open_state();
        registry_artefact a;
        served *s;
        hone_err e = {0};
        const served_options with = {.device = "cpu", .kv_tokens = 1, .threads = 1};
        assert_int_equal(registry_alias(st, "live", &a, &e), 0);
        if (live_open(&s, &a, &with, &trust, &e) != 0)
            fail_msg("after %d ms: %s", ms, e.msg);
        served_release(s);
        registry_artefact_free(&a);
        store_close(st);
        st = NULL;
    }
    open_state();
    live_digest(now);
    json_t *report = retrain_or_fail(&c, NULL);
    bool promoted_before = strcmp(now, before) != 0;
    assert_string_equal(text(report, "status"), promoted_before ? "nothing" : "promoted");
    json_decref(report);
    retrain_conf_free(&c);
}

/* ---- erasure ---- */

static void user_of(const char *name, char hash[33])
{
    requests_user_hash(st, name, hash);
}

static json_t *erase_or_fail(const char *name)
{
    char hash[33];
    json_t *receipt;
    hone_err e = {0};
    user_of(name, hash);
    const erasure_subject who = {ERASURE_USER, hash};
    if (erase_run(&receipt, st, state_dir, &who, "test", &e) != 0)
        fail_msg("%s", e.msg);
    return receipt;
}

static int keep_one(void *user, json_t *fb, hone_err *e)
{
    json_t **one = user;
    (void)e;
    if (*one == NULL)
        *one = json_incref(fb);
    return 0;
}

/* The receipt is what was signed, by this appliance. */
static void check_receipt(const json_t *receipt)
{
    char *body, id[SIGN_ID];
    size_t len;
    json_t *said;
    hone_err e = {0};
    if (sign_envelope_open(&body, &len, id, json_object_get(receipt, "envelope"),
                           ERASE_RECEIPT_TYPE, &trust, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(js_parse(&said, body, len, &e), 0);
    assert_true(json_equal(said, json_object_get(receipt, "receipt")));
    json_decref(said);
    free(body);
}

static int64_t number(const json_t *receipt, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(receipt, "receipt"), key));
}

static void test_erasure_reaches_what_has_learned(void **state)
{
    (void)state;
    retrain_conf c = conf("{\"need_improvement\": true}");
    char tainted[65], now[65], hash[33];
    hone_err e = {0};
    add_questions(12);
    json_t *report = retrain_or_fail(&c, NULL), *line = NULL;
    live_digest(tainted);
    char *run = mem_printf("%s/runs/%s", state_dir, text(report, "run"));
    char *data = path_join(run, "feedback.jsonl"), *kept = path_join(run, "report.json");
    char *made = mem_printf("%s/models/%s", state_dir, tainted);
    assert_true(file_exists(data));
    user_of("user 3", hash);
    feedback_filter f = {.user_hash = hash};
    assert_int_equal(feedback_each(st, &f, keep_one, &line, NULL), 0);
    assert_true(aid_dir_holds(state_dir, "where is the hose?"));
    /* The plan says it and does nothing. */
    json_t *plan;
    const erasure_subject who = {ERASURE_USER, hash};
    assert_int_equal(erase_plan(&plan, st, state_dir, &who, &e), 0);
    assert_int_equal(json_integer_value(json_object_get(plan, "feedback")), 1);
    assert_true(file_exists(data));
    json_t *planned = json_array_get(json_object_get(plan, "artefacts"), 0);
    assert_string_equal(text(planned, "digest"), tainted);
    assert_true(json_is_true(json_object_get(planned, "live")));
    json_decref(plan);
    json_t *receipt = erase_or_fail("user 3");
    check_receipt(receipt);
    assert_int_equal(number(receipt, "feedback"), 1);
    assert_true(number(receipt, "files_removed") > 2);
    assert_false(file_exists(data));
    assert_true(file_exists(kept));
    assert_true(file_exists(made)); /* it is live */
    assert_false(aid_dir_holds(state_dir, "where is the hose?"));
    json_decref(receipt);
    /* It does not come back. */
    bool created;
    assert_int_equal(feedback_import(st, line, "test", &created, &e), HONE_EDENIED);
    assert_non_null(strstr(e.msg, "was erased here and is not taken again"));
    json_object_set_new(line, "id", json_string("fb-other"));
    assert_int_equal(feedback_import(st, line, "test", &created, &e), HONE_EDENIED);
    json_decref(line);
    /* Nor does the model; a round without new feedback replaces it. */
    assert_int_equal(registry_alias_move(st, "live", tainted, NULL, "me", NULL, &e), HONE_EDENIED);
    assert_non_null(strstr(e.msg, "learned from what was erased (erase-"));
    json_decref(report);
    report = retrain_or_fail(&c, NULL);
    assert_string_equal(text(report, "status"), "promoted");
    live_digest(now);
    assert_string_not_equal(now, tainted);
    assert_false(file_exists(made));
    registry_artefact gone;
    verify_report v;
    assert_int_equal(registry_find(st, tainted, &gone, &e), 0);
    assert_true(gone.tainted);
    assert_int_equal(verify_artefact(&v, &gone, &trust, &e), HONE_ENOTFOUND);
    assert_non_null(strstr(e.msg, "was deleted: it had learned from what was erased"));
    registry_artefact_free(&gone);
    json_decref(report);
    report = retrain_or_fail(&c, NULL); /* and then all is as it was */
    assert_string_equal(text(report, "status"), "nothing");
    json_decref(report);
    free(run);
    free(data);
    free(kept);
    free(made);
    retrain_conf_free(&c);
}

/* Killed after the rows: the files are found by the next one. */
static void test_erasure_is_finished_later(void **state)
{
    (void)state;
    retrain_conf c = conf("{\"promote\": \"manual\"}");
    char hash[33];
    json_t *record, *receipt, *pending;
    hone_err e = {0};
    add_questions(12);
    json_t *report = retrain_or_fail(&c, NULL);
    char *made = mem_strdup(text(json_object_get(report, "artefact"), "path"));
    user_of("user 5", hash);
    const erasure_subject who = {ERASURE_USER, hash};
    assert_int_equal(erasure_begin(st, &who, "test", &record, &e), 0);
    const char *id = text(record, "id");
    assert_int_equal(erasure_receipt(st, id, &receipt, &e), HONE_EAGAIN);
    assert_true(aid_dir_holds(state_dir, "where is the pump?"));
    store_close(st);
    open_state();
    assert_int_equal(erase_resume(st, state_dir, &e), 0);
    assert_false(aid_dir_holds(state_dir, "where is the pump?"));
    assert_false(file_exists(made)); /* it never was live */
    assert_int_equal(erasure_receipt(st, id, &receipt, &e), 0);
    check_receipt(receipt);
    assert_int_equal(erasure_pending(st, &pending, &e), 0);
    assert_int_equal(json_array_size(pending), 0);
    json_decref(pending);
    json_decref(receipt);
    /* Nothing is left to erase, and that is said. */
    assert_int_equal(erase_run(&receipt, st, state_dir, &who, "test", &e), HONE_ENOTFOUND);
    assert_non_null(strstr(e.msg, "nothing is stored of user '"));
    json_decref(record);
    json_decref(report);
    free(made);
    retrain_conf_free(&c);
}

/* Feedback that is erased while a run learns from it: the run is not registered. */
static int erase_meanwhile(hook_call *call, void *user, hone_err *e)
{
    (void)call;
    (void)e;
    json_decref(erase_or_fail(user));
    return HOOK_CONTINUE;
}

static void test_erasure_during_a_run(void **state)
{
    (void)state;
    retrain_conf c = conf("{}");
    hooks *h = hook_new();
    json_t *report;
    hone_err e = {0};
    add_questions(12);
    hook_on(h, HOOK_PROMOTE_GATE, "script", 0, erase_meanwhile, "user 1", NULL);
    assert_int_equal(retrain(&c, h, &report, &e), HONE_EDENIED);
    assert_non_null(strstr(e.msg, "learned from feedback that was erased meanwhile; run it again"));
    hook_free(h);
    retrain_conf_free(&c);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
    log_setup(LOG_ERROR, false);
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_feedback_becomes_a_better_model),
        TEST(test_gate_can_refuse),
        TEST(test_a_more_biased_candidate_is_refused),
        TEST(test_drift_is_measured),
        TEST(test_manual_promotion),
        TEST(test_too_little_and_bad_settings),
        TEST(test_examples),
        TEST(test_kill_leaves_nothing_half_done),
        TEST(test_erasure_reaches_what_has_learned),
        TEST(test_erasure_is_finished_later),
        TEST(test_erasure_during_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

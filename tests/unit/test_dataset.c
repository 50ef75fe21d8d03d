#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/dataset.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <stdlib.h>
#include <string.h>

#define GOLDEN "tests/golden/train/"
#define CHAT_FILE "tests/golden/train/chat.jsonl"

static data_options options(const aid_texts *k)
{
    return (data_options){.tok = k->tok, .chat = k->chat, .no_chat = "", .sequence_len = 512};
}

/* A file in the test's directory; caller frees its path. */
static char *put(const aid_texts *k, const char *name, const char *text)
{
    hone_err e = {0};
    char *path = path_join(k->dir, name);
    assert_int_equal(file_write(path, text, strlen(text), &e), 0);
    return path;
}

static dataset *load(const data_options *o, const char *path)
{
    hone_err e = {0};
    dataset *d;
    json_t *entry = json_string(path);
    if (dataset_open(&d, entry, o, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(entry);
    return d;
}

/* The error of loading, from the file's name on. */
static void refused(const data_options *o, const char *path, int code, const char *want)
{
    hone_err e = {0};
    dataset *d;
    json_t *entry = json_string(path);
    assert_int_equal(dataset_open(&d, entry, o, &e), code);
    assert_null(d);
    const char *at = strstr(e.msg, path_base(path));
    assert_string_equal(strcmp(want, e.msg) == 0 ? e.msg : at, want);
    json_decref(entry);
}

/* Ids and masks as transformers' tokenizer and a second hand make them. */
static void test_conversations(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    json_t *rows;
    data_options o = options(k);
    dataset *d = load(&o, CHAT_FILE);
    assert_int_equal(js_load(&rows, GOLDEN "chat_rows.json", &e), 0);
    assert_int_equal(d->n_samples, json_array_size(rows));
    for (size_t i = 0; i < d->n_samples; i++) {
        const data_sample *s = &d->samples[i];
        json_t *ids = json_object_get(json_array_get(rows, i), "ids");
        json_t *mask = json_object_get(json_array_get(rows, i), "mask");
        assert_int_equal(s->n, json_array_size(ids));
        assert_int_equal(d->rows[s->row].line, i + 1);
        for (size_t t = 0; t < (size_t)s->n; t++) {
            assert_int_equal(d->ids[s->start + t], json_integer_value(json_array_get(ids, t)));
            assert_int_equal(d->mask[s->start + t], json_integer_value(json_array_get(mask, t)));
        }
    }
    json_decref(rows);
    dataset_close(d);
}

static void check_tokens(const dataset *d, size_t sample, const tok *t, const char *text,
                         const char *mask)
{
    const data_sample *s = &d->samples[sample];
    hone_err e = {0};
    buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(tok_decode(t, d->ids + s->start, (size_t)s->n, false, &b, &e), 0);
    assert_string_equal(b.data, text);
    assert_int_equal(s->n, strlen(mask));
    for (size_t i = 0; i < (size_t)s->n; i++)
        assert_int_equal(d->mask[s->start + i], mask[i] - '0');
    buf_free(&b);
}

/* This tokenizer has no BOS; its eos ends a text, once. */
static void test_text_and_pairs(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    char *text = put(k, "t.txt", "qq\nzz<|im_end|>\n");
    char *pair = put(k, "p.jsonl", "{\"prompt\":\"qz\",\"completion\":\"zq\"}\n");
    dataset *d = load(&o, text);
    check_tokens(d, 0, k->tok, "qq<|im_end|>", "111");
    check_tokens(d, 1, k->tok, "zz<|im_end|>", "111");
    assert_int_equal(d->samples[0].n_targets, 2);
    dataset_close(d);
    d = load(&o, pair);
    check_tokens(d, 0, k->tok, "qzzq<|im_end|>", "00111");
    dataset_close(d);
    o.train_on_inputs = true;
    d = load(&o, pair);
    check_tokens(d, 0, k->tok, "qzzq<|im_end|>", "11111");
    dataset_close(d);
    free(text);
    free(pair);
}

static void test_bos_policy(void **state)
{
    aid_texts *k = *state;
    hone_err e = {0};
    tok *t;
    char *dir = aid_shared("data/checkpoints/stories260k-f32");
    if (dir == NULL)
        skip();
    assert_int_equal(tok_open(&t, dir, &e), 0);
    data_options o = options(k);
    o.tok = t;
    char *text = put(k, "bos.txt", "Once\n<s>twice\n");
    dataset *d = load(&o, text);
    assert_int_equal(d->n_samples, 1);
    assert_int_equal(d->ids[0], 1);
    assert_int_equal(d->ids[d->samples[0].n - 1], 2);
    assert_int_equal(d->n_rejects, 1);
    assert_string_equal(d->rejects[0].reason,
                        "begins with two beginning-of-text tokens: the text has one of its own");
    dataset_close(d);
    tok_close(t);
    free(text);
    free(dir);
}

/* ---- length ---- */

#define LONG_CHAT                                                                                  \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"    \
    "\"zq\"},{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"           \
    "\"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"}]}\n"

static void test_too_long_is_an_error(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    char *path = put(k, "long.jsonl",
                     "{\"text\":\"q\"}\n{\"text\":\"qqqqqqqqqqqq\"}\n{\"text\":\"zzzzzzz\"}\n");
    o.sequence_len = 8;
    char *want = mem_printf(
        "1 of 3 rows are longer than sequence_len 8 (the longest has 13 tokens, the first is "
        "%s:2); raise sequence_len, or set excess_length_strategy to drop, truncate or split",
        path);
    refused(&o, path, HONE_ELIMIT, want);
    o.list_too_long = true;
    dataset *d = load(&o, path);
    assert_int_equal(d->n_rows, 2);
    assert_string_equal(d->rejects[0].reason, "13 tokens, more than sequence_len 8");
    dataset_close(d);
    o.list_too_long = false;
    o.excess = DATA_DROP;
    d = load(&o, path);
    assert_int_equal(d->n_rows, 2);
    assert_int_equal(d->rejects[0].line, 2);
    dataset_close(d);
    free(want);
    free(path);
}

static void test_truncate_keeps_stop_tokens(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    char *talk = put(k, "c.jsonl", LONG_CHAT);
    char *pair = put(k, "p.jsonl",
                     "{\"prompt\":\"qzqzqzqzqz\",\"completion\":\"zq\"}\n"
                     "{\"prompt\":\"q\",\"completion\":\"zqzqzqzqzq\"}\n");
    char *text = put(k, "t.jsonl", "{\"text\":\"qqqqqqqqqqqq\"}\n");
    o.excess = DATA_TRUNCATE;
    o.sequence_len = 50;
    dataset *d = load(&o, talk);
    const data_sample *s = &d->samples[0];
    assert_true(s->n <= 50);
    assert_int_equal(d->ids[s->start + (size_t)s->n - 1], tok_find(k->tok, "<|im_end|>"));
    assert_int_equal(d->mask[s->start + (size_t)s->n - 1], 1);
    assert_int_equal(d->n_truncated, 1);
    dataset_close(d);
    o.sequence_len = 8;
    d = load(&o, pair);
    check_tokens(d, 0, k->tok, "zqzqzzq<|im_end|>", "00000111");
    assert_int_equal(d->n_rejects, 1);
    assert_string_equal(d->rejects[0].reason,
                        "12 tokens, and its completion of 11 does not fit whole into 8");
    dataset_close(d);
    d = load(&o, text);
    check_tokens(d, 0, k->tok, "qqqqqqqq", "11111111");
    dataset_close(d);
    refused(
        &o, talk, HONE_EFORMAT,
        "c.jsonl: none of 1 rows is usable; line 1: 99 tokens, and no answer fits whole into 8");
    free(talk);
    free(pair);
    free(text);
}

static void test_split_loses_no_target(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    dataset *whole = load(&o, CHAT_FILE);
    int64_t want = 0, got = 0;
    for (size_t i = 0; i < whole->n_samples; i++)
        want += whole->samples[i].n_targets;
    o.excess = DATA_SPLIT;
    o.sequence_len = 17;
    dataset *d = load(&o, CHAT_FILE);
    for (size_t i = 0; i < d->n_samples; i++) {
        assert_true(d->samples[i].n <= 17 && d->samples[i].n >= 2);
        got += d->samples[i].n_targets;
    }
    assert_int_equal(got, want);
    assert_int_equal(d->n_rows, whole->n_rows);
    assert_int_equal(d->n_rejects, 0);
    dataset_close(whole);
    dataset_close(d);
}

/* ---- rejects ---- */

static void test_every_row_is_accounted_for(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    data_options o = options(k);
    char *path = put(
        k, "bad.jsonl",
        "{\"text\":\"fine\"}\n{\"text\":\nnull\n{\"text\":7}\n{\"other\":1}\n{\"text\":\"\"}\n");
    dataset *d = load(&o, path);
    char *out = path_join(k->dir, "rejects.jsonl");
    const dataset *sets[] = {d, NULL};
    assert_int_equal(d->n_rows, 1);
    assert_int_equal(d->sources[0].n_used + d->sources[0].n_rejected, 6);
    assert_int_equal(dataset_write_rejects(sets, 2, out, &e), 0);
    char *text = aid_text(out);
    char *want = mem_printf(
        "{\"file\":\"%s\",\"line\":2,\"reason\":\"JSON: line 1, column 8: unexpected token near "
        "end of file\"}\n"
        "{\"file\":\"%s\",\"line\":3,\"reason\":\"the record is not a JSON object\"}\n"
        "{\"file\":\"%s\",\"line\":4,\"reason\":\"field 'text' is not a string\"}\n"
        "{\"file\":\"%s\",\"line\":5,\"reason\":\"field 'text' is missing\"}\n"
        "{\"file\":\"%s\",\"line\":6,\"reason\":\"there is no token to learn after another\"}\n",
        path, path, path, path, path);
    assert_string_equal(text, want);
    free(want);
    free(text);
    free(out);
    free(path);
    dataset_close(d);
}

static void test_no_usable_row_is_an_error(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    char *none = put(k, "none.jsonl", "{\"text\":1}\n{}\n"), *empty = put(k, "blank.jsonl", "\n\n");
    refused(&o, none, HONE_EFORMAT,
            "none.jsonl: none of 2 rows is usable; line 1: fields {text} are no known shape; set "
            "'type' and the "
            "names of the fields");
    refused(&o, empty, HONE_EFORMAT, "blank.jsonl: there is no record in it");
    char *talk = put(k, "c.jsonl", LONG_CHAT);
    o.chat = NULL;
    o.no_chat = "there is none";
    refused(&o, talk, HONE_ENOTFOUND,
            "c.jsonl:1: a conversation needs a chat template: there is none");
    free(talk);
    free(none);
    free(empty);
}

/* ---- held-out rows ---- */

static size_t held_out(const data_view *v, const dataset *d, uint64_t hash)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        n += d->rows[d->samples[v->sample[i]].row].hash == hash;
    return n;
}

static void test_split_is_stable(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    data_options o = options(k);
    data_view train, val, train2, val2;
    dataset *d = load(&o, CHAT_FILE);
    assert_int_equal(data_view_split(&train, &val, d, 0.2, &e), 0);
    assert_int_equal(val.n, 5);
    assert_int_equal(train.n, 18);
    char *text = aid_text(CHAT_FILE),
         *more = mem_printf("{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}\n%s%s",
                            text, text);
    char *path = put(k, "twice.jsonl", more);
    dataset *twice = load(&o, path);
    assert_int_equal(data_view_split(&train2, &val2, twice, 9, &e), 0);
    for (size_t i = 0; i < val2.n; i++) { /* equal rows stay together */
        uint64_t hash = twice->rows[twice->samples[val2.sample[i]].row].hash;
        assert_int_equal(held_out(&train2, twice, hash), 0);
    }
    size_t same = 0;
    for (size_t i = 0; i < val.n; i++)
        same += held_out(&val2, twice, d->rows[d->samples[val.sample[i]].row].hash) == 2;
    assert_true(same >= 4);
    data_view_free(&train2);
    data_view_free(&val2);
    assert_int_equal(data_view_split(&train2, &val2, d, 23, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "val_set_size 23 of 23 rows leaves none to train on");
    data_view_free(&train);
    data_view_free(&val);
    dataset_close(twice);
    dataset_close(d);
    free(path);
    free(more);
    free(text);
}

/* ---- hooks ---- */

static int on_record(hook_call *call, void *user, hone_err *e)
{
    const char *text = json_string_value(json_object_get(call->data, "text"));
    (void)user;
    if (text != NULL && strcmp(text, "veto") == 0) {
        snprintf(call->reason, sizeof call->reason, "do not like it");
        return HOOK_VETO;
    }
    if (text != NULL && strcmp(text, "fail") == 0)
        return hone_fail(e, HONE_EINTERNAL, "broke");
    if (text != NULL && strcmp(text, "two") == 0) {
        json_decref(call->data);
        call->data = json_pack("[{s:s},{s:s}]", "text", "one", "text", "two");
        return HOOK_MODIFIED;
    }
    return HOOK_CONTINUE;
}

static int on_filter(hook_call *call, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    return json_integer_value(json_object_get(call->data, "line")) == 3 ? HOOK_VETO : HOOK_CONTINUE;
}

static int on_open(hook_call *call, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    json_object_set_new(call->data, "licence", json_string("MIT"));
    return HOOK_MODIFIED;
}

static void test_hooks(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    data_options o = options(k);
    o.hooks = hook_new();
    hook_on(o.hooks, HOOK_DATA_OPEN, "t", 0, on_open, NULL, &e);
    hook_on(o.hooks, HOOK_DATA_RECORD, "t", 0, on_record, NULL, &e);
    hook_on(o.hooks, HOOK_DATA_FILTER, "t", 0, on_filter, NULL, &e);
    char *path = put(k, "h.txt", "two\nveto\nthree\nfour\n"),
         *bad = put(k, "f.txt", "fine\nfail\n");
    dataset *d = load(&o, path);
    assert_int_equal(d->n_rows, 3);
    assert_int_equal(d->n_rejects, 2);
    assert_string_equal(d->rejects[0].reason, "data.record: refused by t: do not like it");
    assert_string_equal(d->rejects[1].reason, "data.filter: refused by t: no reason given");
    json_t *sources = dataset_sources(d);
    assert_string_equal(json_string_value(json_object_get(json_array_get(sources, 0), "licence")),
                        "MIT");
    json_decref(sources);
    dataset_close(d);
    refused(&o, bad, HONE_EINTERNAL, "f.txt:2: data.record: t failed: broke");
    hook_free(o.hooks);
    free(path);
    free(bad);
}

/* ---- real data ---- */

static void check_real(const aid_texts *k, const char *entry, size_t rows,
                       const char *template_name)
{
    hone_err e = {0};
    data_options o = options(k);
    dataset *d;
    json_t *spec;
    chat *c = NULL;
    assert_int_equal(js_parse(&spec, entry, strlen(entry), &e), 0);
    char *path = aid_shared(json_string_value(json_object_get(spec, "path")));
    char *template = template_name != NULL ? aid_shared(template_name) : NULL;
    if (path == NULL || (template_name != NULL && template == NULL))
        skip();
    json_object_set_new(spec, "path", json_string(path));
    if (template != NULL && chat_open(&c, GOLDEN "model", template, &e) != 0)
        fail_msg("%s", e.msg);
    o.chat = c != NULL ? c : k->chat;
    o.sequence_len = 1 << 20;
    if (dataset_open(&d, spec, &o, &e) != 0)
        fail_msg("%s", e.msg);
    if (d->n_rejects > 0)
        fail_msg("%s:%lld: %s", path, (long long)d->rejects[0].line, d->rejects[0].reason);
    assert_int_equal(d->n_rows, rows);
    dataset_close(d);
    chat_close(c);
    json_decref(spec);
    free(template);
    free(path);
}

static void test_real_data(void **state)
{
    const aid_texts *k = *state;
    check_real(k, "{\"path\":\"data/datasets/wikisql/train.jsonl\"}", 1000, NULL);
    check_real(
        k,
        "{\"path\":\"data/datasets/gsm8k/train.jsonl\",\"type\":\"alpaca\",\"field_instruction\":"
        "\"question\",\"field_output\":\"answer\"}",
        7473, NULL);
    check_real(k, "{\"path\":\"data/datasets/llamafactory/identity.json\"}", 91, NULL);
    check_real(k, "{\"path\":\"data/datasets/llamafactory/glaive_toolcall_en_demo.json\"}", 300,
               "data/chat-templates/trl_trl_chat_templates_qwen2_5.jinja");
    check_real(k, "{\"path\":\"data/datasets/llamafactory/c4_demo.jsonl\"}", 300, NULL);
    check_real(k, "{\"path\":\"data/datasets/llamafactory/wiki_demo.txt\"}", 30, NULL);
}

static void test_real_preference_data_is_refused(void **state)
{
    const aid_texts *k = *state;
    data_options o = options(k);
    char *dpo = aid_shared("data/datasets/llamafactory/dpo_en_demo.json");
    char *kto = aid_shared("data/datasets/llamafactory/kto_en_demo.json");
    if (dpo == NULL || kto == NULL)
        skip();
    refused(&o, dpo, HONE_EUNSUPPORTED,
            "dpo_en_demo.json:2: field 'chosen': preference pairs cannot be trained on as "
            "examples; set 'type' if "
            "these records are good answers");
    refused(&o, kto, HONE_EUNSUPPORTED,
            "kto_en_demo.json:2: field 'label': rated answers cannot be trained on as examples; "
            "set 'type' if "
            "these records are good answers");
    free(dpo);
    free(kto);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_text_and_pairs),
        cmocka_unit_test(test_bos_policy),
        cmocka_unit_test(test_too_long_is_an_error),
        cmocka_unit_test(test_truncate_keeps_stop_tokens),
        cmocka_unit_test(test_split_loses_no_target),
        cmocka_unit_test(test_every_row_is_accounted_for),
        cmocka_unit_test(test_no_usable_row_is_an_error),
        cmocka_unit_test(test_split_is_stable),
        cmocka_unit_test(test_hooks),
        cmocka_unit_test(test_real_data),
        cmocka_unit_test(test_real_preference_data_is_refused),
    };
    return cmocka_run_group_tests(tests, aid_texts_open, aid_texts_close);
}

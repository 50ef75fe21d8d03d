/* Every hook point of data has the effect that its row promises. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/data/dataset.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_train.h"

#include <stdlib.h>
#include <string.h>

/* Loads these lines with hooks; the code and message of what goes wrong. */
static int load(const aid_texts *k, dataset **d, hooks *h, const char *name, const char *lines,
                hone_err *e)
{
    char *path = path_join(k->dir, name);
    const data_options o = {
        .tok = k->tok, .chat = k->chat, .no_chat = "", .sequence_len = 512, .hooks = h};
    assert_int_equal(file_write(path, lines, strlen(lines), e), 0);
    json_t *entry = json_string(path);
    int rc = dataset_open(d, entry, &o, e);
    json_decref(entry);
    free(path);
    return rc;
}

/* The text of sample i; what is learnt stands in brackets when `marked`. Caller frees. */
static char *text_of(const aid_texts *k, const dataset *d, size_t i, bool marked)
{
    hone_err e = {0};
    buf b;
    const data_sample *s = &d->samples[i];
    bool on = false;
    buf_init(&b, 1 << 20);
    for (int64_t t = 0; t <= s->n; t++) {
        bool now = marked && t < s->n && d->mask[s->start + (size_t)t] != 0;
        if (now != on)
            buf_char(&b, now ? '[' : ']');
        on = now;
        if (t < s->n)
            assert_int_equal(tok_decode(k->tok, &d->ids[s->start + (size_t)t], 1, true, &b, &e), 0);
    }
    return buf_take(&b, NULL);
}

static void on(hooks *h, hook_point p, hook_fn *fn)
{
    assert_int_equal(hook_on(h, p, "t", 0, fn, NULL, NULL), 0);
}

static const char *field(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* ---- data.normalize ---- */

static int shout(hook_call *c, void *user, hone_err *e)
{
    char text[64];
    (void)user;
    snprintf(text, sizeof text, "%s", field(c->data, "text"));
    if (strcmp(text, "broken") == 0)
        return hone_fail(e, HONE_EFORMAT, "cannot");
    for (char *s = text; *s != '\0'; s++)
        *s = *s >= 'a' && *s <= 'z' ? (char)(*s - 32) : *s;
    if (field(c->data, "role") != NULL && strcmp(field(c->data, "role"), "user") != 0)
        return HOOK_CONTINUE;
    json_object_set_new(c->data, "text", json_string(text));
    return HOOK_MODIFIED;
}

static void test_normalize_changes_texts(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    dataset *d;
    hooks *h = hook_new();
    on(h, HOOK_DATA_NORMALIZE, shout);
    assert_int_equal(load(k, &d, h, "a.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"broken\"}\n", &e),
                     0);
    char *text = text_of(k, d, 0, false), *kept = text_of(k, d, 1, false);
    assert_string_equal(text, "ABC");
    assert_string_equal(kept, "broken"); /* fails open: as it was */
    free(text);
    free(kept);
    dataset_close(d);
    assert_int_equal(load(k, &d, h, "m.jsonl",
                          "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, "
                          "{\"role\": \"assistant\", \"content\": \"yes\"}]}\n",
                          &e),
                     0);
    text = text_of(k, d, 0, false);
    assert_non_null(strstr(text, "HI"));
    assert_non_null(strstr(text, "yes"));
    free(text);
    dataset_close(d);
    hook_free(h);
}

/* ---- data.tag, data.filter ---- */

static int count_bytes(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    json_int_t n =
        (json_int_t)json_string_length(json_object_get(json_object_get(c->data, "record"), "text"));
    json_object_set_new(json_object_get(c->data, "tags"), "bytes", json_integer(n));
    json_object_set_new(json_object_get(c->data, "record"), "text", json_string("changed"));
    return HOOK_MODIFIED;
}

static int drop_short(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    json_int_t n = json_integer_value(json_object_get(json_object_get(c->data, "tags"), "bytes"));
    if (n >= 4)
        return HOOK_CONTINUE;
    snprintf(c->reason, sizeof c->reason, "only %d bytes", (int)n);
    return HOOK_VETO;
}

static void test_tags_are_seen_by_filters_and_change_nothing(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    dataset *d;
    hooks *h = hook_new();
    on(h, HOOK_DATA_TAG, count_bytes);
    on(h, HOOK_DATA_FILTER, drop_short);
    assert_int_equal(load(k, &d, h, "t.jsonl", "{\"text\": \"abc\"}\n{\"text\": \"abcd\"}\n", &e),
                     0);
    assert_int_equal(d->n_rows, 1);
    assert_string_equal(d->rejects[0].reason, "data.filter: refused by t: only 3 bytes");
    char *text = text_of(k, d, 0, false);
    assert_string_equal(text, "abcd");
    free(text);
    dataset_close(d);
    hook_free(h);
}

/* ---- data.pii ---- */

static const char *spans; /* what find answers, as JSON */

static int find(hook_call *c, void *user, hone_err *e)
{
    json_t *list;
    (void)user;
    assert_int_equal(js_parse(&list, spans, strlen(spans), e), 0);
    json_object_set_new(json_object_get(c->data, "tags"), "pii", list);
    return HOOK_MODIFIED;
}

static int redact(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    if (strcmp(field(c->data, "kind"), "secret") == 0)
        return HOOK_VETO;
    if (strcmp(field(c->data, "kind"), "name") != 0)
        return HOOK_CONTINUE; /* the default replacement */
    json_object_set_new(c->data, "replacement", json_string("X."));
    return HOOK_MODIFIED;
}

static char *redacted(const aid_texts *k, const char *found, hooks *h)
{
    hone_err e = {0};
    dataset *d;
    spans = found;
    if (load(k, &d, h, "p.jsonl", "{\"text\": \"ann: a@b.c, bob\"}\n", &e) != 0)
        return mem_strdup(strstr(e.msg, "data.pii"));
    char *text = text_of(k, d, 0, false);
    dataset_close(d);
    return text;
}

static void test_spans_of_personal_data_are_replaced(void **state)
{
    static const struct {
        const char *spans, *text;
    } rows[] = {
        {"[{\"field\": \"text\", \"start\": 0, \"end\": 3, \"kind\": \"name\"},"
         " {\"field\": \"text\", \"start\": 12, \"end\": 15, \"kind\": \"name\"},"
         " {\"field\": \"text\", \"start\": 5, \"end\": 10, \"kind\": \"email\"}]",
         "X.: <EMAIL>, X."},
        /* one reaches into the other: nothing of either stays */
        {"[{\"field\": \"text\", \"start\": 0, \"end\": 7, \"kind\": \"name\"},"
         " {\"field\": \"text\", \"start\": 5, \"end\": 10, \"kind\": \"email\"}]",
         "X., bob"},
        {"[{\"field\": \"text\", \"start\": 12, \"end\": 99, \"kind\": \"name\"}]",
         "data.pii: span 0 of tags.pii, [12, 99), is no part of text (15 bytes)"},
        {"[{\"field\": \"prompt\", \"start\": 1, \"end\": 2, \"kind\": \"name\"}]",
         "data.pii: span 0 of tags.pii needs field (of a text of the record), start, end and kind"},
        {"[{\"field\": \"text\", \"start\": 1, \"end\": 2, \"kind\": \"secret\"}]",
         "data.pii: refused by t: no reason given"},
    };
    const aid_texts *k = *state;
    hooks *h = hook_new();
    on(h, HOOK_DATA_TAG, find);
    on(h, HOOK_DATA_PII, redact);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = redacted(k, rows[i].spans, h);
        assert_string_equal(text, rows[i].text);
        free(text);
    }
    hook_free(h);
}

/* ---- data.split ---- */

static int by_text(hook_call *c, void *user, hone_err *e)
{
    const char *text = field(json_object_get(c->data, "record"), "text");
    (void)user;
    (void)e;
    assert_int_equal(strlen(field(c->data, "key")), 16);
    if (strncmp(text, "auto", 4) == 0)
        return HOOK_CONTINUE;
    json_object_set_new(c->data, "split", json_string(text));
    return HOOK_MODIFIED;
}

static void test_split_decides_the_part(void **state)
{
    const aid_texts *k = *state;
    hone_err e = {0};
    dataset *d;
    data_view train, val;
    hooks *h = hook_new();
    on(h, HOOK_DATA_SPLIT, by_text);
    assert_int_equal(load(k, &d, h, "s.jsonl",
                          "{\"text\": \"train\"}\n{\"text\": \"val\"}\n{\"text\": \"none\"}\n"
                          "{\"text\": \"auto1\"}\n{\"text\": \"auto2\"}\n",
                          &e),
                     0);
    assert_int_equal(d->n_rows, 4);
    assert_string_equal(d->rejects[0].reason, "data.split: it goes to no part");
    assert_int_equal(data_view_split(&train, &val, d, 0, &e), 0);
    assert_int_equal(train.n, 3);
    assert_int_equal(val.n, 1);
    char *text = text_of(k, d, val.sample[0], false);
    assert_string_equal(text, "val");
    free(text);
    data_view_free(&train);
    data_view_free(&val);
    assert_int_equal(data_view_split(&train, &val, d, 1, &e), 0); /* one of the others besides */
    assert_int_equal(train.n, 2);
    assert_int_equal(val.n, 2);
    data_view_free(&train);
    data_view_free(&val);
    dataset_close(d);
    assert_int_equal(load(k, &d, h, "w.jsonl", "{\"text\": \"maybe\"}\n", &e), HONE_EINTERNAL);
    assert_non_null(strstr(e.msg, "data.split: 'maybe' is none of train, val and none"));
    assert_int_equal(load(k, &d, h, "v.jsonl", "{\"text\": \"val\"}\n", &e), 0);
    assert_int_equal(data_view_split(&train, &val, d, 0, &e), HONE_EINVAL);
    dataset_close(d);
    hook_free(h);
}

static int look_at_id(hook_call *c, void *user, hone_err *e)
{
    (void)e;
    json_array_append(user, json_object_get(c->data, "id"));
    return HOOK_CONTINUE;
}

/* By the record as it stands in the file: sha256sum of the id, or of the compact record. */
static void test_rows_are_named(void **state)
{
    static const char *const want[] = {"82f3e9c695dc6b8d", "a770d3270c9dcded", "af50cb74de3a8af2"};
    const aid_texts *k = *state;
    hone_err e = {0};
    dataset *d;
    json_t *seen = json_array();
    hooks *h = hook_new();
    assert_int_equal(hook_on(h, HOOK_DATA_SPLIT, "t", 0, look_at_id, seen, &e), 0);
    assert_int_equal(load(k, &d, h, "i.jsonl",
                          "{\"text\": \"a\", \"id\": \"r1\"}\n{\"text\": \"b\", \"id\": -7}\n"
                          "{\"text\": \"h\\u00e9\", \"n\": [1, true]}\n",
                          &e),
                     0);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(json_string_value(json_array_get(seen, i)), want[i]);
        assert_true(d->rows[i].id == strtoull(want[i], NULL, 16));
    }
    dataset_close(d);
    json_decref(seen);
    hook_free(h);
}

/* ---- data.template ---- */

enum { LOOK, REWRITE, SPANS, REFUSE, NONSENSE };
static int what;

static int template(hook_call *c, void *user, hone_err *e)
{
    (void)user;
    (void)e;
    if (what == REFUSE)
        return HOOK_VETO;
    if (what == NONSENSE)
        json_object_set_new(c->data, "learn", json_pack("[[i, i]]", 0, 9999));
    if (what == SPANS)
        json_object_set_new(c->data, "learn", json_pack("[[i, i]]", 0, 40));
    if (what == REWRITE) {
        json_object_set_new(c->data, "text", json_string("ask answer"));
        json_object_set_new(c->data, "learn", json_pack("[[i, i]]", 4, 10));
    }
    return what == LOOK ? HOOK_CONTINUE : HOOK_MODIFIED;
}

static void test_template_decides_text_and_mask(void **state)
{
    const aid_texts *k = *state;
    static const char row[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, "
                              "{\"role\": \"assistant\", \"content\": \"yes\"}]}\n";
    hone_err e = {0};
    dataset *plain, *d;
    hooks *h = hook_new();
    assert_int_equal(load(k, &plain, NULL, "c.jsonl", row, &e), 0);
    on(h, HOOK_DATA_TEMPLATE, template);
    what = LOOK;
    assert_int_equal(load(k, &d, h, "c.jsonl", row, &e), 0);
    assert_int_equal(d->n_tokens, plain->n_tokens);
    assert_memory_equal(d->ids, plain->ids, d->n_tokens * sizeof *d->ids);
    assert_memory_equal(d->mask, plain->mask, d->n_tokens);
    dataset_close(d);
    what = REWRITE;
    assert_int_equal(load(k, &d, h, "c.jsonl", row, &e), 0);
    char *text = text_of(k, d, 0, true);
    assert_string_equal(text, "ask[ answer]");
    free(text);
    dataset_close(d);
    what = SPANS; /* the same text, learnt elsewhere */
    assert_int_equal(load(k, &d, h, "c.jsonl", row, &e), 0);
    assert_memory_equal(d->ids, plain->ids, d->n_tokens * sizeof *d->ids);
    assert_memory_not_equal(d->mask, plain->mask, d->n_tokens);
    dataset_close(d);
    what = REFUSE;
    assert_true(load(k, &d, h, "c.jsonl", row, &e) < 0);
    assert_non_null(strstr(e.msg, "data.template: refused by t"));
    what = NONSENSE;
    assert_int_equal(load(k, &d, h, "c.jsonl", row, &e), HONE_EINTERNAL);
    dataset_close(plain);
    hook_free(h);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalize_changes_texts),
        cmocka_unit_test(test_tags_are_seen_by_filters_and_change_nothing),
        cmocka_unit_test(test_spans_of_personal_data_are_replaced),
        cmocka_unit_test(test_split_decides_the_part),
        cmocka_unit_test(test_rows_are_named),
        cmocka_unit_test(test_template_decides_text_and_mask),
    };
    return cmocka_run_group_tests(tests, aid_texts_open, aid_texts_close);
}

#include "core/base/js.h"
#include "core/data/formats.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *text)
{
    json_t *v;
    hone_err e = {0};
    if (js_parse(&v, text, strlen(text), &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return v;
}

/* The canonical form of a record under an entry of `datasets:`, or the error. */
static void check(const char *entry, const char *record, const char *want)
{
    json_t *spec_json = parse(entry), *rec = parse(record), *out = NULL;
    format_spec spec;
    hone_err e = {0};
    int rc = format_spec_read(&spec, spec_json, &e);
    if (rc == 0 && spec.format == NULL)
        rc = format_detect(&spec.format, rec, &spec, &e);
    if (rc == 0)
        rc = spec.format->convert(&out, rec, &spec, &e);
    char *got = rc == 0 ? js_text(out, false) : NULL;
    assert_string_equal(rc == 0 ? got : e.msg, want);
    free(got);
    json_decref(out);
    json_decref(rec);
    json_decref(spec_json);
}

static void test_messages(void **state)
{
    (void)state;
    check("\"a.jsonl\"",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
          "\"content\":\"b\",\"train\":false}]}",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
          "\"content\":\"b\",\"train\":false}]}");
    check("{\"path\":\"a\",\"type\":\"chat_template\",\"field_messages\":\"turns\",\"message_"
          "property_mappings\":"
          "{\"role\":\"who\",\"content\":\"says\"},\"roles\":{\"assistant\":[\"bot\"],\"user\":["
          "\"me\"]}}",
          "{\"turns\":[{\"who\":\"me\",\"says\":\"a\"},{\"who\":\"bot\",\"says\":\"b\"}],\"tools\":"
          "\"[{\\\"name\\\":\\\"f\\\"}]\"}",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
          "\"content\":\"b\"}],"
          "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}");
    check("{\"path\":\"a\",\"type\":\"chat_template\"}", "{\"messages\":[]}",
          "field 'messages' is empty");
    check("{\"path\":\"a\",\"type\":\"chat_template\"}", "{\"text\":\"x\"}",
          "field 'messages' is missing");
    check("{\"path\":\"a\",\"type\":\"chat_template\"}", "{\"messages\":[{\"content\":\"x\"}]}",
          "message 1: field 'role' is missing");
}

static void test_sharegpt(void **state)
{
    (void)state;
    check("\"a.jsonl\"",
          "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"function_call\","
          "\"value\":"
          "\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},{\"from\":\"observation\",\"value\":"
          "\"r\"},"
          "{\"from\":\"gpt\",\"value\":\"b\"}],\"system\":\"s\",\"tools\":\"\"}",
          "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
          "\"a\"},"
          "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"type\":\"function\","
          "\"function\":"
          "{\"name\":\"f\",\"arguments\":{}}}]},{\"role\":\"tool\",\"content\":\"r\"},"
          "{\"role\":\"assistant\",\"content\":\"b\"}]}");
    check("\"a.jsonl\"", "{\"conversations\":[{\"from\":\"alien\",\"value\":\"a\"}]}",
          "message 1: role 'alien' is not known (human, gpt, system, observation, function_call "
          "are; map "
          "others with 'roles')");
}

static void test_alpaca(void **state)
{
    (void)state;
    check(
        "\"a.jsonl\"",
        "{\"instruction\":\"do\",\"input\":\"this\",\"output\":\"done\",\"system\":\"s\","
        "\"history\":[[\"q\",\"a\"]]}",
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
        "\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"do\\nthis\"},"
        "{\"role\":\"assistant\",\"content\":\"done\"}]}");
    check("{\"path\":\"a\",\"type\":\"alpaca\",\"field_instruction\":\"question\",\"field_output\":"
          "\"answer\"}",
          "{\"question\":\"q\",\"answer\":\"a\"}",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
          "\"content\":\"a\"}]}");
    check("\"a.jsonl\"", "{\"instruction\":\"a\",\"output\":\"b\",\"history\":[[\"q\"]]}",
          "field 'history': item 1 is not a pair of texts");
}

static void test_pairs_and_text(void **state)
{
    (void)state;
    check("\"a\"", "{\"prompt\":\"p\",\"completion\":\"c\",\"id\":1}",
          "{\"prompt\":\"p\",\"completion\":\"c\"}");
    check("\"a\"",
          "{\"prompt\":[{\"role\":\"user\",\"content\":\"p\"}],\"completion\":[{\"role\":"
          "\"assistant\",\"content\":\"c\"}]}",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"p\",\"train\":false},{\"role\":"
          "\"assistant\",\"content\":\"c\"}]}");
    check("{\"path\":\"a\",\"type\":\"prompt_completion\"}", "{\"prompt\":\"p\",\"completion\":[]}",
          "fields 'prompt' and 'completion' must both be texts or both lists of messages");
    check("\"a\"", "{\"text\":\"t\",\"meta\":{}}", "{\"text\":\"t\"}");
    check("{\"path\":\"a\",\"type\":\"completion\",\"field\":\"body\"}", "{\"body\":\"t\"}",
          "{\"text\":\"t\"}");
    check("{\"path\":\"a\",\"type\":\"completion\"}", "{\"text\":1}",
          "field 'text' is not a string");
}

static void test_what_cannot_be_trained_on_is_named(void **state)
{
    (void)state;
    check("\"a\"", "{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":\"r\"}",
          "field 'chosen': preference pairs cannot be trained on as examples; set 'type' if these "
          "records are "
          "good answers");
    check("\"a\"", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"label\":false}",
          "field 'label': rated answers cannot be trained on as examples; set 'type' if these "
          "records are good "
          "answers");
    check("\"a\"", "{\"q\":\"p\",\"a\":\"c\"}",
          "fields {q, a} are no known shape; set 'type' and the names of the fields");
}

static void test_entries(void **state)
{
    (void)state;
    check("{\"path\":\"a\",\"type\":\"alpacca\"}", "{}",
          "'type' is 'alpacca'; known are auto, chat_template, sharegpt, alpaca, "
          "prompt_completion, completion "
          "(did you mean 'alpaca'?)");
    check("{\"path\":\"a\",\"field_mesages\":\"x\"}", "{}",
          "unknown field 'field_mesages' (did you mean 'field_messages'?)");
    check("{\"type\":\"alpaca\"}", "{}", "field 'path' is missing");
    check("{\"path\":\"a\",\"ds_type\":\"csv\"}", "{}", "'ds_type' cannot be 'csv'");
    check("{\"path\":\"a\",\"roles\":{\"user\":\"me\"}}", "{}",
          "'roles': 'user' is not a list of names");
    check("7", "{}", "not a path or a mapping");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_sharegpt),
        cmocka_unit_test(test_alpaca),
        cmocka_unit_test(test_pairs_and_text),
        cmocka_unit_test(test_what_cannot_be_trained_on_is_named),
        cmocka_unit_test(test_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

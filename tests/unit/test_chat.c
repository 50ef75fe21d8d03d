#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/text/chat.h"
#include "core/text/tok.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <stdlib.h>
#include <string.h>

static tok *tokenizer(void)
{
    tok *t;
    hone_err e = {0};
    if (tok_open(&t, "tests/golden/chat", &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static json_t *parse(const char *text)
{
    json_t *j;
    hone_err e = {0};
    if (js_parse(&j, text, strlen(text), &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return j;
}

static void put(const char *dir, const char *name, const char *text)
{
    hone_err e = {0};
    char *path = path_join(dir, name), *parent = path_dir(path);
    assert_int_equal(dir_make(parent, &e), 0);
    assert_int_equal(file_write(path, text, strlen(text), &e), 0);
    free(parent);
    free(path);
}

static chat *chat_of(const char *dir, const char *template)
{
    chat *c;
    hone_err e = {0};
    put(dir, "chat_template.jinja", template);
    put(dir, "tokenizer_config.json", "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}");
    if (chat_open(&c, dir, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    return c;
}

/* The text of the tokens, supervised ones in brackets; or the error. Caller frees. */
static char *show(const chat *c, const tok *t, const char *messages, const chat_options *o,
                  chat_turns turns)
{
    chat_tokens k;
    hone_err e = {0};
    json_t *m = parse(messages);
    buf b;
    int rc = chat_encode(c, t, m, o, turns, &k, &e);
    json_decref(m);
    if (rc != 0) {
        assert_null(k.id);
        return mem_printf("%s: %s", hone_errname(rc), e.msg);
    }
    buf_init(&b, 1 << 20);
    for (size_t i = 0; i < k.n; i++) {
        if (k.mask[i] && (i == 0 || !k.mask[i - 1]))
            buf_char(&b, '{');
        assert_int_equal(tok_token_bytes(t, k.id[i], &b, &e), 0);
        if (k.mask[i] && (i + 1 == k.n || !k.mask[i + 1]))
            buf_char(&b, '}');
    }
    chat_tokens_free(&k);
    return buf_take(&b, NULL);
}

/* ---- masks against transformers ---- */

static char *without_marks(const char *template)
{
    static const char *const marks[] = {"{% generation %}", "{% endgeneration %}",
                                        "{%- generation %}"};
    char *out = mem_strdup(template);
    for (size_t i = 0; i < 3; i++)
        for (char *at; (at = strstr(out, marks[i])) != NULL;) {
            /* "{%-" also takes the white space before it, so an empty print stays in its place */
            static const char print[] = "{{- '' }}";
            size_t n = strlen(marks[i]), keep = i == 2 ? sizeof print - 1 : 0;
            memcpy(at, print, keep);
            memmove(at + keep, at + n, strlen(at + n) + 1);
        }
    return out;
}

static const json_t *conversation(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(list, i), "name")), name) == 0)
            return json_object_get(json_array_get(list, i), "context");
    fail_msg("no conversation '%s'", name);
    return NULL;
}

static void compare(const chat *c, const tok *t, const json_t *row, const json_t *context,
                    bool lead, int *n_wrong)
{
    const json_t *ids = json_object_get(row, "ids");
    const char *mask = json_string_value(json_object_get(row, "mask"));
    chat_options o = {.train_lead = lead, .tools = json_object_get(context, "tools")};
    chat_tokens k;
    hone_err e = {0};
    int rc = chat_encode(c, t, json_object_get(context, "messages"), &o, CHAT_TRAIN_ALL, &k, &e);
    bool right = rc == 0 && k.n == json_array_size(ids);
    for (size_t i = 0; right && i < k.n; i++)
        right = k.id[i] == json_integer_value(json_array_get(ids, i)) &&
                k.mask[i] == mask[i] - '0' && (!k.mask[i] || k.turn[i] >= 0);
    /* without the marks an empty message cannot be seen, and that is said */
    if (lead && rc == HONE_EFORMAT && strstr(e.msg, "shows nothing") != NULL)
        right = strcmp(json_string_value(json_object_get(row, "conversation")), "tools") == 0;
    if (!right) {
        print_error("%s, %s, %s: %s\n", json_string_value(json_object_get(row, "template")),
                    json_string_value(json_object_get(row, "conversation")),
                    lead ? "without marks" : "with marks", rc != 0 ? e.msg : "another mask");
        for (size_t i = 0; rc == 0 && i < k.n; i++)
            print_error("%d", k.mask[i]);
        print_error("\n%s\n", mask);
        *n_wrong += 1;
    }
    chat_tokens_free(&k);
}

/* The marked templates give transformers' own masks; so do the same templates without their
 * {% generation %} marks, where only the provenance of the text is left. */
static void test_masks_are_transformers(void **state)
{
    const char *dir = *state;
    hone_err e = {0};
    json_t *rows, *conversations;
    tok *t = tokenizer();
    int wrong = 0;
    assert_int_equal(js_load(&rows, "tests/golden/chat/masks.json", &e), 0);
    assert_int_equal(js_load(&conversations, "tests/golden/jinja/conversations.json", &e), 0);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        char *path =
            path_join("tests/golden/jinja", json_string_value(json_object_get(row, "template")));
        char *marked = aid_text(path), *plain = without_marks(marked);
        const json_t *context =
            conversation(conversations, json_string_value(json_object_get(row, "conversation")));
        chat *c = chat_of(dir, marked);
        compare(c, t, row, context, false, &wrong);
        chat_close(c);
        c = chat_of(dir, plain);
        compare(c, t, row, context, true, &wrong);
        chat_close(c);
        free(plain);
        free(marked);
        free(path);
    }
    assert_int_equal(wrong, 0);
    assert_true(json_array_size(rows) > 20);
    json_decref(rows);
    json_decref(conversations);
    tok_close(t);
}

/* ---- masks by hand ---- */

#define CHATML                                                                                     \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"   \
    "{% endfor %}"
#define TWO_TURNS                                                                                  \
    "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"one\"}," \
    " {\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"two\"}]"

static void test_masks(void **state)
{
    const char *dir = *state;
    static const struct {
        const char *template, *messages, *want;
        chat_turns turns;
        bool lead;
    } cases[] = {
        {CHATML, TWO_TURNS,
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{one<|im_end|>}\n"
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{two<|im_end|>}\n",
         CHAT_TRAIN_ALL, false},
        {CHATML, TWO_TURNS,
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n"
         "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{two<|im_end|>}\n",
         CHAT_TRAIN_LAST, false},
        {CHATML,
         "[{\"role\": \"assistant\", \"content\": \"one\", \"train\": false},"
         " {\"role\": \"assistant\", \"content\": \"two\"}]",
         "<|im_start|>assistant\none<|im_end|>\n<|im_start|>assistant\n{two<|im_end|>}\n",
         CHAT_TRAIN_ALL, false},
        {CHATML,
         "[{\"role\": \"assistant\", \"content\": \"one\", \"train\": true},"
         " {\"role\": \"assistant\", \"content\": \"two\"}]",
         "<|im_start|>assistant\n{one<|im_end|>}\n<|im_start|>assistant\n{two<|im_end|>}\n",
         CHAT_TRAIN_LAST, false},
        /* the same text from the user is not the assistant's */
        {CHATML,
         "[{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", \"content\": "
         "\"one\"}]",
         "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n{one<|im_end|>}\n",
         CHAT_TRAIN_ALL, false},
        /* a token that begins in the template's blank is the message's first token */
        {"{% for m in messages %}{{ m.role ~ ':' }} {{ m.content }}{{ eos_token }}{% endfor %}",
         "[{\"role\": \"assistant\", \"content\": \"two\"}]", "assistant:{ two</s>}",
         CHAT_TRAIN_ALL, false},
        /* added tokens that are not special belong to the turn */
        {"{% for m in messages %}<|im_start|>{{ m.role }}\n"
         "<tool_call>{{ m.name }}</tool_call>\n{{ eos_token }}{% endfor %}",
         "[{\"role\": \"assistant\", \"name\": \"two\"}]",
         "<|im_start|>assistant\n<tool_call>{two</tool_call>\n</s>}", CHAT_TRAIN_ALL, false},
        /* ... and with train_lead so does what opens it */
        {"{% for m in messages %}<|im_start|>{{ m.role }}\n"
         "<tool_call>{{ m.name }}</tool_call>\n{{ eos_token }}{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
         "[{\"role\": \"user\", \"name\": \"a\"}, {\"role\": \"assistant\", \"name\": \"two\"}]",
         "<|im_start|>user\n<tool_call>a</tool_call>\n</s><|im_start|>assistant\n"
         "{<tool_call>two</tool_call>\n</s>}",
         CHAT_TRAIN_ALL, true},
        /* template text between two pieces of a message is the message's */
        {"{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ p.text }} / {% endfor %}"
         "{{ eos_token }}{% endfor %}",
         "[{\"role\": \"assistant\", \"content\": [{\"text\": \"two\"}, {\"text\": \"one\"}]}]",
         "assistant:{ two / one / </s>}", CHAT_TRAIN_ALL, false},
        /* errors */
        {CHATML, "[{\"role\": \"user\", \"content\": \"Hi\"}]",
         "ENOTFOUND: no token is supervised (1 messages)", CHAT_TRAIN_ALL, false},
        {CHATML, "[{\"role\": \"assistant\", \"content\": \"\"}]",
         "EFORMAT: message 0: the template shows nothing of this assistant message; give it "
         "content, or \"train\": false",
         CHAT_TRAIN_ALL, false},
        {"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", TWO_TURNS,
         "EFORMAT: message 1: the template ends the assistant turn without a stop token (message 2 "
         "follows); write eos_token there",
         CHAT_TRAIN_ALL, false},
        {"{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", TWO_TURNS,
         "EFORMAT: message 3: the template puts no stop token after the last message; write "
         "eos_token there",
         CHAT_TRAIN_LAST, false},
        {"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}",
         TWO_TURNS,
         "EFORMAT: message 1: the template ends the assistant turn without a stop token "
         "('<|im_start|>' follows); write eos_token there",
         CHAT_TRAIN_ALL, false},
        {"{{ bos_token }}" CHATML, "[{\"role\": \"assistant\", \"content\": \"x\", \"train\": 1}]",
         "EFORMAT: message 0: train is neither true nor false", CHAT_TRAIN_ALL, false},
        {CHATML, "[{\"role\": \"user\", \"content\": \"x\", \"train\": true}]",
         "EFORMAT: message 0: train is true, but it is not an assistant message", CHAT_TRAIN_ALL,
         false},
        {"{{ bos_token + messages[0].content }}</s>",
         "[{\"role\": \"assistant\", \"content\": \"<s>x\"}]",
         "EFORMAT: the text begins with two BOS tokens: the template writes one, and the first "
         "message another",
         CHAT_TRAIN_ALL, false},
    };
    tok *t = tokenizer();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        chat_options o = {.train_lead = cases[i].lead};
        chat *c = chat_of(dir, cases[i].template);
        char *got = show(c, t, cases[i].messages, &o, cases[i].turns);
        assert_string_equal(got, cases[i].want);
        free(got);
        chat_close(c);
    }
    tok_close(t);
}

static void test_turns(void **state)
{
    chat *c = chat_of(*state, CHATML);
    tok *t = tokenizer();
    json_t *m = parse(TWO_TURNS);
    chat_tokens k;
    hone_err e = {0};
    int last = -1;
    assert_int_equal(chat_encode(c, t, m, NULL, CHAT_TRAIN_LAST, &k, &e), 0);
    for (size_t i = 0; i < k.n; i++) { /* 0, 1, 2, 3 in their order, template text between */
        assert_true(k.turn[i] == -1 || k.turn[i] == last || k.turn[i] == last + 1);
        if (k.turn[i] >= 0)
            last = k.turn[i];
    }
    assert_int_equal(last, 3);
    chat_tokens_free(&k);
    json_decref(m);
    tok_close(t);
    chat_close(c);
}

/* ---- opening ---- */

static char *rendered(const chat *c, const char *messages, const chat_options *o)
{
    json_t *m = parse(messages);
    hone_err e = {0};
    buf b;
    buf_init(&b, 1 << 20);
    int rc = chat_render(c, m, o, &b, &e);
    char *got = rc == 0 ? mem_strdup(b.data) : mem_strdup(e.msg);
    buf_free(&b);
    json_decref(m);
    return got;
}

static void test_where_templates_are(void **state)
{
    const char *dir = *state;
    static const char hi[] = "[{\"role\": \"user\", \"content\": \"Hi\"}]";
    chat *c;
    hone_err e = {0};
    json_t *tools = parse("[{\"name\": \"f\"}]");
    chat_options with_tools = {.tools = tools};
    char *want = mem_printf("%s: the model has no chat template (no chat_template.jinja, no "
                            "chat_template in tokenizer_config.json); name a template file",
                            dir);
    assert_int_equal(chat_open(&c, dir, NULL, &e), HONE_ENOTFOUND);
    assert_null(c);
    assert_string_equal(e.msg, want);
    free(want);

    put(dir, "tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T{{ tools | tojson }}\"},"
        " {\"name\": \"default\", \"template\": \"D{{ eos_token }}{{ bos_token }}{{ pad_token "
        "}}\"}],"
        " \"eos_token\": {\"content\": \"<e>\"}, \"bos_token\": null, \"add_bos_token\": true}");
    put(dir, "special_tokens_map.json", "{\"pad_token\": \"<p>\", \"eos_token\": \"<x>\"}");
    assert_int_equal(chat_open(&c, dir, NULL, &e), 0);
    char *got = rendered(c, hi, NULL), *tool = rendered(c, hi, &with_tools);
    assert_string_equal(got, "D<e><p>");
    assert_string_equal(tool, "T[{\"name\": \"f\"}]");
    assert_string_equal(chat_tool_source(c), "T{{ tools | tojson }}");
    free(got);
    free(tool);
    char digest[65];
    memcpy(digest, chat_digest(c), 65);
    char *copy = path_join(dir, "copy");
    assert_int_equal(chat_save(c, copy, &e), 0);
    chat_close(c);
    assert_int_equal(chat_open(&c, copy, NULL, &e), 0); /* the saved files are the same template */
    assert_string_equal(chat_digest(c), digest);
    chat_close(c);
    free(copy);

    put(dir, "chat_template.jinja", "J{{ messages[0].content }}");
    assert_int_equal(chat_open(&c, dir, NULL, &e), 0);
    assert_string_equal(chat_source(c), "J{{ messages[0].content }}");
    assert_null(chat_tool_source(c));
    chat_close(c);

    char *file = path_join(dir, "own");
    put(dir, "own", "a\n{{ x.y");
    assert_int_equal(chat_open(&c, dir, file, &e), HONE_EFORMAT);
    want = mem_printf("%s: template: line 2: expected '}}', got the end of the template", file);
    assert_string_equal(e.msg, want);
    free(want);
    free(file);
    json_decref(tools);
}

static void test_render_errors(void **state)
{
    chat *c = chat_of(*state, "{{ messages[0].content.x.y }}");
    static const struct {
        const char *messages, *message;
    } cases[] = {
        {"{}", "messages is not a list"},
        {"[]", "there are no messages"},
        {"[1]", "message 0 is not an object"},
        {"[{\"role\": \"user\"}, {\"content\": \"x\"}]", "message 1 has no role"},
        {"[{\"role\": \"user\", \"content\": \"x\"}]",
         "template: line 1: 'str object' has no attribute 'x'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = rendered(c, cases[i].messages, NULL);
        assert_string_equal(got, cases[i].message);
        free(got);
    }
    json_t *extra = parse("{\"tools\": []}");
    chat_options o = {.extra = extra};
    char *got = rendered(c, "[{\"role\": \"user\"}]", &o);
    assert_string_equal(got, "chat_template_kwargs may not set tools");
    free(got);
    json_decref(extra);
    chat_close(c);
}

/* Messages as transformers hands them on. */
static void test_message_fields(void **state)
{
    chat *c = chat_of(*state, "{{ messages[0] }}{{ tools }}{{ documents }}{{ x }}");
    json_t *extra = parse("{\"x\": 5}");
    chat_options o = {.extra = extra};
    char *got = rendered(c,
                         "[{\"role\": \"assistant\", \"content\": null, \"reasoning\": \"r\","
                         " \"train\": true}]",
                         &o);
    assert_string_equal(got, "{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', "
                             "'reasoning_content': 'r'}NoneNone5");
    free(got);
    json_decref(extra);
    chat_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_masks_are_transformers, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_masks, aid_dir_quick_setup, aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_turns, aid_dir_setup, aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_where_templates_are, aid_dir_setup, aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_render_errors, aid_dir_setup, aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_message_fields, aid_dir_setup, aid_dir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/text/jinja.h"
#include "tests/unit/aid.h"

#include <stdlib.h>
#include <string.h>

static const char folder[] = "tests/golden/jinja";

/* Renders with a JSON context; returns the text or the error's message, which the caller frees. */
static char *render_with(const char *template, size_t n, const json_t *context,
                         const jinja_limits *lim, jinja_spans *spans, int *code)
{
    hone_err e = {0};
    jinja *t;
    buf out;
    buf_init(&out, 64 << 20);
    *code = jinja_compile(&t, template, n, &e);
    if (*code == 0)
        *code = jinja_render(t, context, lim, &out, spans, &e);
    else
        assert_null(t);
    assert_int_equal(*code, e.code);
    char *text = *code == 0 ? mem_strndup(out.data, out.len) : mem_strdup(e.msg);
    assert_true(*code == 0 || out.len == 0);
    jinja_free(t);
    buf_free(&out);
    return text;
}

static json_t *parse(const char *text)
{
    json_t *j;
    hone_err e = {0};
    if (js_parse(&j, text, strlen(text), &e) != 0)
        fail_msg("%s: %s", text, e.msg);
    return j;
}

static char *render(const char *template, const char *context, int *code)
{
    json_t *c = parse(context);
    char *text = render_with(template, strlen(template), c, NULL, NULL, code);
    json_decref(c);
    return text;
}

/* ---- the committed cases ---- */

typedef struct group {
    const char *name, *template, *context, *expected;
    int code; /* of the error, or 0 */
} group;

/* Cuts the file's text in place; returns where the next group begins, NULL at the end. */
static char *next_group(char *at, group *g)
{
    static const struct {
        const char *head;
        size_t offset;
        int code;
    } parts[] = {{"-- template\n", offsetof(group, template), 0},
                 {"-- context\n", offsetof(group, context), 0},
                 {"-- expected\n", offsetof(group, expected), 0},
                 {"-- error\n", offsetof(group, expected), HONE_EFORMAT},
                 {"-- unsupported\n", offsetof(group, expected), HONE_EUNSUPPORTED}};
    *g = (group){.context = "{}"};
    if (strncmp(at, "== ", 3) != 0) {
        at = strstr(at, "\n== ");
        if (at == NULL)
            return NULL;
        at++;
    }
    g->name = at + 3;
    at = strchr(at, '\n');
    *at++ = '\0';
    for (;;) {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            size_t n = strlen(parts[i].head);
            if (strncmp(at, parts[i].head, n) != 0)
                continue;
            at += n;
            *(const char **)((char *)g + parts[i].offset) = at;
            g->code |= parts[i].code;
            break;
        }
        char *part = strncmp(at, "-- ", 3) == 0 ? at - 1 : strstr(at, "\n-- ");
        char *end = strncmp(at, "== ", 3) == 0 ? at - 1 : strstr(at, "\n== ");
        if (part == NULL || (end != NULL && end < part)) {
            if (end == NULL)
                end = at + strlen(at) - 1;
            end[-1] = '\0'; /* the blank line */
            return *end == '\0' ? end : end + 1;
        }
        *part = '\0';
        at = part + 1;
    }
}

static void test_language(void **state)
{
    (void)state;
    char *path = path_join(folder, "cases.txt"), *text = aid_text(path), *at = text;
    int n = 0, bad = 0;
    group g;
    while ((at = next_group(at, &g)) != NULL) {
        int code;
        char *got = render(g.template, g.context, &code);
        bool right = strcmp(got, g.expected) == 0 &&
                     (code == g.code || (g.code == HONE_EFORMAT && code == HONE_EUNSUPPORTED) ||
                      code == HONE_ELIMIT);
        if (!right)
            print_error("%s (%d):\nexpected %s\ngot      %s\n", g.name, code, g.expected, got);
        bad += !right;
        n++;
        free(got);
        if (*at == '\0')
            break;
    }
    assert_int_equal(bad, 0);
    assert_true(n > 100);
    free(text);
    free(path);
}

static const json_t *find_named(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(c, "name")), name) == 0)
            return c;
    }
    fail_msg("no conversation '%s'", name);
    return NULL;
}

static void test_families(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *rows, *conversations;
    int bad = 0;
    assert_int_equal(js_load(&rows, "tests/golden/jinja/families.json", &e), 0);
    assert_int_equal(js_load(&conversations, "tests/golden/jinja/conversations.json", &e), 0);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *file = json_string_value(json_object_get(row, "template"));
        const char *name = json_string_value(json_object_get(row, "conversation"));
        const char *want = json_string_value(json_object_get(row, "expected"));
        char *path = path_join(folder, file), *source = aid_text(path);
        json_t *context = json_copy(json_object_get(find_named(conversations, name), "context"));
        if (json_object_get(context, "tools") == NULL)
            json_object_set_new(context, "tools", json_null());
        json_object_set_new(context, "bos_token", json_string("<s>"));
        json_object_set_new(context, "eos_token", json_string("</s>"));
        json_object_set(context, "add_generation_prompt", json_object_get(row, "prompt"));
        int code;
        char *got = render_with(source, strlen(source), context, NULL, NULL, &code);
        if (want == NULL ? code == 0 : code != 0 || strcmp(got, want) != 0) {
            print_error("%s, %s:\nexpected %s\ngot      %s\n", file, name,
                        want != NULL ? want : "an error", got);
            bad++;
        }
        free(got);
        json_decref(context);
        free(source);
        free(path);
    }
    assert_int_equal(bad, 0);
    assert_true(json_array_size(rows) > 50);
    json_decref(rows);
    json_decref(conversations);
}

/* ---- the shared cases ---- */

/* A key with a NUL is more than the JSON reader takes: the two cases that have one get \u0001. */
static void no_nul(char *text)
{
    for (char *at = text; (at = strstr(at, "\\u0000")) != NULL; at++)
        at[5] = '1';
}

static json_t *shared_cases(const char *name)
{
    char *path = aid_shared(name);
    if (path == NULL)
        skip();
    char *text = aid_text(path);
    no_nul(text);
    json_t *j = parse(text);
    free(text);
    free(path);
    return j;
}

static const char *text_of(const json_t *c, const char *key)
{
    return json_string_value(json_object_get(c, key));
}

/* What Python makes of a shared case counts, "ERROR: ..." where it fails. */
static bool agrees(const json_t *c, const json_t *context, const char *expected)
{
    const char *python = text_of(c, "python_jinja2"), *template = text_of(c, "template");
    int code;
    if (python != NULL)
        expected = python;
    char *got = render_with(template, strlen(template), context, NULL, NULL, &code);
    bool right = strncmp(expected, "ERROR: ", 7) == 0 ? code == HONE_EFORMAT
                                                      : code == 0 && strcmp(got, expected) == 0;
    if (!right)
        print_error("%s:\nexpected %s\ngot      %s\n", text_of(c, "name"), expected, got);
    free(got);
    return right;
}

static void test_shared_syntax(void **state)
{
    (void)state;
    json_t *cases = shared_cases("data/chat-templates/cases/hfjs_syntax.json");
    int n = 0, bad = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        if (json_is_true(json_object_get(c, "uses_function")))
            continue; /* a function is no JSON */
        char *expected = mem_strdup(text_of(c, "expected"));
        for (char *at = expected; (at = strstr(at, "\\u0000")) != NULL; at++)
            at[5] = '1';
        bad += !agrees(c, json_object_get(c, "context"), expected);
        n++;
        free(expected);
    }
    json_decref(cases);
    assert_int_equal(bad, 0);
    assert_int_equal(n, 157);
}

static void test_shared_templates(void **state)
{
    (void)state;
    json_t *all = shared_cases("data/chat-templates/cases/llamacpp_chat_template.json");
    json_t *cases = json_object_get(all, "cases");
    int bad = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const char *expected = text_of(c, "expected_jinja");
        json_t *context = json_object();
        json_object_set(context, "messages", json_object_get(all, "messages"));
        json_object_set(context, "add_generation_prompt",
                        json_object_get(all, "add_generation_prompt"));
        json_object_set(context, "bos_token", json_object_get(c, "bos_token"));
        json_object_set(context, "eos_token", json_object_get(c, "eos_token"));
        if (expected == NULL || *expected == '\0')
            expected = text_of(c, "expected_llama_cpp_heuristic");
        bad += !agrees(c, context, expected);
        json_decref(context);
    }
    assert_int_equal(json_array_size(cases), 33);
    json_decref(all);
    assert_int_equal(bad, 0);
}

/* Every real template compiles. */
static void test_shared_compile(void **state)
{
    (void)state;
    char *dir = aid_shared("data/chat-templates"), **names;
    hone_err e = {0};
    int n = 0, bad = 0;
    if (dir == NULL)
        skip();
    assert_int_equal(dir_list(&names, dir, &e), 0);
    for (size_t i = 0; names[i] != NULL; i++) {
        jinja *t;
        if (strstr(names[i], ".jinja") == NULL)
            continue;
        char *path = path_join(dir, names[i]), *text = aid_text(path);
        if (jinja_compile(&t, text, strlen(text), &e) != 0) {
            print_error("%s: %s\n", names[i], e.msg);
            bad++;
        }
        n++;
        jinja_free(t);
        free(text);
        free(path);
    }
    dir_list_free(names);
    free(dir);
    assert_int_equal(bad, 0);
    assert_int_equal(n, 128);
}

/* ---- limits ---- */

/* What is hostile ends with ELIMIT, and soon. */
static void test_limits(void **state)
{
    (void)state;
    static const struct {
        const char *template, *message;
    } cases[] = {
        {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
         "template: line 1: the template takes too many steps"},
        {"{{ 'x' * 1000000000 }}", "template: line 1: a sequence longer than 8388608"},
        {"{% set a = [1] * 5000000 %}{% set b = [1] * 5000000 %}",
         "template: line 1: the template needs more than 134217728 bytes of memory"},
        {"{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}"
         "{% set ns.s = ns.s + ns.s %}{% endfor %}",
         "template: line 1: text longer than 8388608 bytes"},
        {"{% set ns = namespace(l=[1]) %}{% for i in range(99) %}"
         "{% set ns.l = ns.l + ns.l %}{% endfor %}",
         "template: line 1: the template needs more than 134217728 bytes of memory"},
        {"{% macro m() %}{{ m() }}{% endmacro %}\n{{ m() }}",
         "template: line 1: macros call each other deeper than 200"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
         "{% endfor %}{{ ns.l }}",
         "template: line 1: values nest deeper than 2000"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}"
         "{% endfor %}{{ ns.l | tojson }}",
         "template: line 1: values nest deeper than 2000"},
        {"{% for i in range(100000) %}{{ '%0100000d' % i }}{% endfor %}",
         "template: line 1: text longer than 8388608 bytes"},
        {"{% set s = 'ab' * 4000000 %}{% for i in range(100000) %}{% if 'c' in s %}{% endif %}"
         "{% endfor %}",
         "template: line 1: the template takes too many steps"},
        {"{{ '{:>999999999999}'.format(1) }}", "template: line 1: text longer than 8388608 bytes"},
        {"{{ 'a'.center(99999999999) }}", "template: line 1: text longer than 8388608 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code;
        int64_t start = clock_thread_ns();
        char *got = render(cases[i].template, "{}", &code);
        assert_string_equal(got, cases[i].message);
        assert_int_equal(code, HONE_ELIMIT);
        /* generous: sanitizers and valgrind */
        assert_true(clock_thread_ns() - start < INT64_C(20000000000));
        free(got);
    }
}

static void assert_too_deep(const char *open, const char *middle, const char *close)
{
    buf b;
    int code;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 5000; i++)
        buf_str(&b, open);
    buf_str(&b, middle);
    for (int i = 0; i < 5000; i++)
        buf_str(&b, close);
    char *got = render(b.data, "{}", &code);
    assert_string_equal(got, "template: line 1: nests deeper than 200");
    assert_int_equal(code, HONE_ELIMIT);
    free(got);
    buf_free(&b);
}

static void test_deep_templates(void **state)
{
    (void)state;
    assert_too_deep("{% if 1 %}", "", "{% endif %}");
    assert_too_deep("{% for i in [1] %}", "", "{% endfor %}");
    assert_too_deep("{{ ", "", " }}" + 3);
}

/* Long chains are no nesting for the parser, but bounded when they run. */
static void test_long_chains(void **state)
{
    (void)state;
    static const char *const links[] = {" + 1", "|string", " if 1 else 2", " or 0", ".a", "[0]"};
    for (size_t k = 0; k < sizeof links / sizeof *links; k++) {
        buf b;
        int code;
        buf_init(&b, 1 << 20);
        buf_str(&b, "{{ 1");
        for (int i = 0; i < 50000; i++)
            buf_str(&b, links[k]);
        buf_str(&b, " }}");
        char *got = render(b.data, "{}", &code);
        assert_true(code == HONE_ELIMIT || code == 0);
        free(got);
        buf_free(&b);
    }
}

static void test_own_limits(void **state)
{
    (void)state;
    static const jinja_limits small = {.max_output = 10, .max_steps = 1000, .max_depth = 3};
    static const struct {
        const char *template, *got;
        int code;
    } cases[] = {
        {"0123456789", "0123456789", 0},
        {"0123456789a", "template: line 1: text longer than 10 bytes", HONE_ELIMIT},
        {"{% for i in range(2000) %}{% endfor %}",
         "template: line 1: the template takes too many steps", HONE_ELIMIT},
        {"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(2) }}", "", 0},
        {"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}",
         "template: line 1: macros call each other deeper than 3", HONE_ELIMIT},
    };
    json_t *none = json_object();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code;
        char *got =
            render_with(cases[i].template, strlen(cases[i].template), none, &small, NULL, &code);
        assert_string_equal(got, cases[i].got);
        assert_int_equal(code, cases[i].code);
        free(got);
    }
    json_decref(none);
}

static void test_bad_sources(void **state)
{
    (void)state;
    json_t *none = json_object();
    int code;
    char *big = mem_alloc((1 << 20) + 1);
    memset(big, 'a', (1 << 20) + 1);
    char *got = render_with(big, (1 << 20) + 1, none, NULL, NULL, &code);
    assert_string_equal(got, "template: 1048577 bytes, at most 1048576 are read");
    assert_int_equal(code, HONE_ELIMIT);
    free(got);
    free(big);
    got = render_with("ab\xff", 3, none, NULL, NULL, &code);
    assert_string_equal(got, "template: byte 2 is not UTF-8");
    assert_int_equal(code, HONE_EFORMAT);
    free(got);
    got = render_with("{{ '\\ud800' }}", 14, none, NULL, NULL, &code);
    assert_string_equal(got, "template: line 1: string with \\ud800, which is not a character");
    assert_int_equal(code, HONE_EUNSUPPORTED);
    free(got);
    json_decref(none);
}

/* What was in the buffer stays, whether the rendering works or not. */
static void test_appends(void **state)
{
    (void)state;
    hone_err e = {0};
    json_t *none = json_object();
    jinja *t;
    buf out;
    buf_init(&out, 8);
    buf_str(&out, "ab");
    assert_int_equal(jinja_compile(&t, "cd", 2, &e), 0);
    assert_int_equal(jinja_render(t, none, NULL, &out, NULL, &e), 0);
    assert_string_equal(out.data, "abcd");
    jinja_free(t);
    assert_int_equal(jinja_compile(&t, "x{{ 1 + none }}", 15, &e), 0);
    assert_int_equal(jinja_render(t, none, NULL, &out, NULL, &e), HONE_EFORMAT);
    assert_int_equal(jinja_render(t, none, NULL, &out, NULL, NULL), HONE_EFORMAT);
    assert_string_equal(out.data, "abcd");
    jinja_free(t);
    buf_free(&out);
    json_decref(none);
}

/* ---- spans ---- */

/* The output with "[i:...]" around the span of message i and "<i:...>" around a generation block;
 * caller frees. */
static char *show_spans(const char *text, const jinja_spans *s)
{
    buf b;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i <= strlen(text); i++) {
        for (size_t k = 0; k < s->n; k++)
            if (s->v[k].end == i && s->v[k].start < i)
                buf_char(&b, s->v[k].generation ? '>' : ']');
        for (size_t k = s->n; k-- > 0;)
            if (s->v[k].start == i)
                buf_printf(&b, "%c%d:", s->v[k].generation ? '<' : '[', s->v[k].origin);
        if (text[i] != '\0')
            buf_char(&b, text[i]);
    }
    return buf_take(&b, NULL);
}

#define ALL "{% for m in messages %}"
#define END "{% endfor %}"

static void test_spans(void **state)
{
    (void)state;
    static const char two[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"},"
                              " {\"role\": \"assistant\", \"content\": \" two two \","
                              "  \"n\": 12, \"f\": 1.5, \"t\": [{\"name\": \"f\", \"args\": "
                              "{\"k\": \"v\", \"q\": 2}}], \"e\": {}}], \"x\": \"X\"}";
    static const struct {
        const char *template, *want;
    } cases[] = {
        /* printing */
        {ALL "<{{ m.role }}>{{ m.content }}." END, "<user>[0:one].<assistant>[1: two two ]."},
        {ALL "{{ m['role'] + ': ' + m['content'] + x }}" END,
         "user: [0:one]Xassistant: [1: two two ]X"},
        {"{{ messages[1].n }}-{{ messages[1].f + 1 }}", "[1:12-2.5]"},
        {"{{ messages[0].content }}{{ messages[1].content }}", "[0:one][1: two two ]"},
        {"{{ messages[0].content }}a{{ messages[0].content }}", "[0:oneaone]"},
        {"{{ messages[0].content }}a{{ messages[1].n }}a{{ messages[0].content }}",
         "[0:one]a[1:12]a[0:one]"},
        /* functions that keep bytes */
        {"a{{ (' ' + messages[1].content + ' ') | trim }}b", "a[1:two two]b"},
        {"{{ (x ~ messages[1].content)[0:3] }}", "X[1: t]"},
        {"{{ (x ~ messages[0].content ~ x)[::-1] }}", "X[0:eno]X"},
        {"{{ messages[1].content | replace('two', x) }}", "[1: X X ]"},
        {"{{ 'a-b' | replace('-', messages[0].content) }}", "a[0:one]b"},
        {"{{ [x, messages[0].content, x] | join(', ') }}", "X, [0:one], X"},
        {"{{ (x ~ messages[1].content ~ x).split() | join('|') }}", "X|[1:two|two]|X"},
        {"{{ (messages[1].content ~ '=y').split('=') | join }}", "[1: two two ]y"},
        {"{% for c in 'a' ~ messages[0].content %}{{ c }}.{% endfor %}", "a.[0:o.n.e]."},
        {"{{ ('\\n' ~ messages[0].content) | indent(2, true) }}", "  \n  [0:one]"},
        {"{% set v %}a{{ messages[0].content }}b{% endset %}{{ v }}{{ v }}", "a[0:onebaone]b"},
        {"{% macro q(s) %}<{{ s }}>{% endmacro %}{{ q(messages[0].content) }}", "<[0:one]>"},
        {"{% filter replace('a', 'b') %}a{{ messages[0].content }}a{% endfilter %}", "b[0:one]b"},
        /* functions that give the whole result the origin */
        {"{{ messages[1].content | upper }}", "[1: TWO TWO ]"},
        {"{{ ('%s!' | format(messages[0].content)) }}", "[0:one!]"},
        {"{{ 'a{}b'.format(messages[0].content) }}", "[0:aoneb]"},
        {"{{ '%s%s' % (messages[0].content, messages[1].n) }}", "[0:one][1:12]"},
        {"{{ messages[1].t | tojson }}",
         "[1:[{\"name\": \"f\", \"args\": {\"k\": \"v\", \"q\": 2}}]]"},
        {"{{ messages[1].t[0].args | string }}", "[1:{'k': 'v', 'q': 2}]"},
        {"{{ messages[1].e | tojson }}", "[1:{}]"},
        {"{{ {'a': messages[0].content} | tojson }}", "[0:{\"a\": \"one\"}]"},
        {"{{ {'a': x} | tojson }}", "{\"a\": \"X\"}"},
        {"{% for k, v in messages[1].t[0].args | items %}<{{ k }}={{ v }}>{% endfor %}",
         "<[1:k=v><q=2]>"},
        {"{{ messages[1].content | length }}{{ messages | length }}", "92"},
        {"{{ messages[1].content == ' two two ' }}", "True"},
        {"{{ messages[1].n | string + 'a' }}", "[1:12]a"},
        {"{{ '7' ~ (messages[0].content or 'a') }}", "7[0:one]"},
        /* keys of a message and its role are not its words */
        {"{{ messages[0] | list | join(',') }}{{ messages[0].role | upper }}", "role,contentUSER"},
        /* generation blocks */
        {"a{% generation %}b{{ messages[1].n }}c{% endgeneration %}d", "a<1:b[1:12]c>d"},
        {"{% generation %}b{% endgeneration %}{% generation %}{% endgeneration %}c", "<-1:b>c"},
        {"{% set v %}{% generation %} b {{ messages[0].content }} {% endgeneration %}{% endset %}"
         "({{ v | trim }})",
         "(<0:b [0:one]>)"},
        {ALL "{% generation %}{{ m.content }};{% endgeneration %}" END,
         "<0:[0:one];><1:[1: two two ];>"},
    };
    json_t *context = parse(two);
    jinja_spans spans = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code;
        char *text =
            render_with(cases[i].template, strlen(cases[i].template), context, NULL, &spans, &code);
        assert_int_equal(code, 0);
        char *got = show_spans(text, &spans);
        assert_string_equal(got, cases[i].want);
        free(got);
        free(text);
    }
    jinja_spans_free(&spans);
    json_decref(context);
}

/* Runs stay right while a string grows in place and older ones share its buffer. */
static void test_spans_of_growing_text(void **state)
{
    (void)state;
    static const char template[] =
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set old = ns.s %}"
        "{% set ns.s = ns.s + m.content + '.' %}{{ old }}/{{ ns.s }}/{% endfor %}";
    json_t *context = parse("{\"messages\": [{\"content\": \"a\"}, {\"content\": \"b\"},"
                            " {\"content\": \"c\"}]}");
    jinja_spans spans = {0};
    int code;
    char *text = render_with(template, sizeof template - 1, context, NULL, &spans, &code);
    char *got = show_spans(text, &spans);
    assert_string_equal(got, "/[0:a./a./a].[1:b]./[0:a].[1:b]./[0:a].[1:b].[2:c]./");
    free(got);
    free(text);
    jinja_spans_free(&spans);
    json_decref(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_language),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_shared_syntax),
        cmocka_unit_test(test_shared_templates),
        cmocka_unit_test(test_shared_compile),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deep_templates),
        cmocka_unit_test(test_long_chains),
        cmocka_unit_test(test_own_limits),
        cmocka_unit_test(test_bad_sources),
        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_spans_of_growing_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

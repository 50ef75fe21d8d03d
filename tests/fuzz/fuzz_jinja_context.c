/* A conversation from outside (any JSON) in templates that take it apart in every way. */
#include "core/base/js.h"
#include "core/base/utf8.h"
#include "core/text/jinja.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const char *const templates[] = {
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ (m.content | trim) }}{{ m }}{% endfor %}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2, ensure_ascii=true, sort_keys=true) }}",
    "{% for m in messages %}{% for c in m.content %}{{ c }}|{{ loop.last }}{% endfor %}{% endfor "
    "%}",
    "{{ messages | map(attribute='content') | map('string') | map('title') | join(', ') }}",
    "{% for k, v in messages[0] | dictsort %}{{ k | upper }}={{ v | string | indent }}{% endfor %}",
    "{{ (messages | first).content.split(messages[1].content) | join('\\n') | replace('\\n', 'x') "
    "}}",
    "{{ messages[::-1] }}{{ messages[0].content[::2] }}{{ messages[0].content[-2:] | capitalize }}",
    "{{ messages[0].content % messages[1:] }}{{ messages[0].content.format(*messages) }}",
    "{{ messages | sort }}{{ messages | unique | list }}{{ messages | groupby('role') }}",
    "{{ messages[0].n * 3 + messages[1].n ** 2 // messages[2].n }}{{ messages | sum(attribute='n') "
    "}}",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { N = sizeof templates / sizeof *templates };
    static const jinja_limits limits = {.max_output = 1 << 16, .max_steps = 200000};
    static jinja *t[N];
    json_t *context;
    hone_err e = {0};
    for (size_t i = 0; i < N && t[i] == NULL; i++)
        FUZZ_CHECK(jinja_compile(&t[i], templates[i], strlen(templates[i]), &e) == 0);
    if (js_parse(&context, (const char *)data, size, &e) != 0)
        return 0;
    json_t *wrapped =
        json_is_object(context) ? json_incref(context) : json_pack("{s:O}", "messages", context);
    for (size_t i = 0; wrapped != NULL && i < N; i++) {
        jinja_spans spans = {0};
        buf out;
        hone_err failed = {0};
        buf_init(&out, 1 << 20);
        int rc = jinja_render(t[i], wrapped, &limits, &out, &spans, &failed);
        FUZZ_CHECK(rc == failed.code && (rc == 0 || failed.msg[0] != '\0'));
        FUZZ_CHECK(utf8_valid(out.data, out.len) == out.len);
        for (size_t k = 0; rc == 0 && k < spans.n; k++)
            FUZZ_CHECK(spans.v[k].start < spans.v[k].end && spans.v[k].end <= out.len);
        jinja_spans_free(&spans);
        buf_free(&out);
    }
    json_decref(wrapped);
    json_decref(context);
    return 0;
}

/* A chat template from outside: compiled, and rendered over a conversation. Spans lie in the
 * output, in order. */
#include "core/base/utf8.h"
#include "core/text/jinja.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static const char conversation[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \"\"},"
    " {\"role\": \"user\", \"content\": \"Hi \\u00e9\\n\"},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"123456789\","
    " \"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1, \"b\": [1.5, true]}}}]},"
    " {\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"x\"}]}],"
    " \"tools\": [{\"function\": {\"name\": \"f\"}}], \"add_generation_prompt\": true,"
    " \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"x\": \"a, b\", \"n\": 3, \"__now\": 0}";

static void check_spans(const jinja_spans *s, const buf *out)
{
    for (size_t i = 0; i < s->n; i++) {
        const jinja_span *v = &s->v[i];
        FUZZ_CHECK(v->start < v->end && v->end <= out->len);
        FUZZ_CHECK(v->said >= v->start && v->said <= v->end);
        FUZZ_CHECK(v->origin >= (v->generation ? -1 : 0) && v->origin < 4);
        if (i > 0 && s->v[i - 1].generation == v->generation)
            FUZZ_CHECK(s->v[i - 1].end <= v->start);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const jinja_limits limits = {.max_output = 1 << 16, .max_steps = 200000};
    static json_t *context;
    jinja *t;
    hone_err e = {0};
    jinja_spans spans = {0};
    buf out;
    if (context == NULL)
        context = json_loads(conversation, 0, NULL);
    FUZZ_CHECK(context != NULL);
    int rc = jinja_compile(&t, (const char *)data, size, &e);
    FUZZ_CHECK((rc == 0) == (t != NULL) && rc == e.code);
    if (rc == 0) {
        buf_init(&out, 1 << 20);
        rc = jinja_render(t, context, &limits, &out, &spans, &e);
        FUZZ_CHECK(rc == e.code && (rc == 0 || out.len == 0));
        FUZZ_CHECK(utf8_valid(out.data, out.len) == out.len);
        if (rc == 0)
            check_spans(&spans, &out);
        buf_free(&out);
    }
    FUZZ_CHECK(rc == 0 || e.msg[0] != '\0');
    jinja_spans_free(&spans);
    jinja_free(t);
    return 0;
}

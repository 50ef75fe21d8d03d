#include "tests/unit/aid_bundled.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/eval/eval_int.h"
#include "tests/unit/aid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *bundled_record(const char *text, size_t len, int64_t line)
{
    json_t *s = json_stringn(text, len);
    assert_non_null(s);
    return json_pack("{s:{s:o}, s:s, s:I, s:{}}", "record", "text", s, "source", "t.jsonl", "line",
                     (json_int_t)line, "tags");
}

int bundled_filter(hooks *h, const char *text, size_t len, int64_t line, hone_err *e)
{
    json_t *data = bundled_record(text, len, line);
    *e = (hone_err){0};
    int rc = hook_emit(h, HOOK_DATA_FILTER, &data, e);
    json_decref(data);
    if (rc != 0 && rc != HONE_EVETO)
        fail_msg("%s", e->msg);
    const char *at = strstr(e->msg, "refused by ");
    at = at != NULL ? strstr(at, ": ") : NULL;
    if (at != NULL)
        memmove(e->msg, at + 2, strlen(at + 2) + 1);
    return rc;
}

json_t *bundled_pass(hooks *h, hook_point p, json_t *data)
{
    hone_err e = {0};
    if (hook_emit(h, p, &data, &e) != 0)
        fail_msg("%s", e.msg);
    return data;
}

json_t *bundled_report(void)
{
    return json_pack("{s:s, s:i, s:{}, s:{}, s:{}}", "data_sha256", "", "n", 0, "settings",
                     "metrics", "examples");
}

json_t *bundled_scores(json_t *data)
{
    hone_err e = {0};
    json_t *r = bundled_report();
    if (probe_scores(r, json_object_get(data, "scores"), &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(data);
    return r;
}

static const json_t *member(const json_t *report, const char *name, const char *key)
{
    const json_t *m = json_object_get(json_object_get(report, "metrics"), name);
    if (m == NULL)
        fail_msg("no score %s", name);
    return json_object_get(m, key);
}

void bundled_expect(const json_t *report, const char *name, const char *key, double want,
                    double tolerance)
{
    const json_t *v = member(report, name, key);
    if (!json_is_number(v) || fabs(json_number_value(v) - want) > tolerance)
        fail_msg("%s.%s is %.9g, must be %.9g", name, key, json_number_value(v), want);
}

void bundled_expect_note(const json_t *report, const char *name, const char *want)
{
    const char *note = json_string_value(member(report, name, "note"));
    if (note == NULL || strcmp(note, want) != 0)
        fail_msg("the note of %s is '%s', must be '%s'", name, note != NULL ? note : "", want);
}

char *bundled_normalize(hooks *h, const char *text, size_t len, const char *role)
{
    json_t *s = json_stringn(text, len);
    assert_non_null(s);
    json_t *data = json_pack("{s:o, s:s, s:s, s:s, s:i}", "text", s, "field", "text", "role", role,
                             "source", "t.jsonl", "line", 1);
    data = bundled_pass(h, HOOK_DATA_NORMALIZE, data);
    char *out = mem_strdup(json_string_value(json_object_get(data, "text")));
    json_decref(data);
    return out;
}

double bundled_count(hooks *h, const char *plugin, const char *name)
{
    json_t *report = hook_report(h), *one;
    double n = 0;
    size_t i;
    json_array_foreach (report, i, one) {
        if (strcmp(json_string_value(json_object_get(one, "name")), plugin) == 0)
            n = json_number_value(json_object_get(json_object_get(one, "counters"), name));
    }
    json_decref(report);
    return n;
}

void bundled_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("[   figure ] ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

void bundled_took(const char *what, clock_t start, double most)
{
    double s = (double)(clock() - start) / CLOCKS_PER_SEC;
    bundled_say("%s: %.2f s", what, s);
    assert_true(s < most);
}

static void add_line(json_t *out, const char *line, size_t n, const char *field)
{
    hone_err e = {0};
    json_t *o;
    if (n == 0)
        return;
    if (field == NULL) {
        json_array_append_new(out, json_stringn(line, n));
        return;
    }
    assert_int_equal(js_parse(&o, line, n, &e), 0);
    json_array_append(out, json_object_get(o, field));
    json_decref(o);
}

json_t *bundled_texts(const char *shared_name, const char *field)
{
    char *path = aid_shared(shared_name);
    if (path == NULL)
        return NULL;
    char *text = aid_text(path);
    json_t *out = json_array();
    for (const char *s = text; *s != '\0';) {
        size_t n = strcspn(s, "\n");
        add_line(out, s, n, field);
        s += n + (s[n] != '\0');
    }
    free(text);
    free(path);
    return out;
}

char *bundled_long_line(size_t *len)
{
    enum { BYTES = 10 * 1000 * 1000 };
    char *s = mem_alloc(BYTES + 1);
    uint64_t x = 1;
    for (size_t i = 0; i < BYTES; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        s[i] = (x >> 60) == 0 ? ' ' : (char)('a' + (x >> 33) % 26);
    }
    *len = BYTES;
    return s;
}

hooks *bundled_hooks(void)
{
    hooks *h = hook_new();
    hook_set_breaker(h, &(hook_breaker){1 << 30, 1 << 30, 60000, 1 << 30});
    log_setup(LOG_ERROR, false);
    return h;
}

/* The body of a request: chat, completions or feedback, by the first byte. What is accepted is in
 * range, what is refused says why. */
#include "core/base/js.h"
#include "serve/http/http_params.h"
#include "serve/store/feedback.h"
#include "tests/fuzz/fuzz.h"

static void check_params(const params *p)
{
    const gen_params *g = &p->gen;
    FUZZ_CHECK(p->n >= 1 && p->n <= PARAMS_MAX_CHOICES);
    FUZZ_CHECK(p->max_tokens >= -1 && p->n_top >= 0 && p->n_top <= KERN_MAX_TOP);
    FUZZ_CHECK(g->temperature >= 0 && g->temperature <= 2 && g->top_p > 0 && g->top_p <= 1);
    FUZZ_CHECK(g->min_p >= 0 && g->min_p <= 1 && g->top_k >= 0 && g->repetition > 0);
    FUZZ_CHECK(g->n_stop >= 0 && g->n_stop <= PARAMS_MAX_STOPS);
    FUZZ_CHECK(g->n_stop_ids >= 0 && g->n_stop_ids <= PARAMS_MAX_STOPS);
    FUZZ_CHECK(g->n_bias >= 0 && g->n_bias <= PARAMS_MAX_BIAS);
    FUZZ_CHECK((p->messages != NULL) != (p->prompt != NULL));
    json_t *record = params_record(p);
    FUZZ_CHECK(json_is_object(record));
    json_decref(record);
}

static void read_params(int surface, const json_t *body)
{
    params p;
    char name[PARAMS_NAME];
    hone_err e = {0};
    int rc = params_read(&p, surface, body, NULL, name, &e);
    if (rc == 0)
        check_params(&p);
    else
        FUZZ_CHECK(e.msg[0] != '\0' && (rc == HONE_EINVAL || rc == HONE_EUNSUPPORTED));
    params_free(&p);
}

static void read_feedback(const json_t *body)
{
    json_t *form, *again;
    hone_err e = {0};
    if (feedback_form(body, &form, NULL, &e) != 0) {
        FUZZ_CHECK(e.msg[0] != '\0' && form == NULL);
        return;
    }
    FUZZ_CHECK(feedback_form(form, &again, NULL, &e) == 0 && json_equal(form, again));
    json_decref(again);
    json_decref(form);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *body;
    if (size < 1 || js_parse(&body, (const char *)data + 1, size - 1, NULL) != 0)
        return 0;
    if (json_is_object(body) && data[0] % 3 == 2)
        read_feedback(body);
    else if (json_is_object(body))
        read_params(data[0] % 3 == 0 ? PARAMS_CHAT : PARAMS_COMPLETION, body);
    json_decref(body);
    return 0;
}

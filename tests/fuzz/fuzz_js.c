/* JSON: what is read can be written, and comes back the same. */
#include "core/base/js.h"
#include "core/base/utf8.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"a", "model", NULL};
    json_t *v, *back;
    hone_err e = {0};
    const char *s = NULL;
    int64_t i = 0;
    double n = 0;
    bool b = false;
    int rc = js_parse(&v, (const char *)data, size, &e);
    FUZZ_CHECK((rc == 0) == (v != NULL));
    if (rc != 0) {
        FUZZ_CHECK(rc == e.code && utf8_valid(e.msg, strlen(e.msg)) == strlen(e.msg));
        return 0;
    }
    char *text = js_text(v, false);
    FUZZ_CHECK(js_parse(&back, text, strlen(text), &e) == 0 && json_equal(v, back));
    char *again = js_text(back, false);
    FUZZ_CHECK(strcmp(text, again) == 0);
    js_opt_str(v, "a", &s, &e);
    js_opt_int(v, "a", &i, &e);
    js_opt_num(v, "a", &n, &e);
    js_opt_bool(v, "a", &b, &e);
    js_only_keys(v, keys, &e);
    free(text);
    free(again);
    json_decref(v);
    json_decref(back);
    return 0;
}

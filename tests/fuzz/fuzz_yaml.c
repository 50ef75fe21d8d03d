/* YAML: what is read is a JSON tree within the limits, and each line points into the text. */
#include "core/base/js.h"
#include "core/base/utf8.h"
#include "core/base/yaml.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *v, *lines, *line;
    hone_err e = {0};
    const char *key;
    json_int_t last = 1;
    int rc = yaml_parse(&v, &lines, (const char *)data, size, &e);
    FUZZ_CHECK((rc == 0) == (v != NULL) && (rc == 0) == (lines != NULL));
    if (rc != 0) {
        FUZZ_CHECK(rc == e.code && utf8_valid(e.msg, strlen(e.msg)) == strlen(e.msg));
        return 0;
    }
    for (size_t i = 0; i < size; i++)
        last += data[i] == '\n' || data[i] == '\r' || data[i] >= 0x80; /* NEL, LS and PS too */
    json_object_foreach (lines, key, line) {
        FUZZ_CHECK(json_integer_value(line) >= 1 && json_integer_value(line) <= last);
    }
    char *text = js_text(v, true);
    free(text);
    json_decref(v);
    json_decref(lines);
    return 0;
}

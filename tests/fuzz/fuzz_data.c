/* Training records: a file of any bytes gives records and rejects, each on a line of the file, and
 * every format either converts a record to its canonical form or says why not. The first byte picks
 * kind and unit. */
#include "core/base/js.h"
#include "core/data/formats.h"
#include "core/data/source.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void convert(const json_t *record)
{
    format_spec spec = {.path = "data"};
    const format *found;
    hone_err e = {0};
    int rc = format_detect(&found, record, &spec, &e);
    FUZZ_CHECK((rc == 0) == (found != NULL));
    for (size_t i = 0; formats[i] != NULL; i++) {
        json_t *out = NULL;
        e = (hone_err){0};
        rc = formats[i]->convert(&out, record, &spec, &e);
        FUZZ_CHECK((rc == 0) == (out != NULL) && rc == e.code);
        FUZZ_CHECK(rc != 0 || json_is_array(json_object_get(out, "messages")) ||
                   json_is_string(json_object_get(out, "text")) ||
                   json_is_string(json_object_get(out, "completion")));
        json_decref(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    char path[64];
    source *s;
    source_record r = {.got = SOURCE_RECORD};
    hone_err e = {0};
    int64_t lines = 1, last = 0;
    int fd = memfd_create("data", 0);
    FUZZ_CHECK(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (size_t i = 1; i < size; i++)
        lines += data[i] == '\n';
    int rc = source_open(&s, path, data[0] % 2 != 0 ? SOURCE_JSON : SOURCE_TEXT,
                         (source_unit)(data[0] / 2 % 3), &e);
    while (rc == 0 && r.got != SOURCE_END) {
        rc = source_next(s, &r, &e);
        FUZZ_CHECK(rc == e.code && (r.got == SOURCE_RECORD) == (r.value != NULL));
        if (rc == 0 && r.got != SOURCE_END) {
            FUZZ_CHECK(r.line >= last && r.line >= 1 && r.line <= lines);
            last = r.line;
        }
        if (r.got == SOURCE_RECORD)
            convert(r.value);
        json_decref(r.value);
    }
    source_close(s);
    close(fd);
    return 0;
}

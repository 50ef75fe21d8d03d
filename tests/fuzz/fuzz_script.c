/* Loading a script and calling its hooks: whatever the text, it is loaded or refused within its
 * limits, with a message of one line, and leaves nothing behind. */
#include "core/base/log.h"
#include "core/base/utf8.h"
#include "lua/script.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static void call(script *s)
{
    size_t n, len;
    const script_hook *h = script_hooks(s, &n);
    for (size_t i = 0; i < n && !script_spent(s); i++) {
        hone_err e = {0};
        const hook_info *info = hook_describe(h[i].point);
        hook_call c = {.point = h[i].point, .data = json_loads(info->example, 0, NULL)};
        int rc = script_call(s, i, &c, &e);
        FUZZ_CHECK(c.data != NULL);
        FUZZ_CHECK(rc >= 0 || (e.msg[0] != '\0' && strchr(e.msg, '\n') == NULL));
        len = strlen(e.msg);
        FUZZ_CHECK(utf8_valid(e.msg, len) == len);
        json_decref(c.data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "plugin {name = 'f', version = '1', summary = 's'} ";
    char *text = malloc(sizeof head + size), file[] = "f.lua";
    hone_err e = {0};
    script *s;
    log_setup(LOG_ERROR, false);
    FUZZ_CHECK(text != NULL);
    bool headed = size > 0 && data[0] % 2 == 0; /* half of the inputs bring their own */
    size_t n = headed ? sizeof head - 1 : 0;
    memcpy(text, head, n);
    memcpy(text + n, data, size);
    script_source source = {.file = file, .text = text, .len = n + size};
    streams *st = stream_new();
    script_setup setup = {.limits = {.memory = 1 << 20, .steps = 20000},
                          .deterministic = true,
                          .quiet = true,
                          .streams = st};
    int rc = script_open(&s, &source, &setup, &e);
    FUZZ_CHECK((rc == 0) == (s != NULL));
    if (rc == 0)
        call(s);
    script_close(s);
    stream_free(st);
    free(text);
    return 0;
}

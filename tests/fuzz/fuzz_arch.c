/* Bytes as a config.json. What is accepted must be sizes that a model can be made of. */
#include "core/base/js.h"
#include "core/model/arch.h"
#include "core/model/rope.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *o;
    arch_config c;
    hone_err e = {0};
    float inv[2048];
    if (js_parse(&o, (const char *)data, size, &e) != 0)
        return 0;
    if (arch_read(&c, o, &e) == 0) {
        FUZZ_CHECK(c.n_q % c.n_kv == 0 && c.head_dim % 2 == 0 && c.head_dim <= 4096);
        rope_frequencies(&c, inv);
    } else {
        FUZZ_CHECK(e.msg[0] != '\0');
    }
    json_decref(o);
    return 0;
}

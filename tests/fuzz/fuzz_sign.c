/* Envelopes and public keys: nothing that this fuzzer can make is signed by a key that counts. */
#include "adapters/sign.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void open_envelope(const uint8_t *data, size_t size)
{
    static sign_public key = {.key = {1}, .id = "k"};
    const sign_trust t = {.keys = &key, .n = 1};
    char *body, id[SIGN_ID];
    size_t len;
    json_t *v;
    hone_err e = {0};
    if (js_parse(&v, (const char *)data, size, &e) != 0)
        return;
    int rc = sign_envelope_open(&body, &len, id, v, "application/vnd.in-toto+json", &t, &e);
    FUZZ_CHECK(rc < 0 && rc == e.code && body == NULL);
    json_decref(v);
}

static void load_key(const uint8_t *data, size_t size)
{
    char path[64];
    sign_public p;
    hone_err e = {0};
    snprintf(path, sizeof path, "/dev/shm/hone-fuzz-sign-%d", (int)getpid());
    if (file_write(path, data, size, NULL) != 0)
        return;
    if (sign_public_load(&p, path, &e) == 0) {
        char *pem = sign_public_pem(&p);
        FUZZ_CHECK(pem != NULL);
        free(pem);
    }
    file_remove(path, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_envelope(data, size);
    if (size < 400)
        load_key(data, size);
    return 0;
}

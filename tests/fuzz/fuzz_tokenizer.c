/* tokenizer.json: whatever opens must encode and decode without harm. The input is the file, then
 * after a zero byte a text (without one, a fixed text). */
#include "core/base/utf8.h"
#include "core/text/tok.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void check_error(const hone_err *e, int rc)
{
    FUZZ_CHECK(rc < 0 && rc == e->code && utf8_valid(e->msg, strlen(e->msg)) == strlen(e->msg));
}

static void check_spans(const tok_ids *ids, size_t len)
{
    for (size_t i = 0; i < ids->n; i++)
        FUZZ_CHECK(ids->start[i] <= ids->end[i] && ids->end[i] <= len);
}

/* The ids decode, and piece by piece to the same text. */
static void check_decode(const tok *t, const tok_ids *ids)
{
    hone_err e = {0};
    buf whole, pieces;
    buf_init(&whole, 1 << 24);
    buf_init(&pieces, 1 << 24);
    tok_stream *s = tok_stream_new(t, false);
    int rc = tok_decode(t, ids->id, ids->n, false, &whole, &e);
    for (size_t i = 0; rc == 0 && i < ids->n; i++)
        rc = tok_stream_push(s, ids->id[i], &pieces, &e);
    if (rc == 0) {
        FUZZ_CHECK(tok_stream_end(s, &pieces) == 0 && pieces.len == whole.len &&
                   memcmp(pieces.data, whole.data, whole.len) == 0 &&
                   utf8_valid(whole.data, whole.len) == whole.len);
    }
    tok_stream_free(s);
    buf_free(&whole);
    buf_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char fixed[] =
        "Hello <s>  w\xC3\xB6rld\n e\xCC\x81 123\xE2\x96\x81 \xF0\x9F\x98\x80's ab";
    const char *json = (const char *)data, *text = fixed;
    size_t json_len = size, len = sizeof fixed - 1;
    const char *zero = size == 0 ? NULL : memchr(data, 0, size);
    if (zero != NULL) {
        json_len = (size_t)(zero - json);
        text = zero + 1;
        len = size - json_len - 1;
    }
    hone_err e = {0};
    tok *t;
    int rc = tok_open_json(&t, json, json_len, &e);
    FUZZ_CHECK((rc == 0) == (t != NULL));
    if (rc != 0) {
        check_error(&e, rc);
        return 0;
    }
    for (unsigned flags = 0; flags < 4; flags++) {
        tok_ids ids = {0};
        rc = tok_encode(t, text, len, flags, &ids, &e);
        if (rc != 0) {
            check_error(&e, rc);
            FUZZ_CHECK(ids.n == 0);
        }
        check_spans(&ids, len);
        check_decode(t, &ids);
        tok_ids_free(&ids);
    }
    tok_close(t);
    return 0;
}

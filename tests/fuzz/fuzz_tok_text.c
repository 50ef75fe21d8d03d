/* Texts and ids under three small tokenizers: the ids of a text decode to that text where the
 * tokenizer loses nothing, ranges stay inside it, and streams give what the whole gives. The first
 * byte chooses tokenizer and flags; one bit of it takes the rest as ids. */
#include "core/base/utf8.h"
#include "core/text/tok.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define ADDED                                                                                      \
    "\"added_tokens\":[{\"id\":300,\"content\":\"<s>\",\"special\":true},{\"id\":301,\"content\":" \
    "\"ab\",\"special\":false,\"single_word\":true,\"lstrip\":true},{\"id\":302,\"content\":\"<m>" \
    "\",\"special\":true,\"rstrip\":true,\"normalized\":true}],"

/* clang-format off */
static const char *const shapes[] = {
    "{" ADDED "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{%s},"
    "\"merges\":[\"a b\",\"\xC4\xA0 a\",\"ab a\",\"e r\",\"\xC3\xA9 \xC3\xA9\"]}}",
    "{" ADDED "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
    "\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Split\","
    "\"pattern\":{\"Regex\":\"\\\\s+|\\\\w+\"},\"behavior\":\"MergedWithNext\"},{\"type\":"
    "\"ByteLevel\",\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{"
    "\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[\"a b\",\"\xC4\xA0 a\",\"ab a\"]}}",
    "{" ADDED "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
    "\"prepend\":\"\xE2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
    "\"content\":\"\xE2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":"
    "\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":"
    "\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,"
    "\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{%s},"
    "\"merges\":[\"a b\",\"\xE2\x96\x81 a\",\"ab a\"]}}",
};
/* clang-format on */

static void add_byte_pieces(buf *vocab)
{
    for (unsigned c = 0; c < 256; c++) {
        bool prints = (c > 0x20 && c < 0x7F) || (c > 0xA0 && c != 0xAD);
        unsigned cp = prints ? c : c <= 0x20 ? 0x100 + c : c == 0xAD ? 0x143 : 0x121 + c - 0x7F;
        buf_str(vocab, c == '"' || c == '\\' ? "\"\\" : "\"");
        buf_utf8(vocab, cp);
        buf_printf(vocab, "\":%u,", c);
    }
    buf_str(vocab, "\"ab\":301,\"\xC4\xA0"
                   "a\":257,\"aba\":258,\"er\":259,\"\xC3\xA9\xC3\xA9\":260");
}

static void add_fallback_pieces(buf *vocab)
{
    for (unsigned c = 0; c < 256; c++)
        buf_printf(vocab, "\"<0x%02X>\":%u,", c, c);
    buf_str(vocab, "\"a\":256,\"b\":257,\"\xE2\x96\x81\":258,\"ab\":301,\"\xE2\x96\x81"
                   "a\":260,"
                   "\"aba\":261");
}

static tok *open_shape(unsigned shape)
{
    buf vocab, json;
    hone_err e = {0};
    tok *t;
    buf_init(&vocab, 1 << 16);
    buf_init(&json, 1 << 16);
    if (shape < 2)
        add_byte_pieces(&vocab);
    else
        add_fallback_pieces(&vocab);
    const char *hole = strstr(shapes[shape], "%s");
    buf_add(&json, shapes[shape], (size_t)(hole - shapes[shape]));
    buf_add(&json, vocab.data, vocab.len);
    buf_str(&json, hole + 2);
    int rc = tok_open_json(&t, json.data, json.len, &e);
    FUZZ_CHECK(rc == 0);
    buf_free(&vocab);
    buf_free(&json);
    return t;
}

static void check_stream(const tok *t, const tok_ids *ids, const buf *whole)
{
    hone_err e = {0};
    buf out;
    buf_init(&out, 1 << 24);
    tok_stream *s = tok_stream_new(t, false);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = out.len;
        FUZZ_CHECK(tok_stream_push(s, ids->id[i], &out, &e) == 0);
        FUZZ_CHECK(utf8_valid(out.data + before, out.len - before) == out.len - before);
    }
    FUZZ_CHECK(tok_stream_end(s, &out) == 0);
    FUZZ_CHECK(out.len == whole->len && memcmp(out.data, whole->data, out.len) == 0);
    tok_stream_free(s);
    buf_free(&out);
}

static void try_ids(const tok *t, const uint8_t *data, size_t size)
{
    hone_err e = {0};
    tok_ids ids = {.id = malloc((size + 1) * sizeof(int32_t))};
    buf whole;
    buf_init(&whole, 1 << 24);
    for (size_t i = 0; i + 1 < size; i += 2) {
        int32_t id = (data[i] | data[i + 1] << 8) % 303;
        if (tok_piece(t, id, NULL) != NULL)
            ids.id[ids.n++] = id;
    }
    FUZZ_CHECK(tok_decode(t, ids.id, ids.n, false, &whole, &e) == 0);
    check_stream(t, &ids, &whole);
    buf_free(&whole);
    tok_ids_free(&ids);
}

static void try_text(const tok *t, unsigned flags, bool exact, const char *text, size_t len)
{
    hone_err e = {0};
    tok_ids ids = {0};
    buf whole;
    buf_init(&whole, 1 << 24);
    int rc = tok_encode(t, text, len, flags, &ids, &e);
    FUZZ_CHECK((rc == 0) == (utf8_valid(text, len) == len));
    for (size_t i = 0; i < ids.n; i++)
        FUZZ_CHECK(ids.start[i] <= ids.end[i] && ids.end[i] <= len);
    if (rc == 0) {
        FUZZ_CHECK(tok_decode(t, ids.id, ids.n, false, &whole, &e) == 0);
        check_stream(t, &ids, &whole);
    }
    if (rc == 0 && exact)
        FUZZ_CHECK(whole.len == len && memcmp(whole.data, text, len) == 0);
    buf_free(&whole);
    tok_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tok *opened[3]; /* kept for the whole run */
    if (size == 0)
        return 0;
    unsigned shape = data[0] % 3, flags = data[0] / 3 % 4;
    if (opened[shape] == NULL)
        opened[shape] = open_shape(shape);
    /* the added tokens take spaces with them, so a text that may hold one is not given back exactly
     */
    bool exact =
        shape == 0 && memmem(data, size, "ab", 2) == NULL && memchr(data, '<', size) == NULL;
    if (data[0] >= 128)
        try_ids(opened[shape], data + 1, size - 1);
    else
        try_text(opened[shape], flags, exact, (const char *)data + 1, size - 1);
    return 0;
}

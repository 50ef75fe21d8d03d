#include "core/model/safetensors.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/js.h"

#include "tests/unit/aid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = aid_dir();
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    aid_dir_remove(dir);
    return 0;
}

/* A file of this header and n bytes of data; `len` is what the length field says, -1: the truth. */
static void put(const char *name, const char *header, size_t n, int64_t len)
{
    buf b;
    uint64_t said = len < 0 ? strlen(header) : (uint64_t)len;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 8; i++)
        buf_char(&b, (char)(said >> (8 * i)));
    buf_str(&b, header);
    for (size_t i = 0; i < n; i++)
        buf_char(&b, (char)i);
    char *path = path_join(dir, name);
    assert_int_equal(file_write(path, b.data, b.len, NULL), 0);
    free(path);
    buf_free(&b);
}

/* Opens dir/name and compares the error, in which "@" stands for the directory. */
static void refused(const char *name, int code, const char *want)
{
    hone_err e = {0};
    safetensors *st;
    char *path = path_join(dir, name);
    assert_int_equal(safetensors_open(&st, path, &e), code);
    assert_null(st);
    buf b;
    buf_init(&b, 4096);
    for (const char *p = want; *p != '\0'; p++) {
        if (*p == '@')
            buf_str(&b, dir);
        else
            buf_char(&b, *p);
    }
    assert_string_equal(e.msg, b.data);
    buf_free(&b);
    free(path);
}

#define T(name, shape, from, to)                                                                   \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void test_malformed_files(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n;
        int64_t len;
        int code;
        const char *want;
    } rows[] = {
        {"{}", 0, 3, HONE_EFORMAT, "@/f: header of 3 bytes in a file of 10"},
        {"{}", 0, INT64_MAX, HONE_EFORMAT,
         "@/f: header of 9223372036854775807 bytes in a file of 10"},
        {"[]", 0, -1, HONE_EFORMAT, "@/f: header: is not an object"},
        {"{" T("a", "[2]", "0", "8") "," T("b", "[2]", "4", "12") "}", 12, -1, HONE_EFORMAT,
         "@/f: tensors 'a' and 'b' overlap"},
        {"{" T("a", "[2]", "0", "8") "," T("b", "[2]", "0", "8") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensors 'a' and 'b' overlap"},
        {"{" T("a", "[2]", "0", "8") "," T("b", "[2]", "12", "20") "}", 20, -1, HONE_EFORMAT,
         "@/f: a gap of 4 bytes before tensor 'b'"},
        {"{" T("a", "[2]", "4", "12") "}", 12, -1, HONE_EFORMAT,
         "@/f: a gap of 4 bytes before tensor 'a'"},
        {"{" T("a", "[2]", "0", "8") "}", 9, -1, HONE_EFORMAT,
         "@/f: 1 bytes after the last tensor"},
        {"{" T("a", "[2]", "0", "8") "}", 7, -1, HONE_EFORMAT,
         "@/f: tensor 'a': its shape needs more bytes than the 7 of the file"},
        {"{" T("a", "[1]", "0", "8") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensor 'a': 8 bytes, its shape needs 4"},
        {"{" T("a", "[1]", "4", "12") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensor 'a': data ends at byte 12 of 8"},
        {"{" T("a", "[2]", "8", "0") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensor 'a': data_offsets are not a begin and an end"},
        {"{" T("a", "[4294967296,4294967296]", "0", "8") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensor 'a': its shape needs more bytes than the 8 of the file"},
        {"{" T("a", "[-2]", "0", "8") "}", 8, -1, HONE_EFORMAT,
         "@/f: tensor 'a': dimension 0 is not a count"},
        {"{" T("a", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, -1, HONE_ELIMIT,
         "@/f: tensor 'a': 9 dimensions, at most 8 are read"},
        {"{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, -1,
         HONE_EUNSUPPORTED, "@/f: tensor 'a': unknown dtype 'Q4'"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, -1, HONE_EFORMAT,
         "@/f: tensor 'a': field 'dtype' is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_ofsets\":[0,4]}}", 4, -1, HONE_EFORMAT,
         "@/f: tensor 'a': unknown field 'data_ofsets' (did you mean 'data_offsets'?)"},
        {"{" T("a", "[1]", "0", "4") "," T("a", "[1]", "0", "4") "}", 4, -1, HONE_EFORMAT,
         "@/f: header: JSON: line 1, column 57: duplicate object key near '\"a\"'"},
        {"{\"__metadata__\":{\"format\":1}}", 0, -1, HONE_EFORMAT,
         "@/f: __metadata__: 'format' is not a string"},
        {"{\"a\"", 0, -1, HONE_EFORMAT,
         "@/f: header: JSON: line 1, column 4: ':' expected near end of file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        put("f", rows[i].header, rows[i].n, rows[i].len);
        refused("f", rows[i].code, rows[i].want);
    }
}

static void test_files_that_are_none(void **state)
{
    (void)state;
    char *path = path_join(dir, "short");
    assert_int_equal(file_write(path, "1234567", 7, NULL), 0);
    free(path);
    refused("short", HONE_EFORMAT, "@/short: 7 bytes, too short for a safetensors file");
    refused("none", HONE_ENOTFOUND, "@/none: cannot open: No such file or directory");
    char *sub = path_join(dir, "empty");
    assert_int_equal(dir_make(sub, NULL), 0);
    free(sub);
    refused("empty", HONE_ENOTFOUND,
            "@/empty: neither model.safetensors nor model.safetensors.index.json is there");
}

static void put_index(const char *map)
{
    char *path = path_join(dir, "model.safetensors.index.json");
    buf b;
    buf_init(&b, 4096);
    buf_printf(&b, "{\"weight_map\":%s}", map);
    assert_int_equal(file_write(path, b.data, b.len, NULL), 0);
    buf_free(&b);
    free(path);
}

static void test_an_index_that_disagrees(void **state)
{
    (void)state;
    put("s1", "{" T("a", "[1]", "0", "4") "}", 4, -1);
    put("s2", "{" T("b", "[2]", "0", "8") "}", 8, -1);
    put_index("{\"a\":\"s1\",\"b\":\"s3\"}");
    refused(".", HONE_ENOTFOUND, "@/./model.safetensors.index.json: shard 's3' is not there");
    put_index("{\"a\":\"s1\",\"c\":\"s2\"}");
    refused(".", HONE_EFORMAT,
            "@/./model.safetensors.index.json: s2 holds 'b', which is not listed");
    put_index("{\"a\":\"s2\",\"b\":\"s2\",\"c\":\"s1\"}");
    refused(".", HONE_EFORMAT,
            "@/./model.safetensors.index.json: 'a' is listed in s2 and stands in s1");
    put_index("{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\"}");
    refused(".", HONE_EFORMAT,
            "@/./model.safetensors.index.json: 'c' is listed in s2, which does not hold it");
    put_index("{\"a\":\"../s1\"}");
    refused(".", HONE_EFORMAT,
            "@/./model.safetensors.index.json: tensor 'a' has no plain file name");
    put_index("{}");
    refused(".", HONE_ELIMIT, "@/./model.safetensors.index.json: 0 shards, 1 to 10000 are read");
    put_index("3");
    refused(".", HONE_EFORMAT, "@/./model.safetensors.index.json: field 'weight_map' is missing");
}

static void test_shards_are_one_set(void **state)
{
    (void)state;
    safetensors *st;
    put("s1",
        "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "[2,1]", "4", "12") "," T(
            "a", "[]", "0", "4") "," T("z", "[0,3]", "4", "4") "}   ",
        12, -1);
    put("s2", "{\"c\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6]}}", 6, -1);
    put_index("{\"a\":\"s1\",\"b\":\"s1\",\"z\":\"s1\",\"c\":\"s2\"}");
    assert_int_equal(safetensors_open(&st, dir, NULL), 0);
    assert_int_equal(safetensors_count(st), 4);
    static const char *const order[] = {"a", "z", "b", "c"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(safetensors_at(st, i)->name, order[i]);
    assert_null(safetensors_at(st, 4));
    const st_tensor *b = safetensors_find(st, "b");
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dim[0], 2);
    assert_int_equal(b->bytes, 8);
    assert_int_equal(((const unsigned char *)b->data)[0], 4);
    assert_int_equal(safetensors_find(st, "c")->dtype, ST_BF16);
    assert_null(safetensors_find(st, "d"));
    assert_string_equal(path_base(safetensors_files(st)[1]), "s2");
    assert_null(safetensors_files(st)[2]);
    assert_string_equal(json_string_value(json_object_get(safetensors_metadata(st), "format")),
                        "pt");
    safetensors_close(st);
}

static void test_written_files_read_back(void **state)
{
    (void)state;
    hone_err e = {0};
    st_writer *w;
    safetensors *st;
    const int64_t dim[] = {2, 3};
    const uint16_t half[] = {1, 2, 3, 4, 5, 6};
    char *path = path_join(dir, "w.safetensors");
    json_t *meta = json_pack("{s:s}", "format", "pt");
    assert_int_equal(st_writer_open(&w, path, meta, &e), 0);
    assert_int_equal(st_writer_declare(w, "x", ST_BF16, 2, dim, &e), 0);
    assert_int_equal(st_writer_declare(w, "x", ST_F32, 0, NULL, &e), HONE_EINVAL);
    assert_int_equal(st_writer_declare(w, "scalar", ST_F32, 0, NULL, &e), 0);
    assert_int_equal(st_writer_data(w, half, 4, &e), 0);
    assert_int_equal(st_writer_declare(w, "late", ST_F32, 0, NULL, &e), HONE_EINVAL);
    assert_int_equal(st_writer_data(w, half + 2, 8, &e), 0);
    assert_false(file_exists(path));
    assert_int_equal(st_writer_data(w, half, 5, &e), HONE_EINVAL);
    assert_int_equal(st_writer_data(w, half, 4, &e), 0);
    assert_int_equal(st_writer_commit(w, &e), 0);
    assert_int_equal(safetensors_open(&st, path, &e), 0);
    assert_int_equal(safetensors_count(st), 2);
    assert_memory_equal(safetensors_find(st, "x")->data, half, sizeof half);
    assert_int_equal((uintptr_t)safetensors_find(st, "x")->data % 8, 0);
    assert_string_equal(json_string_value(json_object_get(safetensors_metadata(st), "format")),
                        "pt");
    safetensors_close(st);
    json_decref(meta);

    assert_int_equal(st_writer_open(&w, path, NULL, &e), 0);
    assert_int_equal(st_writer_declare(w, "x", ST_F32, 2, dim, &e), 0);
    assert_int_equal(st_writer_data(w, half, 4, &e), 0);
    assert_int_equal(st_writer_commit(w, &e), HONE_EINVAL);
    assert_non_null(strstr(e.msg, "4 of 24 bytes were written"));
    assert_int_equal(safetensors_open(&st, path, &e), 0); /* the old file stands */
    assert_int_equal(safetensors_count(st), 2);
    safetensors_close(st);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed_files),         cmocka_unit_test(test_files_that_are_none),
        cmocka_unit_test(test_an_index_that_disagrees), cmocka_unit_test(test_shards_are_one_set),
        cmocka_unit_test(test_written_files_read_back),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}

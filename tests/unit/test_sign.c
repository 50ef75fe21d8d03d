/* Keys, envelopes and signed directories. */
#include "adapters/sign.h"
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *keys, *model;

static void put(const char *name, const char *text)
{
    char *path = path_join(model, name);
    assert_int_equal(file_write(path, text, strlen(text), NULL), 0);
    free(path);
}

static int set_up(void **state)
{
    if (aid_dir_quick_setup(state) != 0)
        return -1;
    keys = path_join(*state, "keys");
    model = path_join(*state, "m");
    char *sub = path_join(model, "sub");
    int rc = dir_make(keys, NULL) != 0 || dir_make(sub, NULL) != 0;
    free(sub);
    put("model.safetensors", "weights");
    put("config.json", "{}");
    put("sub/a.txt", "x");
    put("sub-b.txt", "y");
    return rc;
}

static int tear_down(void **state)
{
    free(keys);
    free(model);
    return aid_dir_teardown(state);
}

static sign_trust own_trust(void)
{
    sign_trust t;
    hone_err e = {0};
    if (sign_trust_open(&t, keys, NULL, false, &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static void refused(const sign_trust *t, int want, const char *says)
{
    sign_report r;
    hone_err e = {0};
    assert_int_equal(sign_dir_check(model, t, &r, &e), want);
    if (strstr(e.msg, says) == NULL)
        fail_msg("'%s' does not say '%s'", e.msg, says);
    assert_string_equal(r.key_id, "");
}

/* The root is what model_signing 1.1.1 computes for the same four files. */
static void test_known_answer(void **state)
{
    (void)state;
    sign_report r, again;
    hone_err e = {0};
    if (sign_dir(model, "m", keys, &r, &e) != 0)
        fail_msg("%s", e.msg);
    assert_string_equal(r.root, "84f90daf2791f9c4a9980c64d1e9c1d21489eced6de0513f911fdc2ec5281960");
    assert_int_equal(r.n_files, 4);
    sign_trust t = own_trust();
    assert_int_equal(sign_dir_check(model, &t, &again, &e), 0);
    assert_memory_equal(&again, &r, sizeof r);
    sign_trust_close(&t);
}

static void test_key_is_the_owners_alone(void **state)
{
    (void)state;
    sign_public one, two, read;
    struct stat st;
    hone_err e = {0};
    char *path = path_join(keys, "signing.key"), *pem_path = path_join(keys, "own.pem");
    assert_int_equal(sign_public_own(&one, keys, &e), 0);
    assert_int_equal(sign_public_own(&two, keys, &e), 0);
    assert_memory_equal(&one, &two, sizeof one);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char *pem = sign_public_pem(&one);
    assert_int_equal(file_write(pem_path, pem, strlen(pem), NULL), 0);
    assert_int_equal(sign_public_load(&read, pem_path, &e), 0);
    assert_memory_equal(&read, &one, sizeof one);
    assert_int_equal(file_write(pem_path, pem, 40, NULL), 0);
    assert_int_equal(sign_public_load(&read, pem_path, &e), HONE_EFORMAT);
    assert_non_null(strstr(e.msg, "own.pem: no Ed25519 public key in PEM"));
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(sign_public_own(&two, keys, &e), HONE_EDENIED);
    assert_non_null(strstr(e.msg, "mode 640, others may read it; chmod 600"));
    free(pem);
    free(path);
    free(pem_path);
}

static void test_changes_are_named(void **state)
{
    (void)state;
    sign_report r;
    sign_trust t = own_trust();
    refused(&t, HONE_ENOTFOUND, "m: not signed");
    assert_int_equal(sign_dir(model, "m", keys, &r, NULL), 0);
    put("sub/a.txt", "z");
    refused(&t, HONE_EFORMAT, "m/sub/a.txt: was changed after it was signed");
    put("sub/a.txt", "x");
    put("sub/b.txt", "x");
    refused(&t, HONE_EFORMAT, "m/sub/b.txt: is not part of what was signed");
    char *path = path_join(model, "sub/b.txt"), *last = path_join(model, "sub-b.txt");
    assert_int_equal(file_remove(path, NULL), 0);
    assert_int_equal(sign_dir_check(model, &t, &r, NULL), 0);
    assert_int_equal(file_remove(last, NULL), 0);
    refused(&t, HONE_EFORMAT, "m/sub-b.txt: is missing since the directory was signed");
    assert_int_equal(symlink("config.json", last), 0);
    refused(&t, HONE_EFORMAT, "m/sub-b.txt: a link or special file");
    free(path);
    free(last);
    sign_trust_close(&t);
}

static void test_only_trusted_keys_count(void **state)
{
    sign_report r;
    sign_public other;
    hone_err e = {0};
    char *far = path_join(*state, "far"), *pem_path = path_join(*state, "far.pem");
    assert_int_equal(dir_make(far, NULL), 0);
    assert_int_equal(sign_dir(model, "m", far, &r, NULL), 0);
    assert_int_equal(sign_public_own(&other, far, NULL), 0);
    sign_trust t = own_trust();
    char *says =
        mem_printf("signed by key %.16s, which is not trusted here (trusted_keys)", r.key_id);
    refused(&t, HONE_EDENIED, says);
    sign_trust_close(&t);
    char *pem = sign_public_pem(&other);
    assert_int_equal(file_write(pem_path, pem, strlen(pem), NULL), 0);
    json_t *files = json_pack("[s]", pem_path);
    assert_int_equal(sign_trust_open(&t, keys, files, false, &e), 0);
    assert_int_equal(sign_dir_check(model, &t, &r, &e), 0);
    assert_string_equal(r.key_id, other.id);
    sign_trust_close(&t);
    json_decref(files);
    files = json_pack("[s]", "/nowhere.pem");
    assert_int_equal(sign_trust_open(&t, keys, files, false, &e), HONE_ENOTFOUND);
    json_decref(files);
    free(pem);
    free(says);
    free(far);
    free(pem_path);
}

/* Every character of the envelope is changed in turn: none of them passes. */
static void test_forged_envelopes(void **state)
{
    (void)state;
    static const char type[] = "text/plain";
    sign_trust t = own_trust();
    json_t *good, *bad;
    char *body, id[SIGN_ID];
    size_t len;
    hone_err e = {0};
    assert_int_equal(sign_envelope(&good, keys, type, "hello", 5, &e), 0);
    assert_int_equal(sign_envelope_open(&body, &len, id, good, type, &t, &e), 0);
    assert_string_equal(body, "hello");
    assert_string_equal(id, t.keys[0].id);
    free(body);
    assert_int_equal(sign_envelope_open(&body, &len, id, good, "text/html", &t, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "an envelope of 'text/plain', expected 'text/html'");
    char *text = js_text(good, false);
    for (size_t i = 0; text[i] != '\0'; i++) {
        text[i] ^= 1;
        if (js_parse(&bad, text, strlen(text), NULL) == 0) {
            assert_int_not_equal(sign_envelope_open(&body, &len, id, bad, type, &t, &e), 0);
            json_decref(bad);
        }
        text[i] ^= 1;
    }
    json_object_set_new(good, "signatures", json_array());
    assert_int_equal(sign_envelope_open(&body, &len, id, good, type, &t, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "0 signatures, expected 1 to 16");
    free(text);
    json_decref(good);
    sign_trust_close(&t);
}

int main(void)
{
    if (sodium_init() < 0)
        return 1;
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_known_answer),      TEST(test_key_is_the_owners_alone),
        TEST(test_changes_are_named), TEST(test_only_trusted_keys_count),
        TEST(test_forged_envelopes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

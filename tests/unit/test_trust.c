#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/trust.h"
#include "tests/unit/aid.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char text[] = "return 1\n";

typedef struct place {
    char *dir, *file, *lock;
    trust_file f;
    hone_err e;
} place;

static place make(void)
{
    place p = {.dir = aid_dir(), .f = {.fd = -1}};
    p.file = path_join(p.dir, "a.lua");
    p.lock = path_join(p.dir, "plugins.lock");
    assert_int_equal(file_write(p.file, text, strlen(text), &p.e), 0);
    assert_int_equal(chmod(p.file, 0644), 0);
    return p;
}

static void unmake(place *p)
{
    trust_close(&p->f);
    free(p->file);
    free(p->lock);
    aid_dir_remove(p->dir);
}

static int try_open(place *p)
{
    trust_close(&p->f);
    p->e = (hone_err){0};
    return trust_open(&p->f, p->dir, "a.lua", &p->e);
}

static void test_a_file_of_ours_is_read(void **state)
{
    (void)state;
    char want[65];
    place p = make();
    assert_int_equal(try_open(&p), 0);
    assert_string_equal(p.f.data, text);
    bytes_sha256(want, text, strlen(text));
    assert_string_equal(p.f.sha256, want);
    assert_string_equal(p.f.path, p.file);
    unmake(&p);
}

static void test_who_may_write_it(void **state)
{
    (void)state;
    place p = make();
    chmod(p.file, 0646);
    assert_int_equal(try_open(&p), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "anyone may write the file (mode 0646): chmod o-w"));
    chmod(p.file, 0664);
    assert_int_equal(try_open(&p), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "its group may write the file (mode 0664): chmod g-w"));
    chmod(p.file, 0644);
    chmod(p.dir, 0777);
    assert_int_equal(try_open(&p), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "anyone may write the folder"));
    chmod(p.dir, 0755);
    assert_int_equal(try_open(&p), 0);
    if (geteuid() == 0) { /* only root can give a file away */
        assert_int_equal(chown(p.file, 12345, 0), 0);
        assert_int_equal(try_open(&p), HONE_EDENIED);
        assert_non_null(strstr(p.e.msg, "belongs to user 12345, must belong to user 0 or root"));
    }
    unmake(&p);
}

static void test_links_and_other_things(void **state)
{
    (void)state;
    place p = make();
    char *other = path_join(p.dir, "b.lua");
    assert_int_equal(rename(p.file, other), 0);
    assert_int_equal(symlink(other, p.file), 0);
    assert_int_equal(try_open(&p), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "is a symbolic link; name the file itself"));
    unlink(p.file);
    assert_int_equal(mkfifo(p.file, 0600), 0);
    assert_int_equal(try_open(&p), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "is not a regular file"));
    free(other);
    unmake(&p);
}

static void test_the_lock_approves(void **state)
{
    (void)state;
    place p = make();
    trust_rule r = {.lock = p.lock};
    assert_int_equal(try_open(&p), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "nothing approves it"));
    assert_int_equal(trust_pin(&p.f, p.lock, &p.e), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), 0);

    assert_int_equal(file_write(p.file, "return 2\n", 9, &p.e), 0);
    char old[65];
    memcpy(old, p.f.sha256, sizeof old);
    assert_int_equal(try_open(&p), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, old));
    assert_non_null(strstr(p.e.msg, p.f.sha256));
    assert_int_equal(trust_check(&p.f, &(trust_rule){.lock = p.lock, .unpinned = true}, &p.e), 0);

    assert_int_equal(trust_pin(&p.f, p.lock, &p.e), 0); /* in place of the old line */
    assert_int_equal(trust_check(&p.f, &r, &p.e), 0);
    char *lock = aid_text(p.lock), *want = mem_printf("%s  a.lua\n", p.f.sha256);
    assert_string_equal(lock, want); /* what sha256sum -c reads */
    free(want);
    free(lock);
    chmod(p.lock, 0666);
    assert_int_equal(trust_check(&p.f, &r, &p.e), HONE_EDENIED);
    unmake(&p);
}

static void test_a_digest_in_the_settings(void **state)
{
    (void)state;
    char zeros[65];
    place p = make();
    memset(zeros, '0', 64);
    zeros[64] = '\0';
    assert_int_equal(try_open(&p), 0);
    assert_int_equal(trust_check(&p.f, &(trust_rule){.sha256 = p.f.sha256}, &p.e), 0);
    assert_int_equal(trust_check(&p.f, &(trust_rule){.sha256 = zeros, .unpinned = true}, &p.e),
                     HONE_EDENIED);
    assert_int_equal(trust_check(&p.f, &(trust_rule){.sha256 = "abc"}, &p.e), HONE_EINVAL);
    unmake(&p);
}

static void test_a_signature(void **state)
{
    (void)state;
    place p = make();
    unsigned char pk[32], sk[64], sig[64];
    char key[65], hex[129];
    assert_true(sodium_init() >= 0);
    crypto_sign_keypair(pk, sk);
    sodium_bin2hex(key, sizeof key, pk, sizeof pk);
    trust_rule r = {.signed_by = key};
    assert_int_equal(try_open(&p), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), HONE_ENOTFOUND);
    char *what = mem_printf("hone-plugin-v1:%s", p.f.sha256);
    crypto_sign_detached(sig, NULL, (const unsigned char *)what, strlen(what), sk);
    sodium_bin2hex(hex, sizeof hex, sig, sizeof sig);
    char *path = mem_printf("%s.sig", p.file);
    assert_int_equal(file_write(path, hex, 128, &p.e), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), 0);
    assert_int_equal(file_write(p.file, "return 3\n", 9, &p.e), 0);
    assert_int_equal(try_open(&p), 0);
    assert_int_equal(trust_check(&p.f, &r, &p.e), HONE_EDENIED);
    assert_non_null(strstr(p.e.msg, "was not signed by"));
    free(path);
    free(what);
    unmake(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_of_ours_is_read),   cmocka_unit_test(test_who_may_write_it),
        cmocka_unit_test(test_links_and_other_things),   cmocka_unit_test(test_the_lock_approves),
        cmocka_unit_test(test_a_digest_in_the_settings), cmocka_unit_test(test_a_signature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

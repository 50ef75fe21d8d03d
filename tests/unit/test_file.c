#include "core/base/file.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory, and two names in it. */
typedef struct place {
    char *dir, *a, *b;
} place;

static int setup(void **state)
{
    place *p = mem_alloc(sizeof *p);
    p->dir = aid_dir();
    p->a = path_join(p->dir, "a");
    p->b = path_join(p->dir, "b");
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    place *p = *state;
    aid_dir_remove(p->dir);
    free(p->a);
    free(p->b);
    free(p);
    return 0;
}

static void put(const char *path, const char *text)
{
    hone_err e = {0};
    if (file_write(path, text, strlen(text), &e) != 0)
        fail_msg("%s", e.msg);
}

static void assert_holds(const char *path, const char *text)
{
    char *got = aid_text(path);
    assert_string_equal(got, text);
    free(got);
}

static size_t n_names(const char *dir)
{
    char **names;
    size_t n = 0;
    assert_int_equal(dir_list(&names, dir, NULL), 0);
    while (names[n] != NULL)
        n++;
    dir_list_free(names);
    return n;
}

static void test_write_and_read(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    char *text;
    size_t len;
    assert_int_equal(file_write(p->a, "x\0y", 3, &e), 0);
    assert_int_equal(file_read(&text, &len, p->a, 3, &e), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(text, "x\0y", 4);
    free(text);
    assert_int_equal(file_write(p->a, "", 0, &e), 0);
    assert_int_equal(file_read(&text, &len, p->a, 0, &e), 0);
    assert_int_equal(len, 0);
    assert_string_equal(text, "");
    free(text);
}

static void test_read_errors(void **state)
{
    const place *p = *state;
    char *text = p->dir;
    size_t len = 7;
    hone_err e = {0};
    assert_int_equal(file_read(&text, &len, p->a, 10, &e), HONE_ENOTFOUND);
    assert_null(text);
    assert_int_equal(len, 0);
    put(p->a, "12345");
    assert_int_equal(file_read(&text, &len, p->a, 4, &e), HONE_ELIMIT);
    char *want = mem_printf("%s: 5 bytes, at most 4 are read", p->a);
    assert_string_equal(e.msg, want);
    free(want);
    assert_int_equal(file_read(&text, &len, p->dir, 10, &e), HONE_EIO);
    want = mem_printf("%s: not a regular file", p->dir);
    assert_string_equal(e.msg, want);
    free(want);
}

static void test_files_that_do_not_know_their_size(void **state)
{
    (void)state;
    char *text;
    size_t len;
    hone_err e = {0};
    assert_int_equal(file_read(&text, &len, "/proc/self/status", 1 << 20, &e), 0);
    assert_true(len > 100); /* more than any first guess from st_size = 0 */
    assert_memory_equal(text, "Name:", 5);
    assert_int_equal(strlen(text), len);
    free(text);
    assert_int_equal(file_read(&text, &len, "/proc/self/status", 100, &e), HONE_ELIMIT);
    assert_string_equal(e.msg, "/proc/self/status: more than 100 bytes");
}

static void test_map(void **state)
{
    const place *p = *state;
    file_map m;
    hone_err e = {0};
    put(p->a, "mapped");
    assert_int_equal(file_map_open(&m, p->a, &e), 0);
    assert_int_equal(m.len, 6);
    assert_memory_equal(m.data, "mapped", 6);
    file_map_close(&m);
    file_map_close(&m);
    put(p->a, "");
    assert_int_equal(file_map_open(&m, p->a, &e), HONE_EFORMAT);
    assert_null(m.data);
    assert_int_equal(file_map_open(&m, p->dir, &e), HONE_EFORMAT);
    assert_int_equal(file_map_open(&m, p->b, &e), HONE_ENOTFOUND);
}

static void test_abort_leaves_the_old_file(void **state)
{
    const place *p = *state;
    file_out *f;
    put(p->a, "old");
    assert_int_equal(file_out_open(&f, p->a, 0644, NULL), 0);
    assert_int_equal(file_out_write(f, "new and longer", 14, NULL), 0);
    assert_holds(p->a, "old");
    file_out_abort(f);
    assert_holds(p->a, "old");
    assert_int_equal(n_names(p->dir), 1);
    file_out_abort(NULL);
}

static void test_commit_replaces_at_once(void **state)
{
    const place *p = *state;
    file_out *f;
    put(p->a, "old");
    assert_int_equal(file_out_open(&f, p->a, 0600, NULL), 0);
    assert_int_equal(file_out_write(f, "new ", 4, NULL), 0);
    assert_int_equal(file_out_write(f, "text", 4, NULL), 0);
    assert_int_equal(file_out_commit(f, NULL), 0);
    assert_holds(p->a, "new text");
    assert_int_equal(n_names(p->dir), 1);
    struct stat st;
    assert_int_equal(stat(p->a, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    put(p->a, "newer"); /* a secret file stays secret */
    assert_int_equal(stat(p->a, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* Makes a write past `max` bytes short, and the next one fail. */
static void limit_files_to(rlim_t max)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_a_failed_write_is_never_committed(void **state)
{
    const place *p = *state;
    file_out *f;
    hone_err e = {0};
    put(p->a, "old");
    assert_int_equal(file_out_open(&f, p->a, 0644, &e), 0);
    assert_int_equal(file_out_write(f, "half", 4, &e), 0);
    limit_files_to(6);
    assert_int_equal(file_out_write(f, "too long", 8, &e), HONE_ELIMIT);
    limit_files_to(RLIM_INFINITY);
    assert_non_null(strstr(e.msg, "/a: cannot write: File too large"));
    assert_int_equal(file_out_write(f, "rest", 4, &e), HONE_EIO);
    assert_int_equal(file_out_commit(f, &e), HONE_EIO);
    assert_non_null(strstr(e.msg, "an earlier write failed"));
    assert_holds(p->a, "old");
    assert_int_equal(n_names(p->dir), 1);
}

static void test_where_nothing_can_be_created(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    char *deep = path_join(p->b, "c");
    assert_int_equal(file_write(deep, "x", 1, &e), HONE_ENOTFOUND);
    char *want = mem_printf("%s: cannot create: No such file or directory", deep);
    assert_string_equal(e.msg, want);
    free(want);
    free(deep);
}

static void *writer(void *arg)
{
    for (int i = 0; i < 50; i++) {
        char text[40];
        memset(text, 'a' + i % 26, sizeof text);
        assert(file_write(arg, text, sizeof text, NULL) == 0);
    }
    return NULL;
}

static void test_two_writers_never_mix(void **state)
{
    const place *p = *state;
    pthread_t t[2];
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, writer, p->a), 0);
    for (size_t i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    char *text = aid_text(p->a);
    assert_int_equal(strlen(text), 40);
    for (size_t i = 1; i < 40; i++)
        assert_int_equal(text[i], text[0]);
    free(text);
    assert_int_equal(n_names(p->dir), 1);
}

static void test_append(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    assert_int_equal(file_append(p->a, "one\n", 4, true, &e), 0);
    assert_int_equal(file_append(p->a, "two\n", 4, false, &e), 0);
    assert_holds(p->a, "one\ntwo\n");
    /* What a crash leaves is half a line: the next one must not join it. */
    assert_int_equal(file_write(p->a, "one\ntw", 6, &e), 0);
    assert_int_equal(file_append(p->a, "three\n", 6, true, &e), 0);
    assert_holds(p->a, "one\ntw\nthree\n");
    assert_int_equal(file_append(p->dir, "x\n", 2, true, &e), HONE_EIO);
}

static void test_a_failed_append_leaves_the_file_as_it_was(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    put(p->a, "one\nhalf");
    limit_files_to(12);
    assert_int_equal(file_append(p->a, "three\n", 6, true, &e), HONE_ELIMIT);
    limit_files_to(RLIM_INFINITY);
    assert_holds(p->a, "one\nhalf");
}

static void test_digests(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    char hex[65];
    /* FIPS 180-4: the empty message, "abc", and a million times 'a'. */
    bytes_sha256(hex, "", 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    bytes_sha256(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char *million = mem_alloc(1000000);
    memset(million, 'a', 1000000);
    assert_int_equal(file_write(p->a, million, 1000000, &e), 0);
    free(million);
    assert_int_equal(file_sha256(hex, p->a, &e), 0);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(file_sha256(hex, p->b, &e), HONE_ENOTFOUND);
    assert_int_equal(file_sha256(hex, p->dir, &e), HONE_EIO);
}

static void test_copy_size_remove(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    int64_t size = 0;
    struct stat st;
    char *big = mem_alloc(200001);
    memset(big, 'x', 200000);
    put(p->a, big);
    assert_int_equal(chmod(p->a, 0750), 0);
    mode_t before = umask(077); /* says nothing about what stands already */
    assert_int_equal(file_copy(p->a, p->b, &e), 0);
    assert_holds(p->b, big);
    free(big);
    assert_int_equal(stat(p->b, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0750);
    put(p->b, "again");
    umask(before);
    assert_int_equal(stat(p->b, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0750);
    put(p->b, "");
    assert_int_equal(file_copy(p->a, p->b, &e), 0);
    assert_int_equal(file_size(&size, p->b, &e), 0);
    assert_int_equal(size, 200000);
    assert_true(file_exists(p->b));
    assert_int_equal(file_remove(p->b, &e), 0);
    assert_int_equal(file_remove(p->b, &e), 0);
    assert_false(file_exists(p->b));
    assert_int_equal(file_copy(p->b, p->a, &e), HONE_ENOTFOUND);
    assert_int_equal(file_copy(p->dir, p->b, &e), HONE_EIO);
    assert_int_equal(n_names(p->dir), 1);
    assert_int_equal(file_size(&size, p->b, &e), HONE_ENOTFOUND);
    assert_true(file_remove(p->dir, &e) < 0);
}

static void test_directories(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    char *deep = path_join(p->a, "x//y/z"), **names;
    assert_int_equal(dir_make(deep, &e), 0);
    assert_int_equal(dir_make(deep, &e), 0);
    assert_true(file_is_dir(deep));
    assert_false(file_is_dir(p->b));
    put(p->b, "file");
    assert_true(dir_make(p->b, &e) < 0);
    assert_true(dir_make("", &e) < 0);
    assert_int_equal(dir_list(&names, p->dir, &e), 0);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    assert_null(names[2]);
    dir_list_free(names);
    dir_list_free(NULL);
    assert_int_equal(dir_list(&names, p->b, &e), HONE_ENOTFOUND); /* a file is no directory */
    assert_null(names);
    /* A link is removed, what it leads to is not. */
    char *link = path_join(deep, "link");
    assert_int_equal(symlink(p->b, link), 0);
    assert_int_equal(dir_remove(p->a, &e), 0);
    assert_int_equal(dir_remove(p->a, &e), 0);
    assert_false(file_exists(p->a));
    assert_true(file_exists(p->b));
    free(link);
    free(deep);
}

static void test_rename_never_replaces(void **state)
{
    const place *p = *state;
    hone_err e = {0};
    char *in = path_join(p->a, "weights"), *out = path_join(p->b, "weights");
    assert_int_equal(dir_make(p->a, &e), 0);
    put(in, "w");
    assert_int_equal(dir_make(p->b, &e), 0); /* rename() itself would replace an empty one */
    assert_int_equal(dir_rename(p->a, p->b, &e), HONE_EEXIST);
    char *want = mem_printf("%s: exists already", p->b);
    assert_string_equal(e.msg, want);
    free(want);
    assert_holds(in, "w");
    assert_int_equal(dir_remove(p->b, &e), 0);
    assert_int_equal(dir_rename(p->a, p->b, &e), 0);
    assert_holds(out, "w");
    assert_false(file_exists(p->a));
    assert_int_equal(dir_rename(p->a, p->b, &e), HONE_ENOTFOUND);
    free(in);
    free(out);
    char *missing = path_join(p->dir, "none"), *to = path_join(p->dir, "to");
    assert_int_equal(dir_rename(missing, to, &e), HONE_ENOTFOUND);
    free(missing);
    free(to);
}

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path, *dir, *base;
    } cases[] = {
        {"a", ".", "a"},     {"a/b", "a", "b"},     {"/a", "/", "a"}, {"/a/b", "/a", "b"},
        {"a/b/", "a", ""},   {"a//b", "a", "b"},    {"/", "/", ""},   {"a/", ".", ""},
        {"../x", "..", "x"}, {"/a//b//", "/a", ""}, {"", ".", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = path_dir(cases[i].path);
        assert_string_equal(dir, cases[i].dir);
        assert_string_equal(path_base(cases[i].path), cases[i].base);
        free(dir);
    }
    static const char *const joins[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        char *s = path_join(joins[i][0], joins[i][1]);
        assert_string_equal(s, joins[i][2]);
        free(s);
    }
}

static void test_codes_of_system_errors(void **state)
{
    (void)state;
    hone_err e = {0};
    static const struct {
        int system, ours;
    } cases[] = {{ENOENT, HONE_ENOTFOUND},
                 {EACCES, HONE_EDENIED},
                 {ENOSPC, HONE_EIO},
                 {ENOMEM, HONE_ENOMEM},
                 {EEXIST, HONE_EEXIST}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        errno = cases[i].system;
        assert_int_equal(file_error(&e, "p", "cannot x"), cases[i].ours);
    }
    errno = ENOSPC;
    file_error(&e, "a\nb", "cannot write");
    assert_string_equal(e.msg, "a?b: cannot write: No space left on device");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_write_and_read),
        TEST(test_read_errors),
        TEST(test_files_that_do_not_know_their_size),
        TEST(test_map),
        TEST(test_abort_leaves_the_old_file),
        TEST(test_commit_replaces_at_once),
        TEST(test_a_failed_write_is_never_committed),
        TEST(test_where_nothing_can_be_created),
        TEST(test_two_writers_never_mix),
        TEST(test_append),
        TEST(test_a_failed_append_leaves_the_file_as_it_was),
        TEST(test_digests),
        TEST(test_copy_size_remove),
        TEST(test_directories),
        TEST(test_rename_never_replaces),
        TEST(test_paths),
        TEST(test_codes_of_system_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

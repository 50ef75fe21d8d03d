/* Where and with what a server starts, and what it refuses to start with. */
#include "serve/http/http_server.h"

#include "core/base/mem.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void has(const char *text, const char *needle)
{
    if (strstr(text, needle) == NULL)
        fail_msg("'%s' does not hold '%s'", text, needle);
}

static void test_what_is_not_started(void **state)
{
    aid_server *s = *state;
    http_server *second;
    hone_err e = {0};
    serve_conf c;
    char *taken = mem_printf("listen=127.0.0.1:%u", s->port);
    char *over[] = {taken};
    assert_int_equal(serve_conf_load(&c, NULL, over, 1, &e), 0);
    http_options o = {&c, s->store, NULL, aid_fake_backend(s->fake)};
    assert_int_equal(http_server_start(&second, &o, &e), HONE_EIO);
    has(e.msg, ": cannot listen: Address already in use; another program has this port");
    assert_null(second);
    serve_conf_free(&c);
    over[0] = (char *)"listen=0.0.0.0:0";
    assert_int_equal(serve_conf_load(&c, NULL, over, 1, &e), 0);
    assert_int_equal(http_server_start(&second, &o, &e), HONE_EDENIED);
    has(e.msg, "there is no key; make one with 'hone key create'");
    serve_conf_free(&c);
    free(taken);
}

/* In a process of its own, since a limit that was lowered stays so. 0: as it should be. */
static int start_with_files(rlim_t soft, rlim_t hard, int want_rc, rlim_t want_soft)
{
    pid_t pid = fork();
    int status = -1;
    if (pid == 0) {
        char *dir = aid_dir_quick();
        struct rlimit lim = {soft, hard};
        hone_err e = {0};
        http_server *http = NULL;
        serve_conf c;
        store *st;
        char *over[] = {(char *)"listen=127.0.0.1:0"};
        aid_fake *fake = aid_fake_start(dir);
        bool good = serve_conf_load(&c, NULL, over, 1, &e) == 0 &&
                    store_open(&st, dir, NULL, &e) == 0 && setrlimit(RLIMIT_NOFILE, &lim) == 0;
        http_options o = {&c, st, NULL, aid_fake_backend(fake)};
        good = good && http_server_start(&http, &o, &e) == want_rc;
        good = good && getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur == want_soft;
        good = good && (want_rc == 0 || strstr(e.msg, "raise the limit (ulimit -n") != NULL);
        http_server_stop(http);
        aid_dir_drop(dir);
        _exit(good ? 0 : 1);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Connections leave room for the files of the database: 1024 want 1216. */
static void test_open_files(void **state)
{
    struct rlimit old;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &old);
    if (old.rlim_max < 2000)
        skip();
    assert_int_equal(start_with_files(100, old.rlim_max, 0, 1216), 0);  /* raised */
    assert_int_equal(start_with_files(1500, old.rlim_max, 0, 1500), 0); /* enough */
    assert_int_equal(start_with_files(300, 300, 0, 300), 0);            /* fewer connections */
    assert_int_equal(start_with_files(100, 150, HONE_ELIMIT, 150), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_not_started, aid_server_setup,
                                        aid_server_teardown),
        cmocka_unit_test(test_open_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The probe of orchestrators: what it says of a server that is ready, is not, or is none. */
#include "serve/http/http_probe.h"

#include "core/base/mem.h"
#include "tests/unit/aid_server.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

enum { LONG_MS = 60000, SHORT_MS = 50 };

/* A probe of loopback's port, and what it gives: a status, and words of its answer or its error. */
static void probe(const char *host, uint16_t port, bool live, int timeout_ms, int want,
                  const char *words)
{
    char *said = NULL, *listen = mem_printf("listen=%s:%u", host, port);
    hone_err e = {0};
    serve_conf c;
    assert_int_equal(serve_conf_load(&c, NULL, &listen, 1, &e), 0);
    int rc = http_probe(&c, live, timeout_ms, &said, &e);
    const char *text = rc == 0 ? said : e.msg;
    if (rc != want || strstr(text, words) == NULL)
        fail_msg("gives %s: '%s', not %s: '%s'", hone_errname(rc), text, hone_errname(want), words);
    if (rc != 0)
        assert_null(said);
    free(said);
    free(listen);
    serve_conf_free(&c);
}

static void test_ready_and_not(void **state)
{
    aid_server *s = *state;
    probe("127.0.0.1", s->port, false, LONG_MS, 0, "\"model\":\"fake\"");
    probe("localhost", s->port, false, LONG_MS, 0, "\"model\":\"fake\""); /* ::1 may be first */
    probe("", s->port, false, LONG_MS, 0, "\"model\":\"fake\"");
    s->plan->no_model = 1;
    probe("127.0.0.1", s->port, false, LONG_MS, HONE_EAGAIN,
          "not ready (503): the fake has no model");
    probe("127.0.0.1", s->port, true, LONG_MS, 0, "\"status\":\"ok\"");
    s->plan->no_model = 0;
}

/* A bound socket; others than we cannot get its port. */
static int bound(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static void *say_something(void *arg)
{
    char request[512];
    int fd = accept(*(int *)arg, NULL, NULL);
    if (fd >= 0 && recv(fd, request, sizeof request, 0) > 0)
        send(fd, "220 mail.example ESMTP\r\n", 24, MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

static void test_somebody_else(void **state)
{
    uint16_t port;
    pthread_t thread;
    int fd = bound(&port);
    (void)state;
    probe("127.0.0.1", port, false, LONG_MS, HONE_EIO, "Connection refused");
    assert_int_equal(listen(fd, 4), 0);
    probe("127.0.0.1", port, false, SHORT_MS, HONE_ETIMEOUT, "no answer in time");
    /* The one that gave up waits in the backlog, closed. */
    close(accept(fd, NULL, NULL));
    assert_int_equal(pthread_create(&thread, NULL, say_something, &fd), 0);
    probe("127.0.0.1", port, false, LONG_MS, HONE_EFORMAT, "what answers there is no hone server");
    pthread_join(thread, NULL);
    close(fd);
}

static void test_settings_that_cannot_be_asked(void **state)
{
    static const struct {
        const char *set[3];
        const char *says;
    } cases[] = {
        {{"listen=127.0.0.1:0"}, "takes any free port; set one"},
        {{"tls_cert=c.pem", "tls_key=k.pem"}, "set health_listen"},
        {{"health_listen=nonsense"}, "expected host:port"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *said, *over[3] = {NULL};
        int n = 0;
        hone_err e = {0};
        serve_conf c;
        for (; cases[i].set[n] != NULL; n++)
            over[n] = (char *)cases[i].set[n];
        assert_int_equal(serve_conf_load(&c, NULL, over, n, &e), 0);
        assert_int_equal(http_probe(&c, false, LONG_MS, &said, &e), HONE_EINVAL);
        if (strstr(e.msg, cases[i].says) == NULL)
            fail_msg("'%s' does not say '%s'", e.msg, cases[i].says);
        serve_conf_free(&c);
    }
}

/* The door for probes is asked, not the one for clients. */
static void test_asks_the_door_for_probes(void **state)
{
    static const char *const settings[] = {"health_listen=127.0.0.1:0", NULL};
    char *said, *over[] = {(char *)"listen=127.0.0.1:1", NULL};
    hone_err e = {0};
    serve_conf c;
    (void)state;
    aid_server *s = aid_server_open(settings);
    over[1] = mem_printf("health_listen=127.0.0.1:%u", s->health_port);
    assert_int_equal(serve_conf_load(&c, NULL, over, 2, &e), 0);
    assert_int_equal(http_probe(&c, false, LONG_MS, &said, &e), 0);
    free(said);
    free(over[1]);
    serve_conf_free(&c);
    aid_server_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ready_and_not, aid_server_setup, aid_server_teardown),
        cmocka_unit_test(test_somebody_else),
        cmocka_unit_test(test_settings_that_cannot_be_asked),
        cmocka_unit_test(test_asks_the_door_for_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

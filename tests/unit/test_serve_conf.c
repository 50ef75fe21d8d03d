#include "serve/http/serve_conf.h"

#include "core/base/file.h"
#include "tests/unit/aid_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void fails_with(int rc, int want, const hone_err *e, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(e->msg, text) == NULL)
        fail_msg("'%s' does not say '%s'", e->msg, text);
}

static int load(serve_conf *c, const char *dir, const char *yaml, char *const *over, int n,
                hone_err *e)
{
    char *path = path_join(dir, "hone.yaml");
    assert_int_equal(file_write(path, yaml, strlen(yaml), NULL), 0);
    int rc = serve_conf_load(c, path, over, n, e);
    free(path);
    return rc;
}

static void test_file_and_overrides(void **state)
{
    serve_conf c;
    hone_err e = {0};
    char *over[] = {(char *)"max_seqs=3", (char *)"retrain.min_examples=5",
                    (char *)"state_dir=elsewhere"};
    int rc = load(&c, *state,
                  "model: models/base\nserved_model_name: m\nstate_dir: /var/lib/hone\n"
                  "log_prompts: metadata\ncors_origins: https://a.example\n"
                  "retrain:\n  min_examples: 2\n  every: day\n",
                  over, 3, &e);
    if (rc != 0)
        fail_msg("%s", e.msg);
    char *model = path_join(*state, "models/base"); /* beside the file */
    assert_string_equal(c.model, model);
    assert_string_equal(c.name, "m");
    assert_string_equal(c.state_dir, "elsewhere"); /* from the command line: as it is */
    assert_int_equal(c.log_prompts, SERVE_LOG_METADATA);
    assert_int_equal(json_array_size(c.cors_origins), 1);
    assert_int_equal(c.max_seqs, 3);
    assert_int_equal(json_integer_value(json_object_get(c.retrain, "min_examples")), 5);
    assert_string_equal(json_string_value(json_object_get(c.retrain, "every")), "day");
    free(model);
    serve_conf_free(&c);
}

static void test_a_model_without_a_name(void **state)
{
    static const struct {
        const char *yaml, *name;
    } rows[] = {
        {"model: models/base\n", "base"}, {"model: models/base//\n", "base"},
        {"model: /\n", "hone"},           {"model: ..\n", "hone"},
        {"max_seqs: 2\n", "hone"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        serve_conf c;
        hone_err e = {0};
        if (load(&c, *state, rows[i].yaml, NULL, 0, &e) != 0)
            fail_msg("%s", e.msg);
        assert_string_equal(c.name, rows[i].name);
        serve_conf_free(&c);
    }
}

static void test_mistakes_are_named(void **state)
{
    serve_conf c;
    hone_err e = {0};
    fails_with(load(&c, *state, "model: m\nlisten_adress: x\n", NULL, 0, &e), HONE_EINVAL, &e,
               "line 2: unknown key 'listen_adress'");
    serve_conf_free(&c);
    fails_with(load(&c, *state, "max_seqs: 0\n", NULL, 0, &e), HONE_EINVAL, &e,
               "'max_seqs' is 0, must lie between 1 and 1024");
    serve_conf_free(&c);
    char *over[] = {(char *)"max_seqs.x=3"};
    fails_with(load(&c, *state, "{}", over, 1, &e), HONE_EINVAL, &e, "unknown key 'max_seqs.x'");
    serve_conf_free(&c);
}

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        int port;
    } good[] = {{"127.0.0.1:8080", "127.0.0.1", 8080},
                {"[::1]:1", "::1", 1},
                {":80", "", 80},
                {"*:80", "", 80},
                {"localhost:0", "localhost", 0}};
    static const char *const bad[] = {"8080", "::1:80", "a:b", "a:70000", "a:-1", "a:80x", ""};
    char host[64];
    uint16_t port;
    hone_err e = {0};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(serve_conf_listen(good[i].text, host, &port, &e), 0);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fails_with(serve_conf_listen(bad[i], host, &port, &e), HONE_EINVAL, &e,
                   "expected host:port");
    assert_true(serve_conf_loopback("127.8.0.1"));
    assert_true(serve_conf_loopback("::1"));
    assert_true(serve_conf_loopback("localhost"));
    assert_false(serve_conf_loopback(""));
    assert_false(serve_conf_loopback("0.0.0.0"));
    assert_false(serve_conf_loopback("127.example.org"));
}

static void check(const char *yaml, const char *dir, int64_t n_keys, int want, const char *text)
{
    serve_conf c;
    hone_err e = {0};
    assert_int_equal(load(&c, dir, yaml, NULL, 0, &e), 0);
    int rc = serve_conf_check(&c, n_keys, &e);
    if (want == 0 && rc != 0)
        fail_msg("%s", e.msg);
    if (want != 0)
        fails_with(rc, want, &e, text);
    serve_conf_free(&c);
}

static void test_nothing_open_by_accident(void **state)
{
    const char *d = *state;
    check("listen: 127.0.0.1:1", d, 0, 0, "");
    check("listen: 0.0.0.0:1", d, 0, HONE_EDENIED, "there is no key; make one with 'hone key");
    check("listen: ':1'\nbehind_proxy: true", d, 0, HONE_EDENIED, "there is no key");
    check("listen: 0.0.0.0:1", d, 1, HONE_EDENIED, "without TLS; set tls_cert and tls_key");
    check("listen: 0.0.0.0:1\nbehind_proxy: true", d, 1, 0, "");
    check("listen: 0.0.0.0:1\ntls_cert: a\ntls_key: b", d, 1, 0, "");
    check("listen: 0.0.0.0:1\nbehind_proxy: true\ninsecure_no_auth: true", d, 0, 0, "");
    check("admin_listen: 127.0.0.1:1", d, 0, 0, "");
    check("admin_listen: 0.0.0.0:1", d, 0, HONE_EDENIED,
          "admin_listen '0.0.0.0:1': reachable from other machines and there is no key");
    check("admin_listen: 0.0.0.0:1", d, 1, HONE_EDENIED,
          "admin_listen '0.0.0.0:1': reachable from "
          "other machines without TLS");
    check("tls_cert: a", d, 1, HONE_EINVAL, "'tls_key' is missing");
    check("health_listen: x", d, 1, HONE_EINVAL, "health_listen: listen 'x': expected");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, aid_dir_setup, aid_dir_teardown)
    const struct CMUnitTest tests[] = {
        T(test_file_and_overrides),       T(test_a_model_without_a_name),
        T(test_mistakes_are_named),       cmocka_unit_test(test_addresses),
        T(test_nothing_open_by_accident),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Certificates that are replaced while connections stand. */
#include "core/base/file.h"
#include "core/base/mem.h"
#include "serve/http/http_tls.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_server.h"

#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *cert_path, *key_path;

static void save(const char *path, gnutls_datum_t *d)
{
    assert_int_equal(file_write(path, d->data, d->size, NULL), 0);
    gnutls_free(d->data);
}

/* A self-signed certificate of this name with a key of its own. */
static void make_pair(const char *name, const char *to_cert, const char *to_key)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t text;
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(
                         key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, "\1", 1);
    gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                  (unsigned)strlen(name));
    gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60);
    gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600);
    gnutls_x509_crt_set_key(crt, key);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &text), 0);
    save(to_cert, &text);
    assert_int_equal(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &text), 0);
    save(to_key, &text);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
}

/* ---- a client ---- */

typedef struct client {
    int fd;
    gnutls_session_t session;
    gnutls_certificate_credentials_t cred;
} client;

static client dial(uint16_t port)
{
    client c = {.fd = aid_connect(port)};
    assert_true(c.fd >= 0);
    assert_int_equal(gnutls_certificate_allocate_credentials(&c.cred), 0);
    assert_int_equal(gnutls_init(&c.session, GNUTLS_CLIENT), 0);
    assert_int_equal(gnutls_set_default_priority(c.session), 0);
    assert_int_equal(gnutls_credentials_set(c.session, GNUTLS_CRD_CERTIFICATE, c.cred), 0);
    gnutls_transport_set_int(c.session, c.fd);
    gnutls_handshake_set_timeout(c.session, 10000);
    int rc;
    do
        rc = gnutls_handshake(c.session);
    while (rc < 0 && !gnutls_error_is_fatal(rc));
    if (rc != 0)
        fail_msg("handshake: %s", gnutls_strerror(rc));
    return c;
}

static void hang_up(client *c)
{
    gnutls_deinit(c->session);
    gnutls_certificate_free_credentials(c->cred);
    close(c->fd);
}

/* Whom the server said it is. */
static void name_of(const client *c, char name[64])
{
    unsigned n;
    size_t len = 64;
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(c->session, &n);
    assert_non_null(list);
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER), 0);
    assert_int_equal(
        gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &len), 0);
    gnutls_x509_crt_deinit(crt);
}

static void get(client *c)
{
    static const char request[] = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char reply[1024];
    size_t n = 0;
    ssize_t got;
    assert_int_equal(gnutls_record_send(c->session, request, sizeof request - 1),
                     (int)sizeof request - 1);
    do {
        got = gnutls_record_recv(c->session, reply + n, sizeof reply - 1 - n);
        n += got > 0 ? (size_t)got : 0;
        reply[n] = '\0';
    } while (got > 0 && strstr(reply, "}") == NULL);
    assert_non_null(strstr(reply, "HTTP/1.1 200"));
    assert_non_null(strstr(reply, "\"status\":\"ok\""));
}

static void expect_name(uint16_t port, const char *want)
{
    char name[64];
    client c = dial(port);
    name_of(&c, name);
    assert_string_equal(name, want);
    get(&c);
    hang_up(&c);
}

/* ---- a server ---- */

static int set_up(void **state)
{
    if (aid_dir_quick_setup(state) != 0)
        return -1;
    cert_path = path_join(*state, "cert.pem");
    key_path = path_join(*state, "key.pem");
    make_pair("first", cert_path, key_path);
    return 0;
}

static int tear_down(void **state)
{
    free(cert_path);
    free(key_path);
    return aid_dir_teardown(state);
}

static aid_server *serve(void)
{
    char *cert = mem_printf("tls_cert=%s", cert_path), *key = mem_printf("tls_key=%s", key_path);
    const char *settings[] = {cert, key, NULL};
    aid_server *s = aid_server_open(settings);
    free(cert);
    free(key);
    return s;
}

static void test_replaced_while_connections_stand(void **state)
{
    (void)state;
    char name[64];
    aid_server *s = serve();
    client old = dial(s->port);
    name_of(&old, name);
    assert_string_equal(name, "first");
    get(&old);
    make_pair("second", cert_path, key_path);
    expect_name(s->port, "first"); /* nobody was told yet */
    http_server_reload(s->http, true);
    expect_name(s->port, "second");
    get(&old); /* the connection of before goes on */
    hang_up(&old);
    aid_server_close(s);
}

static void test_what_is_bad_changes_nothing(void **state)
{
    (void)state;
    aid_server *s = serve();
    char *kept;
    size_t len;
    assert_int_equal(file_read(&kept, &len, key_path, 1 << 20, NULL), 0);
    assert_int_equal(file_write(key_path, "no key", 6, NULL), 0);
    http_server_reload(s->http, true);
    expect_name(s->port, "first");
    make_pair("second", cert_path, key_path);
    assert_int_equal(file_write(key_path, kept, len, NULL), 0); /* the key of the first */
    http_server_reload(s->http, true);
    expect_name(s->port, "first");
    free(kept);
    aid_server_close(s);
}

static void test_changes_are_seen(void **state)
{
    (void)state;
    aid_server *s = serve();
    http_server_reload(s->http, false);
    expect_name(s->port, "first");
    make_pair("second", cert_path, key_path);
    http_server_reload(s->http, false); /* it may still be in the making */
    expect_name(s->port, "first");
    http_server_reload(s->http, false);
    expect_name(s->port, "second");
    aid_server_close(s);
}

static void fails(int want, const char *says)
{
    http_tls *t;
    hone_err e = {0};
    assert_int_equal(http_tls_open(&t, cert_path, key_path, &e), want);
    assert_null(t);
    char *whole = mem_printf("%s with %s: %s", cert_path, key_path, says);
    if (strcmp(e.msg, whole) != 0)
        fail_msg("'%s' is not '%s'", e.msg, whole);
    free(whole);
}

static void test_errors(void **state)
{
    char *other = path_join(*state, "other.pem");
    http_tls *t;
    bool took;
    hone_err e = {0};
    make_pair("other", other, key_path);
    fails(HONE_EFORMAT, "The certificate and the given key do not match");
    assert_int_equal(file_write(cert_path, "x", 1, NULL), 0);
    fails(HONE_EFORMAT, "Base64 decoding error");
    assert_int_equal(file_remove(cert_path, NULL), 0);
    assert_int_equal(http_tls_open(&t, cert_path, key_path, &e), HONE_ENOTFOUND);
    make_pair("good", cert_path, key_path);
    assert_int_equal(http_tls_open(&t, cert_path, key_path, &e), 0);
    assert_int_equal(file_remove(key_path, NULL), 0);
    assert_int_equal(http_tls_reload(t, false, &took, &e), 0);
    assert_int_equal(http_tls_reload(t, false, &took, &e), HONE_ENOTFOUND);
    assert_int_equal(http_tls_reload(t, false, &took, &e), 0); /* said once */
    assert_false(took);
    http_tls_close(t);
    free(other);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_replaced_while_connections_stand),
        TEST(test_what_is_bad_changes_nothing),
        TEST(test_changes_are_seen),
        TEST(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

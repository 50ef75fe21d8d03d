#include "serve/http/http_tls.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"

#include <gnutls/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MAX_PEM = 1 << 20, MAX_CHAIN = 16 };

/* What tells one version of a file from the next. */
typedef struct mark {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime;
} mark;

typedef struct marks {
    mark cert, key;
} marks;

typedef struct pem {
    char *cert, *key;
    size_t cert_len, key_len;
} pem;

struct http_tls {
    char *cert_path, *key_path;
    pthread_mutex_t lock;
    pem pem;     /* what handshakes get */
    marks tried; /* of the files that were read last, good or bad */
    marks seen;  /* at the last look */
};

static void pem_free(pem *p)
{
    if (p->key != NULL)
        gnutls_memset(p->key, 0, p->key_len);
    free(p->cert);
    free(p->key);
    *p = (pem){0};
}

static mark mark_of(const char *path)
{
    struct stat st;
    mark m;
    memset(&m, 0, sizeof m); /* compared as bytes */
    if (stat(path, &st) == 0) {
        m.dev = st.st_dev;
        m.ino = st.st_ino;
        m.size = st.st_size;
        m.mtime = st.st_mtim;
    }
    return m;
}

static marks look(const http_tls *t)
{
    marks m;
    memset(&m, 0, sizeof m);
    m.cert = mark_of(t->cert_path);
    m.key = mark_of(t->key_path);
    return m;
}

static bool same(const marks *a, const marks *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* ---- reading ---- */

static gnutls_datum_t datum(const char *text, size_t len)
{
    return (gnutls_datum_t){(unsigned char *)text, (unsigned)len};
}

/* GnuTLS refuses a key that is not the certificate's. */
static int check_pair(const http_tls *t, const pem *p, hone_err *e)
{
    gnutls_certificate_credentials_t cred;
    gnutls_datum_t cert = datum(p->cert, p->cert_len), key = datum(p->key, p->key_len);
    if (gnutls_certificate_allocate_credentials(&cred) != 0)
        return hone_fail(e, HONE_ENOMEM, "%s: no memory for a certificate", t->cert_path);
    int bad = gnutls_certificate_set_x509_key_mem(cred, &cert, &key, GNUTLS_X509_FMT_PEM);
    gnutls_certificate_free_credentials(cred);
    if (bad >= 0)
        return 0;
    const char *why = gnutls_strerror(bad); /* a sentence with its period */
    return hone_fail(e, HONE_EFORMAT, "%s with %s: %.*s", t->cert_path, t->key_path,
                     (int)strcspn(why, "."), why);
}

static int read_pair(const http_tls *t, pem *p, hone_err *e)
{
    *p = (pem){0};
    int rc = file_read(&p->cert, &p->cert_len, t->cert_path, MAX_PEM, e);
    if (rc == 0)
        rc = file_read(&p->key, &p->key_len, t->key_path, MAX_PEM, e);
    if (rc == 0)
        rc = check_pair(t, p, e);
    if (rc != 0)
        pem_free(p);
    return rc;
}

static void say_until(const http_tls *t, const pem *p)
{
    gnutls_x509_crt_t crt;
    gnutls_datum_t cert = datum(p->cert, p->cert_len);
    char until[32];
    if (gnutls_x509_crt_init(&crt) != 0)
        return;
    if (gnutls_x509_crt_import(crt, &cert, GNUTLS_X509_FMT_PEM) == 0) {
        time_t end = gnutls_x509_crt_get_expiration_time(crt);
        clock_iso8601(until, sizeof until, (int64_t)end * 1000);
        if (end < time(NULL))
            log_warn("tls", "%s: expired at %s", t->cert_path, until);
        else
            log_info("tls", "%s: good until %s", t->cert_path, until);
    }
    gnutls_x509_crt_deinit(crt);
}

static int load(http_tls *t, hone_err *e)
{
    pem fresh;
    t->tried = t->seen = look(t);
    int rc = read_pair(t, &fresh, e);
    if (rc != 0)
        return rc;
    say_until(t, &fresh);
    pthread_mutex_lock(&t->lock);
    pem old = t->pem;
    t->pem = fresh;
    pthread_mutex_unlock(&t->lock);
    pem_free(&old);
    return 0;
}

int http_tls_open(http_tls **out, const char *cert_path, const char *key_path, hone_err *e)
{
    http_tls *t = mem_alloc(sizeof *t);
    *out = NULL;
    t->cert_path = mem_strdup(cert_path);
    t->key_path = mem_strdup(key_path);
    pthread_mutex_init(&t->lock, NULL);
    int rc = load(t, e);
    if (rc != 0)
        http_tls_close(t);
    else
        *out = t;
    return rc;
}

void http_tls_close(http_tls *t)
{
    if (t == NULL)
        return;
    pem_free(&t->pem);
    pthread_mutex_destroy(&t->lock);
    free(t->cert_path);
    free(t->key_path);
    free(t);
}

int http_tls_reload(http_tls *t, bool always, bool *took, hone_err *e)
{
    marks now = look(t);
    bool still = same(&now, &t->seen);
    *took = false;
    t->seen = now;
    if (!always && (!still || same(&now, &t->tried)))
        return 0;
    int rc = load(t, e);
    *took = rc == 0;
    return rc;
}

/* ---- handshakes ---- */

static int import_key(gnutls_privkey_t *key, const gnutls_datum_t *text)
{
    int rc = gnutls_privkey_init(key);
    if (rc != 0)
        return rc;
    rc = gnutls_privkey_import_x509_raw(*key, text, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (rc != 0)
        gnutls_privkey_deinit(*key);
    return rc;
}

static int import_pair(const pem *p, gnutls_pcert_st *chain, unsigned *n, gnutls_privkey_t *key)
{
    gnutls_datum_t cert = datum(p->cert, p->cert_len), secret = datum(p->key, p->key_len);
    int rc = import_key(key, &secret);
    if (rc != 0)
        return rc;
    rc = gnutls_pcert_list_import_x509_raw(chain, n, &cert, GNUTLS_X509_FMT_PEM, 0);
    if (rc != 0)
        gnutls_privkey_deinit(*key);
    return rc;
}

int http_tls_give(http_tls *t, gnutls_pcert_st **certs, unsigned *n_certs, gnutls_privkey_t *key,
                  unsigned *flags)
{
    gnutls_pcert_st *chain = gnutls_calloc(MAX_CHAIN, sizeof *chain);
    unsigned n = MAX_CHAIN;
    if (chain == NULL)
        return -1;
    pthread_mutex_lock(&t->lock);
    int rc = import_pair(&t->pem, chain, &n, key);
    pthread_mutex_unlock(&t->lock);
    if (rc != 0) {
        gnutls_free(chain);
        return -1;
    }
    *certs = chain;
    *n_certs = n;
    *flags = GNUTLS_CERT_RETR_DEINIT_ALL;
    return 0;
}

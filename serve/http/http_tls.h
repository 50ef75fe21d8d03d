#pragma once
/* Certificate and key of a listener, which may be replaced while connections stand: each handshake
 * takes what holds at that moment. Internal to serve/http. */
#include "core/base/err.h"

#include <gnutls/abstract.h>
#include <stdbool.h>

typedef struct http_tls http_tls;

/* Reads both PEM files. EFORMAT when one is no certificate chain or key, or they do not belong
 * together. */
int http_tls_open(http_tls **out, const char *cert_path, const char *key_path, hone_err *e);
void http_tls_close(http_tls *t); /* NULL is a no-op; no connection may stand */

/* Reads the files again: at once with `always`, else when they have changed and then stood still
 * from one call to the next (two files cannot be replaced in one instant). *took says whether there
 * is something new; what cannot be used is an error, once, and changes nothing. */
int http_tls_reload(http_tls *t, bool always, bool *took, hone_err *e);

/* What a handshake is given: copies that GnuTLS frees. Has the form of
 * gnutls_certificate_retrieve_function3, but for the first argument. */
int http_tls_give(http_tls *t, gnutls_pcert_st **certs, unsigned *n_certs, gnutls_privkey_t *key,
                  unsigned *flags);

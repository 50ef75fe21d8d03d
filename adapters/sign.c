/* Keys, and envelopes of signed bytes. */
#include "adapters/sign.h"

#include "core/base/buf.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/secret.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PEM = 4096, MAX_SIGNED = 16 << 20, MAX_SIGNATURES = 16 };

static const char key_file[] = "signing.key";

/* An Ed25519 SubjectPublicKeyInfo is this and the key. Source: RFC 8410, 10.1. */
static const unsigned char spki[12] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                       0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
static const char pem_head[] = "-----BEGIN PUBLIC KEY-----\n";
static const char pem_tail[] = "-----END PUBLIC KEY-----\n";

/* ---- keys ---- */

static void der_of(const sign_public *p, unsigned char der[sizeof spki + SIGN_BYTES])
{
    memcpy(der, spki, sizeof spki);
    memcpy(der + sizeof spki, p->key, SIGN_BYTES);
}

static void name_key(sign_public *p)
{
    unsigned char der[sizeof spki + SIGN_BYTES];
    der_of(p, der);
    bytes_sha256(p->id, der, sizeof der);
}

/* The caller wipes `secret`. */
static int load_pair(sign_public *p, unsigned char secret[crypto_sign_SECRETKEYBYTES],
                     const char *key_dir, hone_err *e)
{
    unsigned char seed[SECRET_BYTES];
    int rc = secret_load(seed, key_dir, key_file, e);
    if (rc != 0)
        return rc;
    crypto_sign_seed_keypair(p->key, secret, seed);
    sodium_memzero(seed, sizeof seed);
    name_key(p);
    return 0;
}

int sign_public_own(sign_public *out, const char *key_dir, hone_err *e)
{
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
    int rc = load_pair(out, secret, key_dir, e);
    sodium_memzero(secret, sizeof secret);
    return rc;
}

static char *base64(const void *data, size_t len)
{
    size_t cap = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
    char *text = mem_alloc(cap);
    return sodium_bin2base64(text, cap, data, len, sodium_base64_VARIANT_ORIGINAL);
}

char *sign_public_pem(const sign_public *p)
{
    unsigned char der[sizeof spki + SIGN_BYTES];
    der_of(p, der);
    char *text = base64(der, sizeof der);
    char *pem = mem_printf("%s%s\n%s", pem_head, text, pem_tail);
    free(text);
    return pem;
}

static bool read_pem(sign_public *out, const char *text)
{
    unsigned char der[sizeof spki + SIGN_BYTES];
    size_t n = 0;
    const char *from = strstr(text, pem_head);
    const char *to = from != NULL ? strstr(from, "-----END") : NULL;
    if (to == NULL)
        return false;
    from += sizeof pem_head - 1;
    if (sodium_base642bin(der, sizeof der, from, (size_t)(to - from), "\r\n ", &n, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        n != sizeof der || memcmp(der, spki, sizeof spki) != 0)
        return false;
    memcpy(out->key, der + sizeof spki, SIGN_BYTES);
    name_key(out);
    return true;
}

int sign_public_load(sign_public *out, const char *path, hone_err *e)
{
    char *text;
    size_t len;
    int rc = file_read(&text, &len, path, MAX_PEM, e);
    if (rc != 0)
        return rc;
    if (!read_pem(out, text))
        rc = hone_fail(e, HONE_EFORMAT, "%s: no Ed25519 public key in PEM", path);
    free(text);
    return rc;
}

/* ---- trust ---- */

static sign_public *trust_slot(sign_trust *t)
{
    t->keys = mem_grow(t->keys, &t->cap, t->n + 1, sizeof *t->keys);
    return &t->keys[t->n];
}

int sign_trust_open(sign_trust *t, const char *key_dir, const json_t *files, bool required,
                    hone_err *e)
{
    size_t i;
    json_t *file;
    *t = (sign_trust){.required = required};
    int rc = sign_public_own(trust_slot(t), key_dir, e);
    t->n += rc == 0;
    json_array_foreach (files, i, file) {
        if (rc == 0) {
            rc = sign_public_load(trust_slot(t), json_string_value(file), e);
            t->n += rc == 0;
        }
    }
    if (rc != 0)
        sign_trust_close(t);
    return rc;
}

void sign_trust_close(sign_trust *t)
{
    free(t->keys);
    *t = (sign_trust){0};
}

static const sign_public *trusted(const sign_trust *t, const char *id)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->keys[i].id, id) == 0)
            return &t->keys[i];
    return NULL;
}

/* ---- envelopes ---- */

/* What is signed: type and body with their lengths. Source: DSSE v1.0.2, PAE. */
static void pae(buf *out, const char *type, const void *body, size_t len)
{
    buf_init(out, MAX_SIGNED + 4096);
    buf_printf(out, "DSSEv1 %zu %s %zu ", strlen(type), type, len);
    buf_add(out, body, len);
}

int sign_envelope(json_t **out, const char *key_dir, const char *type, const void *body, size_t len,
                  hone_err *e)
{
    sign_public own;
    unsigned char secret[crypto_sign_SECRETKEYBYTES], sig[crypto_sign_BYTES];
    buf text;
    *out = NULL;
    int rc = load_pair(&own, secret, key_dir, e);
    if (rc != 0)
        return rc;
    pae(&text, type, body, len);
    rc = buf_check(&text, "what is signed", e);
    if (rc == 0) {
        crypto_sign_detached(sig, NULL, (const unsigned char *)text.data, text.len, secret);
        char *payload = base64(body, len), *sig64 = base64(sig, sizeof sig);
        *out = json_pack("{s:s, s:s, s:[{s:s, s:s}]}", "payloadType", type, "payload", payload,
                         "signatures", "keyid", own.id, "sig", sig64);
        free(payload);
        free(sig64);
    }
    sodium_memzero(secret, sizeof secret);
    buf_free(&text);
    return rc;
}

static bool decode(unsigned char *dst, size_t cap, size_t *len, const char *text)
{
    const char *end = NULL;
    return sodium_base642bin(dst, cap, text, strlen(text), NULL, len, &end,
                             sodium_base64_VARIANT_ORIGINAL) == 0 &&
           *end == '\0';
}

static int check_signature(const json_t *one, const buf *text, const sign_trust *t,
                           char key_id[SIGN_ID], hone_err *e)
{
    unsigned char sig[crypto_sign_BYTES];
    size_t n = 0;
    const char *id = json_string_value(json_object_get(one, "keyid"));
    const char *sig64 = json_string_value(json_object_get(one, "sig"));
    if (id == NULL || sig64 == NULL)
        return hone_fail(e, HONE_EFORMAT, "a signature without 'keyid' or 'sig'");
    const sign_public *key = trusted(t, id);
    if (key == NULL)
        return hone_fail(e, HONE_EDENIED,
                         "signed by key %.16s, which is not trusted here (trusted_keys)", id);
    if (!decode(sig, sizeof sig, &n, sig64) || n != sizeof sig ||
        crypto_sign_verify_detached(sig, (const unsigned char *)text->data, text->len, key->key) !=
            0)
        return hone_fail(e, HONE_EDENIED, "the signature of key %.16s does not fit", id);
    memcpy(key_id, key->id, SIGN_ID);
    return 0;
}

/* One good signature is enough; else the first reason. */
static int check_signatures(const json_t *list, const buf *text, const sign_trust *t,
                            char key_id[SIGN_ID], hone_err *e)
{
    size_t n = json_array_size(list);
    if (n == 0 || n > MAX_SIGNATURES)
        return hone_fail(e, HONE_EFORMAT, "%zu signatures, expected 1 to %d", n, MAX_SIGNATURES);
    int rc = check_signature(json_array_get(list, 0), text, t, key_id, e);
    for (size_t i = 1; rc != 0 && i < n; i++) {
        hone_err other = {0};
        if (check_signature(json_array_get(list, i), text, t, key_id, &other) == 0)
            rc = 0;
    }
    return rc;
}

int sign_envelope_open(char **body, size_t *len, char key_id[SIGN_ID], const json_t *envelope,
                       const char *type, const sign_trust *t, hone_err *e)
{
    const char *its = json_string_value(json_object_get(envelope, "payloadType"));
    const char *payload = json_string_value(json_object_get(envelope, "payload"));
    *body = NULL;
    *len = 0;
    if (its == NULL || payload == NULL)
        return hone_fail(e, HONE_EFORMAT, "not a DSSE envelope (payloadType, payload, signatures)");
    if (strcmp(its, type) != 0)
        return hone_fail(e, HONE_EFORMAT, "an envelope of '%.80s', expected '%s'", its, type);
    size_t cap = strlen(payload) / 4 * 3 + 4;
    if (cap > MAX_SIGNED)
        return hone_fail(e, HONE_ELIMIT, "an envelope of more than %d bytes", MAX_SIGNED);
    char *data = mem_alloc(cap);
    buf text;
    if (!decode((unsigned char *)data, cap - 1, len, payload)) {
        free(data);
        return hone_fail(e, HONE_EFORMAT, "the envelope's payload is not base64");
    }
    data[*len] = '\0';
    pae(&text, type, data, *len);
    int rc = check_signatures(json_object_get(envelope, "signatures"), &text, t, key_id, e);
    buf_free(&text);
    if (rc != 0)
        free(data);
    else
        *body = data;
    return rc;
}

#pragma once
/* Signatures of artefacts (Ed25519). An appliance has one signing key, made on first use beside its
 * database: <state>/signing.key, mode 0600. Its public half travels as PEM.
 *
 * What is signed is wrapped in a DSSE envelope
 *   {"payloadType", "payload": base64, "signatures": [{"keyid", "sig": base64}]}
 * over the bytes "DSSEv1 <len> <type> <len> <payload>". keyid is the SHA-256 of the public key as
 * SubjectPublicKeyInfo.
 *
 * A directory is signed as model_signing does it: an in-toto statement whose one subject is named
 * by the SHA-256 over the digests of all files, sorted by name, and whose predicate lists them. It
 * stands in the directory as model.sig.json. Sources: in-toto Statement v1, DSSE v1.0.2,
 * https://model_signing/signature/v1.0. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGN_FILE "model.sig.json"

enum { SIGN_BYTES = 32, SIGN_ID = 65 };

typedef struct sign_public {
    unsigned char key[SIGN_BYTES];
    char id[SIGN_ID];
} sign_public;

/* The public half of the key of this directory (which exists); made when there is none. */
int sign_public_own(sign_public *out, const char *key_dir, hone_err *e);
/* A PEM file. EFORMAT when it holds anything but an Ed25519 public key. */
int sign_public_load(sign_public *out, const char *path, hone_err *e);
char *sign_public_pem(const sign_public *p); /* caller frees */

/* Whose signatures count, and whether there must be one. */
typedef struct sign_trust {
    sign_public *keys;
    size_t n, cap; /* cap: private */
    bool required;
} sign_trust;

/* The key of key_dir (made when there is none, so that what another process signs with it later is
 * known) and those of the PEM files (array of paths, may be NULL). After a failure there is nothing
 * to close. */
int sign_trust_open(sign_trust *t, const char *key_dir, const json_t *files, bool required,
                    hone_err *e);
void sign_trust_close(sign_trust *t); /* safe on a zeroed one */

/* Signs bytes of a media type: new reference. */
int sign_envelope(json_t **out, const char *key_dir, const char *type, const void *body, size_t len,
                  hone_err *e);
/* What an envelope of this type holds (caller frees, NUL-terminated), and who signed it. EFORMAT
 * for what is no such envelope; EDENIED for a key that is not trusted, which is named, and for a
 * signature that does not fit. */
int sign_envelope_open(char **body, size_t *len, char key_id[SIGN_ID], const json_t *envelope,
                       const char *type, const sign_trust *t, hone_err *e);

typedef struct sign_report {
    char key_id[SIGN_ID];
    char root[65];    /* the subject's digest */
    char weights[65]; /* as model_dir_digest; "" without weights */
    int64_t n_files;
} sign_report;

/* Signs a directory under a name, replacing a signature that is there. EFORMAT for a link or a
 * special file in it. */
int sign_dir(const char *dir, const char *name, const char *key_dir, sign_report *out, hone_err *e);

/* Reads every file once. ENOTFOUND: not signed. EDENIED as sign_envelope_open. EFORMAT: the
 * signature is damaged, or a file was changed, added or taken away since; it is named. */
int sign_dir_check(const char *dir, const sign_trust *t, sign_report *out, hone_err *e);

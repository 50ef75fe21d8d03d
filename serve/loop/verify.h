#pragma once
/* Is an artefact still what was registered? Asked before every load and before every promotion. */
#include "adapters/sign.h"
#include "serve/store/registry.h"

typedef struct verify_report {
    char key_id[SIGN_ID]; /* "" when it is not signed */
    char root[65];        /* digest of all its files; "" when it is not signed */
    char base_digest[65]; /* of an adapter's base; "" for a model */
} verify_report;

/* Reads every file. EFORMAT: the weights have another digest, a signed file was changed, added or
 * taken away, or the signature is damaged or not the one that was registered. EDENIED: the key is
 * not trusted, the signature does not fit or is gone, or t->required and there is none. An artefact
 * that never was signed (a model that is configured by its path) passes otherwise, and the report
 * says so. The base of an adapter is held to the same. ENOTFOUND: it was deleted, because it
 * had learned from what was erased. t may be NULL: nothing signed passes. */
int verify_artefact(verify_report *out, const registry_artefact *a, const sign_trust *t,
                    hone_err *e);

/* What a manifest says of the signature: {"key_id", "root"}; for registering. New reference. */
json_t *verify_signature_json(const char *key_id, const char *root);

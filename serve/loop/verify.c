#include "serve/loop/verify.h"

#include "core/base/file.h"
#include "core/model/digest.h"

#include <string.h>

json_t *verify_signature_json(const char *key_id, const char *root)
{
    return json_pack("{s:s, s:s?}", "key_id", key_id, "root", root);
}

/* Signature and digest of one directory. `weights` gets its model_dir_digest. */
static int check_dir(sign_report *r, char weights[65], const char *dir, const sign_trust *t,
                     hone_err *e)
{
    hone_err why = {0};
    int rc = sign_dir_check(dir, t, r, &why);
    if (rc == HONE_ENOTFOUND && t->required)
        return hone_fail(e, HONE_EDENIED,
                         "%s: not signed, and require_signature is set; 'hone registry sign %s' "
                         "signs it",
                         dir, dir);
    if (rc == HONE_ENOTFOUND)
        return model_dir_digest(weights, dir, e);
    if (rc != 0)
        return hone_fail(e, rc, "%s", why.msg);
    memcpy(weights, r->weights, 65);
    return 0;
}

/* Against what was noted when it was registered: a signature cannot be taken off, nor replaced by
 * one over other files. */
static int check_registered(const registry_artefact *a, const sign_report *r, hone_err *e)
{
    const json_t *noted = json_object_get(a->manifest, "signature");
    const char *key_id = json_string_value(json_object_get(noted, "key_id"));
    const char *root = json_string_value(json_object_get(noted, "root"));
    if (key_id != NULL && r->key_id[0] == '\0')
        return hone_fail(e, HONE_EDENIED,
                         "%s: its signature is gone (%s); it was registered as signed by key %.16s",
                         a->path, SIGN_FILE, key_id);
    if (root != NULL && strcmp(root, r->root) != 0)
        return hone_fail(e, HONE_EFORMAT,
                         "%s: was signed anew since it was registered (root %.12s, was %.12s)",
                         a->path, r->root, root);
    return 0;
}

int verify_artefact(verify_report *out, const registry_artefact *a, const sign_trust *t,
                    hone_err *e)
{
    static const sign_trust nobody = {0};
    char weights[65];
    sign_report r, base;
    *out = (verify_report){0};
    t = t != NULL ? t : &nobody;
    if (a->tainted && !file_exists(a->path))
        return hone_fail(e, HONE_ENOTFOUND,
                         "artefact %.12s was deleted: it had learned from what was erased",
                         a->digest);
    int rc = check_dir(&r, weights, a->path, t, e);
    if (rc == 0 && strcmp(weights, a->digest) != 0)
        rc = hone_fail(e, HONE_EFORMAT,
                       "%s: its files have changed since it was registered (digest %.12s, was "
                       "%.12s)",
                       a->path, weights, a->digest);
    if (rc == 0)
        rc = check_registered(a, &r, e);
    if (rc == 0 && a->base != NULL) {
        rc = check_dir(&base, out->base_digest, a->base, t, e);
        if (rc != 0)
            hone_fail_at(e, "base of %.12s", a->digest);
    }
    if (rc == 0) {
        memcpy(out->key_id, r.key_id, sizeof out->key_id);
        memcpy(out->root, r.root, sizeof out->root);
    }
    return rc;
}

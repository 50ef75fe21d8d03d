/* POST /v1/erasure: erases what a user or a key has left. GET /v1/erasure/ID: the receipt. */
#include "core/base/js.h"
#include "serve/http/http_handlers.h"
#include "serve/http/http_server_in.h"
#include "serve/loop/erase.h"
#include "serve/store/requests.h"

#include <string.h>

static void refuse(http_req *r, int rc, const hone_err *e)
{
    if (rc == HONE_ENOTFOUND)
        http_reply_error(r, HTTP_NOT_FOUND, NULL, "%s", e->msg);
    else
        http_reply_error(r, HTTP_INTERNAL, NULL, "%s", e->msg);
}

/* The body as a subject: exactly one of user, user_hash and key_id; false after an error reply. */
static bool take_subject(http_req *r, erasure_subject *who, bool *dry_run, char hash[33])
{
    static const char *const keys[] = {"user", "user_hash", "key_id", "dry_run", NULL};
    const char *user = NULL, *user_hash = NULL, *key_id = NULL;
    hone_err e = {0};
    int rc = js_only_keys(r->json, keys, &e);
    if (rc == 0)
        rc = js_opt_str(r->json, "user", &user, &e);
    if (rc == 0)
        rc = js_opt_str(r->json, "user_hash", &user_hash, &e);
    if (rc == 0)
        rc = js_opt_str(r->json, "key_id", &key_id, &e);
    if (rc == 0)
        rc = js_opt_bool(r->json, "dry_run", dry_run, &e);
    if (rc != 0) {
        http_reply_error(r, HTTP_INVALID_VALUE, NULL, "%s", e.msg);
        return false;
    }
    if ((user != NULL) + (user_hash != NULL) + (key_id != NULL) != 1) {
        http_reply_error(r, HTTP_INVALID_VALUE, NULL,
                         "whom? give one of 'user', 'user_hash' and 'key_id'");
        return false;
    }
    if (user != NULL)
        requests_user_hash(r->srv->store, user, hash);
    *who = (erasure_subject){key_id != NULL ? ERASURE_KEY : ERASURE_USER, key_id != NULL ? key_id
                                                                          : user_hash != NULL
                                                                              ? user_hash
                                                                              : hash};
    return true;
}

void http_erasure(http_req *r)
{
    erasure_subject who;
    bool dry_run = false;
    char hash[33];
    json_t *out;
    hone_err e = {0};
    const char *key = http_req_key_id(r);
    if (!take_subject(r, &who, &dry_run, hash))
        return;
    const char *state = r->srv->conf->state_dir;
    int rc = dry_run
                 ? erase_plan(&out, r->srv->store, state, &who, &e)
                 : erase_run(&out, r->srv->store, state, &who, key != NULL ? key : "nobody", &e);
    if (rc == 0)
        http_reply_json(r, 200, out);
    else
        refuse(r, rc, &e);
}

void http_erasure_receipt(http_req *r)
{
    json_t *receipt;
    hone_err e = {0};
    int rc = erasure_receipt(r->srv->store, r->tail, &receipt, &e);
    if (rc == 0)
        http_reply_json(r, 200, receipt);
    else if (rc == HONE_EAGAIN)
        http_reply_json(r, 202, json_pack("{s:s, s:s}", "id", r->tail, "status", "pending"));
    else
        refuse(r, rc, &e);
}

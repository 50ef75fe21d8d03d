#pragma once
/* Who sends a request, and may they? Internal to serve/http. */
#include "serve/http/http_req.h"

/* Finds out who it is (r->authed, key, by_token), or sets an error reply. presented: the credential
 * of the Authorization or x-api-key header, NULL without one. */
void http_auth_check(http_req *r, const char *presented);

/* A token with which whoever holds it may rate one response until `hours` are over:
 * "ft_<id>.<expiry>.<mac>". Caller frees. */
char *http_auth_token(const store *s, const char *response_id, int64_t hours);

/* Is it a token of this appliance that is still good? Fills the response's id. */
bool http_auth_token_ok(const store *s, const char *token, char id[IDS_MAX]);

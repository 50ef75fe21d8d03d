#pragma once
/* Which of the served models answers a request: what is live, or the one beside it (the alias
 * `canary`), by the name that was asked for, or as subscribers of serve.route say. */
#include "serve/http/http_req.h"

/* Sets the model of r->gen, with a reference. False: the reply says why there is none. */
bool http_model_choose(http_req *r);

/* After the parameters were read: is it the one that was asked for, and may this key use it? */
bool http_model_check(http_req *r);

/* May this key use it? What stands beside the live model may be used by whoever may use that. m may
 * be NULL. */
bool http_model_allowed(const http_req *r, const served *m);

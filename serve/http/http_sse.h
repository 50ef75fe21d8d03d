#pragma once
/* An answer as server-sent events. Internal to serve/http. */
#include "serve/http/http_gen.h"

/* Sets the reply; with `ping` it begins with a comment, because there is nothing to say yet. */
void http_sse_begin(http_req *r, bool ping);

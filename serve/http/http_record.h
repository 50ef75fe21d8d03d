#pragma once
/* What is kept of a generation. Internal to serve/http. */
#include "serve/http/http_gen.h"

/* Queues the record of the request, once: before the reply's last byte, so that whoever has the
 * answer can rate it. code: of the error, or NULL. */
void http_record(http_req *r, int status, const char *code);

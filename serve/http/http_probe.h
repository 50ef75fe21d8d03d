#pragma once
/* Asks a server on this machine how it is, as orchestrators do: one GET of a health route. */
#include "serve/http/serve_conf.h"

/* Asks the server of these settings, at health_listen where there is one (probes have no TLS) and
 * else at listen, whether it is ready to answer; with `live` only whether the process answers.
 * *said is what it replied (caller frees; NULL on failure). Takes at most about timeout_ms. EINVAL:
 * the settings have no port that can be asked; EIO: nobody is there; ETIMEOUT; EAGAIN: it is not
 * ready, with its own reason; EFORMAT: what answers is no such server. */
int http_probe(const serve_conf *c, bool live, int timeout_ms, char **said, hone_err *e);

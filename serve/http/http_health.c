/* GET /health/live: the process answers. GET /health/ready: it would answer a question; a model is
 * current only once it has answered one. */
#include "serve/http/http_handlers.h"
#include "serve/http/http_server_in.h"

enum { STALL_MS = 60000 };

void http_health_live(http_req *r)
{
    http_reply_json(r, 200, json_pack("{s:s}", "status", "ok"));
}

/* A scheduler that has work and has not finished a turn for a minute is hung. */
static bool stalled(const backend *b)
{
    engine_stats s = b->counters(b->ctx);
    return s.running + s.waiting > 0 && s.last_step_age_ms > STALL_MS;
}

void http_health_ready(http_req *r)
{
    const backend *b = r->srv->engine;
    served *m = NULL;
    if (atomic_load(&r->srv->draining)) {
        http_reply_error(r, HTTP_DRAINING, NULL, "the server is shutting down");
    } else if ((m = http_req_model(r)) == NULL) {
        return;
    } else if (stalled(b)) {
        http_reply_error(r, HTTP_ENGINE_DEAD, NULL, "the scheduler does not move");
    } else {
        http_reply_json(r, 200, json_pack("{s:s, s:s}", "status", "ok", "model", m->name));
    }
    if (m != NULL)
        b->release(b->ctx, m);
}

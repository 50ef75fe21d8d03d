#include "serve/http/backend.h"

static int submit(void *ctx, const engine_request *r, uint64_t *ticket, int *retry_after_s,
                  hone_err *e)
{
    return engine_submit(ctx, r, ticket, retry_after_s, e);
}

static void cancel(void *ctx, uint64_t ticket)
{
    engine_cancel(ctx, ticket);
}

static served *current(void *ctx)
{
    return engine_current(ctx);
}

static served *beside(void *ctx)
{
    return engine_beside(ctx);
}

static const char *why_none(void *ctx)
{
    return engine_why_none(ctx);
}

static void release(void *ctx, served *m)
{
    (void)ctx;
    served_release(m);
}

static void drain(void *ctx, int timeout_ms)
{
    engine_drain(ctx, timeout_ms);
}

static engine_stats counters(void *ctx)
{
    return engine_counters(ctx);
}

static int models(void *ctx, engine_figures *out, int max)
{
    return engine_models(ctx, out, max);
}

void backend_of_engine(backend *b, engine *g)
{
    *b = (backend){g,     submit,   cancel, current,           beside, why_none, release,
                   drain, counters, models, engine_hist_bounds};
}

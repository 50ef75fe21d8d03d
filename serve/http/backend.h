#pragma once
/* What the HTTP layer needs from the engine, as a table: `hone serve` fills it with the scheduler,
 * tests with a fake. The functions have the contracts of their namesakes in serve/engine/engine.h.
 */
#include "serve/engine/engine.h"

typedef struct backend {
    void *ctx;
    int (*submit)(void *ctx, const engine_request *r, uint64_t *ticket, int *retry_after_s,
                  hone_err *e);
    void (*cancel)(void *ctx, uint64_t ticket);
    served *(*current)(void *ctx);      /* with a reference; NULL while nothing is loaded */
    served *(*beside)(void *ctx);       /* with a reference; NULL where there is none */
    const char *(*why_none)(void *ctx); /* never NULL */
    void (*release)(void *ctx, served *m);
    void (*drain)(void *ctx, int timeout_ms);
    engine_stats (*counters)(void *ctx);
    int (*models)(void *ctx, engine_figures *out, int max);
    const double *hist_bounds; /* ENGINE_HIST_BUCKETS upper bounds in seconds */
} backend;

/* Fills the table with the scheduler, which must outlive it. */
void backend_of_engine(backend *b, engine *g);

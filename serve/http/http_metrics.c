/* GET /metrics, in Prometheus' text format. One table of gauges and counters, one of histograms:
 * the names are a contract, and a test holds the list. Labels never name a key or a user. */
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "serve/http/http_handlers.h"
#include "serve/http/http_server_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 16 << 20, LABELS = 400 }; /* 256 plugins with 64 counters each */

typedef struct numbers {
    engine_stats engine;
    conn_stats conns;
    store_stats store;
    const http_server *srv;
    engine_figures model[ENGINE_MAX_FIGURES];
    int n_models, at; /* whose figures a row by model gives */
    double uptime;
} numbers;

typedef enum { WHOLE, MODELS } scope; /* of the server, or a line a model */

typedef struct metric_row {
    const char *name, *type, *help;
    scope scope;
    double (*value)(const numbers *n);
    const char *vllm; /* the name that vLLM gives the same; NULL: it has none */
} metric_row;

#define VALUE(id, expr)                                                                            \
    static double id(const numbers *n)                                                             \
    {                                                                                              \
        return (double)(expr);                                                                     \
    }

VALUE(running, n->engine.running)
VALUE(waiting, n->engine.waiting)
VALUE(waiting_tokens, n->engine.waiting_tokens)
VALUE(kv_ratio,
      n->engine.kv_blocks > 0 ? (double)n->engine.kv_blocks_used / (double)n->engine.kv_blocks : 0)
VALUE(prompt_tokens, n->model[n->at].count.prompt_tokens)
VALUE(answer_tokens, n->model[n->at].count.answer_tokens)
VALUE(admitted, n->model[n->at].count.requests)
VALUE(finished, n->model[n->at].count.finished)
VALUE(cancelled, n->model[n->at].count.cancelled)
VALUE(failed, n->model[n->at].count.failed)
VALUE(rejected, n->model[n->at].count.rejected)
VALUE(steps, n->engine.steps)
VALUE(step_age, (double)n->engine.last_step_age_ms / 1000)
VALUE(open_conns, n->conns.open)
VALUE(accepted, n->conns.accepted)
VALUE(timed_out, n->conns.timed_out)
VALUE(disconnects, n->srv->count.disconnects)
VALUE(store_jobs, n->store.written)
VALUE(store_failed, n->store.failed)
VALUE(store_dropped, n->store.dropped)
VALUE(store_waiting, n->store.waiting)
VALUE(uptime, n->uptime)

/* clang-format off */
static const metric_row rows[] = {
    {"hone_requests_running",               "gauge",   "answers being decoded",                           WHOLE,  running,        "vllm:num_requests_running"},
    {"hone_requests_waiting",               "gauge",   "requests in the queue",                           WHOLE,  waiting,        "vllm:num_requests_waiting"},
    {"hone_queue_tokens",                   "gauge",   "prompt tokens in the queue",                      WHOLE,  waiting_tokens, NULL},
    {"hone_kv_cache_usage_ratio",           "gauge",   "share of the key-value cache in use",             WHOLE,  kv_ratio,       "vllm:kv_cache_usage_perc"},
    {"hone_prompt_tokens_total",            "counter", "prompt tokens taken in",                          MODELS, prompt_tokens,  "vllm:prompt_tokens_total"},
    {"hone_generation_tokens_total",        "counter", "tokens generated",                                MODELS, answer_tokens,  "vllm:generation_tokens_total"},
    {"hone_requests_admitted_total",        "counter", "requests the scheduler took",                     MODELS, admitted,       NULL},
    {"hone_requests_finished_total",        "counter", "requests answered in full",                       MODELS, finished,       "vllm:request_success_total"},
    {"hone_requests_cancelled_total",       "counter", "requests cancelled (client gone, shutdown)",      MODELS, cancelled,      NULL},
    {"hone_requests_failed_total",          "counter", "requests that failed while they ran",             MODELS, failed,         NULL},
    {"hone_requests_rejected_total",        "counter", "requests refused because the queue was full",     MODELS, rejected,       NULL},
    {"hone_engine_steps_total",             "counter", "turns of the scheduler",                          WHOLE,  steps,          NULL},
    {"hone_engine_last_step_age_seconds",   "gauge",   "time since the scheduler last finished a turn",   WHOLE,  step_age,       NULL},
    {"hone_connections_open",               "gauge",   "open connections",                                WHOLE,  open_conns,     NULL},
    {"hone_connections_total",              "counter", "connections accepted",                            WHOLE,  accepted,       NULL},
    {"hone_connections_timed_out_total",    "counter", "connections closed because they were too slow",   WHOLE,  timed_out,      NULL},
    {"hone_client_disconnects_total",       "counter", "answers whose client had gone",                   WHOLE,  disconnects,    NULL},
    {"hone_store_writes_total",             "counter", "writes committed",                                WHOLE,  store_jobs,     NULL},
    {"hone_store_failed_total",             "counter", "writes that failed",                              WHOLE,  store_failed,   NULL},
    {"hone_store_dropped_total",            "counter", "records dropped because the queue was full",      WHOLE,  store_dropped,  NULL},
    {"hone_store_waiting",                  "gauge",   "writes in the queue",                             WHOLE,  store_waiting,  NULL},
    {"hone_uptime_seconds",                 "gauge",   "time since the server started",                   WHOLE,  uptime,         NULL},
};

static const struct {
    const char *name, *help, *vllm;
    engine_hist_kind kind;
} hists[] = {
    {"hone_time_to_first_token_seconds",    "from the request to its first token", "vllm:time_to_first_token_seconds",   ENGINE_TTFT},
    {"hone_inter_token_latency_seconds",    "between two tokens",                  "vllm:inter_token_latency_seconds",   ENGINE_ITL},
    {"hone_e2e_request_latency_seconds",    "from the request to its end",         "vllm:e2e_request_latency_seconds",   ENGINE_E2E},
    {"hone_request_queue_time_seconds",     "in the queue",                        "vllm:request_queue_time_seconds",    ENGINE_QUEUE},
    {"hone_request_prefill_time_seconds",   "reading the prompt",                  "vllm:request_prefill_time_seconds",  ENGINE_PREFILL},
    {"hone_request_decode_time_seconds",    "writing the answer",                  "vllm:request_decode_time_seconds",   ENGINE_DECODE},
};
/* clang-format on */

static void head(buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Prometheus wants \, " and newlines escaped. */
static void label(char *dst, size_t cap, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 3 < cap; text++) {
        if (*text == '\\' || *text == '"')
            dst[n++] = '\\';
        dst[n++] = (unsigned char)*text < 0x20 ? ' ' : *text;
    }
    dst[n] = '\0';
}

/* model="...",digest="...",adapter="...": two models of one name are two that followed each other.
 */
static void label_model(char dst[LABELS], const char *name, const char *digest, const char *adapter)
{
    char shown[300];
    label(shown, sizeof shown, name);
    snprintf(dst, LABELS, "model=\"%s\",digest=\"%.12s\",adapter=\"%.12s\"", shown, digest,
             adapter);
}

static void label_figures(char dst[LABELS], const engine_figures *f)
{
    label_model(dst, f->name, f->model_digest, f->adapter_digest);
}

static void add_row(buf *b, const metric_row *w, const char *name, numbers *n)
{
    char labels[LABELS];
    head(b, name, w->type, w->help);
    if (w->scope == WHOLE)
        buf_printf(b, "%s %.17g\n", name, w->value(n));
    for (n->at = 0; w->scope == MODELS && n->at < n->n_models; n->at++) {
        label_figures(labels, &n->model[n->at]);
        buf_printf(b, "%s{%s} %.17g\n", name, labels, w->value(n));
    }
}

static void add_hist_of(buf *b, const char *name, const engine_hist *h, const double *bounds,
                        const char *labels)
{
    uint64_t total = 0;
    for (int i = 0; i < ENGINE_HIST_BUCKETS; i++) {
        total += h->bucket[i];
        buf_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels, bounds[i],
                   (unsigned long long)total);
    }
    buf_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n", name, labels, (unsigned long long)h->count);
    buf_printf(b, "%s_sum{%s} %.9g\n", name, labels, h->sum);
    buf_printf(b, "%s_count{%s} %llu\n", name, labels, (unsigned long long)h->count);
}

static void add_hist(buf *b, const char *name, const char *help, engine_hist_kind kind,
                     const numbers *n)
{
    char labels[LABELS];
    head(b, name, "histogram", help);
    for (int i = 0; i < n->n_models; i++) {
        label_figures(labels, &n->model[i]);
        add_hist_of(b, name, &n->model[i].hist[kind], n->srv->engine->hist_bounds, labels);
    }
}

/* ---- families with a label of their own ---- */

static void add_requests(buf *b, const http_counters *c)
{
    head(b, "hone_http_requests_total", "counter", "requests by route and kind of status");
    for (int i = 0; i < HTTP_ROUTES_MAX; i++) {
        bool last = i == HTTP_ROUTES_MAX - 1;
        if (!last && http_routes[i].method == NULL) {
            i = HTTP_ROUTES_MAX - 2;
            continue;
        }
        for (int k = 1; k < HTTP_N_CLASSES; k++) {
            unsigned long long v = c->requests[i][k];
            if (v > 0)
                buf_printf(b,
                           "hone_http_requests_total{method=\"%s\",route=\"%s\","
                           "status=\"%dxx\"} %llu\n",
                           last ? "" : http_routes[i].method,
                           last ? "unknown" : http_routes[i].path, k, v);
        }
    }
}

static void add_family(buf *b, const char *name, const char *help, const char *label,
                       const char *const *names, const atomic_uint_fast64_t *values, int n)
{
    head(b, name, "counter", help);
    for (int i = 0; i < n; i++)
        if (names[i] != NULL)
            buf_printf(b, "%s{%s=\"%s\"} %llu\n", name, label, names[i],
                       (unsigned long long)values[i]);
}

static void add_families(buf *b, const http_counters *c)
{
    static const char *const reasons[] = {"missing", "malformed", "unknown", "expired",
                                          "revoked", "token",     "scope",   "blocked"};
    static const char *const limits[] = {NULL, "requests", "tokens", "parallel", "daily_tokens"};
    add_requests(b, c);
    add_family(b, "hone_auth_failures_total", "requests not let in, by reason", "reason", reasons,
               c->auth_failures, HTTP_N_REASONS);
    add_family(b, "hone_rate_limited_total", "requests over a key's limit", "limit", limits,
               c->rate_limited, 5);
}

/* What has answered is there from the start, so that a first thumb is a step from 0. */
static void add_feedback(buf *b, const numbers *n)
{
    static const char *const ratings[] = {"down", "none", "up"};
    http_tally_row all[HTTP_TALLY_MAX];
    char labels[LABELS];
    for (int i = 0; i < n->n_models; i++) {
        const engine_figures *f = &n->model[i];
        http_tally_know(n->srv->ratings,
                        &(http_tally_model){f->name, f->model_digest, f->adapter_digest});
    }
    int rows_n = http_tally_rows(n->srv->ratings, all);
    head(b, "hone_feedback_total", "counter", "feedback by the model that was rated, and rating");
    for (int i = 0; i < rows_n; i++) {
        label_model(labels, all[i].name, all[i].digest, all[i].adapter);
        for (int k = 0; k < 3; k++)
            buf_printf(b, "hone_feedback_total{%s,rating=\"%s\"} %llu\n", labels, ratings[k],
                       (unsigned long long)all[i].rated[k]);
    }
}

/* ---- which models there are ---- */

static void add_served(buf *b, const backend *of)
{
    const struct {
        served *m;
        const char *role;
    } all[] = {{of->current(of->ctx), "live"}, {of->beside(of->ctx), "canary"}};
    char labels[LABELS];
    head(b, "hone_model_info", "gauge", "1 for what is served now, and as what");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const served *m = all[i].m;
        if (m == NULL)
            continue;
        label_model(labels, m->name, m->model_digest, m->adapter_digest);
        buf_printf(b, "hone_model_info{%s,role=\"%s\"} 1\n", labels, all[i].role);
        of->release(of->ctx, all[i].m);
    }
}

/* ---- plugins ---- */

typedef struct plugin_family {
    const char *name, *type, *help;
    double (*value)(const hook_row *row);
} plugin_family;

static double plugin_calls(const hook_row *r)
{
    return (double)r->stats.calls;
}
static double plugin_vetoes(const hook_row *r)
{
    return (double)r->stats.vetoes;
}
static double plugin_modified(const hook_row *r)
{
    return (double)r->stats.modified;
}
static double plugin_failures(const hook_row *r)
{
    return (double)r->stats.failures;
}
static double plugin_late(const hook_row *r)
{
    return (double)r->stats.late;
}
static double plugin_seconds(const hook_row *r)
{
    return (double)r->stats.nanoseconds / 1e9;
}
static double plugin_out(const hook_row *r)
{
    return r->out;
}

/* clang-format off */
static const plugin_family plugin_families[] = {
    {"hone_plugin_calls_total",    "counter", "calls of a plugin at a hook point",            plugin_calls},
    {"hone_plugin_vetoes_total",   "counter", "refusals",                                     plugin_vetoes},
    {"hone_plugin_modified_total", "counter", "calls that changed something",                 plugin_modified},
    {"hone_plugin_failures_total", "counter", "calls that failed",                            plugin_failures},
    {"hone_plugin_late_total",     "counter", "calls that took longer than the point allows", plugin_late},
    {"hone_plugin_seconds_total",  "counter", "time in calls",                                plugin_seconds},
    {"hone_plugin_out",            "gauge",   "1 while the plugin is taken out",              plugin_out},
};
/* clang-format on */

typedef struct plugin_lines {
    buf *out;
    const plugin_family *family;
} plugin_lines;

static void add_plugin_row(const hook_row *row, void *user)
{
    const plugin_lines *l = user;
    char name[160];
    label(name, sizeof name, row->owner);
    buf_printf(l->out, "%s{plugin=\"%s\",hook=\"%s\"} %.17g\n", l->family->name, name,
               hook_describe(row->point)->name, l->family->value(row));
}

static void add_plugin_count(const char *owner, const char *what, double value, void *user)
{
    char name[160], counter[160];
    label(name, sizeof name, owner);
    label(counter, sizeof counter, what);
    buf_printf(user, "hone_plugin_counter_total{plugin=\"%s\",name=\"%s\"} %.17g\n", name, counter,
               value);
}

static void add_info(buf *b, const hooks *h)
{
    json_t *one, *all = hook_manifest(h);
    size_t i;
    head(b, "hone_plugin_info", "gauge", "which file of a plugin runs");
    json_array_foreach (all, i, one) {
        static const char *const keys[] = {"name", "version", "sha256"};
        char text[3][160];
        for (size_t k = 0; k < 3; k++) {
            const char *v = json_string_value(json_object_get(one, keys[k]));
            label(text[k], sizeof text[k], v != NULL ? v : "");
        }
        buf_printf(b, "hone_plugin_info{plugin=\"%s\",version=\"%s\",sha256=\"%s\"} 1\n", text[0],
                   text[1], text[2]);
    }
    json_decref(all);
}

static void add_plugins(buf *b, const hooks *h)
{
    if (!hook_is_used(h))
        return;
    add_info(b, h);
    for (size_t i = 0; i < sizeof plugin_families / sizeof *plugin_families; i++) {
        const plugin_family *f = &plugin_families[i];
        head(b, f->name, f->type, f->help);
        hook_each(h, add_plugin_row, &(plugin_lines){b, f});
    }
    head(b, "hone_plugin_counter_total", "counter", "what plugins count themselves");
    hook_each_count(h, add_plugin_count, b);
}

/* ---- all of it ---- */

void http_metrics(http_req *r)
{
    http_server *s = r->srv;
    const backend *b = s->engine;
    numbers *n = mem_alloc(sizeof *n);
    *n = (numbers){.engine = b->counters(b->ctx),
                   .conns = conn_counters(s->conns),
                   .store = store_counters(s->store),
                   .srv = s,
                   .uptime = (double)(clock_mono_ns() - s->started_ns) * 1e-9};
    n->n_models = b->models(b->ctx, n->model, ENGINE_MAX_FIGURES);
    buf out;
    buf_init(&out, MAX_TEXT);
    add_served(&out, b);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        add_row(&out, &rows[i], rows[i].name, n);
        if (s->conf->vllm_metric_names && rows[i].vllm != NULL)
            add_row(&out, &rows[i], rows[i].vllm, n);
    }
    for (size_t i = 0; i < sizeof hists / sizeof *hists; i++) {
        add_hist(&out, hists[i].name, hists[i].help, hists[i].kind, n);
        if (s->conf->vllm_metric_names)
            add_hist(&out, hists[i].vllm, hists[i].help, hists[i].kind, n);
    }
    add_feedback(&out, n);
    add_families(&out, &s->count);
    add_plugins(&out, s->hooks);
    http_reply_text(r, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
    buf_free(&out);
    free(n);
}

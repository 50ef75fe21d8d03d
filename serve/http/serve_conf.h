#pragma once
/* The settings of an appliance: hone.yaml. One table row is one setting; `retrain` and `plugins`
 * are mappings whose rows belong to their own readers. Relative paths are relative to the file that
 * they stand in. */
#include "core/base/conf.h"
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { SERVE_LOG_NONE, SERVE_LOG_METADATA, SERVE_LOG_FULL } serve_log_prompts;
typedef enum { SERVE_DTYPE_AUTO, SERVE_DTYPE_F32, SERVE_DTYPE_BF16 } serve_dtype;

typedef struct serve_conf {
    char *model, *adapter, *name, *device; /* what is served */
    int dtype;                             /* serve_dtype */
    int64_t threads, context, max_seqs, kv_tokens, step_tokens, queue_requests, queue_tokens;

    char *listen, *health_listen, *admin_listen; /* where */
    char *tls_cert, *tls_key;
    bool behind_proxy, insecure_no_auth;
    json_t *cors_origins;

    int64_t http_threads, workers, max_connections, max_connections_per_ip; /* how much */
    int64_t max_body_bytes, header_seconds, body_seconds, idle_seconds, request_seconds;
    int64_t drain_seconds;
    int64_t default_rpm, default_tpm, default_max_parallel, default_daily_tokens;
    int64_t auth_failures_per_minute;

    char *state_dir; /* what is kept */
    int log_prompts; /* serve_log_prompts */
    int64_t retention_days, feedback_token_hours;
    bool vllm_metric_names;
    bool canary;            /* a second model beside the live one */
    bool require_signature; /* what is trusted */
    json_t *trusted_keys;

    json_t *retrain, *plugins; /* read by others */
} serve_conf;

extern const conf_row serve_conf_rows[];

/* Defaults, then the file, then "key=value" overrides ("retrain.min_examples=5" reaches into a
 * mapping); paths made absolute or relative to the working directory. path NULL: only defaults.
 * Release with serve_conf_free, also after an error. */
int serve_conf_load(serve_conf *c, const char *path, char *const *overrides, int n, hone_err *e);
void serve_conf_free(serve_conf *c);

/* A path of this configuration, for readers of the other mappings: `file` as seen from the
 * directory of `conf_path` (NULL: the working directory). Caller frees; NULL stays NULL. */
char *serve_conf_path(const char *conf_path, const char *file);

/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080" or ":8080" (every address). EINVAL says what is
 * wrong. The host is
 * "" for every address; cap of host at least 64. */
int serve_conf_listen(const char *text, char host[64], uint16_t *port, hone_err *e);

/* Is the host one that only this machine reaches? */
bool serve_conf_loopback(const char *host);

/* What may not be started: EINVAL with the setting to change. `n_keys` usable keys exist. */
int serve_conf_check(const serve_conf *c, int64_t n_keys, hone_err *e);

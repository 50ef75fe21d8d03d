#include "serve/http/serve_conf.h"

#include "core/base/file.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(serve_conf, field)

/* clang-format off */
const conf_row serve_conf_rows[] = {
    {"model", "base_model", CONF_STR, AT(model), NULL, 0, 0, NULL, "directory of the checkpoint"},
    {"adapter", "lora_model_dir", CONF_STR, AT(adapter), NULL, 0, 0, NULL, "directory of a LoRA adapter served on top of the model"},
    {"name", "served_model_name", CONF_STR, AT(name), NULL, 0, 0, NULL, "name clients use; default: the last part of the model's path, or hone"},
    {"device", NULL, CONF_STR, AT(device), "auto", 0, 0, NULL, "cpu, cuda or auto"},
    {"dtype", NULL, CONF_ENUM, AT(dtype), "auto", 0, 0, "auto|f32|bf16", "arithmetic"},
    {"threads", NULL, CONF_INT, AT(threads), "0", 0, 4096, NULL, "threads of the CPU backend; 0: all"},
    {"context", "max_model_len", CONF_INT, AT(context), "0", 0, 1 << 24, NULL, "longest prompt plus answer in tokens; 0: the model's own"},
    {"max_seqs", "max_num_seqs", CONF_INT, AT(max_seqs), "16", 1, 1024, NULL, "answers decoded together"},
    {"kv_tokens", NULL, CONF_INT, AT(kv_tokens), "0", 0, 1 << 30, NULL, "size of the key-value cache in tokens; 0: room for max_seqs contexts, at most 1 GiB"},
    {"step_tokens", "max_num_batched_tokens", CONF_INT, AT(step_tokens), "512", 16, 1 << 20, NULL, "token budget of one step, prefill included"},
    {"queue_requests", "max_num_queued_reqs", CONF_INT, AT(queue_requests), "64", 1, 65536, NULL, "requests that may wait; more get 429"},
    {"queue_tokens", "max_num_queued_tokens", CONF_INT, AT(queue_tokens), "65536", 1, 1 << 30, NULL, "prompt tokens that may wait; more get 429"},

    {"listen", NULL, CONF_STR, AT(listen), "127.0.0.1:8080", 0, 0, NULL, "address and port; port 0 takes a free one"},
    {"health_listen", NULL, CONF_STR, AT(health_listen), NULL, 0, 0, NULL, "second address that answers only /health and /metrics"},
    {"admin_listen", NULL, CONF_STR, AT(admin_listen), NULL, 0, 0, NULL, "address of its own for what is for operators (metrics, reading and reviewing feedback, erasure); the public one does not have it then"},
    {"tls_cert", "ssl_certfile", CONF_STR, AT(tls_cert), NULL, 0, 0, NULL, "certificate chain, PEM; read again on SIGHUP and when it has changed"},
    {"tls_key", "ssl_keyfile", CONF_STR, AT(tls_key), NULL, 0, 0, NULL, "private key, PEM"},
    {"behind_proxy", NULL, CONF_BOOL, AT(behind_proxy), "false", 0, 0, NULL, "a proxy in front ends TLS; its X-Forwarded-For is believed"},
    {"insecure_no_auth", NULL, CONF_BOOL, AT(insecure_no_auth), "false", 0, 0, NULL, "serve without keys: whoever reaches the port may do everything"},
    {"cors_origins", "allowed_origins", CONF_LIST, AT(cors_origins), NULL, 0, 0, NULL, "web origins whose pages may call the server; none by default"},

    {"http_threads", NULL, CONF_INT, AT(http_threads), "2", 1, 64, NULL, "threads that read and write connections"},
    {"workers", NULL, CONF_INT, AT(workers), "2", 1, 64, NULL, "threads that run requests (templates, tokenizer, database)"},
    {"max_connections", NULL, CONF_INT, AT(max_connections), "1024", 8, 65536, NULL, "open connections"},
    {"max_connections_per_ip", NULL, CONF_INT, AT(max_connections_per_ip), "256", 0, 65536, NULL, "of one address; 0: no limit (always so behind a proxy)"},
    {"max_body_bytes", NULL, CONF_INT, AT(max_body_bytes), "4194304", 1024, 256 << 20, NULL, "longest request body; longer gets 413"},
    {"header_seconds", NULL, CONF_INT, AT(header_seconds), "10", 1, 3600, NULL, "time to send all headers"},
    {"body_seconds", NULL, CONF_INT, AT(body_seconds), "30", 1, 3600, NULL, "time to send the whole body"},
    {"idle_seconds", NULL, CONF_INT, AT(idle_seconds), "60", 1, 3600, NULL, "time a connection may be silent"},
    {"request_seconds", "timeout", CONF_INT, AT(request_seconds), "600", 1, 86400, NULL, "time for one answer, waiting included; then 504"},
    {"drain_seconds", "shutdown_timeout", CONF_INT, AT(drain_seconds), "30", 0, 3600, NULL, "time for running answers after SIGTERM"},
    {"default_rpm", NULL, CONF_INT, AT(default_rpm), "0", 0, 1e9, NULL, "requests a minute of a key without its own limit; 0: none"},
    {"default_tpm", NULL, CONF_INT, AT(default_tpm), "0", 0, 1e12, NULL, "tokens a minute of a key without its own limit; 0: none"},
    {"default_max_parallel", NULL, CONF_INT, AT(default_max_parallel), "0", 0, 1e6, NULL, "answers at a time of a key without its own limit; 0: none"},
    {"default_daily_tokens", NULL, CONF_INT, AT(default_daily_tokens), "0", 0, 1e15, NULL, "tokens a day (UTC) of a key without its own limit; 0: none"},
    {"auth_failures_per_minute", NULL, CONF_INT, AT(auth_failures_per_minute), "20", 1, 1e6, NULL, "wrong keys from one address before it gets 429"},

    {"state_dir", NULL, CONF_STR, AT(state_dir), "state", 0, 0, NULL, "directory of the database, the pepper and what training makes"},
    {"log_prompts", NULL, CONF_ENUM, AT(log_prompts), "full", 0, 0, "none|metadata|full", "what is stored of requests; feedback needs the answer stored"},
    {"retention_days", NULL, CONF_INT, AT(retention_days), "90", 0, 36500, NULL, "days until a stored request is deleted; 0: never"},
    {"feedback_token_hours", NULL, CONF_INT, AT(feedback_token_hours), "24", 1, 8760, NULL, "how long the token of an answer may rate it"},
    {"vllm_metric_names", NULL, CONF_BOOL, AT(vllm_metric_names), "false", 0, 0, NULL, "also give the metrics that vLLM has under its names"},
    {"canary", NULL, CONF_BOOL, AT(canary), "false", 0, 0, NULL, "serve what the alias `canary` points at too, as NAME-canary: to who asks for it, and where a plugin sends requests (serve.route); takes the memory of a second model"},
    {"require_signature", NULL, CONF_BOOL, AT(require_signature), "false", 0, 0, NULL, "serve and promote signed models only; else a model without a signature is served and said to have none"},
    {"trusted_keys", NULL, CONF_LIST, AT(trusted_keys), NULL, 0, 0, NULL, "public keys (PEM files) whose signatures count beside the appliance's own"},

    {"retrain", NULL, CONF_JSON, AT(retrain), NULL, 0, 0, NULL, "policy of retraining"},
    {"plugins", NULL, CONF_JSON, AT(plugins), NULL, 0, 0, NULL, "plugins and scripts to load"},
    {NULL, NULL, CONF_STR, 0, NULL, 0, 0, NULL, NULL},
};
/* clang-format on */

char *serve_conf_path(const char *conf_path, const char *file)
{
    if (file == NULL || file[0] == '/' || conf_path == NULL || strchr(conf_path, '/') == NULL)
        return mem_strdup(file);
    char *dir = path_dir(conf_path);
    char *path = path_join(dir, file);
    free(dir);
    return path;
}

static void resolve_list(json_t *list, const char *conf_path)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        char *path = serve_conf_path(conf_path, json_string_value(json_array_get(list, i)));
        json_array_set_new(list, i, json_string(path));
        free(path);
    }
}

static void resolve(char **field, const char *conf_path)
{
    char *path = serve_conf_path(conf_path, *field);
    free(*field);
    *field = path;
}

/* "retrain.min_examples=5": a setting inside a mapping that another reader will check. */
static int set_inside(json_t **mapping, const char *key, const char *text, hone_err *e)
{
    json_t *v;
    int rc = yaml_parse(&v, NULL, text, strlen(text), e);
    if (rc != 0)
        return hone_fail_at(e, "%s", key);
    json_t *copy = *mapping != NULL ? json_deep_copy(*mapping) : json_object();
    json_decref(*mapping);
    *mapping = copy;
    if (json_object_set_new(copy, key, v) != 0)
        return hone_fail(e, HONE_EINVAL, "%s: the setting it belongs to is not a mapping", key);
    return 0;
}

static int override(serve_conf *c, const char *assignment, hone_err *e)
{
    const char *eq = strchr(assignment, '=');
    const char *dot = strchr(assignment, '.');
    if (eq == NULL || dot == NULL || dot > eq)
        return conf_set(serve_conf_rows, c, NULL, assignment, e);
    char *head = mem_strndup(assignment, (size_t)(dot - assignment));
    const conf_row *row = conf_find(serve_conf_rows, head);
    int rc;
    if (row != NULL && row->type == CONF_JSON) {
        char *key = mem_strndup(dot + 1, (size_t)(eq - dot - 1));
        rc = set_inside((json_t **)((char *)c + row->offset), key, eq + 1, e);
        free(key);
    } else {
        rc = conf_set(serve_conf_rows, c, NULL, assignment, e);
    }
    free(head);
    return rc;
}

/* What clients call a model that was given no name. */
static char *name_of(const char *model)
{
    size_t n = model != NULL ? strlen(model) : 0;
    while (n > 0 && model[n - 1] == '/')
        n--;
    char *path = mem_strndup(model != NULL ? model : "", n);
    const char *last = path_base(path);
    bool says = *last != '\0' && strcmp(last, ".") != 0 && strcmp(last, "..") != 0;
    char *name = mem_strdup(says ? last : "hone");
    free(path);
    return name;
}

int serve_conf_load(serve_conf *c, const char *path, char *const *overrides, int n, hone_err *e)
{
    *c = (serve_conf){0};
    conf_defaults(serve_conf_rows, c);
    int rc = path != NULL ? conf_load(serve_conf_rows, c, NULL, path, e) : 0;
    char **const paths[] = {&c->model, &c->adapter, &c->tls_cert, &c->tls_key, &c->state_dir};
    for (size_t i = 0; rc == 0 && i < sizeof paths / sizeof *paths; i++)
        resolve(paths[i], path);
    if (rc == 0)
        resolve_list(c->trusted_keys, path);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = override(c, overrides[i], e);
    if (rc == 0 && c->name == NULL)
        c->name = name_of(c->model);
    return rc;
}

void serve_conf_free(serve_conf *c)
{
    conf_free(serve_conf_rows, c);
}

/* ---- addresses ---- */

static int bad_listen(const char *text, hone_err *e)
{
    return hone_fail(e, HONE_EINVAL,
                     "listen '%.80s': expected host:port, [IPv6]:port or :port with a port from 0 "
                     "to 65535",
                     text);
}

int serve_conf_listen(const char *text, char host[64], uint16_t *port, hone_err *e)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return bad_listen(text, e);
    unsigned long p = strtoul(colon + 1, &end, 10);
    size_t n = (size_t)(colon - text);
    if (*end != '\0' || p > 65535 || n >= 64)
        return bad_listen(text, e);
    bool bracketed = n >= 2 && text[0] == '[' && colon[-1] == ']';
    if (!bracketed && memchr(text, ':', n) != NULL)
        return bad_listen(text, e);
    size_t skip = bracketed ? 1 : 0;
    memcpy(host, text + skip, n - 2 * skip);
    host[n - 2 * skip] = '\0';
    if (strcmp(host, "*") == 0)
        host[0] = '\0';
    *port = (uint16_t)p;
    return 0;
}

bool serve_conf_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* ---- what may not be started ---- */

static int check_open(const serve_conf *c, const char *name, const char *text, int64_t n_keys,
                      hone_err *e)
{
    char host[64];
    uint16_t port;
    int rc = serve_conf_listen(text, host, &port, e);
    if (rc != 0 || serve_conf_loopback(host))
        return rc;
    if (n_keys == 0 && !c->insecure_no_auth)
        return hone_fail(e, HONE_EDENIED,
                         "%s '%s': reachable from other machines and there is no key; make one "
                         "with 'hone key create', or set insecure_no_auth: true",
                         name, text);
    if (c->tls_cert == NULL && !c->behind_proxy)
        return hone_fail(e, HONE_EDENIED,
                         "%s '%s': reachable from other machines without TLS; set tls_cert and "
                         "tls_key, or behind_proxy: true when a proxy ends TLS",
                         name, text);
    return 0;
}

int serve_conf_check(const serve_conf *c, int64_t n_keys, hone_err *e)
{
    char host[64];
    uint16_t port;
    if ((c->tls_cert == NULL) != (c->tls_key == NULL))
        return hone_fail(e, HONE_EINVAL, "tls_cert and tls_key go together: '%s' is missing",
                         c->tls_cert == NULL ? "tls_cert" : "tls_key");
    int rc = check_open(c, "listen", c->listen, n_keys, e);
    if (rc == 0 && c->admin_listen != NULL)
        rc = check_open(c, "admin_listen", c->admin_listen, n_keys, e);
    if (rc == 0 && c->health_listen != NULL) {
        rc = serve_conf_listen(c->health_listen, host, &port, e);
        if (rc != 0)
            hone_fail_at(e, "health_listen");
    }
    return rc;
}

#pragma once
/* The one table of errors that clients see, in OpenAI's shape:
 * {"error": {"message", "type", "param", "code"}}. */

/* X(id, status, type, code, retry): retry is what x-should-retry says, "" to leave it to the
 * client. */
#define HTTP_ERRORS(X)                                                                             \
    X(INVALID_JSON, 400, "invalid_request_error", "invalid_json", "")                              \
    X(INVALID_VALUE, 400, "invalid_request_error", "invalid_value", "")                            \
    X(UNSUPPORTED_PARAMETER, 400, "invalid_request_error", "unsupported_parameter", "")            \
    X(CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded", "")                 \
    X(TEMPLATE, 400, "invalid_request_error", "template_error", "")                                \
    X(BAD_REQUEST, 400, "invalid_request_error", "bad_request", "")                                \
    X(MISSING_KEY, 401, "authentication_error", "missing_api_key", "")                             \
    X(INVALID_KEY, 401, "authentication_error", "invalid_api_key", "")                             \
    X(EXPIRED_KEY, 401, "authentication_error", "expired_api_key", "")                             \
    X(SCOPE, 403, "permission_error", "insufficient_scope", "")                                    \
    X(MODEL_NOT_ALLOWED, 403, "permission_error", "model_not_allowed", "")                         \
    X(ORIGIN, 403, "permission_error", "origin_not_allowed", "")                                   \
    X(REFUSED, 403, "permission_error", "refused_by_policy", "")                                   \
    X(NOT_STORED, 403, "permission_error", "response_not_stored", "")                              \
    X(MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found", "")                        \
    X(UNKNOWN_ROUTE, 404, "invalid_request_error", "unknown_route", "")                            \
    X(NOT_FOUND, 404, "not_found_error", "not_found", "")                                          \
    X(METHOD, 405, "invalid_request_error", "method_not_allowed", "")                              \
    X(TIMEOUT, 408, "invalid_request_error", "request_timeout", "")                                \
    X(CONFLICT, 409, "conflict_error", "duplicate_feedback", "false")                              \
    X(TOO_LARGE, 413, "invalid_request_error", "request_too_large", "")                            \
    X(MEDIA_TYPE, 415, "invalid_request_error", "unsupported_media_type", "")                      \
    X(RATE_LIMIT, 429, "rate_limit_error", "rate_limit_exceeded", "")                              \
    X(QUOTA, 429, "rate_limit_error", "insufficient_quota", "false")                               \
    X(QUEUE_FULL, 429, "rate_limit_error", "queue_full", "")                                       \
    X(INTERNAL, 500, "server_error", "internal_error", "")                                         \
    X(FEATURE_DISABLED, 501, "not_supported_error", "feature_disabled", "false")                   \
    X(LOADING, 503, "unavailable_error", "model_loading", "")                                      \
    X(DRAINING, 503, "unavailable_error", "draining", "")                                          \
    X(ENGINE_DEAD, 503, "unavailable_error", "engine_dead", "")                                    \
    X(STORE, 503, "unavailable_error", "store_unavailable", "")                                    \
    X(OVERLOADED, 503, "unavailable_error", "overloaded", "")                                      \
    X(GENERATION_TIMEOUT, 504, "server_error", "generation_timeout", "")

typedef enum {
    HTTP_OK, /* no error */
#define HTTP_ERRORS_ENUM(id, status, type, code, retry) HTTP_##id,
    HTTP_ERRORS(HTTP_ERRORS_ENUM)
#undef HTTP_ERRORS_ENUM
} http_error;

typedef struct http_error_row {
    int status;
    const char *type, *code, *retry;
} http_error_row;

/* The row of an error other than HTTP_OK. */
const http_error_row *http_error_get(http_error id);

#pragma once
/* A small HTTP client for tests of the server, and raw sockets for what no honest client would
 * send. All calls give up after a minute; none asserts. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As long as a test waits for what must happen: a busy machine may be late. */
enum { AID_PATIENCE_MS = 60000 };

typedef struct aid_reply {
    int status;    /* 0: no reply */
    char *headers; /* with the status line */
    char *body;    /* NUL-terminated; chunks are joined */
    size_t len;
    char *raw; /* everything that came */
} aid_reply;

/* One request over a connection of its own. headers: lines ending with \r\n, or NULL; body NULL:
 * none (else Content-Type and Content-Length are sent too). */
aid_reply aid_http(uint16_t port, const char *method, const char *path, const char *headers,
                   const char *body);
void aid_reply_free(aid_reply *r); /* safe on a zeroed one */

/* The value of a header, or NULL; caller frees. */
char *aid_header(const aid_reply *r, const char *name);

/* ---- raw ---- */

int aid_connect(uint16_t port);
bool aid_send(int fd, const char *text);
bool aid_send_bytes(int fd, const void *data, size_t len);
/* Sends a POST of this body and waits for nothing; the connection, or -1. */
int aid_post(uint16_t port, const char *path, const char *headers, const char *body);

/* Reads until the peer closes, or until `needle` has come (may be NULL), or until timeout_ms are
 * over. Caller frees; *closed, if not NULL, tells whether the peer closed. */
char *aid_read(int fd, const char *needle, int timeout_ms, bool *closed);

/* Parses what aid_read gave. */
aid_reply aid_parse(const char *raw);

/* Milliseconds of a monotonic clock. */
int64_t aid_ms(void);

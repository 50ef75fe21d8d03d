#include "tests/unit/aid_http.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_REPLY = 64 << 20 };

int64_t aid_ms(void)
{
    return clock_mono_ns() / 1000000;
}

int aid_connect(uint16_t port)
{
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool aid_send_bytes(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

bool aid_send(int fd, const char *text)
{
    return aid_send_bytes(fd, text, strlen(text));
}

int aid_post(uint16_t port, const char *path, const char *headers, const char *body)
{
    int fd = aid_connect(port);
    char *req = mem_printf("POST %s HTTP/1.1\r\nHost: localhost\r\n%s"
                           "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                           path, headers != NULL ? headers : "", strlen(body), body);
    if (fd >= 0)
        aid_send(fd, req);
    free(req);
    return fd;
}

char *aid_read(int fd, const char *needle, int timeout_ms, bool *closed)
{
    buf b;
    char chunk[16384];
    int64_t end = aid_ms() + timeout_ms;
    bool over = false;
    buf_init(&b, MAX_REPLY);
    buf_str(&b, "");
    while (!over && (needle == NULL || strstr(b.data, needle) == NULL)) {
        int64_t left = end - aid_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            break;
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        over = n <= 0;
        if (n > 0)
            buf_add(&b, chunk, (size_t)n);
    }
    if (closed != NULL)
        *closed = over;
    return buf_take(&b, NULL);
}

static char *dechunk(const char *s, size_t *len)
{
    buf b;
    buf_init(&b, MAX_REPLY);
    for (;;) {
        char *end;
        unsigned long n = strtoul(s, &end, 16);
        if (n == 0 || strncmp(end, "\r\n", 2) != 0 || strlen(end + 2) < n)
            break;
        buf_add(&b, end + 2, n);
        s = end + 2 + n;
        if (strncmp(s, "\r\n", 2) == 0)
            s += 2;
    }
    return buf_take(&b, len);
}

aid_reply aid_parse(const char *raw)
{
    aid_reply r = {.raw = mem_strdup(raw)};
    const char *end = strstr(raw, "\r\n\r\n");
    if (strncmp(raw, "HTTP/1.", 7) != 0 || end == NULL) {
        r.headers = mem_strdup("");
        r.body = mem_strdup("");
        return r;
    }
    r.status = atoi(raw + 9);
    r.headers = mem_strndup(raw, (size_t)(end - raw) + 2);
    char *coding = aid_header(&r, "Transfer-Encoding");
    if (coding != NULL) {
        r.body = dechunk(end + 4, &r.len);
    } else {
        r.len = strlen(end + 4);
        r.body = mem_strdup(end + 4);
    }
    free(coding);
    return r;
}

aid_reply aid_http(uint16_t port, const char *method, const char *path, const char *headers,
                   const char *body)
{
    buf b;
    buf_init(&b, MAX_REPLY);
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, path,
               headers != NULL ? headers : "");
    if (body != NULL)
        buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_str(&b, "\r\n");
    if (body != NULL)
        buf_str(&b, body);
    int fd = aid_connect(port);
    if (fd >= 0)
        aid_send_bytes(fd, b.data, b.len);
    char *raw = fd >= 0 ? aid_read(fd, NULL, AID_PATIENCE_MS, NULL) : mem_strdup("");
    aid_reply r = aid_parse(raw);
    if (fd >= 0)
        close(fd);
    free(raw);
    buf_free(&b);
    return r;
}

void aid_reply_free(aid_reply *r)
{
    free(r->headers);
    free(r->body);
    free(r->raw);
    *r = (aid_reply){0};
}

char *aid_header(const aid_reply *r, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = strstr(r->headers, "\r\n"); s != NULL; s = strstr(s, "\r\n")) {
        s += 2;
        if (strncasecmp(s, name, n) != 0 || s[n] != ':')
            continue;
        s += n + 1;
        s += strspn(s, " ");
        return mem_strndup(s, strcspn(s, "\r"));
    }
    return NULL;
}

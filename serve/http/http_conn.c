#include "serve/http/http_conn.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BUSY_MS = 10, QUIET_MS = 100 }; /* how often the reaper looks */

static const int64_t LEFT_NS = 500000000; /* how often at a connection that nobody works on */

struct conn_list {
    conn_limits lim;
    void *owner;
    pthread_mutex_t lock;
    conn *head;
    int n;
    pthread_t reaper;
    pthread_cond_t stop_now;
    bool stopping;
    atomic_int n_parked;
    atomic_uint_fast64_t accepted, hung_up, timed_out;
};

/* ---- coming and going ---- */

conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i != NULL ? i->socket_context : NULL;
}

static conn *conn_new(struct MHD_Connection *mhd)
{
    conn *c = mem_alloc(sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->mhd = mhd;
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->tls = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION) != NULL;
    c->since_ns = clock_mono_ns();
    c->look_ns = c->since_ns + LEFT_NS;
    return c;
}

/* The library calls this before it closes the socket, so a descriptor that stands in the list is
 * never another's. */
void conn_notify(void *list, struct MHD_Connection *mhd, void **socket_context,
                 enum MHD_ConnectionNotificationCode what)
{
    conn_list *l = list;
    conn *c = what == MHD_CONNECTION_NOTIFY_STARTED ? conn_new(mhd) : *socket_context;
    if (c == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        c->owner = l->owner;
        c->next = l->head;
        if (l->head != NULL)
            l->head->prev = c;
        l->head = c;
        l->n++;
        atomic_fetch_add(&l->accepted, 1);
        *socket_context = c;
        pthread_mutex_unlock(&l->lock);
        return;
    }
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        l->head = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    l->n--;
    pthread_mutex_unlock(&l->lock);
    *socket_context = NULL;
    answer_unref(c->answer);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void conn_enter(conn *c, conn_state state, const char *id)
{
    pthread_mutex_lock(&c->lock);
    c->state = state;
    c->since_ns = clock_mono_ns();
    c->look_ns = c->since_ns + LEFT_NS;
    c->over = false;
    if (state == CONN_HEADERS)
        c->again = true;
    if (state == CONN_BODY)
        c->pending = false; /* a late wake of the request before */
    snprintf(c->id, sizeof c->id, "%s", id != NULL ? id : "");
    pthread_mutex_unlock(&c->lock);
}

/* ---- parking ---- */

bool conn_park(conn *c)
{
    bool parked = false;
    pthread_mutex_lock(&c->lock);
    if (c->pending) {
        c->pending = false;
    } else {
        c->parked = parked = true;
        MHD_suspend_connection(c->mhd);
    }
    pthread_mutex_unlock(&c->lock);
    return parked;
}

static void wake_locked(conn *c)
{
    if (c->parked) {
        c->parked = false;
        MHD_resume_connection(c->mhd);
    } else {
        c->pending = true;
    }
}

void conn_wake(conn *c)
{
    pthread_mutex_lock(&c->lock);
    wake_locked(c);
    pthread_mutex_unlock(&c->lock);
}

void conn_work_begin(conn *c)
{
    pthread_mutex_lock(&c->lock);
    c->busy++;
    pthread_mutex_unlock(&c->lock);
}

/* Both under one lock: once busy is seen to be zero the connection may go away. */
void conn_work_end(conn *c)
{
    pthread_mutex_lock(&c->lock);
    c->busy--;
    wake_locked(c);
    pthread_mutex_unlock(&c->lock);
}

bool conn_busy(conn *c)
{
    pthread_mutex_lock(&c->lock);
    bool busy = c->busy > 0;
    pthread_mutex_unlock(&c->lock);
    return busy;
}

void conn_set_answer(conn *c, answer *a)
{
    if (a != NULL)
        answer_ref(a);
    pthread_mutex_lock(&c->lock);
    answer *old = c->answer;
    c->answer = a;
    pthread_mutex_unlock(&c->lock);
    answer_unref(old);
}

bool conn_gone(conn *c)
{
    pthread_mutex_lock(&c->lock);
    bool gone = c->gone;
    pthread_mutex_unlock(&c->lock);
    return gone;
}

/* ---- the reaper ---- */

/* Nothing of this request was answered yet, so the reason can still be said where the stream is in
 * clear text. */
static void say_timeout(const conn *c)
{
    char text[512];
    static const char body[] = "{\"error\":{\"message\":\"the request was not received in time\","
                               "\"type\":\"invalid_request_error\",\"param\":null,"
                               "\"code\":\"request_timeout\"}}";
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n%s%s%s\r\n%s",
                     sizeof body - 1, c->id[0] != '\0' ? "x-request-id: " : "", c->id,
                     c->id[0] != '\0' ? "\r\n" : "", body);
    if (!c->tls)
        (void)!send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Absolute: a byte now and then does not help. */
static bool too_late(const conn_list *l, const conn *c, int64_t now)
{
    int64_t max = c->state == CONN_BODY ? l->lim.body_ns
                  : c->again            ? l->lim.idle_ns + l->lim.header_ns
                                        : l->lim.header_ns;
    return c->state != CONN_WORK && now - c->since_ns > max;
}

static bool hung_up(const conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* The library watches a socket for edges, and takes a read that fills less than its buffer for the
 * last there is: an end that came together with the last bytes it never sees. Seen twice, with all
 * that was sent read and nothing begun since: no request can come of it any more. */
static bool left(conn *c, int64_t now)
{
    char byte;
    if (c->state == CONN_WORK || c->parked || now < c->look_ns)
        return false;
    bool before = c->over;
    c->look_ns = now + LEFT_NS;
    c->over = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    return before && c->over;
}

/* Looks at one connection; the list is locked, so it cannot go away. */
static void look(conn_list *l, conn *c, int64_t now, int *n_parked)
{
    answer *a = NULL, *lost = NULL;
    pthread_mutex_lock(&c->lock);
    *n_parked += c->parked;
    if (!c->closing && too_late(l, c, now)) {
        c->closing = true;
        if (c->state == CONN_BODY || !c->again)
            say_timeout(c);
        shutdown(c->fd, SHUT_RDWR);
        atomic_fetch_add(&l->timed_out, 1);
    } else if (!c->closing && left(c, now)) {
        c->closing = true;
        shutdown(c->fd, SHUT_RDWR);
    } else if (c->parked && !c->gone && hung_up(c)) {
        c->gone = true;
        atomic_fetch_add(&l->hung_up, 1);
        if (c->answer != NULL) {
            lost = answer_ref(c->answer);
            wake_locked(c);
        }
    } else if (c->answer != NULL && !c->gone) {
        a = answer_ref(c->answer);
    }
    pthread_mutex_unlock(&c->lock);
    if (a != NULL)
        answer_tick(a, now);
    if (lost != NULL)
        answer_detach(lost);
    answer_unref(a);
    answer_unref(lost);
}

static void *reaper_main(void *arg)
{
    conn_list *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stopping) {
        int n_parked = 0;
        int64_t now = clock_mono_ns();
        for (conn *c = l->head; c != NULL; c = c->next)
            look(l, c, now, &n_parked);
        atomic_store(&l->n_parked, n_parked);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(n_parked > 0 ? BUSY_MS : QUIET_MS) * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&l->stop_now, &l->lock, &until);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

int conn_list_open(conn_list **out, const conn_limits *lim, void *owner, hone_err *e)
{
    *out = NULL;
    conn_list *l = mem_alloc(sizeof *l);
    pthread_condattr_t attr;
    l->lim = *lim;
    l->owner = owner;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->stop_now, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&l->reaper, NULL, reaper_main, l) != 0) {
        pthread_cond_destroy(&l->stop_now);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return hone_fail(e, HONE_ENOMEM, "cannot start the reaper");
    }
    *out = l;
    return 0;
}

void conn_list_close(conn_list *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->stop_now);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->reaper, NULL);
    pthread_cond_destroy(&l->stop_now);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

conn_stats conn_counters(conn_list *l)
{
    pthread_mutex_lock(&l->lock);
    int open = l->n;
    pthread_mutex_unlock(&l->lock);
    return (conn_stats){open, l->n_parked, l->accepted, l->hung_up, l->timed_out};
}

int conn_at_work(conn_list *l, int64_t since_ns)
{
    int n = 0;
    pthread_mutex_lock(&l->lock);
    for (conn *c = l->head; c != NULL; c = c->next) {
        pthread_mutex_lock(&c->lock);
        n += c->state == CONN_WORK && !c->gone && c->since_ns <= since_ns;
        pthread_mutex_unlock(&c->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return n;
}

void conn_kick_all(conn_list *l)
{
    pthread_mutex_lock(&l->lock);
    for (conn *c = l->head; c != NULL; c = c->next) {
        pthread_mutex_lock(&c->lock);
        answer *a = c->answer != NULL ? answer_ref(c->answer) : NULL;
        c->gone = true;
        if (c->parked && a != NULL)
            wake_locked(c);
        else if (!c->parked && !c->closing)
            shutdown(c->fd, SHUT_RDWR);
        pthread_mutex_unlock(&c->lock);
        if (a != NULL)
            answer_detach(a);
        answer_unref(a);
    }
    pthread_mutex_unlock(&l->lock);
}

#pragma once
/* Connections: what each is waiting for, how long it may, and whether its client is still there.
 *
 * A connection whose request is being worked on is parked: libmicrohttpd then neither watches its
 * socket nor counts its time, so the reaper thread does both. It also shuts a connection whose
 * client has ended it unseen by libmicrohttpd. Parking is a binary semaphore: a wake that comes
 * first is not lost.
 *
 * Locks, in the order in which they may be taken: the list, a connection, libmicrohttpd's own. An
 * answer (the generation a connection waits for) has its own lock, which is never taken while a
 * connection's is held. */
#include "serve/http/http_answer.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { CONN_HEADERS, CONN_BODY, CONN_WORK } conn_state;

typedef struct conn {
    struct conn *prev, *next; /* the list's */
    pthread_mutex_t lock;
    struct MHD_Connection *mhd;
    int fd;
    bool tls;
    conn_state state;
    bool again;       /* it has had a request before */
    bool parked;      /* suspended in libmicrohttpd */
    bool pending;     /* a wake came before the park */
    bool gone;        /* the client has hung up, or must go */
    int busy;         /* workers that have its request, or will have */
    bool closing;     /* the reaper has shut the socket */
    bool over;        /* all was read and the client sends no more, when last looked */
    int64_t since_ns; /* when the state began */
    int64_t look_ns;  /* when to look for that next */
    void *owner;      /* of the list */
    answer *answer;   /* what it waits for; counted */
    char id[40];      /* of the request, for the 408 */
} conn;

typedef struct conn_limits {
    int64_t header_ns, body_ns, idle_ns;
} conn_limits;

typedef struct conn_list conn_list;

/* Starts the reaper. `owner` is what every connection will name. */
int conn_list_open(conn_list **out, const conn_limits *lim, void *owner, hone_err *e);
/* Stops the reaper; every connection must be gone. NULL is a no-op. */
void conn_list_close(conn_list *l);

/* For MHD_OPTION_NOTIFY_CONNECTION with the list as its argument. */
void conn_notify(void *list, struct MHD_Connection *mhd, void **socket_context,
                 enum MHD_ConnectionNotificationCode what);
conn *conn_of(struct MHD_Connection *mhd);

/* A request begins (its headers are there), its body is read, or it is worked on; when it ends:
 * CONN_HEADERS. */
void conn_enter(conn *c, conn_state state, const char *id);

/* Only on the connection's own thread, in the access handler or a content reader. True: parked,
 * return to the library. False: a wake came before; go on. */
bool conn_park(conn *c);
/* From any thread, as long as the connection stands. */
void conn_wake(conn *c);

/* A worker will have the request; it has done with it (this wakes the connection). While any has
 * it, the connection stays parked. */
void conn_work_begin(conn *c);
void conn_work_end(conn *c);
bool conn_busy(conn *c);

/* Hands the connection the answer it waits for (takes a reference), or takes it away (NULL). */
void conn_set_answer(conn *c, answer *a);

bool conn_gone(conn *c);

typedef struct conn_stats {
    int open, working;
    uint64_t accepted, hung_up, timed_out;
} conn_stats;
conn_stats conn_counters(conn_list *l);

/* How many have a request whose work began by then and whose reply has not been sent whole. */
int conn_at_work(conn_list *l, int64_t since_ns);

/* Lets every connection go: parked ones wake as gone, the others are shut. Call until nothing is
 * open. */
void conn_kick_all(conn_list *l);

/* Bytes on a connection to a whole server (with an engine that has no model): request line,
 * headers, and what follows. The server answers in HTTP or not at all, never with an internal
 * error, and lets go of the connection when its client is done. */
#include "core/base/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/aid_server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_MS = 4, CLOSE_MS = 30000 }; /* well before any time below is up */

static void check_answer(const char *raw)
{
    if (raw[0] == '\0')
        return;
    aid_reply r = aid_parse(raw);
    FUZZ_CHECK(r.status >= 100 && r.status < 600 && r.status != 500);
    aid_reply_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const settings[] = {"log_prompts=none", "header_seconds=60",
                                           "body_seconds=60", "idle_seconds=60", NULL};
    static aid_server *s;
    bool closed;
    if (s == NULL) {
        s = aid_server_open(settings);
        atomic_store(&s->plan->text, "yes");
    }
    int fd = aid_connect(s->port);
    FUZZ_CHECK(fd >= 0);
    aid_send_bytes(fd, data, size);
    char *raw = aid_read(fd, "\r\n\r\n", ANSWER_MS, &closed);
    check_answer(raw);
    free(raw);
    shutdown(fd, SHUT_WR);
    if (!closed) {
        raw = aid_read(fd, NULL, CLOSE_MS, &closed);
        FUZZ_CHECK(closed);
        free(raw);
    }
    close(fd);
    return 0;
}

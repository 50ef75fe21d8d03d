#include "tests/unit/aid.h"

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

char *aid_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = mem_printf("%s/hone-test-XXXXXX", base != NULL && *base != '\0' ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    return dir;
}

void aid_dir_remove(char *dir)
{
    hone_err e = {0};
    if (dir_remove(dir, &e) != 0)
        fail_msg("%s", e.msg);
    free(dir);
}

char *aid_shared(const char *name)
{
    const char *base = getenv("HONE_SHARED");
    char *path = path_join(base != NULL && *base != '\0' ? base : "../shared", name);
    if (file_exists(path))
        return path;
    fprintf(stderr, "skipped: %s is absent\n", path);
    free(path);
    return NULL;
}

char *aid_stderr(void (*fn)(void *arg), void *arg, int *status)
{
    int ends[2], st = 0;
    char chunk[4096];
    buf b;
    buf_init(&b, 1 << 20);
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        fn(arg);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n = read(ends[0], chunk, sizeof chunk); n > 0;
         n = read(ends[0], chunk, sizeof chunk))
        buf_add(&b, chunk, (size_t)n);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &st, 0), pid);
    if (status != NULL)
        *status = st;
    return buf_take(&b, NULL);
}

char *aid_text(const char *path)
{
    char *text;
    size_t len;
    hone_err e = {0};
    if (file_read(&text, &len, path, 64 << 20, &e) != 0)
        fail_msg("%s", e.msg);
    return text;
}

int64_t aid_day(void)
{
    enum { DAY_MS = 86400000, ROOM_MS = 30000 };
    int64_t left = DAY_MS - clock_unix_ms() % DAY_MS;
    if (left < ROOM_MS)
        usleep((useconds_t)(left + 1) * 1000);
    return clock_unix_ms() / DAY_MS;
}

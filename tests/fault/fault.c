/* The driver: every case, every kind of fault, every place. */
#include "tests/fault/fault.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/fault/cases.h"
#include "tests/fault/inject.h"

#include <limits.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EVERY_PLACE_UP_TO = 400, MAX_TEXT = 1 << 20 };

/* What a child tells its parent: shared memory, so that it survives a kill. */
typedef struct report {
    bool fired, returned, renamed_unsynced, unsynced;
    int rc, descriptors_left;
    hone_err e;
} report;

typedef struct counts {
    int errors, absorbed, died, failures;
    bool quiet;
} counts;

typedef struct trial {
    const fault_case *c;
    inject_kind kind;
    int nth;
    bool for_ever;
    char *dir;
    char *names; /* what prepare made */
    report *r;
    counts *n;
} trial;

void fault_put(const char *dir, const char *name, const char *text)
{
    hone_err e = {0};
    char *path = path_join(dir, name);
    if (file_write(path, text, strlen(text), &e) != 0) {
        fprintf(stderr, "fault: %s\n", e.msg);
        abort();
    }
    free(path);
}

bool fault_holds(const char *dir, const char *name, const char *text)
{
    char *path = path_join(dir, name), *got = NULL;
    size_t len = 0;
    int rc = file_read(&got, &len, path, MAX_TEXT, NULL);
    bool same = text == NULL ? rc == HONE_ENOTFOUND
                             : rc == 0 && strlen(text) == len && memcmp(got, text, len) == 0;
    free(got);
    free(path);
    return same;
}

/* All paths below dir, a line each; caller frees. */
static char *names_below(const char *dir)
{
    char **names, *all = mem_strdup("");
    if (dir_list(&names, dir, NULL) != 0)
        return all;
    for (size_t i = 0; names[i] != NULL; i++) {
        char *path = path_join(dir, names[i]);
        char *below = file_is_dir(path) ? names_below(path) : mem_strdup("");
        char *next = mem_printf("%s%s\n%s", all, path, below);
        free(all);
        free(below);
        free(path);
        all = next;
    }
    dir_list_free(names);
    return all;
}

static int n_descriptors(void)
{
    char **names;
    int n = 0;
    if (dir_list(&names, "/proc/self/fd", NULL) != 0)
        return -1;
    while (names[n] != NULL)
        n++;
    dir_list_free(names);
    return n;
}

static bool wrong(const trial *t, const char *what)
{
    if (!t->n->quiet)
        printf("FAIL %s: %s %d%s: %s%s%s\n", t->c->name, inject_name(t->kind), t->nth,
               t->for_ever ? " and all after it" : "", what, t->r->e.msg[0] ? "; it said: " : "",
               t->r->e.msg);
    t->n->failures++;
    return false;
}

/* Runs the operation in a child; the wait status. */
static int run_child(const trial *t, bool with_fault)
{
    *t->r = (report){0};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(9);
        int before = n_descriptors();
        /* A fault that never comes, where there is to be none: what is synced is watched all the
         * same. */
        inject_arm(t->kind, with_fault ? t->nth : INT_MAX, t->for_ever);
        int rc = t->c->act(t->dir, &t->r->e);
        t->r->fired = inject_disarm();
        t->r->renamed_unsynced = inject_renamed_unsynced();
        t->r->unsynced = inject_unsynced();
        t->r->rc = rc;
        t->r->descriptors_left = n_descriptors() - before;
        t->r->returned = true;
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    return status;
}

static bool check_success(const trial *t, fault_state state)
{
    if (state != FAULT_NEW)
        return wrong(t, "it said that all is well, but what it was to write is not there");
    if (t->r->descriptors_left != 0)
        return wrong(t, "it left a descriptor open");
    if (t->c->durable && t->r->unsynced)
        return wrong(t, "it said that all is well before all was synced");
    return true;
}

static bool check_error(const trial *t, fault_state state)
{
    bool synced_late = t->kind == INJECT_SYNC && state == FAULT_NEW;
    bool made = t->c->leaves_names && state == FAULT_NEW;
    if (state != FAULT_OLD && !synced_late && !made)
        return wrong(t, state == FAULT_NEW ? "an error, but the new state is there"
                                           : "an error, and the old state is lost");
    if (t->r->e.msg[0] == '\0' || t->r->e.code != t->r->rc)
        return wrong(t, "an error without its message and code");
    if (t->r->descriptors_left != 0)
        return wrong(t, "an error that leaves a descriptor open");
    char *names = names_below(t->dir);
    /* Nothing can be removed while removing is what fails. */
    bool same = t->kind == INJECT_UNLINK || synced_late || t->c->leaves_names ||
                strcmp(names, t->names) == 0;
    free(names);
    return same || wrong(t, "an error that leaves files behind");
}

/* The operation works once the fault is gone. */
static bool check_again(const trial *t)
{
    report first = *t->r;
    int status = run_child(t, false);
    bool fine =
        WIFEXITED(status) && t->r->returned && t->r->rc == 0 && t->c->look(t->dir) == FAULT_NEW;
    if (fine)
        *t->r = first;
    return fine || wrong(t, "tried again without a fault, it does not succeed");
}

/* One place. Returns whether there was such a place: false ends the series. */
static bool run_trial(trial *t)
{
    int status = run_child(t, true);
    fault_state state = t->c->look(t->dir);
    bool died = WIFSIGNALED(status);
    if (died && WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGABRT)
        return wrong(t, "it crashed");
    if (!died && (!t->r->returned || WEXITSTATUS(status) != 0))
        return wrong(t, "it ended the process");
    if (t->r->renamed_unsynced)
        return wrong(t, "it renamed what had not been synced");
    if (died) {
        t->n->died++;
        if (state == FAULT_BROKEN)
            wrong(t, "the process died, and neither the old nor the new state is there");
        else if (state == FAULT_OLD)
            check_again(t);
        return true;
    }
    if (t->r->rc != 0) {
        t->n->errors += t->r->fired;
        if (check_error(t, state) && state == FAULT_OLD)
            check_again(t);
    } else {
        t->n->absorbed += t->r->fired;
        check_success(t, state);
    }
    return t->r->fired;
}

/* Memory rather than a disk, where syncs are slow: what counts is who calls them. */
static const char *scratch(void)
{
    const char *base = getenv("TMPDIR");
    if (base != NULL && *base != '\0')
        return base;
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static void run_series(const fault_case *c, inject_kind kind, bool for_ever, report *r, counts *n)
{
    bool more = true;
    for (int nth = 1; more && n->failures < 10; nth += nth < EVERY_PLACE_UP_TO ? 1 : nth / 50) {
        trial t = {.c = c, .kind = kind, .nth = nth, .for_ever = for_ever, .r = r, .n = n};
        t.dir = mem_printf("%s/hone-fault-XXXXXX", scratch());
        if (mkdtemp(t.dir) == NULL)
            abort();
        c->prepare(t.dir);
        t.names = names_below(t.dir);
        if (nth == 1 && c->look(t.dir) != FAULT_OLD)
            wrong(&t, "what prepare made does not look like the old state");
        more = run_trial(&t);
        dir_remove(t.dir, NULL);
        free(t.names);
        free(t.dir);
    }
}

static bool run_case(const fault_case *c, report *r, bool quiet)
{
    counts n = {.quiet = quiet};
    for (int k = 0; k < INJECT_N_KINDS; k++) {
        run_series(c, (inject_kind)k, false, r, &n);
        if (k != INJECT_KILL && k != INJECT_SHORT_WRITE)
            run_series(c, (inject_kind)k, true, r, &n);
    }
    if (quiet)
        return n.failures == 0;
    printf("%s %s (%d faults: %d errors, %d deaths, %d absorbed)\n", n.failures ? "FAIL" : "ok  ",
           c->name, n.errors + n.died + n.absorbed, n.errors, n.died, n.absorbed);
    return n.failures == 0;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    report *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED || sodium_init() < 0)
        return 1;
    js_start();
    for (size_t i = 0; fault_broken[i] != NULL; i++) {
        if (run_case(fault_broken[i], r, true)) {
            printf("FAIL the driver does not see what is wrong with '%s'\n", fault_broken[i]->name);
            return 1;
        }
    }
    for (size_t i = 0; fault_cases[i] != NULL; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], fault_cases[i]->name) == 0;
        if (!wanted)
            continue;
        if (run_case(fault_cases[i], r, false))
            passed++;
        else
            failed++;
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}

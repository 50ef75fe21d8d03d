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

/* Every place up to the 400th of a kind, then every tenth of the way. */
enum { EVERY_UP_TO = 400, ENOUGH = 10, CHILD_SECONDS = 60, MAX_TEXT = 1 << 20 };

/* What a child tells its parent: shared memory, so that it survives a kill. */
typedef struct report {
    bool fired, returned, renamed_unsynced, unsynced;
    int rc, descriptors, descriptors_left;
    fault_state state;
    hone_err e;
} report;

typedef struct counts {
    int errors, absorbed, died, failures;
    bool quiet;
} counts;

/* Where a case runs: what prepare made, and the directory that it made it in. */
typedef struct place {
    const fault_case *c;
    char *base, *made, *dir;
    char *names; /* below dir, as prepare left it */
    report *r;
} place;

typedef struct trial {
    const fault_case *c;
    const place *at;
    inject_kind kind;
    int nth;
    bool for_ever;
    report *r;
    counts *n;
} trial;

void fault_put(const char *dir, const char *name, const char *text)
{
    hone_err e = {0};
    char *path = path_join(dir, name), *parent = path_dir(path);
    if (dir_make(parent, &e) != 0 || file_write(path, text, strlen(text), &e) != 0) {
        fprintf(stderr, "fault: %s\n", e.msg);
        abort();
    }
    free(parent);
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

/* The one trial of a child process, for fault_begin and fault_end. */
static report *running;

void fault_begin(void)
{
    if (running != NULL && !running->fired && running->descriptors == 0) {
        running->descriptors = n_descriptors();
        inject_on();
    }
}

void fault_end(void)
{
    inject_off();
    if (running == NULL)
        return;
    running->fired = inject_fired();
    running->renamed_unsynced = inject_renamed_unsynced();
    running->unsynced = inject_unsynced();
    running->descriptors_left = n_descriptors() - running->descriptors;
    running = NULL;
}

/* One step of a case in a child, which a hang ends too; the wait status. */
static int in_child(const place *at, void (*step)(const place *at, report *r))
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(9);
        alarm(CHILD_SECONDS);
        step(at, at->r);
        at->r->returned = true;
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    return status;
}

static void do_look(const place *at, report *r)
{
    r->state = at->c->look(at->dir);
}

static void do_act(const place *at, report *r)
{
    running = r;
    if (!at->c->own_window)
        fault_begin();
    r->rc = at->c->act(at->dir, &r->e);
    fault_end();
}

/* What is in the directory; looking must not fail. */
static fault_state look(const place *at)
{
    int status = in_child(at, do_look);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? at->r->state : FAULT_BROKEN;
}

/* Runs the operation; where there is to be no fault, what is synced is watched all the same. */
static int run_act(const trial *t, bool with_fault)
{
    *t->r = (report){0};
    inject_plan(t->kind, with_fault ? t->nth : INT_MAX, t->for_ever);
    return in_child(t->at, do_act);
}

static bool check_success(const trial *t, fault_state state)
{
    if (state != FAULT_NEW)
        return wrong(t, "it said that all is well, but what it was to write is not there");
    if (t->r->descriptors_left != 0 && !t->c->keeps_descriptors)
        return wrong(t, "it left a descriptor open");
    if (t->c->durable && t->r->unsynced)
        return wrong(t, "it said that all is well before all was synced");
    return true;
}

static bool check_error(const trial *t, fault_state state)
{
    bool synced_late = t->kind == INJECT_SYNC && state == FAULT_NEW;
    bool made = (t->c->leaves_names || t->c->error_after_new) && state == FAULT_NEW;
    if (state != FAULT_OLD && !synced_late && !made)
        return wrong(t, state == FAULT_NEW ? "an error, but the new state is there"
                                           : "an error, and the old state is lost");
    if (t->r->e.msg[0] == '\0' || t->r->e.code != t->r->rc)
        return wrong(t, "an error without its message and code");
    if (t->r->descriptors_left != 0 && !t->c->keeps_descriptors)
        return wrong(t, "an error that leaves a descriptor open");
    char *names = names_below(t->at->dir);
    /* Nothing can be removed while removing is what fails, or the memory to list it. */
    bool helpless = t->kind == INJECT_UNLINK || (t->kind == INJECT_ALLOC && t->for_ever);
    bool same =
        helpless || state == FAULT_NEW || t->c->leaves_names || strcmp(names, t->at->names) == 0;
    free(names);
    return same || wrong(t, "an error that leaves files behind");
}

/* The operation works once the fault is gone. */
static bool check_again(const trial *t)
{
    report first = *t->r;
    int status = run_act(t, false);
    bool ran = WIFEXITED(status) && t->r->returned && t->r->rc == 0;
    bool fine = ran && look(t->at) == FAULT_NEW;
    if (!fine)
        return wrong(t, "tried again without a fault, it does not succeed");
    *t->r = first;
    return true;
}

/* One place. Returns whether there was such a place: false ends the series. */
static bool run_trial(trial *t)
{
    int status = run_act(t, true);
    report r = *t->r;
    fault_state state = look(t->at);
    *t->r = r;
    bool died = WIFSIGNALED(status);
    if (died && WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGABRT)
        return wrong(t, WTERMSIG(status) == SIGALRM ? "it hangs" : "it crashed");
    if (!died && (!r.returned || WEXITSTATUS(status) != 0))
        return wrong(t, "it ended the process");
    if (r.renamed_unsynced)
        return wrong(t, "it renamed what had not been synced");
    if (died) {
        t->n->died++;
        if (state == FAULT_BROKEN)
            wrong(t, "the process died, and neither the old nor the new state is there");
        else if (state == FAULT_OLD)
            check_again(t);
        return true;
    }
    if (r.rc != 0) {
        t->n->errors += r.fired;
        if (check_error(t, state) && state == FAULT_OLD)
            check_again(t);
    } else {
        t->n->absorbed += r.fired;
        check_success(t, state);
    }
    return r.fired;
}

static int copy_tree(const char *from, const char *to, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, from, e);
    if (rc == 0)
        rc = dir_make(to, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char *a = path_join(from, names[i]), *b = path_join(to, names[i]);
        rc = file_is_dir(a) ? copy_tree(a, b, e) : file_copy(a, b, e);
        free(a);
        free(b);
    }
    dir_list_free(names);
    return rc;
}

static void run_series(const place *at, inject_kind kind, bool for_ever, counts *n)
{
    bool more = true;
    for (int nth = 1; more && n->failures < ENOUGH; nth += nth < EVERY_UP_TO ? 1 : nth / 10) {
        hone_err e = {0};
        trial t = {.c = at->c, .at = at, .kind = kind, .nth = nth, .for_ever = for_ever};
        t.r = at->r;
        t.n = n;
        *t.r = (report){0};
        if (dir_remove(at->dir, &e) != 0 || copy_tree(at->made, at->dir, &e) != 0) {
            wrong(&t, e.msg);
            break;
        }
        more = run_trial(&t);
    }
}

/* Memory rather than a disk, where syncs are slow: what counts is who calls them. */
static const char *scratch(void)
{
    const char *base = getenv("TMPDIR");
    if (base != NULL && *base != '\0')
        return base;
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static bool place_open(place *at)
{
    hone_err e = {0};
    at->base = mem_printf("%s/hone-fault-XXXXXX", scratch());
    if (mkdtemp(at->base) == NULL)
        abort();
    at->made = path_join(at->base, "made");
    at->dir = path_join(at->base, "dir");
    if (dir_make(at->dir, &e) != 0)
        abort();
    at->c->prepare(at->dir); /* here, so that what a first call costs is not paid by every child */
    at->names = names_below(at->dir);
    bool fine = look(at) == FAULT_OLD && dir_rename(at->dir, at->made, &e) == 0;
    if (!fine)
        printf("FAIL %s: what prepare made does not look like the old state\n", at->c->name);
    return fine;
}

static void place_close(place *at)
{
    dir_remove(at->base, NULL);
    free(at->names);
    free(at->made);
    free(at->dir);
    free(at->base);
}

static bool run_case(const fault_case *c, report *r, bool quiet)
{
    counts n = {.quiet = quiet};
    place at = {.c = c, .r = r};
    bool made = place_open(&at);
    for (int k = 0; made && k < INJECT_N_KINDS; k++) {
        run_series(&at, (inject_kind)k, false, &n);
        if (k != INJECT_KILL && k != INJECT_SHORT_WRITE)
            run_series(&at, (inject_kind)k, true, &n);
    }
    place_close(&at);
    bool fine = made && n.failures == 0 && n.errors + n.died > 0;
    if (!quiet)
        printf("%s %s (%d faults: %d errors, %d deaths, %d absorbed)\n", fine ? "ok  " : "FAIL",
               c->name, n.errors + n.died + n.absorbed, n.errors, n.died, n.absorbed);
    return fine;
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

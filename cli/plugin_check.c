/* hone plugin check: a file in a process of its own, judged by what it does. */
#include "cli/extend.h"
#include "cli/args.h"
#include "cli/plugin_tools.h"
#include "cli/plugin_view.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/hook_members.h"
#include "core/base/js.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"
#include "plugins/crash.h"

#include <errno.h>
#include <locale.h>
#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CALLS = 200,
    ROUNDS = 6,
    ROUND_CALLS = 20000,
    ROUND_NS = 200000000,
    ENDING_MS = 5000,
    THREADS = 4,
    SECONDS = 60,
    MAX_REPORT = 16 << 20,
    MAX_ARGS = 256
};

/* ---- what the child tells the parent: a JSON object a line ---- */

typedef struct bench {
    FILE *out;
    hooks *hooks;
    json_t *cases; /* the author's, in their order */
} bench;

static void tell(const bench *b, json_t *line)
{
    json_dumpf(line, b->out, JSON_COMPACT);
    fputc('\n', b->out);
    fflush(b->out); /* a crash must not take it away */
    json_decref(line);
}

/* What is being done now, in case that it never ends. */
static void doing(const bench *b, const char *what, const char *hook)
{
    tell(b, json_pack("{s:s, s:s}", "doing", what, "hook", hook));
}

static void result(const bench *b, const char *check, const char *hook, bool ok, char *detail)
{
    tell(b, json_pack("{s:s, s:s, s:b, s:s}", "check", check, "hook", hook, "ok", ok, "detail",
                      detail != NULL ? detail : ""));
    free(detail);
}

/* ---- one call ---- */

static bool has_struct(hook_point p)
{
    return hook_describe(p)->example == NULL;
}

/* data is copied, so that the case stays as it is. *out (may be NULL) is NULL after an error at a
 * point with a struct. */
static int call(const bench *b, hook_point p, const json_t *data, json_t **out, hone_err *e)
{
    *e = (hone_err){0};
    if (has_struct(p))
        return plugin_view_call(b->hooks, p, data, out, e);
    json_t *copy = json_deep_copy(data);
    int rc = hook_emit(b->hooks, p, &copy, e);
    if (out != NULL)
        *out = copy;
    else
        json_decref(copy);
    return rc;
}

/* ---- nonsense ---- */

static json_t *long_text(void)
{
    char *text = mem_alloc(1 << 16);
    memset(text, 'x', (1 << 16) - 1);
    json_t *v = json_string(text);
    free(text);
    return v;
}

/* Every text of the tree replaced by v. */
static json_t *with_texts(const json_t *from, json_t *v)
{
    json_t *copy = json_is_object(from) ? json_object() : json_is_array(from) ? json_array() : NULL;
    const char *key;
    json_t *one;
    size_t i;
    if (copy == NULL)
        return json_is_string(from) ? json_incref(v) : json_deep_copy(from);
    json_object_foreach ((json_t *)(uintptr_t)from, key, one) {
        json_object_set_new(copy, key, with_texts(one, v));
    }
    json_array_foreach (from, i, one) {
        json_array_append_new(copy, with_texts(one, v));
    }
    return copy;
}

/* It may fail, but it must come back: what it was given is not what the point promises. */
static void check_nonsense(const bench *b, hook_point p, const json_t *example)
{
    const char *hook = hook_describe(p)->name;
    json_t *texts[] = {json_integer(7), json_null(), json_stringn("a\0b\xf0\x9f\x98\x80", 7),
                       long_text(), json_string("")};
    json_t *shapes[] = {json_object(), json_array(), json_null(), json_string("x")};
    hone_err e;
    doing(b, "nonsense", hook);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *v = with_texts(example, texts[i]);
        call(b, p, v, NULL, &e);
        json_decref(v);
        json_decref(texts[i]);
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        call(b, p, shapes[i], NULL, &e);
        json_decref(shapes[i]);
    }
    result(b, "nonsense", hook, true, mem_strdup("came back from all of it"));
}

/* ---- one point ---- */

typedef struct shot {
    const bench *b;
    hook_point p;
    const json_t *data;
} shot;

static int fire(const shot *s, hone_err *e)
{
    return call(s->b, s->p, s->data, NULL, e);
}

/* What a call changed and nobody takes, as "lr, loss"; an empty text: nothing. */
static void changed_in_vain(buf *b, hook_point p, const json_t *was, const json_t *is)
{
    const char *name;
    json_t *v;
    if (!json_is_object(is))
        return; /* a list in a record's place */
    json_object_foreach ((json_t *)(uintptr_t)is, name, v) {
        const hook_member *m = hook_member_find(p, name);
        if ((m == NULL || !m->changes) && !json_equal(v, json_object_get(was, name)))
            buf_printf(b, "%s%s", b->len > 0 ? ", " : "", name);
    }
}

static void check_changes(const shot *s)
{
    hone_err e;
    json_t *made = NULL;
    buf vain;
    if (has_struct(s->p) || !hook_describe(s->p)->may_modify)
        return;
    buf_init(&vain, 1 << 16);
    call(s->b, s->p, s->data, &made, &e);
    changed_in_vain(&vain, s->p, s->data, made);
    result(s->b, "changes", hook_describe(s->p)->name, vain.len == 0,
           vain.len == 0
               ? mem_strdup("only what may change")
               : mem_printf("%s: no such change is taken ('hone plugin hooks %s' has what "
                            "may change)",
                            vain.data, hook_describe(s->p)->name));
    buf_free(&vain);
    json_decref(made);
}

static void check_example(const shot *s)
{
    const char *hook = hook_describe(s->p)->name;
    hone_err e = {0};
    doing(s->b, "example", hook);
    hook_stats before = hook_counters(s->b->hooks, s->p);
    int rc = fire(s, &e);
    hook_stats after = hook_counters(s->b->hooks, s->p);
    bool failed = after.failures > before.failures || (rc != 0 && rc != HONE_EVETO);
    const char *said = rc == HONE_EVETO                   ? "refuses the example"
                       : after.modified > before.modified ? "modifies the example"
                                                          : "lets the example pass";
    result(s->b, "example", hook, !failed,
           failed ? mem_printf("%s", e.msg[0] != '\0' ? e.msg : "it failed (see the log above)")
                  : mem_strdup(said));
}

static int by_value(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

/* Bytes that stay behind each call of a round, which is long enough for a heap to be swept in it,
 * also where others have the processor. */
static double growth(const shot *s)
{
    int n = 0;
    hone_err e;
    int64_t end = clock_thread_ns() + ROUND_NS;
    size_t before = mallinfo2().uordblks;
    for (; n < CALLS || (n < ROUND_CALLS && clock_thread_ns() < end); n++)
        fire(s, &e);
    size_t after = mallinfo2().uordblks;
    return after > before ? (double)(after - before) / n : 0;
}

/* A leak grows in every round; a heap that is swept now and then, a table that fills up, do not. */
static double least_growth(const shot *s)
{
    double least = INFINITY;
    for (int round = 0; round < ROUNDS && least > 0; round++)
        least = fmin(least, growth(s));
    return least;
}

static void check_cost(const shot *s)
{
    const hook_info *info = hook_describe(s->p);
    int64_t took[CALLS];
    hone_err e;
    doing(s->b, "cost", info->name);
    for (int i = 0; i < CALLS; i++) {
        int64_t start = clock_mono_ns();
        fire(s, &e);
        took[i] = clock_mono_ns() - start;
    }
    qsort(took, CALLS, sizeof *took, by_value);
    int64_t us = took[CALLS / 2] / 1000;
    result(s->b, "time", info->name, us <= info->budget_us,
           mem_printf("%lld us a call (median of %d; the point allows %lld)", (long long)us, CALLS,
                      (long long)info->budget_us));
    if (has_struct(s->p)) /* its arrays are made anew for each call */
        return;
    double grown = least_growth(s);
    result(s->b, "leaks", info->name, grown < 16,
           grown < 16 ? mem_strdup("none") : mem_printf("%.0f bytes stay behind each call", grown));
}

static void *fire_many(void *arg)
{
    hone_err e;
    for (int i = 0; i < CALLS; i++)
        fire(arg, &e);
    return NULL;
}

static void check_threads(const shot *s)
{
    pthread_t t[THREADS];
    int n = 0;
    doing(s->b, "threads", hook_describe(s->p)->name);
    for (; n < THREADS; n++)
        if (pthread_create(&t[n], NULL, fire_many, (void *)(uintptr_t)s) != 0)
            break;
    for (int i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    result(s->b, "threads", hook_describe(s->p)->name, n == THREADS,
           mem_printf("%d threads, %d calls each", n, CALLS));
}

static void check_same(const shot *s)
{
    json_t *a, *b;
    hone_err ea, eb;
    doing(s->b, "same answer", hook_describe(s->p)->name);
    int ra = call(s->b, s->p, s->data, &a, &ea), rb = call(s->b, s->p, s->data, &b, &eb);
    bool same = ra == rb && json_equal(a, b) && strcmp(ea.msg, eb.msg) == 0;
    result(s->b, "same answer", hook_describe(s->p)->name, same,
           mem_strdup(same ? "twice the same"
                           : "two answers to one input, and it says that it is deterministic"));
    json_decref(a);
    json_decref(b);
}

/* ---- the author's cases ---- */

static bool case_hook(hook_point *p, const json_t *c, hone_err *e)
{
    const char *hook = json_string_value(json_object_get(c, "hook"));
    *e = (hone_err){0};
    return hook != NULL && json_object_get(c, "data") != NULL && hook_by_name(p, hook, e) == 0;
}

/* A case at this point that should not fail is a better example than the table's: its record is of
 * the kind that the plugin is for. Those before it are played first, for a plugin that remembers.
 * Borrowed; NULL: there is none. */
static const json_t *play_up_to(const bench *b, hook_point p)
{
    size_t i, k, end = SIZE_MAX;
    json_t *c;
    hone_err e;
    hook_point at;
    json_array_foreach (b->cases, i, c) {
        const char *want = json_string_value(json_object_get(c, "answer"));
        bool fails = want != NULL && strcmp(want, "error") == 0;
        if (end == SIZE_MAX && case_hook(&at, c, &e) && at == p && !fails)
            end = i;
    }
    if (end == SIZE_MAX)
        return NULL;
    doing(b, "cases before", hook_describe(p)->name);
    for (k = 0; k < end; k++)
        if (case_hook(&at, json_array_get(b->cases, k), &e))
            call(b, at, json_object_get(json_array_get(b->cases, k), "data"), NULL, &e);
    return json_object_get(json_array_get(b->cases, end), "data");
}

static void check_point(const bench *b, hook_point p, bool deterministic)
{
    const hook_info *info = hook_describe(p);
    json_t *example = json_incref((json_t *)(uintptr_t)play_up_to(b, p));
    if (example == NULL && info->example != NULL)
        js_parse(&example, info->example, strlen(info->example), NULL);
    const shot s = {b, p, example};
    check_example(&s);
    check_changes(&s);
    log_setup(LOG_ERROR, false); /* nonsense, and thousands of calls: what is late is told below */
    if (!has_struct(p))
        check_nonsense(b, p, example);
    if (deterministic)
        check_same(&s);
    check_cost(&s);
    check_threads(&s);
    log_setup(LOG_INFO, false);
    json_decref(example);
}

static const char *answer_name(int rc, const hook_stats *before, const hook_stats *after)
{
    if (after->failures > before->failures || (rc != 0 && rc != HONE_EVETO))
        return "error";
    if (rc == HONE_EVETO)
        return "veto";
    return after->modified > before->modified ? "modified" : "continue";
}

/* Weights and logits are f32. */
static bool is_close(const json_t *a, const json_t *b)
{
    size_t i;
    json_t *one;
    if (!json_is_array(b) || json_array_size(a) != json_array_size(b))
        return false;
    json_array_foreach (a, i, one) {
        const json_t *other = json_array_get(b, i);
        double x = json_number_value(one), y = json_number_value(other);
        if (json_is_string(one) ? !json_equal(one, other) : !(fabs(x - y) <= 1e-5 * (1 + fabs(y))))
            return false;
    }
    return true;
}

static void run_case(const bench *b, const json_t *c, const char *where)
{
    hook_point p;
    hone_err e = {0};
    json_t *out = NULL;
    const char *hook = json_string_value(json_object_get(c, "hook"));
    const char *want = json_string_value(json_object_get(c, "answer"));
    const json_t *expected = json_object_get(c, "result");
    if (!case_hook(&p, c, &e)) {
        result(b, "case", hook != NULL ? hook : "?", false,
               mem_printf("%s: needs hook and data%s%s", where, e.msg[0] ? ": " : "", e.msg));
        return;
    }
    doing(b, where, hook);
    hook_stats before = hook_counters(b->hooks, p);
    int rc = call(b, p, json_object_get(c, "data"), &out, &e);
    hook_stats after = hook_counters(b->hooks, p);
    const char *said = answer_name(rc, &before, &after);
    bool answered = want == NULL || strcmp(said, want) == 0;
    bool same =
        expected == NULL || (has_struct(p) ? is_close(out, expected) : json_equal(out, expected));
    char *text = out != NULL ? js_text(out, false) : mem_strdup("nothing");
    result(b, "case", hook, answered && same,
           !answered ? mem_printf("%s: it answered %s, not %s %s", where, said, want, e.msg)
           : !same   ? mem_printf("%s: it made %s", where, text)
                     : mem_printf("%s: %s", where, said));
    free(text);
    json_decref(out);
}

static void run_cases(const bench *b)
{
    size_t i;
    json_t *c;
    json_array_foreach (b->cases, i, c) {
        char where[64];
        snprintf(where, sizeof where, "case %zu", i + 1);
        run_case(b, c, where);
    }
}

static int read_cases(json_t **out, const char *path, hone_err *e)
{
    char *text = NULL, *rest = NULL;
    size_t len;
    *out = json_array();
    int rc = path != NULL ? file_read(&text, &len, path, MAX_REPORT, e) : 0;
    for (char *line = rc == 0 && text != NULL ? strtok_r(text, "\n", &rest) : NULL;
         rc == 0 && line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        json_t *c;
        rc = js_parse(&c, line, strlen(line), e);
        if (rc != 0)
            hone_fail_at(e, "%s: case %zu", path, json_array_size(*out) + 1);
        else
            json_array_append_new(*out, c);
    }
    free(text);
    return rc;
}

/* ---- the child ---- */

static int count_dir(const char *path)
{
    char **names;
    int n = 0;
    if (dir_list(&names, path, NULL) != 0)
        return -1;
    while (names[n] != NULL)
        n++;
    dir_list_free(names);
    return n;
}

typedef struct world {
    int threads, files;
    char *locale;
    struct sigaction handlers[32];
} world;

/* A thread that was joined stays in /proc until the kernel is done with it. */
static void let_threads_end(int n)
{
    int64_t end = clock_mono_ns() + ENDING_MS * INT64_C(1000000);
    while (count_dir("/proc/self/task") > n && clock_mono_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static world look_around(void)
{
    world w = {.threads = count_dir("/proc/self/task"), .files = count_dir("/proc/self/fd")};
    w.locale = mem_strdup(setlocale(LC_ALL, NULL));
    crash_watch(); /* the loader's own */
    for (int i = 1; i < 32; i++)
        sigaction(i, NULL, &w.handlers[i]);
    return w;
}

static void check_world(const bench *b, const world *was, const world *is, const char *when)
{
    bool handlers = false;
    for (int i = 1; i < 32; i++)
        handlers = handlers || was->handlers[i].sa_handler != is->handlers[i].sa_handler;
    bool bad = is->threads > was->threads || is->files > was->files || handlers ||
               strcmp(was->locale, is->locale) != 0;
    result(b, when, "-", !bad,
           mem_printf(bad ? "it leaves %d threads, %d open files%s%s" : "nothing",
                      is->threads - was->threads, is->files - was->files,
                      handlers ? ", another signal handler" : "",
                      strcmp(was->locale, is->locale) != 0 ? ", another locale" : ""));
}

/* Nothing is taken out here: every failure is looked at. */
static void begin(bench *b, const extend *x)
{
    b->hooks = extend_hooks(x);
    hook_set_breaker(b->hooks, &(hook_breaker){1 << 30, 1 << 30, 60000, 1 << 30});
}

static int check_points(const bench *b, bool deterministic)
{
    int n = 0;
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        if (!hook_wanted(b->hooks, (hook_point)p))
            continue;
        check_point(b, (hook_point)p, deterministic);
        n++;
    }
    return n;
}

/* Of its file, then one by one. */
static int read_settings(json_t **out, const plugin_args *a, hone_err *e)
{
    int rc = a->settings != NULL ? yaml_load(out, NULL, a->settings, e) : 0;
    if (a->settings == NULL)
        *out = json_object();
    for (int i = 0; rc == 0 && i < a->set.n; i++) {
        const char *eq = strchr(a->set.item[i], '=');
        json_t *v = NULL;
        if (eq == NULL || eq == a->set.item[i])
            return hone_fail(e, HONE_EINVAL, "--set '%s': expected KEY=VALUE", a->set.item[i]);
        rc = yaml_parse(&v, NULL, eq + 1, strlen(eq + 1), e);
        if (rc == 0)
            json_object_setn_new(*out, a->set.item[i], (size_t)(eq - a->set.item[i]), v);
        else
            hone_fail_at(e, "--set %s", a->set.item[i]);
    }
    return rc;
}

/* Paths are relative to the settings' file, or to where the command runs. */
static int load(extend **x, const plugin_args *a, const trust_file *f, const json_t *settings,
                hone_err *e)
{
    char *dir = a->settings != NULL ? path_dir(a->settings) : mem_strdup(".");
    int rc = extend_open_one(x, f, settings, dir, e);
    if (rc != 0 && a->settings == NULL && a->set.n == 0)
        hone_fail(e, rc, "%s (--set KEY=VALUE or --settings FILE.yaml gives it settings)", e->msg);
    free(dir);
    return rc;
}

static int child(bench *b, const plugin_args *a, hone_err *e)
{
    trust_file f = {.fd = -1};
    json_t *about = NULL, *settings = NULL;
    extend *x = NULL;
    doing(b, "reading the file", "-");
    int rc = trust_open(&f, NULL, a->words[0], e);
    if (rc == 0)
        rc = extend_describe(&about, &f, e);
    if (rc == 0)
        tell(b, json_pack("{s:O}", "about", about));
    if (rc == 0)
        rc = read_settings(&settings, a, e);
    if (rc == 0)
        rc = read_cases(&b->cases, a->cases, e);
    world before = look_around();
    doing(b, "init", "-");
    if (rc == 0)
        rc = load(&x, a, &f, settings, e);
    if (rc == 0) {
        bool deterministic = json_is_true(json_object_get(about, "deterministic"));
        begin(b, x);
        run_cases(b); /* of a plugin that has seen nothing yet */
        int n = check_points(b, deterministic);
        result(b, "subscribes", "-", n > 0, mem_printf("to %d point%s", n, n == 1 ? "" : "s"));
    }
    doing(b, "fini", "-");
    extend_close(x);
    let_threads_end(before.threads);
    world after = look_around();
    after.files -= extend_is_object(a->words[0]); /* the image of a plugin stays */
    if (rc == 0)
        check_world(b, &before, &after, "leaves behind");
    free(before.locale);
    free(after.locale);
    json_decref(about);
    json_decref(settings);
    json_decref(b->cases);
    trust_close(&f);
    return rc;
}

/* ---- the parent ---- */

typedef struct verdict {
    json_t *rows; /* results */
    json_t *about;
    char now[128]; /* what the child was doing last */
    int n_failed;
    bool done;
} verdict;

static void take_line(verdict *v, const char *text, size_t len)
{
    json_t *line;
    if (js_parse(&line, text, len, NULL) != 0)
        return; /* cut short by a crash */
    const char *now = json_string_value(json_object_get(line, "doing"));
    if (now != NULL)
        snprintf(v->now, sizeof v->now, "%s%s%s", now,
                 strcmp(json_string_value(json_object_get(line, "hook")), "-") == 0 ? "" : " at ",
                 strcmp(json_string_value(json_object_get(line, "hook")), "-") == 0
                     ? ""
                     : json_string_value(json_object_get(line, "hook")));
    v->done = v->done || json_object_get(line, "done") != NULL;
    if (json_object_get(line, "about") != NULL)
        v->about = json_incref(json_object_get(line, "about"));
    if (json_object_get(line, "check") != NULL) {
        json_array_append(v->rows, line);
        v->n_failed += json_is_false(json_object_get(line, "ok"));
    }
    json_decref(line);
}

static void add_failure(verdict *v, const char *check, char *detail)
{
    json_array_append_new(v->rows, json_pack("{s:s, s:s, s:b, s:s}", "check", check, "hook", "-",
                                             "ok", 0, "detail", detail));
    v->n_failed++;
    free(detail);
}

/* Reads what the child says until it ends; its own alarm sees to that. */
static void listen_to(verdict *v, int fd, pid_t pid, int64_t seconds)
{
    FILE *in = fdopen(fd, "r");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int status = 0;
    while (in != NULL && (n = getline(&line, &cap, in)) >= 0)
        take_line(v, line, (size_t)n);
    free(line);
    if (in != NULL)
        fclose(in);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        add_failure(v, "ends",
                    mem_printf("did not come back within %lld s: %s", (long long)seconds, v->now));
    else if (WIFSIGNALED(status))
        add_failure(v, "survives",
                    mem_printf("crashed (%s): %s", strsignal(WTERMSIG(status)), v->now));
    else if (!v->done)
        add_failure(v, "survives",
                    mem_printf("ended the process (status %d): %s", WEXITSTATUS(status), v->now));
}

static void print_verdict(const verdict *v, const plugin_args *a)
{
    size_t i;
    json_t *row;
    if (a->json) {
        json_t *o = json_pack("{s:O?, s:O, s:b}", "plugin", v->about, "checks", v->rows, "passed",
                              v->n_failed == 0);
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
        return;
    }
    if (v->about != NULL)
        printf("%s %s: %s\n", json_string_value(json_object_get(v->about, "name")),
               json_string_value(json_object_get(v->about, "version")),
               json_string_value(json_object_get(v->about, "summary")));
    json_array_foreach (v->rows, i, row) {
        printf("%-4s %-12s %-20s %s\n", json_is_true(json_object_get(row, "ok")) ? "ok" : "FAIL",
               json_string_value(json_object_get(row, "check")),
               json_string_value(json_object_get(row, "hook")),
               json_string_value(json_object_get(row, "detail")));
    }
}

_Noreturn static void be_child(int fd, const plugin_args *a, int64_t seconds)
{
    hone_err e = {0};
    bench b = {.out = fdopen(fd, "w")};
    alarm((unsigned)seconds);
    int rc = b.out != NULL ? child(&b, a, &e) : HONE_EIO;
    if (rc != 0)
        result(&b, "loads", "-", false, mem_strdup(e.msg));
    tell(&b, json_pack("{s:b}", "done", 1)); /* so that an exit in the plugin is seen */
    fflush(NULL);
    _exit(0); /* no destructor of the plugin runs here */
}

/* Freed blocks that malloc keeps for a thread look like used ones, and there are more of them for
 * many rounds: the counting of leaks wants none, which only a new process can have. */
static void begin_without_thread_caches(void)
{
    static const char none[] = "glibc.malloc.tcache_count=0";
    const char *was = getenv("GLIBC_TUNABLES");
    char *line, *argv[MAX_ARGS + 1], *tunables;
    size_t len;
    int n = 0;
    if ((was != NULL && strstr(was, none) != NULL) ||
        file_read(&line, &len, "/proc/self/cmdline", MAX_REPORT, NULL) != 0)
        return;
    for (char *s = line; n < MAX_ARGS && s < line + len; s += strlen(s) + 1)
        argv[n++] = s;
    argv[n] = NULL;
    tunables = mem_printf("%s%s%s", was != NULL ? was : "", was != NULL ? ":" : "", none);
    setenv("GLIBC_TUNABLES", tunables, 1);
    if (n < MAX_ARGS)
        execv("/proc/self/exe", argv);
    free(tunables);
    free(line);
}

int plugin_check(const plugin_args *a, hone_err *e)
{
    begin_without_thread_caches();
    int pipe_fd[2];
    int64_t seconds = SECONDS;
    verdict v = {.rows = json_array()};
    int rc = args_whole(&seconds, a->seconds, "seconds", e);
    if (rc == 0 && seconds < 1)
        rc = hone_fail(e, HONE_EINVAL, "--seconds: at least 1");
    if (rc == 0 && pipe(pipe_fd) != 0)
        rc = file_error(e, a->words[0], "cannot make a pipe for");
    if (rc == 0) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            close(pipe_fd[0]);
            be_child(pipe_fd[1], a, seconds);
        }
        close(pipe_fd[1]);
        if (pid > 0)
            listen_to(&v, pipe_fd[0], pid, seconds);
        else
            rc = file_error(e, a->words[0], "cannot start a process for");
    }
    if (rc == 0)
        print_verdict(&v, a);
    if (rc == 0 && v.n_failed > 0)
        rc = hone_fail(e, HONE_EINVAL, "%s: %d of %zu checks failed", a->words[0], v.n_failed,
                       json_array_size(v.rows));
    json_decref(v.rows);
    json_decref(v.about);
    return rc;
}

/* Plugins that do what they should not: each is refused, or contained, with a message that names
 * plugin, hook and reason. What would take the process along is shown to `hone plugin check`. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_plugin.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000 };

static loaded *open_bad(hooks *h, const char *mode)
{
    char *settings = mem_printf("{\"mode\": \"%s\"}", mode);
    loaded *p = aid_plugin_open(h, "bad", settings);
    free(settings);
    return p;
}

/* ---- in this process ---- */

static void test_what_the_point_does_not_allow(void **state)
{
    static const struct {
        const char *mode;
        hook_point p;
        int rc;
        const char *msg;
    } rows[] = {
        {"veto", HOOK_EVAL_METRIC, HONE_EDENIED,
         "eval.metric: bad failed: nothing may be refused here"},
        {"modify", HOOK_DATA_FILTER, HONE_EDENIED,
         "data.filter: bad failed: nothing may be modified here"},
        {"answer", HOOK_DATA_FILTER, HONE_EINVAL,
         "data.filter: bad failed: it answered 42, which means nothing"},
        {"fail", HOOK_DATA_FILTER, HONE_EINTERNAL, "data.filter: bad failed: cannot"},
        {"polite_loop", HOOK_DATA_FILTER, HONE_EINTERNAL, "data.filter: bad failed: gave up"},
        {"take", HOOK_EVAL_METRIC, HONE_EINVAL, "eval.metric: bad failed: it left no data"},
        {"knot", HOOK_EVAL_METRIC, HONE_EINVAL,
         "eval.metric: bad failed: it left data that hold themselves, or are too deep or too many"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int rc;
        hone_err e = {0};
        hooks *h = hook_new();
        loaded *p = open_bad(h, rows[i].mode);
        char *text = aid_emit(h, rows[i].p, "{\"record\":{\"text\":\"x\"}}", &rc, &e);
        assert_int_equal(rc, rows[i].rc);
        assert_string_equal(e.msg, rows[i].msg);
        assert_string_equal(text, "{\"record\":{\"text\":\"x\"}}"); /* as it was */
        free(text);
        assert_int_equal(loader_close(p, PATIENCE_MS, &e), 0);
        hook_free(h);
    }
}

/* Nothing is left of a plugin whose init fails. */
static void test_init_that_fails(void **state)
{
    static const struct {
        const char *mode, *msg;
    } rows[] = {
        {"init_error", "plugin bad 1.0.0: init failed: no licence for this"},
        {"no_point", "plugin bad 1.0.0: init failed: no hook point 'data.filtre' (did you mean "
                     "'data.filter'?)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        trust_file f;
        loaded *p;
        hooks *h = hook_new();
        char *dir = aid_dir(), *path = aid_plugin_copy(dir, "bad");
        json_t *settings = json_pack("{s:s}", "mode", rows[i].mode);
        assert_int_equal(trust_open(&f, NULL, path, &e), 0);
        assert_true(
            loader_open(&p, &(loader_args){.file = &f, .settings = settings, .hooks = h}, &e) < 0);
        assert_string_equal(e.msg, rows[i].msg);
        assert_null(p);
        assert_false(hook_is_used(h));
        json_decref(settings);
        trust_close(&f);
        free(path);
        aid_dir_remove(dir);
        hook_free(h);
    }
}

static void test_two_of_one_name(void **state)
{
    (void)state;
    hone_err e = {0};
    trust_file f;
    loaded *second;
    hooks *h = hook_new();
    loaded *first = aid_plugin_open(h, "trim", NULL);
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "trim");
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    assert_int_equal(loader_open(&second, &(loader_args){.file = &f, .hooks = h}, &e), HONE_EEXIST);
    assert_string_equal(e.msg, "plugin trim 1.0.0: a plugin named 'trim' is loaded already");
    assert_true(hook_wanted(h, HOOK_DATA_FILTER)); /* the first one is as it was */
    assert_int_equal(loader_close(first, PATIENCE_MS, &e), 0);
    trust_close(&f);
    free(path);
    aid_dir_remove(dir);
    hook_free(h);
}

/* ---- one at a time ---- */

static atomic_int n_failed;

static void *call_turns(void *arg)
{
    hone_err e = {0};
    json_t *data = json_pack("{s:{}}", "record");
    if (hook_emit(arg, HOOK_DATA_FILTER, &data, &e) != 0)
        atomic_fetch_add(&n_failed, 1);
    json_decref(data);
    return NULL;
}

/* A plugin that does not say that it is thread-safe is never in two calls at once. */
static void test_others_wait_their_turn(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t t[THREADS];
    hone_err e = {0};
    hooks *h = hook_new();
    loaded *p = aid_plugin_open(h, "turns", NULL);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, call_turns, h), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&n_failed), 0);
    assert_int_equal(loader_close(p, PATIENCE_MS, &e), 0);
    hook_free(h);
}

/* Where one hangs the others come back, with an error. */
static void test_a_turn_that_does_not_come(void **state)
{
    (void)state;
    pthread_t t;
    hone_err e = {0};
    int rc;
    hooks *h = hook_new();
    char *dir = aid_dir(), *settings = mem_printf("{\"until\": \"%s\"}", dir);
    char *begun = path_join(dir, "begun");
    loaded *p = aid_plugin_open(h, "turns", settings);
    assert_int_equal(pthread_create(&t, NULL, call_turns, h), 0);
    while (!file_is_dir(begun))
        usleep(1000);
    free(aid_emit(h, HOOK_DATA_FILTER, "{\"record\":{}}", &rc, &e));
    assert_int_equal(rc, HONE_ETIMEOUT);
    assert_string_equal(e.msg, "data.filter: turns failed: another call of it has been running for "
                               "2 s, and it is not thread-safe");
    aid_dir_remove(dir);
    pthread_join(t, NULL);
    free(settings);
    free(begun);
    assert_int_equal(loader_close(p, PATIENCE_MS, &e), 0);
    hook_free(h);
}

/* ---- in a process of its own ---- */

enum { LIMIT_MS = 10000 };

static void crash_in_init(void *limit_ms)
{
    hone_err e = {0};
    loaded *p;
    signal(SIGSEGV, SIG_DFL); /* not cmocka's */
    aid_plugin_try(&p, hook_new(), "bad", "{\"mode\":\"crash_init\"}", *(int *)limit_ms, &e);
}

static void in_a_hook(const char *settings, int limit_ms)
{
    int rc;
    hone_err e = {0};
    loaded *p;
    hooks *h = hook_new();
    signal(SIGSEGV, SIG_DFL);
    aid_plugin_try(&p, h, "bad", settings, limit_ms, &e);
    free(aid_emit(h, HOOK_DATA_FILTER, "{\"record\":{\"text\":\"x\"}}", &rc, &e));
}

static void crash_in_a_hook(void *limit_ms)
{
    in_a_hook("{\"mode\":\"crash\"}", *(int *)limit_ms);
}

static void without_stack(void *limit_ms)
{
    in_a_hook("{\"mode\":\"deep\"}", *(int *)limit_ms);
}

static void exit_in_a_hook(void *limit_ms)
{
    in_a_hook("{\"mode\":\"exit\"}", *(int *)limit_ms);
}

/* The process is lost, and its last words say to whom; also where the calls have a limit, and so a
 * thread of their own. */
static void test_a_crash_is_told(void **state)
{
    static const struct {
        void (*fn)(void *arg);
        int limit_ms;
        const char *what;
    } rows[] = {{crash_in_init, 0, "crashed at init (Segmentation fault)"},
                {crash_in_init, LIMIT_MS, "crashed at init (Segmentation fault)"},
                {crash_in_a_hook, 0, "crashed at data.filter (Segmentation fault)"},
                {crash_in_a_hook, LIMIT_MS, "crashed at data.filter (Segmentation fault)"},
                {without_stack, 0, "crashed at data.filter (Segmentation fault)"},
                {without_stack, LIMIT_MS, "crashed at data.filter (Segmentation fault)"},
                {exit_in_a_hook, 0, "ended at data.filter (exit)"},
                {exit_in_a_hook, LIMIT_MS, "ended at data.filter (exit)"}};
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer ends the process in its own way */
#endif
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status, limit_ms = rows[i].limit_ms;
        char *said = aid_stderr(rows[i].fn, &limit_ms, &status);
        char *want = mem_printf("hone: plugin bad %s, and the process with it: leave it out; 'hone "
                                "plugin check FILE' shows it alone\n",
                                rows[i].what);
        assert_string_equal(said, want);
        assert_true(rows[i].fn == exit_in_a_hook
                        ? WIFEXITED(status) && WEXITSTATUS(status) == 1
                        : WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
        free(want);
        free(said);
    }
}

/* What runs of a plugin before its init: as the environment says. What hangs there waits, for six
 * times its limit; what does not is loaded long before, also by a busy machine. */
static void open_early(void *arg)
{
    hone_err e = {0};
    loaded *p;
    setenv("HONE_TEST_EARLY", arg, 1);
    signal(SIGSEGV, SIG_DFL);
    int limit_ms = strstr(arg, "hang") != NULL ? 700 : PATIENCE_MS;
    int rc = aid_plugin_try(&p, hook_new(), "early", NULL, limit_ms, &e);
    fprintf(stderr, "%d %s", rc, e.msg);
    exit(3);
}

/* A hang is refused, and the process can end, whatever the linker still holds; of a crash the file
 * is named. */
static void test_before_init(void **state)
{
    static const struct {
        const char *what, *want;
    } rows[] = {
        {"load hang", "early.so: its constructors: did not come back within "},
        {"describe hang", "early.so: its descriptor: did not come back within "},
        {"load crash", "hone: plugin early.so crashed at its constructors (Segmentation fault)"},
        {"describe crash", "hone: plugin early.so crashed at its descriptor (Segmentation fault)"},
        {"nothing", "0 "},
    };
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer ends the process in its own way */
#endif
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status;
        bool crash = strstr(rows[i].what, "crash") != NULL;
        char *said = aid_stderr(open_early, (void *)(uintptr_t)rows[i].what, &status);
        if (strstr(said, rows[i].want) == NULL)
            fail_msg("%s: '%s' is not in: %s", rows[i].what, rows[i].want, said);
        assert_true(crash ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 3);
        free(said);
    }
}

/* What `hone plugin check` says about a file; caller frees. */
static char *check(const char *file, const char *mode, const char *more, int *status)
{
    char self[PATH_MAX] = "", *dir = aid_dir(), *yaml = path_join(dir, "s.yaml");
    hone_err e = {0};
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    for (int up = 0; up < 3; up++)
        *strrchr(self, '/') = '\0';
    char *settings = mem_printf("mode: %s\n", mode);
    assert_int_equal(file_write(yaml, settings, strlen(settings), &e), 0);
    char *command =
        mem_printf("%s/hone plugin check %s %s%s %s 2>&1", self, file,
                   mode[0] != '\0' ? "--settings " : "", mode[0] != '\0' ? yaml : "", more);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    char *text = mem_alloc(1 << 16);
    size_t n = fread(text, 1, (1 << 16) - 1, out);
    text[n] = '\0';
    int rc = pclose(out);
    *status = WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
    free(command);
    free(settings);
    free(yaml);
    aid_dir_remove(dir);
    return text;
}

static void expect(const char *file, const char *mode, const char *more, const char *want)
{
    int status;
    char *text = check(file, mode, more, &status);
    if (strstr(text, want) == NULL)
        fail_msg("%s: '%s' is not in: %s", mode, want, text);
    assert_int_equal(status, 1);
    free(text);
}

static void test_what_check_finds(void **state)
{
    static const struct {
        const char *mode, *more, *want;
    } rows[] = {
        {"crash_init", "", "survives     -                    crashed (Segmentation fault): init"},
        {"crash", "", "crashed (Segmentation fault): example at data.filter"},
        {"loop", "--seconds 4", "did not come back within 4 s: example at data.filter"},
        {"exit", "", "ended the process (status 1): example at data.filter"},
        {"overrun", "", "crashed (Segmentation fault): example at train.batch"},
        {"readonly", "", "crashed (Segmentation fault): example at train.batch"},
        {"nan", "", "weight 0 is -1, must be finite and not below 0"},
        {"leak", "", "bytes stay behind each call"},
        {"thread", "", "it leaves 1 threads, 0 open files"},
        {"veto", "", "eval.metric: bad failed: nothing may be refused here"},
        {"init_error", "", "plugin bad 1.0.0: init failed: no licence for this"},
        {"loop", "--seconds 0", "--seconds: at least 1"},
        {"nothing", "--set mode=fail", "data.filter: bad failed: cannot"},
        {"nothing", "--set mode", "--set 'mode': expected KEY=VALUE"},
        {"nothing", "--set mod=fail", "unknown key 'mod' (did you mean 'mode'?)"},
    };
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* the sanitizer has handlers and an allocator of its own */
#endif
#ifdef __SANITIZE_THREAD__
    skip();
#endif
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "bad");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect(path, rows[i].mode, rows[i].more, rows[i].want);
    free(path);
    aid_dir_remove(dir);
}

/* What a script gets wrong without harm: where nothing depends on it a failure is no error, and a
 * change that nobody takes goes nowhere. */
static void test_check_tells_what_goes_nowhere(void **state)
{
    static const struct {
        const char *body, *want;
    } rows[] = {
        {"return 'halt'",
         "train.step: t failed: x.lua:2: the answer is text; train.step takes nil"},
        {"return {lr = 1, more = 2}",
         "FAIL changes      train.step           lr, more: no such change is taken"},
    };
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip();
#endif
    char *dir = aid_dir(), *path = path_join(dir, "x.lua");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = mem_printf("plugin {name='t', version='1', summary='s'}\n"
                                "on('train.step', function() %s end)\n",
                                rows[i].body);
        assert_int_equal(file_write(path, text, strlen(text), NULL), 0);
        expect(path, "", "", rows[i].want);
        free(text);
    }
    free(path);
    aid_dir_remove(dir);
}

/* What a script stores is kept while it is checked, and nowhere afterwards. */
static void test_check_has_a_store(void **state)
{
    static const char text[] = "plugin {name='t', version='1', summary='s'}\n"
                               "on('train.step', function() host.kv.add('n', 1) end)\n";
    int status;
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip();
#endif
    char *dir = aid_dir(), *path = path_join(dir, "x.lua");
    assert_int_equal(file_write(path, text, sizeof text - 1, NULL), 0);
    char *said = check(path, "", "", &status);
    if (strstr(said, "ok   example      train.step") == NULL || strstr(said, "kv") != NULL)
        fail_msg("%s", said);
    free(said);
    free(path);
    aid_dir_remove(dir);
}

/* One that cannot start without settings says how it gets them. */
static void test_settings_that_must_be_given(void **state)
{
    (void)state;
    int status;
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "decontam"), *set = path_join(dir, "s.txt");
    hone_err e = {0};
    char *more = mem_printf("--set 'sets={mine: s.txt}' --set folder=%s", dir);
    expect(path, "", "",
           "sets must be an object, 1 to 32 of {name: path} (--set KEY=VALUE or "
           "--settings FILE.yaml gives it settings)");
    assert_int_equal(file_write(set, "One two three four five six seven eight nine.\n", 46, &e), 0);
    char *text = check(path, "", more, &status);
    if (status != 0)
        fail_msg("%s", text);
    free(text);
    free(more);
    free(set);
    free(path);
    aid_dir_remove(dir);
}

static void test_files_that_are_not_loaded(void **state)
{
    (void)state;
    char *dir = aid_dir();
    char *nothing = aid_plugin_copy(dir, "nothing"), *lacking = aid_plugin_copy(dir, "undefined");
    expect(nothing, "", "", "is no plugin: it does not export hone_plugin_descriptor_v1");
    expect(lacking, "", "", "undefined symbol: hone_test_nobody_has_this");
    chmod(lacking, 0777);
    expect(lacking, "", "", "anyone may write the file (mode 0777): chmod o-w");
    free(nothing);
    free(lacking);
    aid_dir_remove(dir);
}

static void test_a_good_one_passes(void **state)
{
    (void)state;
    int status;
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "trim"), *cases = path_join(dir, "c.jsonl");
    static const char lines[] =
        "{\"hook\": \"data.normalize\", \"data\": {\"text\": \" a \"}, \"answer\": \"modified\", "
        "\"result\": {\"text\": \"a\"}}\n";
    static const char wrong[] =
        "{\"hook\": \"data.normalize\", \"data\": {\"text\": \"a\"}, \"answer\": \"veto\"}\n";
    hone_err e = {0};
    char *more = mem_printf("--cases %s", cases);
    assert_int_equal(file_write(cases, lines, strlen(lines), &e), 0);
    char *text = check(path, "", more, &status);
    if (status != 0)
        fail_msg("%s", text);
    assert_non_null(strstr(text, "case 1: modified"));
    free(text);
    assert_int_equal(file_write(cases, wrong, strlen(wrong), &e), 0);
    expect(path, "", more, "case 1: it answered continue, not veto");
    free(more);
    free(cases);
    free(path);
    aid_dir_remove(dir);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        /* Before this process itself has loaded a plugin. */
        cmocka_unit_test(test_a_crash_is_told),
        cmocka_unit_test(test_before_init),
        cmocka_unit_test(test_what_the_point_does_not_allow),
        cmocka_unit_test(test_init_that_fails),
        cmocka_unit_test(test_two_of_one_name),
        cmocka_unit_test(test_others_wait_their_turn),
        cmocka_unit_test(test_a_turn_that_does_not_come),
        cmocka_unit_test(test_what_check_finds),
        cmocka_unit_test(test_settings_that_must_be_given),
        cmocka_unit_test(test_check_tells_what_goes_nowhere),
        cmocka_unit_test(test_check_has_a_store),
        cmocka_unit_test(test_files_that_are_not_loaded),
        cmocka_unit_test(test_a_good_one_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

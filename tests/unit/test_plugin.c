#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_plugin.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what a loaded plugin does ---- */

static void test_a_plugin_changes_and_refuses(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    hooks *h = hook_new();
    loaded *p = aid_plugin_open(h, "trim", "{\"min_bytes\": 3}");
    assert_string_equal(loader_descriptor(p)->name, "trim");
    char *text = aid_emit(h, HOOK_DATA_NORMALIZE, "{\"text\": \"  a b\\n\"}", &rc, &e);
    assert_int_equal(rc, 0);
    assert_string_equal(text, "{\"text\":\"a b\"}");
    free(text);
    text = aid_emit(h, HOOK_DATA_FILTER, "{\"record\": {\"text\": \"ab\"}}", &rc, &e);
    assert_int_equal(rc, HONE_EVETO);
    assert_string_equal(e.msg, "data.filter: refused by trim: 2 bytes, at least 3 are wanted");
    free(text);
    free(aid_emit(h, HOOK_DATA_FILTER, "{\"record\": {\"text\": \"abc\"}}", &rc, &e));
    assert_int_equal(rc, 0);
    json_t *report = hook_report(h), *one = json_array_get(report, 0);
    assert_string_equal(json_string_value(json_object_get(one, "name")), "trim");
    assert_true(
        json_number_value(json_object_get(json_object_get(one, "counters"), "bytes_removed")) == 3);
    json_decref(report);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    assert_false(hook_wanted(h, HOOK_DATA_FILTER));
    hook_free(h);
}

static void test_a_plugin_describes_itself(void **state)
{
    (void)state;
    hone_err e = {0};
    trust_file f;
    json_t *about;
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "trim");
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    assert_int_equal(loader_describe(&about, &f, &e), 0);
    assert_string_equal(json_string_value(json_object_get(about, "name")), "trim");
    assert_string_equal(json_string_value(json_object_get(about, "sha256")), f.sha256);
    json_t *setting = json_array_get(json_object_get(about, "settings"), 0);
    assert_string_equal(json_string_value(json_object_get(setting, "name")), "min_bytes");
    json_decref(about);
    trust_close(&f);
    free(path);
    aid_dir_remove(dir);
}

/* ---- what is refused ---- */

/* Loads a file of dir; returns the code, with the message less the folder in e. */
static int load(const char *dir, const char *name, const char *settings, hone_err *e)
{
    trust_file f = {.fd = -1};
    loaded *p = NULL;
    json_t *given = NULL;
    hooks *h = hook_new();
    if (settings != NULL)
        assert_int_equal(js_parse(&given, settings, strlen(settings), e), 0);
    *e = (hone_err){0};
    int rc = trust_open(&f, dir, name, e);
    if (rc == 0)
        rc = loader_open(&p, &(loader_args){.file = &f, .settings = given, .hooks = h}, e);
    if (rc == 0)
        assert_int_equal(loader_close(p, 1000, e), 0);
    for (int i = 0; i < HOOK_N_POINTS; i++)
        assert_false(hook_wanted(h, (hook_point)i));
    trust_close(&f);
    json_decref(given);
    hook_free(h);
    size_t n = strlen(dir);
    char *at;
    while ((at = strstr(e->msg, dir)) != NULL)
        memmove(at, at + n + 1, strlen(at + n + 1) + 1);
    return rc;
}

static void test_settings_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *msg;
    } rows[] = {
        {"{\"min_byte\": 3}",
         "plugin trim 1.0.0: unknown key 'min_byte' (did you mean 'min_bytes'?)"},
        {"{\"min_bytes\": -1}",
         "plugin trim 1.0.0: 'min_bytes' is -1, must lie between 0 and 1000000"},
        {"{\"min_bytes\": \"x\"}",
         "plugin trim 1.0.0: 'min_bytes' must be a whole number, not \"x\""},
    };
    hone_err e = {0};
    char *dir = aid_dir();
    free(aid_plugin_copy(dir, "trim"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(load(dir, "trim.so", rows[i].settings, &e), HONE_EINVAL);
        assert_string_equal(e.msg, rows[i].msg);
    }
    aid_dir_remove(dir);
}

/* A copy of trim.so whose descriptor has another value in one field. */
static void patch(const char *dir, size_t offset, const void *value, size_t size)
{
    hone_err e = {0};
    char *text, *from = aid_plugin_path("trim"), *to = path_join(dir, "patched.so");
    size_t len, n_found = 0;
    const uint32_t head[] = {sizeof(hone_descriptor), HONE_PLUGIN_MAGIC};
    assert_int_equal(file_read(&text, &len, from, 1 << 26, &e), 0);
    for (size_t i = 0; i + sizeof(hone_descriptor) < len; i += 8) {
        if (memcmp(text + i, head, sizeof head) != 0)
            continue;
        memcpy(text + i + offset, value, size);
        n_found++;
        i += sizeof(hone_descriptor);
    }
    assert_int_equal(n_found, 1);
    assert_int_equal(file_write(to, text, len, &e), 0);
    free(text);
    free(from);
    free(to);
}

static void test_another_abi_is_refused_by_field(void **state)
{
    (void)state;
    static const struct {
        size_t offset, size;
        uint32_t value;
        const char *msg;
    } rows[] = {
        {offsetof(hone_descriptor, struct_size), 4, 24,
         "patched.so: struct_size of its descriptor is 24, at least 88"},
        {offsetof(hone_descriptor, magic), 4, 0x31504E49,
         "patched.so: magic is 0x31504e49, must be 0x31504e48"},
        {offsetof(hone_descriptor, abi_major), 2, 2,
         "patched.so: abi_major: needs ABI 2.1, host has 1.1"},
        {offsetof(hone_descriptor, abi_minor), 2, 7,
         "patched.so: abi_minor: needs ABI 1.7, host has 1.1"},
        {offsetof(hone_descriptor, setting_size), 4, 16,
         "patched.so: setting_size is 16, at least 56"},
        {offsetof(hone_descriptor, n_settings), 4, 100000,
         "patched.so: n_settings is 100000, at most 256"},
    };
    hone_err e = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = aid_dir();
        patch(dir, rows[i].offset, &rows[i].value, rows[i].size);
        assert_true(load(dir, "patched.so", NULL, &e) < 0);
        assert_string_equal(e.msg, rows[i].msg);
        aid_dir_remove(dir);
    }
}

static void test_what_is_no_plugin_is_refused(void **state)
{
    (void)state;
    hone_err e = {0};
    char *dir = aid_dir(), *path = path_join(dir, "text.so");
    assert_int_equal(file_write(path, "hello\n", 6, &e), 0);
    assert_int_equal(load(dir, "text.so", NULL, &e), HONE_EFORMAT);
    assert_string_equal(e.msg, "text.so: cannot be loaded: file too short");
    assert_int_equal(load(dir, "none.so", NULL, &e), HONE_ENOTFOUND);
    free(path);
    aid_dir_remove(dir);
}

/* ---- the binary of the first day ---- */

#define OLD                                                                                        \
    "{\"array\":[\"y\",\"y\"],\"bool\":true,\"host\":1,\"int\":7,\"json\":[\"y\",\"y\"],\"min\":"  \
    "1.5,"                                                                                         \
    "\"misc\":true,\"null\":null,\"read\":true,\"real\":0.5,\"sha\":\"ba7816bf\",\"types\":7650}"

static void test_an_old_plugin_loads_for_ever(void **state)
{
    (void)state;
    int rc;
    hone_err e = {0};
    trust_file f;
    loaded *p;
    json_t *about;
    hooks *h = hook_new();
    char *dir = aid_dir(), *path = path_join(dir, "old.so");
    assert_int_equal(file_copy("tests/golden/plugin/old.so", path, &e), 0);
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    if (loader_open(&p, &(loader_args){.file = &f, .hooks = h}, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(loader_descriptor(p)->abi_minor, 0);
    char *text = aid_emit(h, HOOK_DATA_RECORD, "{\"text\": \"x\"}", &rc, &e);
    assert_int_equal(rc, 0);
    assert_string_equal(text, OLD);
    free(text);
    free(aid_emit(h, HOOK_DATA_RECORD, "{\"text\": \"\"}", &rc, &e));
    assert_string_equal(e.msg, "data.record: refused by old: empty");
    free(aid_emit(h, HOOK_DATA_RECORD, "{}", &rc, &e));
    assert_string_equal(e.msg, "data.record: old failed: no text");
    assert_int_equal(loader_describe(&about, &f, &e), 0);
    assert_int_equal(json_array_size(json_object_get(about, "settings")), 2);
    assert_int_equal(json_array_size(json_object_get(about, "caps")), 1);
    json_decref(about);
    assert_int_equal(loader_close(p, 1000, &e), 0);
    trust_close(&f);
    free(path);
    aid_dir_remove(dir);
    hook_free(h);
}

/* Where everything of 1.0 and 1.1 stands, for ever: structs only grow at their end. */
static void test_nothing_of_the_interface_moves(void **state)
{
    static const struct {
        const char *what;
        size_t is, was;
    } rows[] = {
        {"hone_host.on", offsetof(hone_host, on), 16},
        {"hone_host.init_error", offsetof(hone_host, init_error), 24},
        {"hone_host.log", offsetof(hone_host, log), 32},
        {"hone_host.count", offsetof(hone_host, count), 40},
        {"hone_host.settings", offsetof(hone_host, settings), 48},
        {"hone_host.state", offsetof(hone_host, state), 64},
        {"hone_host.api", offsetof(hone_host, api), 72},
        {"hone_host.veto", offsetof(hone_host, veto), 80},
        {"hone_host.alloc", offsetof(hone_host, alloc), 96},
        {"hone_host.late", offsetof(hone_host, late), 104},
        {"hone_host.type", offsetof(hone_host, type), 112},
        {"hone_host.boolean", offsetof(hone_host, boolean), 176},
        {"hone_host.new_null", offsetof(hone_host, new_null), 184},
        {"hone_host.copy", offsetof(hone_host, copy), 240},
        {"hone_host.set", offsetof(hone_host, set), 248},
        {"hone_host.remove_at", offsetof(hone_host, remove_at), 280},
        {"hone_host.to_json", offsetof(hone_host, to_json), 288},
        {"hone_host.sha256", offsetof(hone_host, sha256), 304},
        {"hone_host.parse", offsetof(hone_host, parse), 312},
        {"hone_call.ctx", offsetof(hone_call, ctx), 8},
        {"hone_call.hook", offsetof(hone_call, hook), 16},
        {"hone_call.allows", offsetof(hone_call, allows), 24},
        {"hone_call.budget_us", offsetof(hone_call, budget_us), 32},
        {"hone_call.data", offsetof(hone_call, data), 40},
        {"hone_call.batch", offsetof(hone_call, batch), 48},
        {"hone_call.logits", offsetof(hone_call, logits), 56},
        {"hone_call.host_private", offsetof(hone_call, host_private), 64},
        {"hone_batch.ids", offsetof(hone_batch, ids), 8},
        {"hone_batch.weight", offsetof(hone_batch, weight), 56},
        {"hone_batch.step", offsetof(hone_batch, step), 64},
        {"hone_batch.id", offsetof(hone_batch, id), 72},
        {"hone_logits.row", offsetof(hone_logits, row), 8},
        {"hone_logits.flags", offsetof(hone_logits, flags), 48},
        {"hone_descriptor.magic", offsetof(hone_descriptor, magic), 4},
        {"hone_descriptor.caps", offsetof(hone_descriptor, caps), 16},
        {"hone_descriptor.name", offsetof(hone_descriptor, name), 24},
        {"hone_descriptor.settings", offsetof(hone_descriptor, settings), 56},
        {"hone_descriptor.init", offsetof(hone_descriptor, init), 72},
        {"hone_descriptor.fini", offsetof(hone_descriptor, fini), 80},
        {"hone_setting.type", offsetof(hone_setting, type), 8},
        {"hone_setting.def", offsetof(hone_setting, def), 16},
        {"hone_setting.help", offsetof(hone_setting, help), 48},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].is != rows[i].was)
            fail_msg("%s has moved from %zu to %zu", rows[i].what, rows[i].was, rows[i].is);
}

/* ---- threads ---- */

static atomic_bool emitting;
static atomic_int n_wrong;

static void *emit_while(void *arg)
{
    while (atomic_load(&emitting)) {
        int rc;
        hone_err e = {0};
        json_t *data = json_pack("{s:s}", "text", " a ");
        rc = hook_emit(arg, HOOK_DATA_NORMALIZE, &data, &e);
        const char *text = json_string_value(json_object_get(data, "text"));
        bool good = rc == 0 && (strcmp(text, "a") == 0 || strcmp(text, " a ") == 0);
        atomic_fetch_add(&n_wrong, !good);
        json_decref(data);
    }
    return NULL;
}

static void test_loaded_and_unloaded_under_load(void **state)
{
    (void)state;
    enum { THREADS = 4, ROUNDS = 20 };
    pthread_t t[THREADS];
    hone_err e = {0};
    hooks *h = hook_new();
    atomic_store(&emitting, true);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, emit_while, h), 0);
    for (int i = 0; i < ROUNDS; i++) {
        loaded *p = aid_plugin_open(h, "trim", NULL);
        usleep(1000);
        assert_int_equal(loader_close(p, 10000, &e), 0);
    }
    atomic_store(&emitting, false);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&n_wrong), 0);
    assert_true(hook_counters(h, HOOK_DATA_NORMALIZE).modified > 0);
    hook_free(h);
}

/* Only the points that an operator lists. */
static void test_points_can_be_limited(void **state)
{
    (void)state;
    hone_err e = {0};
    trust_file f;
    loaded *p;
    hooks *h = hook_new();
    json_t *points = json_pack("[s]", "data.filter");
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, "trim");
    assert_int_equal(trust_open(&f, NULL, path, &e), 0);
    assert_int_equal(loader_open(&p, &(loader_args){.file = &f, .points = points, .hooks = h}, &e),
                     0);
    assert_true(hook_wanted(h, HOOK_DATA_FILTER));
    assert_false(hook_wanted(h, HOOK_DATA_NORMALIZE));
    assert_int_equal(loader_close(p, 1000, &e), 0);
    json_decref(points);
    trust_close(&f);
    free(path);
    aid_dir_remove(dir);
    hook_free(h);
}

int main(void)
{
    js_start();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_plugin_changes_and_refuses),
        cmocka_unit_test(test_a_plugin_describes_itself),
        cmocka_unit_test(test_settings_are_checked),
        cmocka_unit_test(test_another_abi_is_refused_by_field),
        cmocka_unit_test(test_what_is_no_plugin_is_refused),
        cmocka_unit_test(test_an_old_plugin_loads_for_ever),
        cmocka_unit_test(test_nothing_of_the_interface_moves),
        cmocka_unit_test(test_loaded_and_unloaded_under_load),
        cmocka_unit_test(test_points_can_be_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

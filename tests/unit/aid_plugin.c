#include "tests/unit/aid_plugin.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *aid_plugin_path(const char *name)
{
    char self[PATH_MAX] = "";
    static const char *const folders[] = {"plugins", "tests/plugins"};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    for (int up = 0; up < 3; up++) /* build/tests/unit/test_x */
        *strrchr(self, '/') = '\0';
    for (size_t i = 0; i < 2; i++) {
        char *path = mem_printf("%s/%s/%s.so", self, folders[i], name);
        if (file_exists(path))
            return path;
        free(path);
    }
    fail_msg("%s.so was not built", name);
    return NULL;
}

char *aid_plugin_copy(const char *dir, const char *name)
{
    hone_err e = {0};
    char *from = aid_plugin_path(name), *to = mem_printf("%s/%s.so", dir, name);
    assert_int_equal(file_copy(from, to, &e), 0);
    assert_int_equal(chmod(to, 0755), 0);
    free(from);
    return to;
}

int aid_plugin_try(loaded **out, hooks *h, const char *name, const char *settings, int limit_ms,
                   hone_err *e)
{
    trust_file f;
    json_t *given = NULL;
    char *dir = aid_dir(), *path = aid_plugin_copy(dir, name);
    if (settings != NULL)
        assert_int_equal(js_parse(&given, settings, strlen(settings), e), 0);
    assert_int_equal(trust_open(&f, NULL, path, e), 0);
    int rc = loader_open(
        out,
        &(loader_args){
            .file = &f, .settings = given, .hooks = h, .limit_ns = limit_ms * INT64_C(1000000)},
        e);
    trust_close(&f);
    json_decref(given);
    free(path);
    aid_dir_remove(dir);
    return rc;
}

loaded *aid_plugin_open(hooks *h, const char *name, const char *settings)
{
    hone_err e = {0};
    loaded *p;
    if (aid_plugin_try(&p, h, name, settings, 0, &e) != 0)
        fail_msg("%s", e.msg);
    return p;
}

char *aid_emit(hooks *h, hook_point p, const char *json, int *rc, hone_err *e)
{
    json_t *data;
    assert_int_equal(js_parse(&data, json, strlen(json), e), 0);
    *rc = hook_emit(h, p, &data, e);
    char *text = js_text(data, true);
    json_decref(data);
    return text;
}

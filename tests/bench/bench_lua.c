/* What a script costs: a call by itself and beside an emission that nobody hears. */
#include "core/base/file.h"
#include "core/base/hook.h"
#include "core/base/log.h"
#include "lua/lua_host.h"
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 1000 };

static const char text[] =
    "plugin {name = 'bench', version = '1', summary = 'does little'}\n"
    "on('train.step', function(s) if s.loss > 10 then return 'stop' end end)\n"
    "on('serve.chunk', function(text, eof, stream) return text end)\n"
    "on('data.filter', function(r) if #r.text < 3 then return false, 'short' end end)\n";

static void to_nobody(void *arg)
{
    for (int i = 0; i < N; i++)
        if (hook_wanted(arg, HOOK_SERVE_PROMPT))
            abort();
}

static void emit(hooks *h, hook_point p, json_t *data)
{
    if (hook_emit(h, p, &data, NULL) != 0)
        abort();
    json_decref(data);
}

static void step(void *arg)
{
    emit(arg, HOOK_TRAIN_STEP, json_pack("{s:i, s:f}", "step", 1, "loss", 0.5));
}

static void chunk(void *arg)
{
    emit(arg, HOOK_SERVE_CHUNK,
         json_pack("{s:s, s:i, s:s, s:b}", "request_id", "r", "choice", 0, "text", "Hello", "eof",
                   0));
}

static void filter(void *arg)
{
    emit(arg, HOOK_DATA_FILTER,
         json_pack("{s:{s:s}, s:s, s:i, s:{}}", "record", "text", "A short text.", "source", "x",
                   "line", 1, "tags"));
}

int main(void)
{
    char path[] = "/tmp/bench-XXXXXX.lua";
    hone_err e = {0};
    lua_plugin *p;
    int fd = mkstemps(path, 4);
    hooks *h = hook_new();
    lua_plugin_args args = {.hooks = h, .path = path};
    log_setup(LOG_ERROR, false);
    if (fd < 0 || write(fd, text, sizeof text - 1) != sizeof text - 1 ||
        lua_plugin_open(&p, &args, &e) != 0) {
        fprintf(stderr, "%s: %s\n", path, e.msg);
        return 1;
    }
    bench("no script listens", N, "calls", to_nobody, h);
    bench("train.step, an object of 2", 1, "calls", step, h);
    bench("serve.chunk, a piece of a stream", 1, "calls", chunk, h);
    bench("data.filter, a record", 1, "calls", filter, h);
    lua_plugin_close(p);
    hook_free(h);
    close(fd);
    unlink(path);
    return 0;
}

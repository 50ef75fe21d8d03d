/* What a script may try, each with its end. A call must end within 50 ms of processor time. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "lua/lib.h"
#include "lua/sandbox.h"
#include "lua/value.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_lua.h"

#include <lauxlib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 30 };
#else
enum { SLOWER = 1 };
#endif

/* Under valgrind (TEST_WRAP) nothing is said about time. */
static double limit_ms(void)
{
    const char *wrap = getenv("TEST_WRAP");
    return wrap != NULL && wrap[0] != '\0' ? 1e9 : 50.0 * SLOWER;
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* What takes too long is tried again: a machine that is busy makes one call slow, not all. */
enum { TRIES = 5 };

/* A script with this body of a hook, called once: the message, and what it took. */
typedef struct outcome {
    int rc;
    char msg[sizeof((hone_err *)NULL)->msg];
    double ms;
} outcome;

static outcome attack(const char *body, bool by_steps)
{
    /* A deterministic call is ended by its steps, long before the clock. */
    aid_lua a = {.args.deterministic = by_steps};
    char *text = mem_printf("local function attack()\n%s\nend\n"
                            "on('serve.prompt', function() return tostring(attack()) end)",
                            body);
    if (aid_lua_open(&a, "x.lua", text) != 0)
        fail_msg("%s: %s", body, a.e.msg);
    aid_lua_emit(&a, "serve.prompt",
                 "{'text': ''}"); /* the first call makes what the next ones have */
    double start = cpu_ms();
    outcome o = {.rc = aid_lua_emit(&a, "serve.prompt", "{'text': ''}")};
    o.ms = cpu_ms() - start;
    snprintf(o.msg, sizeof o.msg, "%s", o.rc == 0 ? aid_lua_data(&a) : a.e.msg);
    free(text);
    aid_lua_close(&a);
    return o;
}

#define STEPS "serve.prompt: t failed: x.lua:2: stopped after 1000000 steps"
#define MEMORY "serve.prompt: t failed: x.lua:2: more than 8388608 bytes of memory"
#define SAID(what) "{\"text\":\"" what "\"}"

/* The rows of the study of Lua 5.4's holes, and more of the kind. */
static void test_attacks_end(void **state)
{
    (void)state;
    static const struct {
        const char *body, *end;
    } rows[] = {
        {"while true do end", STEPS},
        {"while true do pcall(function() while true do end end) end", STEPS},
        {"pcall(function() while true do pcall(function() while true do end end) end end) "
         "while true do end",
         STEPS},
        {"coroutine.wrap(function() while true do end end)()", STEPS},
        {"while true do coroutine.wrap(function() pcall(function() while true do end end) end)() "
         "end",
         STEPS},
        {"local t <close> = setmetatable({}, {__close = function() while true do end end}) "
         "while true do end",
         STEPS},
        {"return ('x'):rep(1 << 30)", MEMORY},
        {"local s = 'x' while true do s = s .. s end", MEMORY},
        {"local t = {} while true do t[#t + 1] = {} end", MEMORY},
        {"local ok, why = pcall(string.rep, 'x', 1 << 30) return why", SAID("not enough memory")},
        {"for i = 1, 3 do local ok, why = pcall(string.rep, 'x', 1 << 30) if ok then return 'got' "
         "end end return 'never'",
         SAID("never")},
        {"local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(100000) .. #t end) end",
         STEPS},
        {"return (('a'):rep(30)):match(('a?'):rep(30) .. ('a'):rep(30) .. 'b')", STEPS},
        {"return (('a'):rep(5000)):find('.-.-.-.-b')", STEPS},
        {"return (('a'):rep(5000)):gsub('.-.-.-.-b', '')", STEPS},
        {"for _ in (('a'):rep(5000)):gmatch('.-.-.-.-b') do end", STEPS},
        {"local r = host.regex('(a+)+$') while true do pcall(r.match, r, ('a'):rep(40) .. 'b') end",
         STEPS},
        {"while true do pcall(string.find, ('a'):rep(5000), '.-.-.-b') end", STEPS},
        {"return (('('):rep(100000)):find('%b()%b()')", STEPS},
        {"while true do (('('):rep(100000)):find('%b()') end", STEPS},
        {"setmetatable({}, {__gc = function() while true do end end})",
         "serve.prompt: t failed: x.lua:2: a metatable of a script has no '__gc'"},
        {"local mt = {} setmetatable({}, mt) mt.__gc = function() error('ran') end "
         "for i = 1, 1000 do local s = {i} end return 'quiet'",
         SAID("quiet")},
        {"local function f() return 1 + f() end return f()", MEMORY},
        {"return load and 1", "serve.prompt: t failed: x.lua:2: a script has no 'load'"},
        {"return loadfile", "serve.prompt: t failed: x.lua:2: a script has no 'loadfile'"},
        {"return dofile", "serve.prompt: t failed: x.lua:2: a script has no 'dofile'"},
        {"return loadstring", "serve.prompt: t failed: x.lua:2: a script has no 'loadstring'"},
        {"return collectgarbage",
         "serve.prompt: t failed: x.lua:2: a script has no 'collectgarbage'"},
        {"return require", "serve.prompt: t failed: x.lua:2: a script has no 'require'"},
        {"return package", "serve.prompt: t failed: x.lua:2: a script has no 'package'"},
        {"return debug", "serve.prompt: t failed: x.lua:2: a script has no 'debug'"},
        {"return io", "serve.prompt: t failed: x.lua:2: a script has no 'io'"},
        {"return os", "serve.prompt: t failed: x.lua:2: a script has no 'os'"},
        {"return string.dump", SAID("nil")},
        {"getmetatable('').__index = print",
         "serve.prompt: t failed: x.lua:2: attempt to index a boolean value"},
        {"return getmetatable('')", SAID("false")},
        {"string.upper = print", "serve.prompt: t failed: x.lua:2: 'string' cannot be changed"},
        {"rawset(string, 'upper', print)",
         "serve.prompt: t failed: x.lua:2: cannot change a protected table"},
        {"host.json.encode = print",
         "serve.prompt: t failed: x.lua:2: 'host.json' cannot be changed"},
        {"table.insert(math, 1)", "serve.prompt: t failed: x.lua:2: 'math' cannot be changed"},
        {"setmetatable(string, {})",
         "serve.prompt: t failed: x.lua:2: cannot change a protected metatable"},
        {"local n = 0 for k in pairs(string) do n = n + 1 end return n", SAID("13")},
        {"local _, s = pairs(string) return s", SAID("nil")},
        {"x = 1",
         "serve.prompt: t failed: x.lua:2: global 'x' is made while a hook runs: make it local"},
        {"return tostring({}) .. tostring(print) .. tostring(coroutine.create(print))",
         SAID("tablefunctionthread")},
        {"return ('%s %s'):format({}, print)", SAID("table function")},
        {"return ('\\0%s'):format({})", SAID("\\u0000table")},
        {"return ('%p'):format({})",
         "serve.prompt: t failed: x.lua:2: invalid conversion '%p' to 'format'"},
        {"return select('#', table.unpack({}, 1, 1e7))",
         "serve.prompt: t failed: x.lua:2: table.unpack: more than 4096 values at once"},
        {"return ('x'):rep(10000):byte(1, -1)",
         "serve.prompt: t failed: x.lua:2: string.byte: more than 4096 bytes at once"},
        {"local t = {} for i = 1, 100000 do t[i] = i end while true do table.insert(t, 1, 0) "
         "table.remove(t, 1) end",
         STEPS},
        {"local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t) end", STEPS},
        {"local t = {} for i = 1, 1e5 do t[i] = -i % 7 end table.sort(t, function() return true "
         "end)",
         STEPS},
        {"local t = {} for i = 1, 1e5 do t[i] = i end while true do table.concat(t, ',') end",
         STEPS},
        {"local t = {} for i = 1, 2e4 do t['k' .. i] = i end while true do next(t) end", STEPS},
        {"local s = ('x'):rep(1 << 20) while true do s:upper() s:reverse() end", STEPS},
        {"local s = ('x'):rep(1 << 20) while true do host.sha256(s) end", STEPS},
        {"local s = '[' .. ('1,'):rep(1 << 17) .. '1]' while true do host.json.decode(s) end",
         NULL},
        {"local t = {} for i = 1, 30 do t = {t, t} end return host.json.encode(t)", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do local n = tonumber(s) end", STEPS},
        {"error(setmetatable({}, {__tostring = function() while true do end end}))",
         "serve.prompt: t failed: x.lua:2: an error that is a table"},
        /* nothing, very often */
        {"return ('').rep('', 1 << 62) .. (''):rep(1 << 40, '') .. 'none'", SAID("none")},
        {"return ('ab'):rep(3, '-') .. ('x'):rep(1, 'yy') .. ('y'):rep(2, 'zz') .. ('q'):rep(-1)",
         SAID("ab-ab-abxyzzy")},
        {"return ('x'):rep(math.maxinteger)",
         "serve.prompt: t failed: x.lua:2: resulting string too large"},
        {"while true do ('x'):rep(1 << 20) end", STEPS},
        /* one instruction that pushes and moves values until the stack is full */
        {"local t = setmetatable({}, {}) getmetatable(t).__call = t return t()", STEPS},
        {"local t, u = setmetatable({}, {}), setmetatable({}, {}) getmetatable(t).__call = u "
         "getmetatable(u).__call = t return coroutine.wrap(function() pcall(t) end)()",
         STEPS},
        {"local function f(n) return n == 0 and 0 or 1 + f(n - 1) end return f(20000)",
         SAID("20000")},
        /* numbers that are long texts */
        {"local s = ('1'):rep(1 << 20) while true do local x = s + 1 end", STEPS},
        {"local s = (' '):rep(1 << 20) .. '1' while true do local x = -s end", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do pcall(math.floor, s) end", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do pcall(string.rep, 'x', s) end", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do pcall(string.char, s) end", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do pcall(select, s) end", STEPS},
        {"local s = ('1'):rep(1 << 20) while true do pcall(host.counter, 'x', s) end", STEPS},
        {"return '10' + 5 .. -'2' .. '7' // 2 .. 10 % '4' .. '2' ^ 3 .. '3' * 2 .. 1 - '1' .. "
         "'1' / 2",
         SAID("15-2328.0600.5")},
        {"return '10' + {}",
         "serve.prompt: t failed: x.lua:2: attempt to add a 'string' with a 'table'"},
        /* numbers that are long when they are written, or long to divide */
        {"while true do local s = ('%.99f'):format(-1e308) end", STEPS},
        {"while true do local s = ('%.99g %.99a'):format(1e-308, 1e308) end", STEPS},
        {"return ('%99999d'):format(1)", "serve.prompt: t failed: x.lua:2: invalid conversion"},
        {"local s = ('\\0'):rep(1 << 18) while true do local q = ('%q'):format(s) end", STEPS},
        {"local x = 1.1e-300 while true do local s = tostring(x) end", STEPS},
        {"while true do math.fmod(1e308, 3e-308) end", STEPS},
        /* characters that do not end */
        {"local s = 'a' .. ('\\x80'):rep(1 << 20) while true do for _ in utf8.codes(s, true) do "
         "end end",
         STEPS},
        {"local f, s = utf8.codes('a' .. ('\\x80'):rep(1 << 20), true) while true do f(s, 0) end",
         STEPS},
        {"local r = '' for p, c in utf8.codes('a\xc3\xa9\xe2\x82\xac') do r = r .. p .. ':' .. c "
         ".. ' ' end return r",
         SAID("1:97 2:233 4:8364 ")},
        {"for _ in utf8.codes('a\\xff') do end",
         "serve.prompt: t failed: x.lua:2: invalid UTF-8 code"},
        {"local x = 1.1e-300 while true do local s = ('%s%s%s%s'):format(x, x, x, x) end", STEPS},
        /* long texts where short ones are meant */
        {"local s = ('x'):rep(1 << 20) while true do pcall(host.regex, 'a', s) end", STEPS},
        {"local s, t = ('x'):rep(1 << 19), {} for i = 1, 7 do t[i] = s .. i end while true do "
         "table.sort(t) end",
         STEPS},
        {"local s = ('ab'):rep(1 << 15) while true do s:gsub('()', '%1%1%1%1') end", STEPS},
        {"local t = setmetatable({}, {__name = ('x'):rep(1 << 20)}) while true do "
         "pcall(math.floor, "
         "t) end",
         STEPS},
        /* a coroutine may yield through pcall */
        {"local c = coroutine.wrap(function() local ok, v = pcall(coroutine.yield, 1) return "
         "tostring(ok) .. v end) c() return c('x')",
         SAID("truex")},
        {"local c = coroutine.wrap(function() return xpcall(function() return coroutine.yield(1) "
         ".. "
         "'y' end, print) end) c() local ok, v = c('x') return tostring(ok) .. v",
         SAID("truexy")},
        /* errors, coroutines and what closes */
        {"while true do pcall(string.rep) end", STEPS},
        {"while true do pcall(coroutine.wrap(function() error('x') end)) end", STEPS},
        {"while true do local c = coroutine.wrap(function() coroutine.yield() end) c() end", STEPS},
        {"local t = {} while true do t[#t + 1] = coroutine.wrap(coroutine.yield) t[#t]() end",
         MEMORY},
        {"local function nest() return pcall(coroutine.wrap(nest)) end while true do nest() end",
         STEPS},
        {"local co = coroutine.create(function() local t <close> = setmetatable({}, {__close = "
         "function() while true do end end}) coroutine.yield() end) coroutine.resume(co) "
         "coroutine.close(co)",
         STEPS},
        {"local function h(e) return h(e) end xpcall(error, h)", STEPS},
        {"goto a ::a:: pcall(function() ::b:: goto b end) goto a", STEPS},
        /* metamethods */
        {"local t = setmetatable({}, {__index = function() while true do end end}) "
         "pcall(function() "
         "return t.x end)",
         STEPS},
        {"local mt = {__eq = function() while true do end end} local a, b = setmetatable({}, mt), "
         "setmetatable({}, mt) pcall(function() return a == b end)",
         STEPS},
        {"local mt = {} mt.__lt = function(a, b) return a < b end return setmetatable({}, mt) < "
         "setmetatable({}, mt)",
         "serve.prompt: t failed: x.lua:2: C stack overflow"},
        {"local mt = {} mt.__index = setmetatable({}, mt) return mt.__index.x",
         "serve.prompt: t failed: x.lua:2: '__index' chain too long"},
        {"local mt = {__tostring = function(s) return tostring(s) end} return "
         "tostring(setmetatable({}, mt))",
         "serve.prompt: t failed: x.lua:2: C stack overflow"},
        {"local mt = {__len = function() return 1 << 40 end, __index = function() return 'x' end, "
         "__newindex = function() end} table.insert(setmetatable({}, mt), 1, 1)",
         STEPS},
        {"table.sort(setmetatable({}, {__len = function() return 1 << 62 end, __index = function() "
         "return 1 end}))",
         STEPS},
        {"table.move({}, 1, 1 << 40, 2)", STEPS},
        {"return #{[1 << 26] = 1}", SAID("0")},
        {"local t = {} t[0 / 0] = 1", "serve.prompt: t failed: x.lua:2: table index is NaN"},
        /* loops by numbers */
        {"for i = 0, 1, 1e-300 do end", STEPS},
        {"for i = math.mininteger, math.maxinteger do end", STEPS},
        {"return math.mininteger // -1", SAID("-9223372036854775808")},
        /* searching, matching, nesting */
        {"local s = ('x'):rep(1 << 20) while true do s:find(('x'):rep(30) .. 'y', 1, true) end",
         STEPS},
        {"return host.regex(('('):rep(5000))",
         "serve.prompt: t failed: x.lua:2: bad argument #1 to 'regex' (longer than 4096 bytes)"},
        {"return host.regex('((((a{1,100}){1,100}){1,100}){1,100})')",
         "serve.prompt: t failed: x.lua:2: host.regex: regular expression is too large"},
        {"return host.regex('(?:a?){50}a{50}'):match(('a'):rep(50))",
         "serve.prompt: t failed: x.lua:2: regex: the text takes more than 100000 steps"},
        {"return host.json.decode(('['):rep(1 << 20))", STEPS},
        {"local t = {} t[1] = t return host.json.encode(t)",
         "serve.prompt: t failed: x.lua:2: json.encode[1]"},
        {"coroutine.yield(1)",
         "serve.prompt: t failed: x.lua:2: attempt to yield from outside a coroutine"},
    };
    log_setup(LOG_ERROR, false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        outcome o = attack(rows[i].body, true);
        for (int k = 1; k < TRIES && o.ms > limit_ms(); k++)
            o = attack(rows[i].body, true);
        const char *end = rows[i].end;
        if (SLOWER > 1 && o.rc == HONE_ETIMEOUT)
            continue; /* a sanitizer's steps may take longer than the clock allows */
        if (end != NULL ? strncmp(o.msg, end, strlen(end)) != 0 : o.rc == 0)
            fail_msg("%s: ends with %d, %s", rows[i].body, o.rc, o.msg);
        if (o.ms > limit_ms())
            fail_msg("%s: took %.1f ms", rows[i].body, o.ms);
    }
    log_setup(LOG_INFO, false);
}

/* Copying ever more arguments is work that only the clock sees. */
static void test_the_clock_ends_what_steps_do_not(void **state)
{
    (void)state;
    log_setup(LOG_ERROR, false);
    outcome o = attack("local function f(...) return f(1, ...) end return f()", false);
    log_setup(LOG_INFO, false);
    assert_true(o.rc == HONE_ETIMEOUT || o.rc == HONE_ELIMIT);
    assert_true(o.ms < 4 * limit_ms());
}

/* ---- a sandbox alone ---- */

static int set_up(lua_State *L)
{
    value_setup(L);
    lib_environment(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, set_up);
    return 0;
}

static int run_text(lua_State *L)
{
    const char *text = lua_touserdata(L, 1);
    if (luaL_loadbufferx(L, text, strlen(text), "=x", "t") != LUA_OK)
        return lua_error(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, set_up);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 0);
    return 0;
}

/* Whatever the memory, a script ends in order: every allocation is once the one that fails. */
static void test_no_memory_is_an_error_anywhere(void **state)
{
    (void)state;
    static const char text[] =
        "local t = {} for i = 1, 40 do t['k' .. i] = {i, tostring(i)} end\n"
        "for k, v in pairs(t) do t[k] = ('%s%d'):format(k, v[1]):gsub('%d', '<%0>') end\n"
        "local co = coroutine.wrap(function() coroutine.yield(table.concat({1, 2, 3})) end) co()\n"
        "table.sort(t) local s = ('x'):rep(500):upper():reverse() for w in s:gmatch('X') do end\n";
    size_t failed = 0, passed = 0;
    for (size_t memory = 500; memory < 60000 && passed < 50; memory += 61) {
        sandbox_limits limits = {memory, 1000000, 0};
        sandbox *s;
        hone_err e = {0};
        int rc = sandbox_new(&s, "x", &limits, NULL, &e);
        if (rc == 0)
            rc = sandbox_run(s, set_up, NULL, &e);
        if (rc == 0)
            rc = sandbox_run(s, run_text, (void *)text, &e);
        assert_true(rc == 0 || rc == HONE_ELIMIT);
        assert_true(rc == 0 || strstr(e.msg, "bytes") != NULL);
        *(rc == 0 ? &passed : &failed) += 1;
        sandbox_free(s);
    }
    assert_true(failed > 100 && passed == 50);
}

static int small_work(lua_State *L)
{
    for (int i = 0; i < 10; i++) {
        run_text(L);
        sandbox_charge(L, 2000); /* so that the clock is read */
    }
    return 0;
}

/* What others take of the processor is not this script's: it sleeps here as it would wait there. */
static int wait_and_work(lua_State *L)
{
    usleep(60000);
    return small_work(L);
}

static void test_a_busy_machine_ends_nothing(void **state)
{
    (void)state;
    sandbox_limits limits = {1 << 20, INT64_MAX / 2, 40000000};
    sandbox *s;
    hone_err e = {0};
    assert_int_equal(sandbox_new(&s, "x", &limits, NULL, &e), 0);
    assert_int_equal(sandbox_run(s, set_up, NULL, &e), 0);
    if (sandbox_run(s, wait_and_work, (void *)"local x = 1", &e) != 0)
        fail_msg("%s", e.msg);
    double took = 2 * limit_ms();
    for (int k = 0; k < TRIES && took > limit_ms(); k++) {
        double start = cpu_ms();
        assert_int_equal(sandbox_run(s, run_text, (void *)"while true do end", &e), HONE_ETIMEOUT);
        took = cpu_ms() - start;
    }
    assert_true(took < limit_ms());
    sandbox_free(s);
}

/* Lua passes a type as the old size of a new block: an account that takes it for bytes drifts. */
static int compare_accounts(lua_State *L)
{
    size_t *told = lua_touserdata(L, 1);
    for (int i = 0; i < 1000; i++) {
        lua_newtable(L);
        lua_pushfstring(L, "a text of its own, number %d", i);
        lua_setfield(L, -2, "x");
        lua_settop(L, 1);
    }
    lua_gc(L, LUA_GCCOLLECT);
    *told = (size_t)lua_gc(L, LUA_GCCOUNT) * 1024 + (size_t)lua_gc(L, LUA_GCCOUNTB);
    return 0;
}

static void test_memory_is_counted_as_lua_counts_it(void **state)
{
    (void)state;
    sandbox_limits limits = {1 << 20, INT64_MAX / 2, 0};
    size_t told = 0;
    sandbox *s;
    hone_err e = {0};
    assert_int_equal(sandbox_new(&s, "x", &limits, NULL, &e), 0);
    assert_in_range(sandbox_used(s).now, 1000, 10000); /* a bare state */
    assert_int_equal(sandbox_run(s, set_up, NULL, &e), 0);
    assert_in_range(sandbox_used(s).now, 10000, 100000); /* with what a script has */
    assert_int_equal(sandbox_run(s, compare_accounts, &told, &e), 0);
    assert_true(sandbox_used(s).now == told);
    sandbox_free(s);
}

/* A thousand calls in the time of one that must end: each costs microseconds. */
static void test_a_call_costs_little(void **state)
{
    (void)state;
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua", "on('data.tag', function(r) return {n = 1} end)"),
                     0);
    aid_lua_emit(&a, "data.tag", "{'record':{},'tags':{}}");
    double took = 2 * limit_ms();
    for (int k = 0; k < TRIES && took > limit_ms(); k++) {
        double start = cpu_ms();
        for (int i = 0; i < 1000; i++)
            assert_int_equal(aid_lua_emit(&a, "data.tag", "{'record':{},'tags':{}}"), 0);
        took = cpu_ms() - start;
    }
    assert_true(took < limit_ms());
    aid_lua_close(&a);
}

static void test_a_limit_ends_the_state(void **state)
{
    (void)state;
    sandbox_limits limits = {1 << 20, 10000, 0};
    sandbox *s;
    hone_err e = {0};
    assert_int_equal(sandbox_new(&s, "x", &limits, NULL, &e), 0);
    assert_int_equal(sandbox_run(s, set_up, NULL, &e), 0);
    assert_int_equal(sandbox_run(s, run_text, (void *)"error('once')", &e), HONE_EINVAL);
    assert_false(sandbox_poisoned(s)); /* a mistake is no breach */
    assert_int_equal(sandbox_run(s, run_text, (void *)"local x = 1", &e), 0);
    assert_int_equal(sandbox_run(s, run_text, (void *)"while true do end", &e), HONE_ELIMIT);
    assert_true(sandbox_poisoned(s));
    assert_int_equal(sandbox_run(s, run_text, (void *)"local x = 1", &e), HONE_EINTERNAL);
    sandbox_free(s);
}

static void test_calls_leave_nothing(void **state)
{
    (void)state;
    sandbox_limits limits = {1 << 20, 1000000, 0};
    sandbox *s;
    size_t first = 0;
    assert_int_equal(sandbox_new(&s, "x", &limits, NULL, NULL), 0);
    assert_int_equal(sandbox_run(s, set_up, NULL, NULL), 0);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(
            sandbox_run(s, run_text, (void *)"local t = {} for i = 1, 99 do t[i] = {i} end", NULL),
            0);
        sandbox_collect(s);
        if (i == 10)
            first = sandbox_used(s).now;
    }
    assert_int_equal(sandbox_used(s).now, first);
    assert_true(sandbox_used(s).peak > first && sandbox_used(s).peak < 1 << 20);
    sandbox_free(s);
}

static void *cancel_soon(void *arg)
{
    usleep(5000);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static void test_a_flag_ends_a_call(void **state)
{
    (void)state;
    sandbox_limits limits = {1 << 20, INT64_MAX / 2, 0};
    atomic_bool cancel = false;
    sandbox *s;
    pthread_t t;
    hone_err e = {0};
    assert_int_equal(sandbox_new(&s, "x", &limits, &cancel, NULL), 0);
    assert_int_equal(sandbox_run(s, set_up, NULL, NULL), 0);
    pthread_create(&t, NULL, cancel_soon, &cancel);
    assert_int_equal(sandbox_run(s, run_text, (void *)"while true do end", &e), HONE_ECANCELLED);
    assert_string_equal(e.msg, "x:1: stopped: cancelled");
    pthread_join(t, NULL);
    sandbox_free(s);
}

/* ---- the same input, the same answer ---- */

static void test_keys_have_an_order(void **state)
{
    (void)state;
    outcome o =
        attack("local t = {z = 1, a = 1, [3] = 1, [1] = 1, [2.5] = 1, [-1] = 1, b = 1}\n"
               "local s = '' for k in pairs(t) do s = s .. tostring(k) .. ' ' end\n"
               "local k = next(t) while k do s = s .. tostring(k) .. ' ' k = next(t, k) end "
               "return s",
               true);
    assert_string_equal(o.msg, SAID("-1 1 2.5 3 a b z -1 1 2.5 3 a b z "));
    o = attack("local t = {1, 2, 3, x = 4} for k in pairs(t) do t[k] = nil end return next(t)",
               true);
    assert_string_equal(o.msg, SAID("nil"));
    o = attack("local t = {} for i = 1, 9 do t[i] = {i, i % 3} end\n"
               "table.sort(t, function(a, b) return a[2] < b[2] end)\n"
               "local s = '' for i = 1, 9 do s = s .. t[i][1] end return s",
               true);
    assert_string_equal(o.msg, SAID("369147258")); /* stable */
    o = attack("local t = {3, 1, 2, 'x'} return pcall(table.sort, t)", true);
    assert_string_equal(o.msg, SAID("false"));
}

static void draw(char out[256], const char *data, uint64_t seed)
{
    aid_lua a = {.args.seed = seed};
    assert_int_equal(aid_lua_open(&a, "x.lua",
                                  "local first = math.random(1000000)\n"
                                  "on('data.record', function(r) r.a = math.random(1000000)\n"
                                  "  r.b = math.random() r.c = math.random(0) r.d = first end)"),
                     0);
    aid_lua_emit(&a, "data.record", "{'other': 1}"); /* what came before does not matter */
    assert_int_equal(aid_lua_emit(&a, "data.record", data), 0);
    snprintf(out, 256, "%s", aid_lua_data(&a));
    aid_lua_close(&a);
}

static void test_random_numbers_follow_from_the_data(void **state)
{
    (void)state;
    char one[256], two[256], other[256], seeded[256];
    draw(one, "{'x': 1}", 0);
    draw(two, "{'x': 1}", 0);
    draw(other, "{'x': 2}", 0);
    draw(seeded, "{'x': 1}", 9);
    assert_string_equal(one, two);
    assert_string_not_equal(strstr(one, "\"b\""), strstr(seeded, "\"b\""));
    assert_string_not_equal(strstr(one, "\"b\""), strstr(other, "\"b\""));
}

static void test_no_clock_and_no_store_for_data(void **state)
{
    (void)state;
    static const char *const bodies[] = {"host.now()", "host.kv.get('x')"};
    for (size_t i = 0; i < 2; i++) {
        aid_lua a = {0};
        char *text = mem_printf("on('data.record', function(r) %s end)\n"
                                "on('serve.prompt', function(r) host.now() end)",
                                bodies[i]);
        assert_int_equal(aid_lua_open(&a, "x.lua", text), 0);
        assert_int_equal(aid_lua_emit(&a, "data.record", "{}"), HONE_EINVAL);
        assert_non_null(
            strstr(a.e.msg, "is not there while a script is loaded or a data hook runs"));
        assert_int_equal(aid_lua_emit(&a, "serve.prompt", "{'text': ''}"), 0);
        free(text);
        aid_lua_close(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attacks_end),
        cmocka_unit_test(test_the_clock_ends_what_steps_do_not),
        cmocka_unit_test(test_no_memory_is_an_error_anywhere),
        cmocka_unit_test(test_a_busy_machine_ends_nothing),
        cmocka_unit_test(test_memory_is_counted_as_lua_counts_it),
        cmocka_unit_test(test_a_call_costs_little),
        cmocka_unit_test(test_a_limit_ends_the_state),
        cmocka_unit_test(test_calls_leave_nothing),
        cmocka_unit_test(test_a_flag_ends_a_call),
        cmocka_unit_test(test_keys_have_an_order),
        cmocka_unit_test(test_random_numbers_follow_from_the_data),
        cmocka_unit_test(test_no_clock_and_no_store_for_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "core/base/log.h"
#include "core/base/mem.h"
#include "lua/form.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_lua.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char filter[] =
    "plugin {name = 'short', version = '1.2', summary = 'drops short answers',\n"
    "  settings = {least = {type = 'integer', default = 3, min = 1, help = 'words'}},\n"
    "  tests = {['short'] = function(t)\n"
    "    local r = t.emit('data.filter', {record = {text = 'one'}, source = 'x', line = 1})\n"
    "    t.eq(r.answer, 'veto') t.eq(r.reason, '1 words') end}}\n"
    "on('data.filter', function(record, about)\n"
    "  local n = 0\n"
    "  for i = 1, #record.text do\n"
    "    if record.text:sub(i, i) ~= ' ' and (i == 1 or record.text:sub(i-1, i-1) == ' ') then\n"
    "      n = n + 1 end end\n"
    "  if n < host.config.least then return false, n .. ' words' end\n"
    "end)\n";

static void test_a_script_is_a_subscriber(void **state)
{
    (void)state;
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "short.lua", filter), 0);
    assert_string_equal(lua_plugin_name(a.plugin), "short");
    assert_int_equal(aid_lua_emit(&a, "data.filter", "{'record': {'text': 'a b'}, 'line': 3}"),
                     HONE_EVETO);
    assert_string_equal(a.e.msg, "data.filter: refused by short: 2 words");
    assert_int_equal(aid_lua_emit(&a, "data.filter", "{'record': {'text': 'a b c'}}"), 0);
    json_t *info = lua_plugin_info(a.plugin);
    assert_string_equal(json_string_value(json_object_get(info, "version")), "1.2");
    assert_int_equal(json_array_size(json_object_get(info, "hooks")), 1);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(info, "settings"), "least")), 3);
    json_decref(info);
    aid_lua_close(&a);
}

static void test_settings_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *given, *error;
    } rows[] = {
        {"{\"least\": 2}", NULL},
        {"{\"leest\": 2}", "short.lua:1: plugin: no setting 'leest' (did you mean 'least'?)"},
        {"{\"least\": \"two\"}",
         "short.lua:1: plugin: setting 'least' is \"two\", not a whole number"},
        {"{\"least\": 0}", "short.lua:1: plugin: setting 'least' is 0, at least 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        aid_lua a = {0};
        json_t *given = json_loads(rows[i].given, 0, NULL);
        a.args.settings = given;
        int rc = aid_lua_open(&a, "short.lua", filter);
        if (rows[i].error == NULL) /* the script's own test wants 3 */
            assert_int_equal(rc, 0);
        else
            assert_string_equal(a.e.msg, rows[i].error);
        json_decref(given);
        aid_lua_close(&a);
    }
}

/* Each row: point, function, data, status, message or data. */
static void test_answers(void **state)
{
    (void)state;
    static const struct {
        const char *point, *fn, *data;
        int rc;
        const char *want;
    } rows[] = {
        {"serve.request", "function(b) b.max_tokens = 5 return b end",
         "{'key_id':'k','body':{'n':1}}", 0,
         "{\"body\":{\"max_tokens\":5,\"n\":1},\"key_id\":\"k\"}"},
        {"serve.request", "function(b) b.max_tokens = 5 end", "{'body':{'n':1}}", 0,
         "{\"body\":{\"max_tokens\":5,\"n\":1}}"},
        {"serve.request", "function(b, about) return false, 'not ' .. about.key_id end",
         "{'key_id':'k','body':{}}", HONE_EVETO, "serve.request: refused by t: not k"},
        {"serve.prompt", "function(text) return text .. '!' end", "{'text':'hi'}", 0,
         "{\"text\":\"hi!\"}"},
        {"serve.prompt", "function(text) return {} end", "{'text':'hi'}", HONE_EINVAL,
         "serve.prompt: t failed: x.lua:1: the answer is a table; serve.prompt takes nil, true, "
         "false and a reason, text"},
        {"serve.prompt", "function(text) return '\\xff' end", "{'text':'hi'}", HONE_EINVAL,
         "serve.prompt: t failed: x.lua:1: the answer: bytes that are not UTF-8"},
        {"serve.prompt", "function(text) return 7 end", "{'text':'hi'}", HONE_EINVAL,
         "serve.prompt: t failed: x.lua:1: the answer is a number; serve.prompt takes nil, true, "
         "false and a reason, text"},
        {"eval.metric", "function(x) return {em = x.prediction == x.reference and 1 or 0} end",
         "{'prediction':'a','reference':'a','scores':{'f1':0.5}}", 0,
         "{\"prediction\":\"a\",\"reference\":\"a\",\"scores\":{\"em\":1,\"f1\":0.5}}"},
        {"eval.metric", "function(x) return false, 'no' end", "{'scores':{}}", HONE_EINVAL,
         "eval.metric: t failed: x.lua:1: the answer is a refusal; eval.metric takes nil, true, a "
         "table"},
        {"promote.gate", "function(r) return 'fail', 'toxicity' end",
         "{'verdict':'pass','reasons':[]}", 0,
         "{\"reasons\":[\"fail: t: toxicity\"],\"verdict\":\"fail\"}"},
        {"promote.gate", "function(r) return 'maybe' end", "{'verdict':'pass','reasons':[]}",
         HONE_EINVAL,
         "promote.gate: t failed: x.lua:1: the answer is text; promote.gate takes nil, true, false "
         "and a reason, 'pass', 'inconclusive', 'fail'"},
        {"data.record", "function(r) return {{n = 1}, {n = 2}} end", "{'n':0}", 0,
         "[{\"n\":1},{\"n\":2}]"},
        {"data.record", "function(r) return {} end", "{'n':0}", 0, "[]"},
        {"data.record", "function(r) return print end", "{'n':0}", HONE_EINVAL,
         "data.record: t failed: x.lua:1: the answer is no value of JSON; data.record takes nil, "
         "true, false and a reason, a table"},
        {"data.record", "function(r) r.f = {1, {print}} end", "{'n':0}", HONE_EINVAL,
         "data.record: t failed: x.lua:1: the answer.f[2][1]: a function is no value of JSON"},
        {"data.record", "function(r) r.me = r end", "{'n':0}", HONE_EINVAL, NULL},
        {"data.record", "function(r) r.x = 0/0 end", "{'n':0}", HONE_EINVAL,
         "data.record: t failed: x.lua:1: the answer.x: a number that is not finite"},
        {"feedback.ingest", "function(f) return {tags = {'spam'}} end", "{'rating':'up'}", 0,
         "{\"rating\":\"up\",\"tags\":[\"spam\"]}"},
        {"feedback.to_example", "function(f, x) x.w = f.w return x end",
         "{'feedback':{'w':2},'example':{'m':[]}}", 0,
         "{\"example\":{\"m\":[],\"w\":2},\"feedback\":{\"w\":2}}"},
        {"data.filter", "function(r) return true end", "{'record':{'a':null,'b':[],'c':{}}}", 0,
         "{\"record\":{\"a\":null,\"b\":[],\"c\":{}}}"},
        {"data.open", "function(s) local x = s.y.z end", "{}", HONE_EINVAL,
         "data.open: t failed: x.lua:1: attempt to index a nil value (field 'y')"},
        {"data.open", "function(s) error({}) end", "{}", HONE_EINVAL,
         "data.open: t failed: x.lua:1: an error that is a table"},
        {"data.open", "function(s) error('flat', 0) end", "{}", HONE_EINVAL,
         "data.open: t failed: x.lua:1: flat"},
        {"train.step", "function(s) return 'stop', 'too high' end", "{'loss':9}", HONE_EVETO,
         "train.step: refused by t: too high"},
        {"train.step", "function(s) return 'save' end", "{'save':false}", 0, "{\"save\":true}"},
        {"train.step", "function(s) return {lr_scale = s.lr_scale / 2} end", "{'lr_scale':1.0}", 0,
         "{\"lr_scale\":0.5}"},
        {"data.normalize", "function(s, about) return (s:gsub('%s+', ' ')) end",
         "{'text':'a  b','field':'text'}", 0, "{\"field\":\"text\",\"text\":\"a b\"}"},
        {"data.tag", "function(r) return {words = #r.text} end",
         "{'record':{'text':'a'},'tags':{}}", 0,
         "{\"record\":{\"text\":\"a\"},\"tags\":{\"words\":1}}"},
        {"data.pii", "function(s, about) return '<' .. about.kind .. '>' end",
         "{'span':'x','kind':'k','replacement':'y'}", 0,
         "{\"kind\":\"k\",\"replacement\":\"<k>\",\"span\":\"x\"}"},
        {"data.split", "function(r) return 'val' end", "{'record':{},'split':'train'}", 0,
         "{\"record\":{},\"split\":\"val\"}"},
        {"data.split", "function(r) return 'test' end", "{'record':{},'split':'train'}",
         HONE_EINVAL,
         "data.split: t failed: x.lua:1: the answer is text; data.split takes nil, true, 'train', "
         "'val', 'none'"},
        {"data.template", "function(m, about) return 'x' .. about.text, {{1, 2}} end",
         "{'messages':[],'text':'a','learn':[[0,1]]}", 0,
         "{\"learn\":[[1,2]],\"messages\":[],\"text\":\"xa\"}"},
        {"data.template", "function(m, about) return 'x' end",
         "{'messages':[],'text':'a','learn':[]}", HONE_EINVAL,
         "data.template: t failed: x.lua:1: the answer is text alone; data.template takes nil, "
         "true, false and a reason, text and a table"},
        {"serve.route", "function(r) return r.aliases[2] end", "{'alias':'a','aliases':['a','b']}",
         0, "{\"alias\":\"b\",\"aliases\":[\"a\",\"b\"]}"},
        {"bias.probe", "function(p) p.items[1] = {text = 'x'} end", "{'phase':'items','items':[]}",
         0, "{\"items\":[{\"text\":\"x\"}],\"phase\":\"items\"}"},
        {"drift.measure", "function(d) return {psi = 0.5} end", "{'scores':{}}", 0,
         "{\"scores\":{\"psi\":0.5}}"},
        {"train.end", "function(s) return {} end", "{}", 0, "{}"}, /* this point fails open */
    };
    log_setup(LOG_ERROR, false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        aid_lua a = {0};
        char *text = mem_printf("on('%s', %s)", rows[i].point, rows[i].fn);
        assert_int_equal(aid_lua_open(&a, "x.lua", text), 0);
        int rc = aid_lua_emit(&a, rows[i].point, rows[i].data);
        if (rc != rows[i].rc || (rows[i].want != NULL &&
                                 strcmp(rc == 0 ? aid_lua_data(&a) : a.e.msg, rows[i].want) != 0))
            fail_msg("row %zu: %d %s", i, rc, rc == 0 ? aid_lua_data(&a) : a.e.msg);
        free(text);
        aid_lua_close(&a);
    }
    log_setup(LOG_INFO, false);
}

static void test_bad_scripts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"on('data.open', function( end)", "bad.lua:1: <name> or '...' expected near 'end'"},
        {"local x = nil + 1", "bad.lua:1: attempt to perform arithmetic on a nil value"},
        {"\nwhile true do end", "bad.lua:2: stopped after 20000000 steps"},
        {"\nlocal t = {} for i = 1, 1e7 do t[i] = {i} end",
         "bad.lua:2: more than 16777216 bytes of memory"},
        {"on('data.opn', print)",
         "bad.lua:1: on: no hook point 'data.opn' (did you mean 'data.open'?)"},
        {"on('data.open')", "bad.lua:1: bad argument #2 to 'on' (function expected, got no value)"},
        {"plugin {name = 'Bad', version = '1', summary = 's'}",
         "bad.lua:1: plugin: name 'Bad' has other characters than a-z, 0-9, '_' and '-'"},
        {"plugin {name = 'bad', version = '1'}", "bad.lua:1: plugin: summary = '...' is missing"},
        {"plugin {name = 'bad', version = '1', summary = 's', licence = 'x'}",
         "bad.lua:1: plugin: no field 'licence'"},
        {"plugin {name = 'bad', version = '1', summary = 's', tests = {['fails'] = function(t)\n"
         "t.eq(1, 2) end}}",
         "test 'fails': bad.lua:2: got 1, wanted 2"},
        {"-- plugin {\n",
         "bad.lua: it has no header: plugin {name = '...', version = '...', summary "
         "= '...'}"},
        {"local s = os.time()", "bad.lua:1: a script has no 'os'"},
        {"\033Lua\x54 plugin {", "bad.lua: attempt to load a binary chunk (mode is 't')"},
        {"string.x = 1", "bad.lua:1: 'string' cannot be changed"},
        {"local t = setmetatable({}, {__gc = print})",
         "bad.lua:1: a metatable of a script has no '__gc'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        aid_lua a = {0};
        int rc = aid_lua_open(&a, "bad.lua", rows[i].text);
        if (rc == 0 || strcmp(a.e.msg, rows[i].error) != 0)
            fail_msg("row %zu: %d %s", i, rc, a.e.msg);
        assert_false(hook_wanted(a.hooks, HOOK_DATA_OPEN));
        aid_lua_close(&a);
    }
}

/* Every point has a form, but for those that C alone may hook into. */
static void test_every_point_has_a_form(void **state)
{
    (void)state;
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        const form *f = form_of((hook_point)p);
        const hook_info *info = hook_describe((hook_point)p);
        assert_int_equal(f != NULL, info->example != NULL);
        if (f == NULL)
            continue;
        char *text = mem_printf("on('%s', %s)", f->point, f->call);
        aid_lua a = {0};
        if (aid_lua_open(&a, "x.lua", text) != 0)
            fail_msg("%s", a.e.msg);
        int rc = aid_lua_emit(&a, f->point, info->example);
        if (rc != 0 && rc != HONE_EVETO) /* what the reference shows runs */
            fail_msg("%s: %s", text, a.e.msg);
        free(text);
        aid_lua_close(&a);
    }
}

/* What a script does wrong, at every point: the point's policy says what goes on. */
static void test_failures_follow_the_policy_of_the_point(void **state)
{
    (void)state;
    static const struct {
        const char *body, *why;
    } rows[] = {
        {"local x = nil .. 'x'", "x.lua:1: attempt to concatenate a nil value"},
        {"while true do end", "x.lua:1: stopped after "},
        {"local t = {} while true do t[#t + 1] = {} end", "x.lua:1: more than 8388608 bytes"},
        {"return function() end", "x.lua:1: the answer is no value of JSON; "},
        {"return ('x'):rep(9 << 20)", "x.lua:1: more than 8388608 bytes of memory"},
    };
    log_setup(LOG_ERROR, false);
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        const hook_info *info = hook_describe((hook_point)p);
        if (form_of((hook_point)p) == NULL)
            continue;
        /* An endless loop runs for as long as the budget of the point allows: once is enough. */
        bool long_one = info->budget_us > 50000 && p != HOOK_PROMOTE_GATE;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (i == 1 && (long_one || p == HOOK_PROMOTE_GATE))
                continue;
            aid_lua a = {.args.deterministic = true}; /* ended by its steps, not by the clock */
            char *text = mem_printf("on('%s', function() %s end)", info->name, rows[i].body);
            assert_int_equal(aid_lua_open(&a, "x.lua", text), 0);
            char *want = mem_printf("%s: t failed: %s", info->name, rows[i].why);
            int rc = aid_lua_emit(&a, info->name, info->example);
            if ((rc < 0) != info->fails_closed ||
                (rc < 0 && strncmp(a.e.msg, want, strlen(want)) != 0))
                fail_msg("%s: %s: %d %s", info->name, rows[i].body, rc, a.e.msg);
            if (rc == 0) {
                json_t *was = json_loads(info->example, 0, NULL);
                assert_true(json_equal(was, a.data));
                json_decref(was);
            }
            free(want);
            free(text);
            aid_lua_close(&a);
        }
    }
    log_setup(LOG_INFO, false);
}

/* ---- new versions ---- */

#define SAYS(what) "on('serve.prompt', function(text) return '" what "' end)"

static const char *prompt(aid_lua *a)
{
    if (aid_lua_emit(a, "serve.prompt", "{'text':''}") != 0)
        return a->e.msg;
    return json_string_value(json_object_get(a->data, "text"));
}

static void test_reload(void **state)
{
    (void)state;
    /* clang-format off */
    static const struct {
        const char *text, *error, *says;
    } rows[] = {
        {SAYS("two"), NULL, "two"},
        {"on('serve.prompt', function( end)",
         "t: x.lua:1: <name> or '...' expected near 'end'", "two"},
        {"error('no')", "t: x.lua:1: no", "two"},
        {"plugin {name='t', version='2', summary='s', tests={bad=function(t) t.eq(1, 2) end}} "
         SAYS("three"),
         "t: test 'bad': x.lua:1: got 1, wanted 2", "two"},
        {"plugin {name='u', version='2', summary='s'} " SAYS("three"),
         "t: it calls itself 'u' now: another name takes a restart", "two"},
        {"on('serve.response', function() end)", NULL, ""}, /* other hooks */
        {SAYS("four"), NULL, "four"},
        {SAYS("first") " on('serve.prompt', function(text) return text .. ' and last' end, "
                       "{priority = 9})",
         NULL, "first and last"},
        {"on('serve.prompt', function(text) return text .. ' alone' end, {priority = 9})", NULL,
         " alone"},
    };
    /* clang-format on */
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua", SAYS("one")), 0);
    assert_string_equal(prompt(&a), "one");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        hone_err e = {0};
        aid_lua_write(&a, "x.lua", rows[i].text);
        int rc = lua_plugin_reload(a.plugin, NULL, &e);
        if (rows[i].error != NULL)
            assert_string_equal(e.msg, rows[i].error);
        else
            assert_int_equal(rc, 0);
        assert_int_equal(hook_wanted(a.hooks, HOOK_SERVE_RESPONSE), i == 5);
        assert_int_equal(hook_wanted(a.hooks, HOOK_SERVE_PROMPT), i != 5);
        assert_string_equal(prompt(&a), rows[i].says);
    }
    hone_err e = {0};
    assert_int_equal(lua_plugin_reload(a.plugin, "0123", &e), HONE_EDENIED);
    json_t *stats = lua_plugin_stats(a.plugin);
    assert_int_equal(json_integer_value(json_object_get(stats, "reloads")), 5);
    assert_int_equal(json_integer_value(json_object_get(stats, "states")), 1);
    json_decref(stats);
    aid_lua_close(&a);
}

typedef struct worker {
    aid_lua *a;
    atomic_bool *stop;
    int wrong;
    atomic_long calls;
} worker;

static void *call_often(void *arg)
{
    worker *w = arg;
    while (!atomic_load(w->stop)) {
        json_t *data = json_pack("{s:s}", "text", "");
        int rc = hook_emit(w->a->hooks, HOOK_SERVE_PROMPT, &data, NULL);
        const char *text = json_string_value(json_object_get(data, "text"));
        w->wrong += rc != 0 || text == NULL || (text[0] != 'a' && text[0] != 'b');
        atomic_fetch_add(&w->calls, 1);
        json_decref(data);
    }
    return NULL;
}

/* No call fails, whatever is swapped in under it; every state goes. */
static void test_reload_under_load(void **state)
{
    (void)state;
    enum { WORKERS = 4, RELOADS = 40 };
    aid_lua a = {0};
    atomic_bool stop = false;
    worker w[WORKERS];
    pthread_t t[WORKERS];
    log_setup(LOG_ERROR, false); /* late calls of a busy machine */
    hook_breaker patient = {1000000, 1000000, 60000, 60000};
    assert_int_equal(aid_lua_open(&a, "x.lua", SAYS("a")), 0);
    hook_set_breaker(a.hooks, &patient);
    for (int i = 0; i < WORKERS; i++) {
        w[i] = (worker){.a = &a, .stop = &stop};
        pthread_create(&t[i], NULL, call_often, &w[i]);
    }
    for (int i = 0; i < RELOADS; i++) {
        aid_lua_write(&a, "x.lua",
                      i % 4 == 0   ? SAYS("b")
                      : i % 4 == 1 ? SAYS("a") " on('serve.request', function() end)"
                      : i % 4 == 2 ? SAYS("b") " on('serve.prompt', function() end)"
                                   : SAYS("a"));
        assert_int_equal(lua_plugin_reload(a.plugin, NULL, NULL), 0);
    }
    for (int i = 0; i < WORKERS; i++)
        while (atomic_load(&w[i].calls) == 0) /* a busy machine has not let it yet */
            usleep(1000);
    atomic_store(&stop, true);
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(w[i].wrong, 0);
    }
    json_t *stats = lua_plugin_stats(a.plugin);
    int64_t states = json_integer_value(json_object_get(stats, "states"));
    assert_true(states >= 1 && states <= WORKERS);
    assert_int_equal(json_integer_value(json_object_get(stats, "running")), 0);
    json_decref(stats);
    aid_lua_close(&a);
    log_setup(LOG_INFO, false);
}

/* What some editors and shells put before a script is no part of it; lines keep their numbers. */
static void test_what_stands_before_a_script(void **state)
{
    (void)state;
#define HEADED "plugin {name='t', version='1', summary='s'}\non('serve.prompt', function(text)\n"
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"\xef\xbb\xbf" HEADED "return 'marked' end)", "marked"},
        {"#!/usr/bin/lua\n" HEADED "return 'a line' end)", "a line"},
        {"\xef\xbb\xbf#!/usr/bin/lua\r\n" HEADED "return 'both' end)", "both"},
        {"#!/usr/bin/lua\n" HEADED "error('no') end)", "serve.prompt: t failed: x.lua:4: no"},
    };
#undef HEADED
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        aid_lua a = {0};
        assert_int_equal(aid_lua_open(&a, "x.lua", rows[i].text), 0);
        assert_string_equal(prompt(&a), rows[i].says);
        aid_lua_close(&a);
    }
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua", "#plugin {"), HONE_EINVAL); /* nothing else */
    aid_lua_close(&a);
}

static void test_a_spent_state_is_replaced(void **state)
{
    (void)state;
    aid_lua a = {.args.deterministic = true}; /* ended by its steps, not by the clock */
    log_setup(LOG_ERROR, false);
    assert_int_equal(
        aid_lua_open(&a, "x.lua",
                     "local n = 0 on('serve.prompt', function(text) n = n + 1\n"
                     "if text == 'loop' then while true do end end return '' .. n end)"),
        0);
    assert_string_equal(prompt(&a), "1");
    assert_string_equal(prompt(&a), "2");
    assert_int_equal(aid_lua_emit(&a, "serve.prompt", "{'text':'loop'}"), HONE_ELIMIT);
    assert_string_equal(prompt(&a), "1"); /* a new one */
    json_t *stats = lua_plugin_stats(a.plugin);
    assert_int_equal(json_integer_value(json_object_get(stats, "poisoned")), 1);
    json_decref(stats);
    aid_lua_close(&a);
    log_setup(LOG_INFO, false);
}

static void test_closing_unsubscribes(void **state)
{
    (void)state;
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua", SAYS("a")), 0);
    assert_true(hook_wanted(a.hooks, HOOK_SERVE_PROMPT));
    lua_plugin_close(a.plugin);
    a.plugin = NULL;
    assert_false(hook_wanted(a.hooks, HOOK_SERVE_PROMPT));
    aid_lua_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_script_is_a_subscriber),
        cmocka_unit_test(test_settings_are_checked),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_bad_scripts_are_refused),
        cmocka_unit_test(test_every_point_has_a_form),
        cmocka_unit_test(test_failures_follow_the_policy_of_the_point),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_reload_under_load),
        cmocka_unit_test(test_what_stands_before_a_script),
        cmocka_unit_test(test_a_spent_state_is_replaced),
        cmocka_unit_test(test_closing_unsubscribes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "core/base/log.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_lua.h"

#include <stdlib.h>
#include <string.h>

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
         "data.record: t failed: x.lua:1: the answer.f[2][1]: a function cannot be an answer"},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_script_is_a_subscriber),
        cmocka_unit_test(test_settings_are_checked),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_bad_scripts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

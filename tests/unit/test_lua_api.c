/* The table `host`: what its functions answer, and what they refuse. */
#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/mem.h"
#include "lua/kv.h"
#include "lua/stream.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_lua.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Each row: an expression, and what tostring says of it or the end of the error. */
typedef struct row {
    const char *expression, *want;
} row;

enum { TRIES = 5 };

/* What the expression gives; caller frees. ETIMEOUT on a machine that has no time for us. */
static int evaluate(char **got, const char *expression)
{
    aid_lua a = {0};
    char *text = mem_printf("local function show(...) local t = table.pack(...)\n"
                            "for i = 1, t.n do t[i] = tostring(t[i]) end\n"
                            "return table.concat(t, ' ') end\n"
                            "on('serve.prompt', function() return show(%s) end)",
                            expression);
    if (aid_lua_open(&a, "x.lua", text) != 0)
        fail_msg("%s: %s", expression, a.e.msg);
    int rc = aid_lua_emit(&a, "serve.prompt", "{'text': ''}");
    *got = mem_strdup(rc == 0 ? json_string_value(json_object_get(a.data, "text")) : a.e.msg);
    free(text);
    aid_lua_close(&a);
    return rc;
}

static void check(const row *rows, size_t n)
{
    log_setup(LOG_ERROR, false);
    for (size_t i = 0; i < n; i++) {
        char *got = NULL;
        int rc = HONE_ETIMEOUT;
        for (int k = 0; k < TRIES && rc == HONE_ETIMEOUT; k++) {
            free(got);
            rc = evaluate(&got, rows[i].expression);
        }
        size_t g = strlen(got), w = strlen(rows[i].want);
        if (rc == 0 ? strcmp(got, rows[i].want) != 0 : g < w || strcmp(got + g - w, rows[i].want))
            fail_msg("%s: %s", rows[i].expression, got);
        free(got);
    }
    log_setup(LOG_INFO, false);
}

static void test_regex(void **state)
{
    (void)state;
    /* clang-format off */
    static const row rows[] = {
        {"host.regex('(\\\\d+)-(\\\\d+)'):match('tel 12-345')", "12 345"},
        {"host.regex('\\\\bcat\\\\b', 'i'):find('A Cat!')", "3 5"},
        {"host.regex('a|b'):find('xxb', -1)", "3 3"},
        {"host.regex('a|b'):find('xxb', 9)", "nil"},
        {"host.regex('(a)|(b)'):match('b')", "false b"},
        {"host.regex('é'):find('caf\\u{e9}')", "4 5"},
        {"host.regex('^\\\\p{Lu}\\\\w+$'):match('\\u{c9}t\\u{e9}')", "\xc3\x89t\xc3\xa9"},
        {"host.regex('x'):match('\\xffx')", "x"},
        {"host.regex('b*'):gsub('abc', '-')", "-a-c- 3"},
        {"host.regex('(\\\\w)(\\\\w)'):gsub('abcd', '%2%1')", "badc 2"},
        {"host.regex('\\\\w'):gsub('ab', {a = 'x'})", "xb 2"},
        {"host.regex('\\\\w'):gsub('ab', function(c) return c:upper() end, 1)", "Ab 1"},
        {"host.regex('a'):gsub('b', 'c')", "b 0"},
        {"host.regex('.', 's'):match('\\n')", "\n"},
        {"host.regex('^b', 'm'):find('a\\nb')", "3 3"},
        {"host.regex(' a b # c', 'x'):find('ab')", "1 2"},
        {"(function() local s = '' for w in host.regex('\\\\w*'):gmatch('ab cd') do s = s .. w .. '.' "
         "end return s end)()", "ab.cd."},
        {"host.regex('(a+)+$'):match(('a'):rep(40) .. 'b')",
         "regex: the text takes more than 100000 steps, or too much depth"},
        {"host.regex('(')", "host.regex: missing closing parenthesis at character 2"},
        {"host.regex('a\\\\Cb')", "host.regex: using \\C is disabled by the application at character 4"},
        {"host.regex('a', 'g')", "host.regex: no flag 'g' (i, m, s, x)"},
        {"host.regex(('a'):rep(5000))", "longer than 4096 bytes)"},
        {"host.regex('a')", "regex"},
        {"getmetatable(host.regex('a'))", "false"},
        {"host.regex('a').match('a')", "bad argument #1 to 'match' (hone.regex expected, got string)"},
        {"(function() for i = 1, 500 do host.regex('(abc){2}' .. i) end return 'kept' end)()", "kept"},
    };
    /* clang-format on */
    check(rows, sizeof rows / sizeof *rows);
}

static void test_functions(void **state)
{
    (void)state;
    /* clang-format off */
    static const row rows[] = {
        {"host.json.encode({b = 1, a = {1, 2.5, true}, c = host.null})",
         "{\"a\":[1,2.5,true],\"b\":1,\"c\":null}"},
        {"host.json.encode({}), host.json.encode(host.json.array {})", "{} []"},
        {"host.json.decode('{\"a\": [1, null]}').a[2]", "null"},
        {"host.json.decode('[1, 2')", "nil JSON: line 1, column 5: ']' expected near end of file"},
        {"host.json.encode(host.json.decode('{\"x\":[],\"y\":{}}'))", "{\"x\":[],\"y\":{}}"},
        {"host.json.decode(('['):rep(70) .. (']'):rep(70))", "the data is nested deeper than 64"},
        {"host.json.encode({[1] = 1, x = 2})", "json.encode: a table with text keys and with numbers"},
        {"host.json.encode({1, nil, 3, [9] = 2})", "json.encode: a list with holes or other keys"},
        {"host.sha256('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"host.now() > 1700000000, math.type(host.now())", "true integer"},
        {"host.config.x", "the script declares no setting 'x'"},
        {"host.log('loud', 'x')", "bad argument #1 to 'log' (invalid option 'loud')"},
        {"host.counter('Bad')",
         "counter 'Bad': a name is 1 to 48 of the characters a-z, 0-9 and _"},
        {"host.counter('bad', -1)", "counter 'bad' only rises, and by a number"},
        {"host.kv.get('k')", "host.kv: there is no state folder to keep it in"},
        {"on('data.open', print)", "'on' is for loading, not for a hook"},
        {"utf8.len('h\\u{e9}'), utf8.char(233)", "2 \xc3\xa9"},
        {"('x'):rep(3, ','), ('%5.1f|%-4d|%q'):format(2.25, 7, 'a')", "x,x,x   2.2|7   |\"a\""},
        {"'10' + 1, 10 // 3, 2^0.5 > 1.41", "11 3 true"},
    };
    /* clang-format on */
    check(rows, sizeof rows / sizeof *rows);
}

static void test_what_a_script_writes_to_the_log_is_bounded(void *arg)
{
    (void)arg;
    aid_lua a = {0};
    aid_lua_open(&a, "x.lua",
                 "on('data.open', function() for i = 1, 99 do print('line', i) end end)");
    aid_lua_emit(&a, "data.open", "{}");
    aid_lua_close(&a);
}

static void test_log(void **state)
{
    (void)state;
    char *said = aid_stderr(test_what_a_script_writes_to_the_log_is_bounded, NULL, NULL);
    size_t n = 0;
    for (const char *s = said; (s = strstr(s, "t: line ")) != NULL; s++)
        n++;
    assert_int_equal(n, 10);
    assert_non_null(strstr(said, "t: line 10"));
    assert_non_null(strstr(said, "t: 10 lines in one call, the rest is dropped"));
    free(said);
}

static void see_count(const char *owner, const char *name, double value, void *user)
{
    char *seen = user;
    snprintf(seen + strlen(seen), 64, "%s.%s %g ", owner, name, value);
}

static void test_counters(void **state)
{
    (void)state;
    char seen[256] = "";
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua",
                                  "on('data.open', function() host.counter('seen') "
                                  "host.counter('bytes', 2.5) end)"),
                     0);
    aid_lua_emit(&a, "data.open", "{}");
    aid_lua_emit(&a, "data.open", "{}");
    hook_each_count(a.hooks, see_count, seen);
    assert_string_equal(seen, "t.seen 2 t.bytes 5 ");
    aid_lua_close(&a);
}

/* ---- the store ---- */

static void test_kv(void **state)
{
    char *path = path_join(*state, "sub/x.db");
    kv *k = kv_new(path, 1000);
    json_t *v;
    double sum;
    struct stat st;
    hone_err e = {0};
    assert_false(file_exists(path)); /* nobody has asked yet */
    assert_int_equal(kv_get(k, "a", 1, &v, &e), 0);
    assert_null(v);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    json_t *one = json_pack("{s:[i,n]}", "x", 1);
    assert_int_equal(kv_set(k, "a", 1, one, &e), 0);
    assert_int_equal(kv_set(k, "b", 1, one, &e), 0);
    assert_int_equal(kv_add(k, "n", 1, 2, &sum, &e), 0);
    assert_int_equal(kv_add(k, "n", 1, 0.5, &sum, &e), 0);
    assert_true(sum == 2.5);
    assert_int_equal(kv_add(k, "a", 1, 1, &sum, &e), HONE_EINVAL);
    assert_string_equal(e.msg, "'a' is no number");
    kv_free(k);
    k = kv_new(path, 1000); /* it is still there */
    assert_int_equal(kv_get(k, "a", 1, &v, &e), 0);
    assert_true(json_equal(v, one));
    json_decref(v);
    assert_int_equal(kv_set(k, "b", 1, NULL, &e), 0);
    assert_int_equal(kv_keys(k, "", 0, &v, &e), 0);
    assert_int_equal(json_array_size(v), 2);
    json_decref(v);
    assert_int_equal(kv_set(k, "", 0, one, &e), HONE_ELIMIT);
    assert_int_equal(kv_set(k, "a\0b", 3, one, &e), HONE_EINVAL);
    json_decref(one);
    kv_free(k);
    free(path);
}

static void test_kv_has_a_quota(void **state)
{
    (void)state;
    kv *k = kv_new(NULL, 1000);
    hone_err e = {0};
    json_t *big = json_stringn("0123456789012345678901234567890123456789", 40), *v;
    char key[16];
    int n = 0, rc;
    do
        snprintf(key, sizeof key, "k%03d", n);
    while ((rc = kv_set(k, key, 4, big, &e)) == 0 && ++n < 100);
    assert_int_equal(rc, HONE_ELIMIT);
    assert_int_equal(n, 21); /* 21 x (4 + 42) = 966 */
    assert_string_equal(e.msg, "the store would hold 1012 bytes, at most 1000");
    assert_int_equal(kv_get(k, key, 4, &v, &e), 0);
    assert_null(v); /* nothing has changed */
    assert_int_equal(kv_set(k, "k000", 4, NULL, &e), 0);
    assert_int_equal(kv_set(k, key, 4, big, &e), 0);
    json_decref(big);
    kv_free(k);
}

static void *add_often(void *arg)
{
    double sum;
    for (int i = 0; i < 100; i++) {
        int rc = HONE_EAGAIN; /* where the others have the disk for a second */
        for (int k = 0; k < 60 && rc == HONE_EAGAIN; k++)
            rc = kv_add(arg, "n", 1, 1, &sum, NULL);
        if (rc != 0)
            return arg;
    }
    return NULL;
}

static void test_kv_from_threads_and_connections(void **state)
{
    char *path = path_join(*state, "threads.db");
    kv *k[2] = {kv_new(path, 1000), kv_new(path, 1000)};
    pthread_t t[4];
    double sum;
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, add_often, k[i % 2]);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(kv_add(k[0], "n", 1, 0, &sum, NULL), 0);
    assert_true(sum == 400);
    kv_free(k[0]);
    kv_free(k[1]);
    free(path);
}

static void test_kv_of_a_script(void **state)
{
    aid_lua a = {.args.state_dir = *state};
    assert_int_equal(aid_lua_open(&a, "x.lua",
                                  "plugin {name='memory', version='1', summary='s',\n"
                                  "tests = {a = function(t) t.eq(t.emit('serve.prompt', "
                                  "{text = ''}).data.text, '1 x') end}}\n"
                                  "on('serve.prompt', function() host.kv.set('who', {name = 'x'})\n"
                                  "return host.kv.add('n') .. ' ' .. host.kv.get('who').name end)"),
                     0);
    aid_lua_emit(&a, "serve.prompt", "{'text': ''}");
    assert_string_equal(aid_lua_data(&a), "{\"text\":\"1 x\"}"); /* its test left nothing */
    aid_lua_emit(&a, "serve.prompt", "{'text': ''}");
    assert_string_equal(aid_lua_data(&a), "{\"text\":\"2 x\"}");
    char *path = path_join(*state, "memory.db");
    assert_true(file_exists(path));
    free(path);
    aid_lua_close(&a);
}

/* ---- streams ---- */

static void test_streams(void **state)
{
    (void)state;
    aid_lua a = {0};
    assert_int_equal(aid_lua_open(&a, "x.lua",
                                  "on('serve.chunk', function(text, eof, s)\n"
                                  "s.n = (s.n or 0) + 1\n"
                                  "return s.request_id .. s.choice .. s.n .. text end)"),
                     0);
    static const char *const rows[][2] = {{"'a','choice':0,'text':'x','eof':false", "a01x"},
                                          {"'b','choice':0,'text':'x','eof':false", "b01x"},
                                          {"'a','choice':1,'text':'x','eof':false", "a11x"},
                                          {"'a','choice':0,'text':'y','eof':true", "a02y"},
                                          {"'a','choice':0,'text':'z','eof':false", "a01z"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *data = mem_printf("{'request_id':%s}", rows[i][0]);
        assert_int_equal(aid_lua_emit(&a, "serve.chunk", data), 0);
        assert_string_equal(json_string_value(json_object_get(a.data, "text")), rows[i][1]);
        free(data);
    }
    aid_lua_close(&a);
    streams *s = stream_new();
    json_t *v = json_pack("{s:i}", "x", 1), *large = json_object();
    hone_err e = {0};
    int rc = 0, n = 0;
    for (; rc == 0 && n < 2 * STREAM_MAX; n++)
        rc = stream_keep(s, "r", n, v, &e);
    assert_int_equal(rc, HONE_ELIMIT);
    assert_int_equal(stream_count(s), STREAM_MAX);
    json_t *kept = stream_take(s, "r", 5);
    assert_true(json_equal(kept, v));
    json_decref(kept);
    char *text = mem_alloc(STREAM_MAX_BYTES + 1);
    memset(text, 'x', STREAM_MAX_BYTES);
    json_object_set_new(large, "x", json_string(text));
    assert_int_equal(stream_keep(s, "large", 0, large, &e), HONE_ELIMIT);
    free(text);
    json_decref(v);
    json_decref(large);
    stream_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regex),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_counters),
        cmocka_unit_test_setup_teardown(test_kv, aid_dir_quick_setup, aid_dir_teardown),
        cmocka_unit_test(test_kv_has_a_quota),
        cmocka_unit_test_setup_teardown(test_kv_from_threads_and_connections, aid_dir_quick_setup,
                                        aid_dir_teardown),
        cmocka_unit_test_setup_teardown(test_kv_of_a_script, aid_dir_quick_setup, aid_dir_teardown),
        cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Our matcher of patterns beside the library's: the same expressions in a stock state and in a
 * sandboxed one must give the same values. */
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "lua/lib.h"
#include "lua/sandbox.h"
#include "lua/value.h"
#include "tests/unit/aid.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

static const char prelude[] =
    "local function show(v) if type(v) == 'string' then return string.format('%q', v) end\n"
    "  return math.type(v) == 'integer' and string.format('%d', v) or tostring(v) end\n"
    "local function line(ok, ...)\n"
    "  if not ok then return 'error' end\n"
    "  local t = table.pack(...)\n"
    "  for i = 1, t.n do t[i] = show(t[i]) end\n"
    "  return table.concat(t, ' ') end\n"
    "local function all(s, p, i) local t = {}\n"
    "  for a, b, c in string.gmatch(s, p, i) do\n"
    "    t[#t + 1] = show(a) .. ',' .. show(b) .. ',' .. show(c)\n"
    "    if #t > 50 then break end end\n"
    "  return table.concat(t, ';') end\n"
    "return line(pcall(function() return ";

typedef struct pair {
    lua_State *stock;
    sandbox *box;
    const char *text;
    char got[4096], want[4096];
} pair;

static int make_env(lua_State *L)
{
    value_setup(L);
    lib_environment(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, make_env);
    return 0;
}

static int evaluate(lua_State *L)
{
    pair *p = lua_touserdata(L, 1);
    if (luaL_loadbufferx(L, p->text, strlen(p->text), "=case", "t") != LUA_OK)
        return lua_error(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, make_env);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 1);
    snprintf(p->got, sizeof p->got, "%s", lua_tostring(L, -1));
    return 0;
}

static void start(pair *p)
{
    static const sandbox_limits limits = {8 << 20, 1000000, 5000000000};
    p->stock = luaL_newstate();
    luaL_openlibs(p->stock);
    assert_int_equal(sandbox_new(&p->box, "case", &limits, NULL, NULL), 0);
    assert_int_equal(sandbox_run(p->box, make_env, NULL, NULL), 0);
}

static void end(pair *p)
{
    lua_close(p->stock);
    sandbox_free(p->box);
}

/* Evaluates the expression on both sides. */
static void both(pair *p, const char *expression)
{
    hone_err e = {0};
    char *text = mem_printf("%s%s end))", prelude, expression);
    p->text = text;
    if (luaL_dostring(p->stock, text) != LUA_OK)
        fail_msg("%s: %s", expression, lua_tostring(p->stock, -1));
    snprintf(p->want, sizeof p->want, "%s", lua_tostring(p->stock, -1));
    lua_settop(p->stock, 0);
    if (sandbox_run(p->box, evaluate, p, &e) != 0)
        fail_msg("%s: %s", expression, e.msg);
    free(text);
}

static void test_the_same_answers(void **state)
{
    (void)state;
    /* clang-format off */
    static const char *const rows[] = {
        "('hello world'):find('wor')", "('hello'):find('l+')", "('hello'):find('xyz')",
        "('hello'):find('')", "('hello'):find('', 10)", "('hello'):find('', 6)",
        "('hello'):find('l', -2)", "('hello'):find('l', -100)", "('a.b'):find('.', 1, true)",
        "('a+b'):find('a+b', 1, true)", "('a+b'):find('+', 1, true)", "('abc'):find('b', 2)",
        "('abc'):find('^b', 2)", "('abc'):find('^a', 2)", "('abc'):find('c$')",
        "('a$c'):find('a$c')", "('abc'):find('a$')", "('a^c'):find('a^c')", "('\\0a'):find('\\0')",
        "('a\\0b'):find('%z')", "('a\\0b'):match('a%zb')", "('a\\0b'):find('\\0b')",
        "('key = value'):match('^(%w+)%s*=%s*(%w+)$')", "('  trim  '):match('^%s*(.-)%s*$')",
        "('2026-11-25'):match('(%d+)-(%d+)-(%d+)')", "('abc'):match('()b()')", "('abc'):match('()')",
        "('abc'):match('.-')", "('abc'):match('.-$')", "('abc'):match('(.-)b')",
        "('aaa'):match('a-b')", "('aaab'):match('a-b')", "('aaab'):match('a*b')",
        "('aaab'):match('a?b')", "('b'):match('a?b')", "('b'):match('a+b')", "('aab'):match('a+')",
        "('f(a(b)c)d'):match('%b()')", "('((x'):match('%b()')", "('x%by'):match('%%b')",
        "([[\"q\" and \"r\"]]):match('%b\"\"')", "('THE (quick) fox'):find('%((%a+)%)')",
        "('THE (quick) fox'):gsub('%f[%a]%a+', 'W')", "('THE (quick) fox'):find('%f[%w]%w+%f[%W]', 5)",
        "('aXb'):find('%f[%u]')", "('abc'):find('%f[%z]')", "('abc'):find('%f[a]')",
        "('say \"x\" or \\'y\\''):match('([\"\\'])(.-)%1')", "('abab'):match('(ab)%1')",
        "('abac'):match('(ab)%1')", "('aa'):match('()a%1')", "('xx'):match('(x)(x?)%2')",
        "('a]b'):match('[]]')", "('a]b'):match('[^]]+')", "('a-b'):match('[a-]+')",
        "('a-b'):match('[-a]+')", "('x^y'):match('[x^]+')", "('x^y'):match('[^^]+')",
        "('a%b'):match('[%%]')", "('a1_'):match('[%a_]+')", "('a1_'):match('[%w_]+')",
        "('09af'):match('[0-9a-f]+')", "('z'):match('[a-]')", "('%'):match('[%a-z]')",
        "('-'):match('[%a-z]')", "('b'):match('[a-%d]')", "('é'):match('[é]')", "('é'):match('[^a]')",
        "('\\255\\254'):match('[\\254-\\255]+')", "('\\xE9'):match('%a')", "('a\\nb'):match('a.b')",
        "('x'):match('%x')", "('g'):match('%x')", "('\\t '):match('%s+')", "('!'):match('%p')",
        "('a'):match('%P')", "('\\1'):match('%c')", "('a'):match('%C')", "('A'):match('%U')",
        "('Ab'):match('%u%l')", "('a b'):match('%S+')", "('a'):match('%g')", "(' '):match('%G')",
        "('a'):match('%D')", "('abc'):match('((a)(b))')", "('abc'):match('((a)(b)(c))')",
        "('abc'):match('(a(b)c)')", "('abc'):match('(a)()(b)')", "('aXbXc'):match('(.*)X(.*)')",
        "('aXbXc'):match('(.-)X(.*)')", "('abc'):match('a(.*)%d')", "('aaaa'):match('(a*)(a)')",
        "('aaaa'):match('(a*)(a*)')", "('aaaa'):match('(a-)(a-)$')", "('aab'):match('a*ab')",
        "('aaab'):match('a-ab')", "('ac'):match('ab?c')", "('abbc'):match('ab?c')",
        "('abc'):gsub('%w', '%0%0')", "('abc'):gsub('(a)(b)', '%2%1')", "('abc'):gsub('', '-')",
        "('abc'):gsub('b*', '-')", "('abc'):gsub('.', {a = 1, b = true})",
        "('abc'):gsub('.', {a = 1, b = false})", "('abc'):gsub('(.)', {a = 'x', c = 2.5})",
        "('abc'):gsub('.', function(c) if c == 'b' then return 'X' end end)",
        "('abc'):gsub('.', function(c) return false end)", "('abc'):gsub('()', function(i) return i end)",
        "('abc'):gsub('(.)()', function(c, i) return c .. i end)", "('abc'):gsub('.', {}, 2)",
        "('aaa'):gsub('a', 'b', 2)", "('aaa'):gsub('a', 'b', 0)", "('aaa'):gsub('a', 'b', -1)",
        "('aaa'):gsub('^a', 'b')", "('hello'):gsub('l', '%%')", "('hello'):gsub('l', '%1')",
        "('hello'):gsub('(l)', '%1%1')", "('hello'):gsub('l', '%2')", "('hello'):gsub('l', '%x')",
        "('hello'):gsub('l', '%')", "('hello'):gsub('l', 7)", "('hello'):gsub('l', 7.5)",
        "('hello'):gsub('l', nil)", "('hello'):gsub('l', true)",
        "('abc'):gsub('b', function() return {} end)", "('abc'):gsub('b', {b = {}})",
        "('abc def'):gsub('%w+', '%0 %0', 1)", "('abc'):gsub('$', '!')", "('abc'):gsub('^', '!')",
        "('a b c'):gsub(' ', '')", "('\\0\\0'):gsub('%z', 'x')", "('abc'):gsub('(b)()', '%2')",
        "('x'):rep(300):gsub('x', 'yy')", "('hello world'):gsub('o', {o = '0'})",
        "('abc'):gsub('%f[%w]', '<')", "('a,b,,c'):gsub(',', ';')", "('a,b,,c'):gsub('([^,]*)', '[%1]')",
        "all('one two three', '%a+')", "all('k=v, a=b', '(%w+)=(%w+)')", "all('abc', '')",
        "all('abc', 'b*')", "all('a,b,,c', '[^,]*')", "all('abc', '()')", "all('^a^b', '^a')",
        "all('hello', 'l', 4)", "all('hello', 'l', -1)", "all('hello', '.', 9)", "all('aaa', 'a-')",
        "all('2 33 444', '%d+')", "all('abc', '(a)(b)(c)')", "all('x=1;y=2', '(%w)=(%d)')",
        "('abc'):find('(')", "('abc'):find(')')", "('abc'):find('[a')", "('abc'):find('[')",
        "('abc'):find('[^')", "('abc'):find('[]')", "('abc'):find('a%')", "('abc'):find('%')",
        "('abc'):find('%b')", "('abc'):find('%bx')", "('abc'):find('%f')", "('abc'):find('%fa')",
        "('abc'):find('%1')", "('abc'):find('(a%1)')", "('abc'):find('%0')", "('abc'):find('a(%2)')",
        "('abc'):find(('()'):rep(33))", "('abc'):find(('()'):rep(32))", "('abc'):find()",
        "('abc'):find({})", "('abc'):find(nil)", "(5):find('5')", "string.find(55, 5)",
        "string.match(123, '(%d)(%d)')", "('abc'):find('b', 1.5)", "('abc'):find('b', '2')",
        "('a*b'):find('*')", "('a*'):match('^*')", "('+x'):match('+x')", "('a?'):match('%?')",
        "('(x)'):match('%((.)%)')", "('ab'):match('a%b')", "('x-y'):match('x%-y')",
        "('%bxy*'):match('%%bxy%*')", "('xzy*'):match('%bxy*')", "('xx*'):match('(x)%1*')",
        "('$a'):match('$a')", "('a$'):match('a$$')", "('a$b'):match('a$b')", "('a\\n'):match('a$')",
        "('aaa'):match('a-a-a-')", "('aaa'):match('^a-$')", "('aaab'):find('a-b', 2)",
        "('abcabc'):find('(abc)%1')", "('abc'):match('[a-c]+', 2)", "('12abc'):match('^%d+')",
        "('http://x.y/z?q=1'):match('^(%w+)://([^/?#]*)([^?#]*)%?" "?([^#]*)')",
        "('a.b.c'):match('^(.*)%.(.*)$')", "('a.b.c'):match('^(.-)%.(.*)$')",
        "('#fff'):match('^#(%x)(%x)(%x)$')", "('x\\0y\\0z'):gsub('\\0', '|')",
        "('abc'):gsub('(a)(b)(c)', '%3%2%1%0')", "('abc'):gsub('%w', '%%%0')",
        "('aaa'):find('a', 4)", "('aaa'):find('a', 5)", "(''):find('')", "(''):find('', 2)",
        "(''):match('.*')", "(''):gsub('', 'x')", "(''):gsub('.', 'x')", "all('', '')",
    };
    /* clang-format on */
    pair p = {0};
    start(&p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        both(&p, rows[i]);
        if (strcmp(p.got, p.want) != 0)
            fail_msg("%s: %s, the library says %s", rows[i], p.got, p.want);
    }
    end(&p);
}

/* Does the list of pieces make no pattern? Only captures can be wrong. */
typedef struct shape {
    int n, open[8], n_open;
    bool closed[8], wrong;
} shape;

static void add_piece(shape *s, const char *piece)
{
    if (strcmp(piece, "(") == 0) {
        s->open[s->n_open++] = s->n++;
    } else if (strcmp(piece, "()") == 0) {
        s->closed[s->n++] = true;
    } else if (strcmp(piece, ")") == 0 && s->n_open == 0) {
        s->wrong = true;
    } else if (strcmp(piece, ")") == 0) {
        s->closed[s->open[--s->n_open]] = true;
    } else if (piece[0] == '%' && (piece[1] == '1' || piece[1] == '2')) {
        int k = piece[1] - '1';
        s->wrong = s->wrong || k >= s->n || !s->closed[k];
    }
}

/* Patterns put together from pieces, on texts of few letters: most do something. Returns whether it
 * is malformed. */
static bool random_case(rng *r, char *out, size_t cap)
{
    shape made = {0};
    static const char *const pieces[] = {"a", "b",  ".",    "%a",    "%d", "[ab]",  "[^b]", "(",
                                         ")", "()", "*",    "+",     "-",  "?",     "%1",   "%2",
                                         "$", "^",  "%bab", "%f[a]", "c",  "[a-c]", "%W",   "%s"};
    static const char *const forms[] = {"('%s'):find('%s')", "('%s'):match('%s')",
                                        "all('%s', '%s')", "('%s'):gsub('%s', '<%%0>')"};
    char text[32] = "", pattern[96] = "";
    size_t n = rng_below(r, 12), k = 1 + rng_below(r, 6);
    for (size_t i = 0; i < n; i++)
        text[i] = "aabbc 1"[rng_below(r, 7)];
    for (size_t i = 0; i < k; i++) {
        const char *piece = pieces[rng_below(r, sizeof pieces / sizeof *pieces)];
        strcat(pattern, piece);
        add_piece(&made, piece);
    }
    const char *form = forms[rng_below(r, 4)], *at = strstr(form, "%s");
    snprintf(out, cap, "%.*s%s", (int)(at - form), form, text);
    const char *rest = at + 2, *second = strstr(rest, "%s");
    size_t len = strlen(out);
    snprintf(out + len, cap - len, "%.*s%s%s", (int)(second - rest), rest, pattern,
             strchr(second, '<') != NULL ? "', '<%0>')" : second + 2);
    return made.wrong || made.n_open != 0;
}

static void test_the_same_answers_to_random_patterns(void **state)
{
    (void)state;
    pair p = {0};
    rng r = {.seed = 7};
    int refused = 0, found = 0;
    start(&p);
    for (int i = 0; i < 4000; i++) {
        char text[256];
        bool malformed = random_case(&r, text, sizeof text);
        both(&p, text);
        /* What is malformed we refuse whole; the library may not come to it. */
        refused += malformed;
        found += strcmp(p.want, "nil") != 0 && strcmp(p.want, "error") != 0;
        if (strcmp(p.got, p.want) != 0 && (!malformed || strcmp(p.got, "error") != 0))
            fail_msg("%s: %s, the library says %s", text, p.got, p.want);
    }
    end(&p);
    assert_true(found > 1000 && refused < 2500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_answers),
        cmocka_unit_test(test_the_same_answers_to_random_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

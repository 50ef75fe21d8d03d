/* hone plugin hooks: the one table of hook points, for people, programs and editors. */
#include "cli/plugin_tools.h"
#include "core/base/buf.h"
#include "core/base/hook_members.h"
#include "core/base/js.h"
#include "lua/form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void allowed(char dst[64], const hook_info *h)
{
    snprintf(dst, 64, "%s%s%s", h->may_modify ? "modify" : "",
             h->may_modify && h->may_veto ? ", " : "", h->may_veto ? "veto" : "");
    if (dst[0] == '\0')
        snprintf(dst, 64, "observe");
}

static json_t *members_json(hook_point p)
{
    size_t n;
    const hook_member *m = hook_members(p, &n);
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:s, s:b}", "name", m[i].name, "type",
                                        m[i].type, "what", m[i].what, "changes", m[i].changes));
    return all;
}

static json_t *as_json(hook_point p, const hook_info *h)
{
    json_t *example = NULL;
    if (h->example != NULL)
        js_parse(&example, h->example, strlen(h->example), NULL);
    return json_pack("{s:s, s:b, s:b, s:s, s:b, s:I, s:s, s:o?, s:o}", "name", h->name,
                     "may_modify", h->may_modify, "may_veto", h->may_veto, "on_failure",
                     h->fails_closed ? "closed" : "open", "breaker", h->breaker, "budget_us",
                     (json_int_t)h->budget_us, "what", h->what, "example", example, "members",
                     members_json(p));
}

static void print_text(hook_point p, const hook_info *h)
{
    size_t n;
    const hook_member *m = hook_members(p, &n);
    char may[64];
    allowed(may, h);
    printf("%s\n    %s\n    may: %s; fails %s; %lld us a call\n", h->name, h->what, may,
           h->fails_closed ? "closed" : "open", (long long)h->budget_us);
    if (h->example != NULL)
        printf("    data: %s\n    members%s:\n", h->example,
               h->may_modify ? " (*: may change)" : "");
    else
        puts("    a struct of hone_plugin.h; for plugins in C alone");
    for (size_t i = 0; i < n; i++)
        printf("    %c %-18s %-14s %s\n", m[i].changes ? '*' : ' ', m[i].name, m[i].type,
               m[i].what);
}

/* The members of all points, below the table of points. */
static void print_members(hook_point only)
{
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        size_t n;
        const hook_member *m = hook_members((hook_point)p, &n);
        if (n == 0 || (only != HOOK_N_POINTS && p != (int)only))
            continue;
        printf("\n## `%s`\n\n| member | type | may change | what |\n|---|---|---|---|\n",
               hook_describe((hook_point)p)->name);
        for (size_t i = 0; i < n; i++) {
            printf("| `%s` | ", m[i].name);
            for (const char *t = m[i].type; *t != '\0'; t++)
                printf(*t == '|' ? " or " : *t == '?' ? ", or absent" : "%c", *t);
            printf(" | %s | %s |\n", m[i].changes ? "yes" : "", m[i].what);
        }
    }
}

static void print_row(const hook_info *h)
{
    char may[64];
    allowed(may, h);
    printf("| `%s` | %s | %s | %s | %lld us | %s%s%s |\n", h->name, h->what, may,
           h->fails_closed ? "closed" : "open", (long long)h->budget_us,
           h->example != NULL ? "`" : "", h->example != NULL ? h->example : "struct, C alone",
           h->example != NULL ? "`" : "");
}

/* ---- stubs ---- */

/* "text|null?" as "string|userdata": what null is in a script is host.null. */
static void lua_type_of(buf *b, const char *type)
{
    static const char *const names[][2] = {
        {"text", "string"},     {"object", "table"},  {"list", "any[]"},      {"null", "userdata"},
        {"integer", "integer"}, {"number", "number"}, {"boolean", "boolean"}, {"any", "any"}};
    for (const char *t = type; *t != '\0' && *t != '?';) {
        size_t n = strcspn(t, "|?");
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (strlen(names[i][0]) == n && memcmp(t, names[i][0], n) == 0)
                buf_str(b, names[i][1]);
        t += n;
        if (*t == '|')
            buf_char(b, *t++);
    }
}

static bool is_argument(const form *f, const char *name)
{
    return (f->first != NULL && strcmp(f->first, name) == 0) ||
           (f->second != NULL && strcmp(f->second, name) == 0);
}

/* What a function gets as a table: all members, or those that are no arguments of their own. */
static void print_class(hook_point p, const form *f)
{
    size_t n;
    const hook_member *m = hook_members(p, &n);
    printf("---@class hone.%s\n", f->point);
    for (size_t i = 0; i < n; i++) {
        buf type;
        bool any = strcmp(m[i].name, "*") == 0;
        if (is_argument(f, m[i].name))
            continue;
        buf_init(&type, 256);
        lua_type_of(&type, m[i].type);
        printf("---@field %s%s %s %s%s\n", any ? "[string]" : m[i].name,
               strchr(m[i].type, '?') != NULL ? "?" : "", type.data, m[i].what,
               m[i].changes ? "; may change" : "");
        buf_free(&type);
    }
    putchar('\n');
}

/* The type of the ith argument: a member's, or the table of the others. */
static void print_argument(hook_point p, const form *f, int i)
{
    size_t n;
    const hook_member *m = hook_members(p, &n);
    const char *name = i == 0 ? f->first : i == 1 ? f->second : NULL;
    buf type;
    buf_init(&type, 256);
    for (size_t k = 0; name != NULL && k < n; k++)
        if (strcmp(m[k].name, name) == 0)
            lua_type_of(&type, m[k].type);
    if (type.len == 0)
        buf_printf(&type, "hone.%s", f->point);
    fputs(type.data, stdout);
    buf_free(&type);
}

/* "function(text, about) return ... end" as "fun(text: string, about: hone.x): any". */
static void print_type(hook_point p, const form *f)
{
    const char *at = strchr(f->call, '(') + 1, *end = strchr(at, ')');
    printf("fun(");
    for (int i = 0; at < end; i++) {
        size_t n = strcspn(at, ",)");
        printf("%.*s: ", (int)n, at);
        print_argument(p, f, i);
        at += n;
        if (at < end) {
            printf(", ");
            at += 2;
        }
    }
    printf("): any");
}

/* Annotations that editors read (LuaLS). */
static void print_stub(hook_point p, const hook_info *h)
{
    const form *f = form_of(p);
    if (f == NULL)
        return;
    char *answers = form_answers(f);
    printf("---%s\n---fails %s; %lld us a call; answers: %s\n---data: %s\n---on('%s', %s)\n"
           "---@overload fun(point: '%s', fn: ",
           h->what, h->fails_closed ? "closed" : "open", (long long)h->budget_us, answers,
           h->example, h->name, f->call, h->name);
    print_type(p, f);
    puts(", options?: {priority: integer})");
    free(answers);
}

/* What a script has besides its hooks. */
static const char host_stub[] =
    "function on(point, fn, options) end\n\n"
    "---the header of a script, before everything else\n"
    "---@param header {name: string, version: string, summary: string, settings?: table, "
    "tests?: table<string, fun(t: hone.test)>}\nfunction plugin(header) end\n\n"
    "---@class hone.test\n"
    "---@field emit fun(point: string, data: table): {answer: string, data: any, reason: string}\n"
    "---@field eq fun(got: any, want: any)\n\n"
    "---@class hone.regex\n"
    "---@field match fun(self, text: string, init?: integer): ...\n"
    "---@field find fun(self, text: string, init?: integer): ...\n"
    "---@field gmatch fun(self, text: string): fun(): ...\n"
    "---@field gsub fun(self, text: string, with: string|table|function, n?: integer): string, "
    "integer\n\n"
    "---@class hone.host\n"
    "---@field config table the values of its settings\n"
    "---@field null userdata JSON's null\n"
    "---@field log fun(level: 'debug'|'info'|'warn'|'error', text: any) ten lines a call\n"
    "---@field json {encode: (fun(v: any): string), decode: (fun(text: string): any, string?), "
    "array: fun(t: table): table}\n"
    "---@field sha256 fun(text: string): string 64 hex digits\n"
    "---@field counter fun(name: string, n?: number) raises a counter\n"
    "---@field kv {get: (fun(key: string): any), set: fun(key: string, value: any), add: "
    "(fun(key: string, n?: number): number), keys: fun(prefix?: string): string[]} not in data "
    "hooks\n"
    "---@field regex fun(pattern: string, flags?: string): hone.regex PCRE2; flags i, m, s, x\n"
    "---@field now fun(): integer seconds since 1970; not in data hooks\n"
    "host = {}";

static void print_head(const plugin_args *a)
{
    if (a->markdown)
        puts("# Hook points\n\n| point | when, and what may change | may | on failure | budget | "
             "data "
             "of a call |\n|---|---|---|---|---|---|");
    if (a->lua)
        puts("---@meta\n---Stubs of the hook points, made by `hone plugin hooks --lua`.\n");
}

int plugin_hooks(const plugin_args *a, hone_err *e)
{
    hook_point only = HOOK_N_POINTS;
    json_t *all = json_array();
    if (a->n_words > 0 && hook_by_name(&only, a->words[0], e) != 0) {
        json_decref(all);
        return e->code;
    }
    print_head(a);
    for (int p = 0; a->lua && p < HOOK_N_POINTS; p++)
        if (form_of((hook_point)p) != NULL && (only == HOOK_N_POINTS || p == (int)only))
            print_class((hook_point)p, form_of((hook_point)p));
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        const hook_info *h = hook_describe((hook_point)p);
        if (only != HOOK_N_POINTS && p != (int)only)
            continue;
        if (a->json)
            json_array_append_new(all, as_json((hook_point)p, h));
        else if (a->markdown)
            print_row(h);
        else if (a->lua)
            print_stub((hook_point)p, h);
        else
            print_text((hook_point)p, h);
    }
    if (a->markdown)
        print_members(only);
    if (a->lua)
        puts(host_stub);
    if (a->json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    return 0;
}

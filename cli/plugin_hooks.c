/* hone plugin hooks: the one table of hook points, for people, programs and editors. */
#include "cli/plugin_tools.h"
#include "core/base/hook.h"
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

static json_t *as_json(const hook_info *h)
{
    json_t *example = NULL;
    if (h->example != NULL)
        js_parse(&example, h->example, strlen(h->example), NULL);
    return json_pack("{s:s, s:b, s:b, s:s, s:b, s:I, s:s, s:o?}", "name", h->name, "may_modify",
                     h->may_modify, "may_veto", h->may_veto, "on_failure",
                     h->fails_closed ? "closed" : "open", "breaker", h->breaker, "budget_us",
                     (json_int_t)h->budget_us, "what", h->what, "example", example);
}

static void print_text(const hook_info *h)
{
    char may[64];
    allowed(may, h);
    printf("%s\n    %s\n    may: %s; fails %s; %lld us a call\n", h->name, h->what, may,
           h->fails_closed ? "closed" : "open", (long long)h->budget_us);
    if (h->example != NULL)
        printf("    data: %s\n", h->example);
    else
        puts("    a struct of hone_plugin.h; for plugins in C alone");
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

/* "function(text, about) return ... end" as the type "fun(text: any, about: any): any". */
static void print_type(const char *call)
{
    const char *at = strchr(call, '(') + 1, *end = strchr(at, ')');
    printf("fun(");
    while (at < end) {
        size_t n = strcspn(at, ",)");
        printf("%.*s: any", (int)n, at);
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
    print_type(f->call);
    puts(", options?: {priority: integer})");
    free(answers);
}

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
    for (int p = 0; p < HOOK_N_POINTS; p++) {
        const hook_info *h = hook_describe((hook_point)p);
        if (only != HOOK_N_POINTS && p != (int)only)
            continue;
        if (a->json)
            json_array_append_new(all, as_json(h));
        else if (a->markdown)
            print_row(h);
        else if (a->lua)
            print_stub((hook_point)p, h);
        else
            print_text(h);
    }
    if (a->lua)
        puts("function on(point, fn, options) end\n\n"
             "---the header of a script, before everything else\n"
             "---@param header {name: string, version: string, summary: string, settings?: table, "
             "tests?: table<string, fun(t: any)>}\nfunction plugin(header) end");
    if (a->json) {
        json_dumpf(all, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(all);
    return 0;
}

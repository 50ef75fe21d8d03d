/* The roof: finds the subcommand and runs it. Nothing else in the program may end the process. */
#include "cli/cmd.h"
#include "cli/killed.h"
#include "core/base/js.h"
#include "core/base/nearest.h"
#include "core/base/version.h"

#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COMMANDS = 64 };

int cmd_failed(const hone_err *e)
{
    fprintf(stderr, "hone: %s\n", e->msg[0] != '\0' ? e->msg : hone_strerror(e->code));
    return 1;
}

int cmd_usage(const cmd *c, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "hone %s: ", c->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see 'hone %s --help'\n", c->name);
    return 2;
}

void cmd_print(const json_t *v)
{
    char *text = js_pretty(v);
    puts(text);
    free(text);
}

/* The kernel drops what the first process of a container has no handler for. */
static void hear_signals(void)
{
    if (getpid() != 1)
        return;
    signal(SIGINT, cmd_killed);
    signal(SIGTERM, cmd_killed);
}

static void print_help(FILE *out)
{
    fputs("usage: hone COMMAND [options]; 'hone COMMAND --help' explains one\n\n", out);
    for (size_t i = 0; cmds[i] != NULL; i++)
        fprintf(out, "  %-12s %s\n", cmds[i]->name, cmds[i]->summary);
}

static int no_command(const char *word)
{
    const char *names[MAX_COMMANDS + 1] = {NULL}, *near;
    for (size_t i = 0; cmds[i] != NULL && i < MAX_COMMANDS; i++)
        names[i] = cmds[i]->name;
    near = nearest_name(word, names);
    if (near != NULL)
        fprintf(stderr, "hone: no command '%s' (did you mean '%s'?)\n", word, near);
    else
        fprintf(stderr, "hone: no command '%s'; 'hone --help' lists them\n", word);
    return 2;
}

int main(int argc, char **argv)
{
    if (sodium_init() < 0) {
        fputs("hone: libsodium cannot start\n", stderr);
        return 1;
    }
    js_start();
    hear_signals();
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("hone " HONE_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return 0;
    }
    for (size_t i = 0; cmds[i] != NULL; i++) {
        if (strcmp(cmds[i]->name, argv[1]) != 0)
            continue;
        if (argc > 2 && strcmp(argv[2], "--help") == 0) {
            puts(cmds[i]->usage);
            return 0;
        }
        return cmds[i]->run(argc - 1, argv + 1);
    }
    return no_command(argv[1]);
}

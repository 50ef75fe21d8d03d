/* hone health: asks a running server how it is; what orchestrators call. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "serve/http/http_probe.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_WORDS = 64, TIMEOUT_MS = 5000 };

typedef struct options {
    bool live;
} options;

static const args_row rows[] = {{"live", offsetof(options, live), ARGS_FLAG}, {NULL, 0, ARGS_TEXT}};

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    const char *words[MAX_WORDS];
    char *said = NULL;
    int n;
    serve_conf conf;
    if (args_parse(rows, &o, argc, argv, words, MAX_WORDS, &n, &e) != 0)
        return cmd_usage(&cmd_health, "%s", e.msg);
    if (n < 1)
        return cmd_usage(&cmd_health, "which hone.yaml?");
    int rc = serve_conf_load(&conf, words[0], (char *const *)(words + 1), n - 1, &e);
    if (rc == 0)
        rc = http_probe(&conf, o.live, TIMEOUT_MS, &said, &e);
    if (rc == 0)
        puts(said);
    free(said);
    serve_conf_free(&conf);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_health = {"health", run, "ask a running server whether it is ready",
                        "usage: hone health hone.yaml [key=value ...] [--live]\n"
                        "\n"
                        "Asks the server that runs with these settings on this machine whether it "
                        "would answer a question,\n"
                        "at health_listen where that is set and else at listen. Status 0: it is "
                        "ready; 1: it is not, and\n"
                        "why. --live asks only whether the process answers. Needs no key and no "
                        "other program, so that a\n"
                        "container or a unit can call it.\n"
                        "\n"
                        "example: hone health hone.yaml"};

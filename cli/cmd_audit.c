/* hone audit: shows the audit log and proves that nobody changed it. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/state.h"
#include "serve/store/audit.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct options {
    state_args at;
    const char *head, *after;
} options;

/* clang-format off */
static const args_row rows[] = {
    STATE_ARGS(options, at),
    {"head",   offsetof(options, head),   ARGS_TEXT},
    {"after",  offsetof(options, after),  ARGS_TEXT},
    {NULL, 0, ARGS_TEXT},
};
/* clang-format on */

static int print_record(void *user, const json_t *record, hone_err *e)
{
    (void)user;
    return state_print(record, e);
}

static int do_export(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    int64_t after = 0;
    int rc = args_whole(&after, o->after, "after", e);
    return rc == 0 ? audit_each(c->st, after, print_record, NULL, e) : rc;
}

static int do_verify(const state_call *c, hone_err *e)
{
    const options *o = c->options;
    audit_report r;
    if (o->head != NULL && (strlen(o->head) != 64 || strspn(o->head, "0123456789abcdef") != 64))
        return hone_fail(e, HONE_EINVAL, "--head takes 64 hex digits");
    int rc = audit_verify(c->st, o->head, &r, e);
    if (rc != 0)
        return rc;
    if (c->args->json)
        printf("{\"records\": %" PRId64 ", \"head\": \"%s\"}\n", r.n, r.head);
    else
        printf("%" PRId64 " records, chain intact, head %s\n", r.n, r.head);
    return 0;
}

static const state_verb verbs[] = {{"verify", do_verify, 0, 0, NULL, false},
                                   {"export", do_export, 0, 0, NULL, false},
                                   {NULL, NULL, 0, 0, NULL, false}};

static int run(int argc, char **argv)
{
    options o = {0};
    return state_run(&cmd_audit, verbs, rows, &o, &o.at, argc, argv);
}

const cmd cmd_audit = {
    "audit", run, "show the audit log, prove that it is whole",
    "usage: hone audit verify [--head DIGEST]\n"
    "       hone audit export [--after N] > audit.jsonl\n\n" STATE_HELP "\n"
    "verify recomputes the chain of digests and prints its head. Note the head somewhere else:\n"
    "with --head, records that were cut off at the end show too.\n\n"
    "example: hone audit verify --config hone.yaml"};

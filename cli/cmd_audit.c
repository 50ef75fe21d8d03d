/* hone audit: shows the audit log and proves that nobody changed it. */
#include "cli/args.h"
#include "cli/cmd.h"
#include "cli/state.h"
#include "core/base/js.h"
#include "serve/store/audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    const char *config, *state, *head, *after;
} options;

/* clang-format off */
static const args_row rows[] = {
    {"config", offsetof(options, config), false},
    {"state",  offsetof(options, state),  false},
    {"head",   offsetof(options, head),   false},
    {"after",  offsetof(options, after),  false},
    {NULL, 0, false},
};
/* clang-format on */

static int print_record(void *user, const json_t *record, hone_err *e)
{
    (void)user;
    char *text = js_text(record, false);
    puts(text);
    free(text);
    return ferror(stdout) ? hone_fail(e, HONE_EIO, "standard output: cannot write") : 0;
}

static int do_export(store *s, const options *o, hone_err *e)
{
    char *end = NULL;
    errno = 0;
    long long after = o->after != NULL ? strtoll(o->after, &end, 10) : 0;
    if (o->after != NULL && (*o->after == '\0' || *end != '\0' || errno != 0 || after < 0))
        return hone_fail(e, HONE_EINVAL, "--after '%.32s' is not the number of a record", o->after);
    return audit_each(s, after, print_record, NULL, e);
}

static int do_verify(store *s, const options *o, hone_err *e)
{
    audit_report r;
    if (o->head != NULL && (strlen(o->head) != 64 || strspn(o->head, "0123456789abcdef") != 64))
        return hone_fail(e, HONE_EINVAL, "--head takes 64 hex digits");
    int rc = audit_verify(s, o->head, &r, e);
    if (rc == 0)
        printf("%" PRId64 " records, chain intact, head %s\n", r.n, r.head);
    return rc;
}

static int run(int argc, char **argv)
{
    options o = {0};
    hone_err e = {0};
    int n;
    store *s;
    const char *what = argc < 2 ? "" : argv[1];
    bool verify = strcmp(what, "verify") == 0;
    if (!verify && strcmp(what, "export") != 0)
        return cmd_usage(&cmd_audit, "what should be done: verify or export?");
    if (args_parse(rows, &o, argc - 1, argv + 1, NULL, 0, &n, &e) != 0)
        return cmd_usage(&cmd_audit, "%s", e.msg);
    int rc = state_open(&s, o.config, o.state, true, &e);
    if (rc == 0)
        rc = verify ? do_verify(s, &o, &e) : do_export(s, &o, &e);
    store_close(s);
    return rc == 0 ? 0 : cmd_failed(&e);
}

const cmd cmd_audit = {
    "audit", run, "show the audit log, prove that it is whole",
    "usage: hone audit verify [--head DIGEST]\n"
    "       hone audit export [--after N] > audit.jsonl\n\n"
    "  --config FILE   the appliance's settings (hone.yaml when it is there)\n"
    "  --state DIR     its state directory, without settings\n\n"
    "verify recomputes the chain of digests and prints its head. Note the head somewhere else:\n"
    "with --head, records that were cut off at the end show too.\n\n"
    "example: hone audit verify --config hone.yaml"};

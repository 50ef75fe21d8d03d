#include "cli/args.h"

#include "core/base/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 64 };

static int unknown(const args_row *rows, const char *arg, hone_err *e)
{
    const char *names[MAX_NAMES + 1];
    int n = 0;
    for (const args_row *r = rows; r->name != NULL && n < MAX_NAMES; r++)
        names[n++] = r->name;
    names[n] = NULL;
    const char *near = nearest_name(arg + 2, names);
    if (near != NULL)
        return hone_fail(e, HONE_EINVAL, "unknown option '%s' (did you mean '--%s'?)", arg, near);
    return hone_fail(e, HONE_EINVAL, "unknown option '%s'", arg);
}

static const args_row *find(const args_row *rows, const char *name, size_t len)
{
    for (const args_row *r = rows; r->name != NULL; r++)
        if (strlen(r->name) == len && memcmp(r->name, name, len) == 0)
            return r;
    return NULL;
}

static int add(const args_row *r, args_list *l, const char *value, hone_err *e)
{
    if (l->n == ARGS_MAX_LIST)
        return hone_fail(e, HONE_EINVAL, "option '--%s' is given more than %d times", r->name,
                         ARGS_MAX_LIST);
    l->item[l->n++] = value;
    return 0;
}

/* Takes the option at argv[*i] and, where it has one, its value. */
static int take(const args_row *rows, void *into, int argc, char **argv, int *i, hone_err *e)
{
    const char *arg = argv[*i], *eq = strchr(arg, '=');
    const args_row *r = find(rows, arg + 2, eq != NULL ? (size_t)(eq - arg) - 2 : strlen(arg + 2));
    if (r == NULL)
        return unknown(rows, arg, e);
    char *at = (char *)into + r->offset;
    if (r->kind == ARGS_FLAG) {
        if (eq != NULL)
            return hone_fail(e, HONE_EINVAL, "option '--%s' takes no value", r->name);
        *(bool *)at = true;
        return 0;
    }
    if (eq == NULL && *i + 1 >= argc)
        return hone_fail(e, HONE_EINVAL, "option '--%s' needs a value", r->name);
    const char *value = eq != NULL ? eq + 1 : argv[++*i];
    if (r->kind == ARGS_LIST)
        return add(r, (args_list *)at, value, e);
    if (*(const char **)at != NULL)
        return hone_fail(e, HONE_EINVAL, "option '--%s' is given twice", r->name);
    *(const char **)at = value;
    return 0;
}

int args_parse(const args_row *rows, void *into, int argc, char **argv, const char **rest,
               int max_rest, int *n_rest, hone_err *e)
{
    bool options = true;
    int rc = 0;
    *n_rest = 0;
    for (int i = 1; i < argc && rc == 0; i++) {
        if (options && strcmp(argv[i], "--") == 0)
            options = false;
        else if (options && strncmp(argv[i], "--", 2) == 0)
            rc = take(rows, into, argc, argv, &i, e);
        else if (*n_rest < max_rest)
            rest[(*n_rest)++] = argv[i];
        else
            rc = hone_fail(e, HONE_EINVAL, "'%s': one argument too many", argv[i]);
    }
    return rc;
}

int args_whole(int64_t *out, const char *text, const char *what, hone_err *e)
{
    char *end;
    if (text == NULL)
        return 0;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < 0)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a whole number", what, text);
    *out = v;
    return 0;
}

int args_real(double *out, const char *text, const char *what, hone_err *e)
{
    char *end;
    if (text == NULL)
        return 0;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v) || v < 0)
        return hone_fail(e, HONE_EINVAL, "--%s: '%.40s' is not a number", what, text);
    *out = v;
    return 0;
}

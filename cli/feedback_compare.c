#include "cli/feedback_compare.h"

#include "core/eval/stats.h"
#include "serve/store/feedback.h"
#include "serve/store/registry.h"

#include <stdio.h>
#include <string.h>

typedef enum { LIVE, CANARY, N_SIDES } side;
static const char *const side_names[] = {"live", "canary"};

/* Thumbs of what an alias points at. */
typedef struct thumbs {
    char digest[REGISTRY_DIGEST_LEN]; /* "": the alias is not set */
    double up, n;
} thumbs;

static double number(const json_t *row, const char *key)
{
    return (double)json_integer_value(json_object_get(row, key));
}

static const char *text(const json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));
    return s != NULL ? s : "";
}

/* An artefact is known by its adapter where it has one. */
static const char *digest_of(const json_t *row)
{
    const char *adapter = text(row, "adapter_digest");
    return *adapter != '\0' ? adapter : text(row, "model_digest");
}

/* A canary that was switched off points at what is live, and is none. */
static int find_sides(thumbs t[N_SIDES], store *st, hone_err *e)
{
    for (int i = 0; i < N_SIDES; i++) {
        registry_artefact a;
        hone_err why = {0};
        int rc = registry_alias(st, side_names[i], &a, &why);
        if (rc != 0 && rc != HONE_ENOTFOUND)
            return hone_fail(e, rc, "%s", why.msg);
        snprintf(t[i].digest, sizeof t[i].digest, "%s", rc == 0 ? a.digest : "");
        registry_artefact_free(&a);
    }
    if (strcmp(t[CANARY].digest, t[LIVE].digest) == 0)
        t[CANARY].digest[0] = '\0';
    return 0;
}

static json_t *interval_json(const stats_interval *v)
{
    return json_pack("{s:f, s:f, s:f}", "value", v->value, "low", v->low, "high", v->high);
}

/* Adds to a row what is computed: "served_as", and the share of thumbs up. */
static void judge(json_t *row, thumbs t[N_SIDES])
{
    double up = number(row, "up"), n = up + number(row, "down");
    stats_interval share = stats_wilson(up, n);
    json_object_set_new(row, "up_share", n > 0 ? interval_json(&share) : json_null());
    json_object_set_new(row, "served_as", json_null());
    for (int i = 0; i < N_SIDES; i++) {
        if (t[i].digest[0] == '\0' || strcmp(t[i].digest, digest_of(row)) != 0)
            continue;
        t[i].up += up;
        t[i].n += n;
        json_object_set_new(row, "served_as", json_string(side_names[i]));
    }
}

static void print_row(const json_t *row)
{
    const json_t *share = json_object_get(row, "up_share");
    printf("%-20.20s %-12.12s %-7s %8.0f %7.0f %6.0f %6.0f %6.0f %6.0f", text(row, "model"),
           digest_of(row), text(row, "served_as"), number(row, "answers"), number(row, "failed"),
           number(row, "up"), number(row, "none"), number(row, "down"), number(row, "corrected"));
    if (json_is_object(share))
        printf("  %5.1f %% (%.1f to %.1f)", 100 * json_real_value(json_object_get(share, "value")),
               100 * json_real_value(json_object_get(share, "low")),
               100 * json_real_value(json_object_get(share, "high")));
    puts("");
}

/* One sentence: how much better, and whether that may be chance. */
static void print_difference(const thumbs t[N_SIDES], const stats_interval *d)
{
    if (t[CANARY].digest[0] == '\0')
        puts("no canary is set beside what is live");
    else if (t[LIVE].n == 0 || t[CANARY].n == 0)
        printf("canary and live: %.0f and %.0f thumbs; nothing to compare yet\n", t[CANARY].n,
               t[LIVE].n);
    else
        printf("canary less live: %+.1f points of thumbs up (95 %%: %+.1f to %+.1f): %s\n",
               100 * d->value, 100 * d->low, 100 * d->high,
               d->low > 0    ? "users like the canary better"
               : d->high < 0 ? "users like the canary less"
                             : "may be chance");
}

int feedback_compare(const state_call *c, int64_t since_ms, hone_err *e)
{
    thumbs t[N_SIDES] = {0};
    json_t *rows, *row;
    size_t i;
    int rc = feedback_models(c->st, since_ms, &rows, e);
    if (rc == 0)
        rc = find_sides(t, c->st, e);
    if (rc != 0) {
        json_decref(rows);
        return rc;
    }
    json_array_foreach (rows, i, row)
        judge(row, t);
    stats_interval d = stats_wilson_difference(t[LIVE].up, t[LIVE].n, t[CANARY].up, t[CANARY].n);
    bool known = t[CANARY].digest[0] != '\0' && t[LIVE].n > 0 && t[CANARY].n > 0;
    if (c->args->json) {
        json_t *o = json_pack("{s:O, s:o}", "models", rows, "canary_less_live",
                              known ? interval_json(&d) : json_null());
        cmd_print(o);
        json_decref(o);
    } else {
        printf("%-20s %-12s %-7s %8s %7s %6s %6s %6s %6s  %s\n", "MODEL", "DIGEST", "AS", "ANSWERS",
               "FAILED", "UP", "NONE", "DOWN", "FIXED", "UP OF UP AND DOWN (95 %)");
        json_array_foreach (rows, i, row)
            print_row(row);
        print_difference(t, &d);
    }
    json_decref(rows);
    return 0;
}

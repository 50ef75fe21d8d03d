#include "serve/loop/retrain_conf.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(retrain_conf, member)

/* clang-format off */
const conf_row retrain_conf_rows[] = {
    {"base", NULL, CONF_STR, AT(base), NULL, 0, 0, NULL,
     "checkpoint that every candidate is trained from (default: the configured model)"},
    {"holdout", NULL, CONF_STR, AT(holdout), NULL, 0, 0, NULL,
     "fixed examples for the gate, never trained on"},
    {"replay", NULL, CONF_LIST, AT(replay), NULL, 0, 0, NULL,
     "JSON Lines files mixed with the feedback, so that what was learned is kept"},
    {"replay_max", NULL, CONF_INT, AT(replay_max), "0", 0, 1e9, NULL,
     "lines drawn from the replay files; 0 takes all"},
    {"train", NULL, CONF_JSON, AT(train), NULL, 0, 0, NULL,
     "settings of the trainer, as in its own file"},
    {"metrics", NULL, CONF_STR, AT(metrics), "perplexity", 0, 0, NULL,
     "metrics that the gate compares"},
    {"min_new", "min_examples", CONF_INT, AT(min_new), "10", 1, 1e9, NULL,
     "accepted feedback since the last run that makes a new run worth while"},
    {"feedback_holdout", NULL, CONF_FLOAT, AT(feedback_holdout), "0.2", 0, 0.9, NULL,
     "share of the feedback that is held out to show the gain"},
    {"max_user_share", NULL, CONF_FLOAT, AT(max_user_share), "0.25", 0.001, 1, NULL,
     "most that one user may make up of the feedback examples"},
    {"accept", NULL, CONF_ENUM, AT(accept), "approved", 0, 0, "approved|any",
     "feedback that may be trained on: reviewed and approved, or any that was not rejected"},
    {"repeat", NULL, CONF_INT, AT(repeat), "1", 1, 100, NULL,
     "times that each feedback example stands in the training data"},
    {"margin", NULL, CONF_FLOAT, AT(margin), "0.02", 0, 1, NULL,
     "how much worse a share (accuracy) may be on the holdout"},
    {"margin_nats", NULL, CONF_FLOAT, AT(margin_nats), "0.05", 0, 10, NULL,
     "how much worse the loss per token may be on the holdout"},
    {"min_pairs", NULL, CONF_INT, AT(min_pairs), "5", 2, 1e9, NULL,
     "fewest examples that a comparison may conclude anything from"},
    {"need_improvement", NULL, CONF_BOOL, AT(need_improvement), "true", 0, 0, NULL,
     "the held-out feedback must get better, not only no worse"},
    {"merge", NULL, CONF_BOOL, AT(merge), "true", 0, 0, NULL,
     "merge the candidate into its base before it is judged and served"},
    {"promote", NULL, CONF_ENUM, AT(promote), "manual", 0, 0, "manual|auto",
     "who moves the alias `live` when the gate passes"},
    {"eval_max_tokens", NULL, CONF_INT, AT(eval_max_tokens), "64", 1, 4096, NULL,
     "longest answer that the gate's evaluation generates"},
    {NULL, NULL, CONF_STR, 0, NULL, 0, 0, NULL, NULL},
};
/* clang-format on */

static char *from_dir(const char *dir, const char *path)
{
    return path[0] == '/' ? mem_strdup(path) : path_join(dir, path);
}

/* Files are named as seen from the settings file. */
static void place_paths(retrain_conf *c, const char *dir)
{
    char **paths[] = {&c->base, &c->holdout};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (*paths[i] == NULL)
            continue;
        char *placed = from_dir(dir, *paths[i]);
        free(*paths[i]);
        *paths[i] = placed;
    }
    json_t *placed = json_array();
    for (size_t i = 0; i < json_array_size(c->replay); i++) {
        char *path = from_dir(dir, json_string_value(json_array_get(c->replay, i)));
        json_array_append_new(placed, json_string(path));
        free(path);
    }
    json_decref(c->replay);
    c->replay = placed;
}

int retrain_conf_read(retrain_conf *c, const json_t *mapping, const char *dir, hone_err *e)
{
    *c = (retrain_conf){0};
    conf_defaults(retrain_conf_rows, c);
    int rc = mapping != NULL ? conf_apply(retrain_conf_rows, c, NULL, mapping, e) : 0;
    if (rc != 0) {
        retrain_conf_free(c);
        return hone_fail_at(e, "retrain");
    }
    place_paths(c, dir);
    return 0;
}

void retrain_conf_free(retrain_conf *c)
{
    conf_free(retrain_conf_rows, c);
}

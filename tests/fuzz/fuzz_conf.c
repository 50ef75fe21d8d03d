/* Settings: any tree and any assignment leave the settings readable, in range and free of leaks. */
#include "core/base/conf.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/base/yaml.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

typedef struct settings {
    char *model;
    int64_t rank;
    double rate;
    bool packing;
    int device;
    json_t *targets, *datasets;
    int64_t min_examples;
} settings;

#define AT(f) offsetof(settings, f)
/* clang-format off */
static const conf_row rows[] = {
    {"model", "base_model m", CONF_STR, AT(model), NULL, 0, 0, NULL, "h"},
    {"rank", "r", CONF_INT, AT(rank), "8", 1, 4096, NULL, "h"},
    {"rate", NULL, CONF_FLOAT, AT(rate), "2e-4", 0, 10, NULL, "h"},
    {"packing", NULL, CONF_BOOL, AT(packing), "true", 0, 0, NULL, "h"},
    {"device", NULL, CONF_ENUM, AT(device), NULL, 0, 0, "auto|cpu|cuda", "h"},
    {"targets", NULL, CONF_LIST, AT(targets), "[q, v]", 0, 0, NULL, "h"},
    {"datasets", NULL, CONF_JSON, AT(datasets), NULL, 0, 0, NULL, "h"},
    {"retrain.min_examples", NULL, CONF_INT, AT(min_examples), "10", 0, 1000, NULL, "h"},
    {.key = NULL}};
/* clang-format on */

static void check(const settings *s)
{
    FUZZ_CHECK(s->rank >= 1 && s->rank <= 4096);
    FUZZ_CHECK(s->rate >= 0 && s->rate <= 10);
    FUZZ_CHECK(s->device >= 0 && s->device <= 2);
    FUZZ_CHECK(s->min_examples >= 0 && s->min_examples <= 1000);
    for (size_t i = 0; i < json_array_size(s->targets); i++)
        FUZZ_CHECK(json_is_string(json_array_get(s->targets, i)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    settings s = {0};
    json_t *tree, *given = json_object();
    char *text = mem_strndup((const char *)data, size);
    conf_defaults(rows, &s);
    if (yaml_parse(&tree, NULL, text, size, NULL) == 0)
        conf_apply(rows, &s, given, tree, NULL);
    check(&s);
    conf_set(rows, &s, given, text, NULL);
    check(&s);
    conf_free(rows, &s);
    json_decref(given);
    json_decref(tree);
    free(text);
    return 0;
}

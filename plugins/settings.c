#include "plugins/settings.h"

#include "core/base/conf.h"
#include "core/base/file.h"
#include "core/base/mem.h"
#include "plugins/image.h"

#include <stdlib.h>
#include <string.h>

/* The settings core/base/conf.h knows live in a struct; here each has a cell of its own. */
typedef union cell {
    char *text;
    int64_t whole;
    double real;
    bool flag;
    int choice;
    json_t *json;
} cell;

static const struct {
    const char *name;
    conf_type type;
} kinds[] = {
    [HONE_SET_STRING] = {"string", CONF_STR}, [HONE_SET_INT] = {"int", CONF_INT},
    [HONE_SET_REAL] = {"real", CONF_FLOAT},   [HONE_SET_BOOL] = {"bool", CONF_BOOL},
    [HONE_SET_ENUM] = {"enum", CONF_ENUM},    [HONE_SET_LIST] = {"list", CONF_LIST},
    [HONE_SET_JSON] = {"json", CONF_JSON},    [HONE_SET_PATH] = {"path", CONF_STR},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static int make_rows(conf_row *rows, const hone_descriptor *d, hone_err *e)
{
    for (uint32_t i = 0; i < d->n_settings; i++) {
        hone_setting s = image_setting(d, i);
        if (s.name == NULL || s.name[0] == '\0' || strchr(s.name, '.') != NULL)
            return hone_fail(e, HONE_EFORMAT, "setting %u has no name, or one with a dot in it", i);
        if (s.type >= N_KINDS)
            return hone_fail(e, HONE_EUNSUPPORTED,
                             "setting '%s' has type %u, the host knows 0 to %d", s.name, s.type,
                             N_KINDS - 1);
        rows[i] = (conf_row){.key = s.name,
                             .type = kinds[s.type].type,
                             .offset = i * sizeof(cell),
                             .def = s.def,
                             .min = s.min,
                             .max = s.max,
                             .choices = s.choices,
                             .help = s.help};
    }
    return 0;
}

static json_t *path_value(const char *path, const char *dir)
{
    if (path[0] == '/' || dir == NULL)
        return json_string(path);
    char *full = path_join(dir, path);
    json_t *v = json_string(full);
    free(full);
    return v;
}

static json_t *choice_value(const conf_row *row, int choice)
{
    char *name = conf_choice(row, choice);
    json_t *v = json_string(name);
    free(name);
    return v;
}

static json_t *cell_value(const conf_row *row, const cell *c, bool path, const char *dir)
{
    switch (row->type) {
    case CONF_STR:
        return c->text == NULL ? json_null()
               : path          ? path_value(c->text, dir)
                               : json_string(c->text);
    case CONF_INT:
        return json_integer(c->whole);
    case CONF_FLOAT:
        return json_real(c->real);
    case CONF_BOOL:
        return json_boolean(c->flag);
    case CONF_ENUM:
        return choice_value(row, c->choice);
    case CONF_LIST:
        return c->json != NULL ? json_incref(c->json) : json_array();
    case CONF_JSON:
        return c->json != NULL ? json_incref(c->json) : json_null();
    }
    return json_null();
}

int settings_read(json_t **out, const hone_descriptor *d, const json_t *given, const char *dir,
                  hone_err *e)
{
    conf_row *rows = mem_array(d->n_settings + 1, sizeof *rows);
    cell *cells = mem_array(d->n_settings + 1, sizeof *cells);
    int rc = make_rows(rows, d, e);
    *out = NULL;
    if (rc == 0) {
        rc = conf_check(rows, cells, e);
        if (rc == 0 && given != NULL)
            rc = conf_apply(rows, cells, NULL, given, e);
        if (rc == 0)
            *out = json_object();
        for (uint32_t i = 0; rc == 0 && i < d->n_settings; i++)
            json_object_set_new(
                *out, rows[i].key,
                cell_value(&rows[i], &cells[i], image_setting(d, i).type == HONE_SET_PATH, dir));
        conf_free(rows, cells);
    }
    free(cells);
    free(rows);
    return rc;
}

json_t *settings_describe(const hone_descriptor *d)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < d->n_settings; i++) {
        hone_setting s = image_setting(d, i);
        json_t *o = json_pack("{s:s?, s:s, s:s?, s:s?}", "name", s.name, "type",
                              s.type < N_KINDS ? kinds[s.type].name : "unknown", "default", s.def,
                              "help", s.help);
        if (s.min != 0 || s.max != 0) {
            json_object_set_new(o, "min", json_real(s.min));
            json_object_set_new(o, "max", json_real(s.max));
        }
        if (s.choices != NULL)
            json_object_set_new(o, "choices", json_string(s.choices));
        json_array_append_new(list, o);
    }
    return list;
}

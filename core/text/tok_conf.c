/* The files beside tokenizer.json: which ids are bos, eos and pad, which end a generation, and
 * whether a text gets bos and eos. tokenizer_config.json wins over special_tokens_map.json, and
 * that over generation_config.json. */
#include "core/text/tok_int.h"

#include "core/base/file.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STOP = 256 };

/* An optional JSON object: *out is NULL when the file is not there. */
static int read_object(json_t **out, const char *dir, const char *name, hone_err *e)
{
    int rc = 0;
    char *path = path_join(dir, name);
    *out = NULL;
    if (file_exists(path))
        rc = js_load(out, path, e);
    if (rc == 0 && *out != NULL && !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        rc = hone_fail(e, HONE_EFORMAT, "%s: it is not a JSON object", path);
    }
    free(path);
    return rc;
}

int tok_conf_read(json_t **config, const char *dir, hone_err *e)
{
    return read_object(config, dir, "tokenizer_config.json", e);
}

/* "text" or {"content": "text"}. */
static int named_id(const tok *t, const json_t *o, const char *key, int32_t *id, hone_err *e)
{
    const json_t *v = json_object_get(o, key);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    if (v == NULL || json_is_null(v) || *id >= 0)
        return 0;
    if (text == NULL)
        return hone_fail(e, HONE_EFORMAT, "field '%s' is not a token", key);
    *id = tok_find(t, text);
    if (*id < 0)
        return hone_fail(e, HONE_EFORMAT, "%s '%.60s' is not in tokenizer.json", key, text);
    return 0;
}

static int all_named(tok *t, const json_t *o, hone_err *e)
{
    int rc = named_id(t, o, "bos_token", &t->bos, e);
    if (rc == 0)
        rc = named_id(t, o, "eos_token", &t->eos, e);
    return rc == 0 ? named_id(t, o, "pad_token", &t->pad, e) : rc;
}

static int check_id(const tok *t, const char *key, const json_t *v, int32_t *id, hone_err *e)
{
    int64_t x = json_is_integer(v) ? json_integer_value(v) : -1;
    if (x < 0 || x > TOK_MAX_ID || tok_piece(t, (int32_t)x, NULL) == NULL)
        return hone_fail(e, HONE_EFORMAT, "field '%s' is not an id of tokenizer.json", key);
    *id = (int32_t)x;
    return 0;
}

static int numbered_id(const tok *t, const json_t *o, const char *key, int32_t *id, hone_err *e)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    if (v == NULL || json_is_null(v) || *id >= 0)
        return 0;
    if (json_is_integer(v) && json_integer_value(v) == -1) /* old files write "none" so */
        return 0;
    return check_id(t, key, v, id, e);
}

static void add_stop(tok *t, int32_t id)
{
    for (size_t i = 0; i < t->n_stop; i++)
        if (t->stop[i] == id)
            return;
    t->stop = mem_resize(t->stop, (t->n_stop + 1) * sizeof *t->stop);
    t->stop[t->n_stop++] = id;
}

static int stop_list(tok *t, const json_t *generation, hone_err *e)
{
    const json_t *v = json_object_get(generation, "eos_token_id");
    size_t n = json_is_array(v) ? json_array_size(v) : v != NULL && !json_is_null(v);
    if (t->eos >= 0)
        add_stop(t, t->eos);
    if (n > MAX_STOP)
        return hone_fail(e, HONE_ELIMIT, "field 'eos_token_id' has more than %d ids", MAX_STOP);
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        int rc = check_id(t, "eos_token_id", json_is_array(v) ? json_array_get(v, i) : v, &id, e);
        if (rc != 0)
            return rc;
        add_stop(t, id);
    }
    return 0;
}

/* Makes `list` begin (or end) with this id, or not, as the setting says. */
static void set_edge(int32_t **list, size_t *n, int32_t id, bool add)
{
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if ((*list)[i] != id)
            (*list)[kept++] = (*list)[i];
    *n = kept;
    if (!add)
        return;
    *list = mem_resize(*list, (kept + 1) * sizeof **list);
    memmove(*list + 1, *list, kept * sizeof **list);
    (*list)[0] = id;
    *n = kept + 1;
}

/* add_bos_token and add_eos_token, where they are written, win over the post-processor, as in
 * transformers. */
static int edges(tok *t, const json_t *config, hone_err *e)
{
    bool bos = false, eos = false;
    int rc = js_opt_bool(config, "add_bos_token", &bos, e);
    if (rc == 0)
        rc = js_opt_bool(config, "add_eos_token", &eos, e);
    if (rc != 0)
        return rc;
    if (bos && t->bos < 0)
        return hone_fail(e, HONE_EFORMAT, "add_bos_token is true but there is no bos_token");
    if (eos && t->eos < 0)
        return hone_fail(e, HONE_EFORMAT, "add_eos_token is true but there is no eos_token");
    if (json_is_boolean(json_object_get(config, "add_bos_token")) && t->bos >= 0)
        set_edge(&t->before, &t->n_before, t->bos, bos);
    if (json_is_boolean(json_object_get(config, "add_eos_token")) && t->eos >= 0)
        set_edge(&t->after, &t->n_after, t->eos, eos);
    return 0;
}

int tok_conf_apply(tok *t, const json_t *config, const char *dir, hone_err *e)
{
    json_t *map = NULL, *generation = NULL;
    int rc = config == NULL ? 0 : all_named(t, config, e);
    if (rc != 0)
        return hone_fail_at(e, "tokenizer_config.json");
    rc = read_object(&map, dir, "special_tokens_map.json", e);
    if (rc == 0 && (rc = all_named(t, map, e)) != 0)
        hone_fail_at(e, "special_tokens_map.json");
    if (rc == 0)
        rc = read_object(&generation, dir, "generation_config.json", e);
    if (rc == 0) {
        rc = numbered_id(t, generation, "bos_token_id", &t->bos, e);
        if (rc == 0)
            rc = numbered_id(t, generation, "eos_token_id", &t->eos, e);
        if (rc == 0)
            rc = numbered_id(t, generation, "pad_token_id", &t->pad, e);
        if (rc == 0)
            rc = stop_list(t, generation, e);
        if (rc != 0)
            hone_fail_at(e, "generation_config.json");
    }
    if (rc == 0 && (rc = edges(t, config, e)) != 0)
        hone_fail_at(e, "tokenizer_config.json");
    json_decref(map);
    json_decref(generation);
    return rc;
}

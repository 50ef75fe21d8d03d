/* checkpoint-N/: weights, optimizer.safetensors, trainer_state.json. The state file holds all else
 * that the next step depends on, what the run must share with its successor, and the hash of every
 * other file. It is written under a temporary name, synced and renamed: a directory called
 * checkpoint-N is complete. */
#include "core/train/run.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char state_name[] = "trainer_state.json";
static const char optim_name[] = "optimizer.safetensors";
static const char prefix[] = "checkpoint-";
enum { STATE_VERSION = 1 };

/* ---- the state as JSON ---- */

/* X(json name, field): whole numbers and reals of train_state. NaN is written as null. */
/* clang-format off */
#define STATE_INTS(X) X(step) X(epoch) X(batch) X(tokens) X(targets) X(loss_steps) X(best_step) \
    X(evals_without_better) X(above_threshold)
#define STATE_REALS(X) X(loss_sum) X(loss_total) X(last_loss) X(first_eval) X(last_eval) \
    X(best_eval) X(seconds) X(lr_scale)
/* clang-format on */

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *pack_state(const train_state *s)
{
    json_t *o = json_object();
#define PUT(name) json_object_set_new(o, #name, json_integer(s->name));
    STATE_INTS(PUT)
#undef PUT
#define PUT(name) json_object_set_new(o, #name, real(s->name));
    STATE_REALS(PUT)
#undef PUT
    return o;
}

static int unpack_state(train_state *s, const json_t *o, hone_err *e)
{
    int rc = 0;
#define GET(name)                                                                                  \
    if (rc == 0)                                                                                   \
        rc = js_get_int(o, #name, &s->name, e);
    STATE_INTS(GET)
#undef GET
#define GET(name)                                                                                  \
    s->name = NAN;                                                                                 \
    if (rc == 0)                                                                                   \
        rc = js_opt_num(o, #name, &s->name, e);
    STATE_REALS(GET)
#undef GET
    if (!isfinite(s->lr_scale)) /* a checkpoint from before there was one */
        s->lr_scale = 1;
    return rc;
}

static void digest_of(char out[65], const json_t *own)
{
    char *text = js_text(own, true);
    bytes_sha256(out, text, strlen(text));
    free(text);
}

/* ---- writing ---- */

static int write_moments(const train_run *r, const char *path, hone_err *e)
{
    const param_list *l = r->t->params;
    const optim_row *kind = optim_kind(r->opt);
    st_writer *w = NULL;
    float *host = NULL;
    int rc = st_writer_open(&w, path, NULL, e);
    for (int k = 0; rc == 0 && k < kind->n_state; k++) {
        for (size_t i = 0; rc == 0 && i < l->n; i++) {
            int64_t dim[2] = {l->items[i].rows, l->items[i].cols};
            char *name = mem_printf("%s.%s", l->items[i].name, kind->state[k]);
            rc = st_writer_declare(w, name, ST_F32, 2, dim, e);
            free(name);
        }
    }
    for (int k = 0; rc == 0 && k < kind->n_state; k++) {
        for (size_t i = 0; rc == 0 && i < l->n; i++) {
            size_t n = (size_t)(l->items[i].rows * l->items[i].cols);
            host = mem_resize(host, n * sizeof *host);
            rc = optim_read(r->opt, k, i, host, e);
            if (rc == 0)
                rc = st_writer_data(w, host, n * sizeof *host, e);
        }
    }
    free(host);
    if (rc == 0)
        return st_writer_commit(w, e);
    st_writer_abort(w);
    return rc;
}

static int hash_files(json_t *files, const char *dir, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, dir, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        char hex[65], *path = path_join(dir, names[i]);
        rc = file_sha256(hex, path, e);
        if (rc == 0)
            json_object_set_new(files, names[i], json_string(hex));
        free(path);
    }
    dir_list_free(names);
    return rc;
}

static int write_state(const train_run *r, const char *dir, hone_err *e)
{
    char hex[65], *path = path_join(dir, state_name);
    train_state now = r->s;
    now.seconds = train_report_elapsed(r);
    json_t *o = train_report_state(r), *files = json_object();
    json_t *own = json_pack(
        "{s:i, s:o, s:O, s:o, s:o, s:o}", "version", STATE_VERSION, "state", pack_state(&now),
        "identity", r->t->identity, "settings", train_conf_json(r->c), "rng",
        json_pack("{s:I, s:I, s:I}", "seed", (json_int_t)r->c->seed, "epoch",
                  (json_int_t)r->s.epoch, "dropout_row", (json_int_t)r->s.tokens),
        "files", files);
    int rc = hash_files(files, dir, e);
    if (rc == 0) {
        digest_of(hex, own);
        json_object_set(o, "hone", own);
        json_object_set_new(o, "hone_digest", json_string(hex));
        rc = js_save(o, path, true, e);
    }
    json_decref(own);
    json_decref(o);
    free(path);
    return rc;
}

static int fill(const train_run *r, const char *dir, hone_err *e)
{
    char *moments = path_join(dir, optim_name);
    int rc = dir_make(dir, e);
    if (rc == 0)
        rc = r->t->save(r->t->user, dir, e);
    if (rc == 0)
        rc = write_moments(r, moments, e);
    if (rc == 0)
        rc = write_state(r, dir, e);
    free(moments);
    return rc;
}

/* The step in the name of a checkpoint, or -1. */
static int64_t step_of(const char *name)
{
    size_t n = sizeof prefix - 1;
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9')
        return -1;
    char *end;
    long long step = strtoll(name + n, &end, 10);
    return *end == '\0' ? (int64_t)step : -1;
}

static char *path_of(const char *dir, int64_t step)
{
    return mem_printf("%s/%s%lld", dir, prefix, (long long)step);
}

/* A directory on its way in or out; nobody reads it. */
static char *aside_of(const char *dir, const char *name)
{
    return mem_printf("%s/.%s.part", dir, name);
}

/* Renamed aside first, so that no half-removed directory has a checkpoint's name. */
static int take_away(const char *dir, const char *name, hone_err *e)
{
    char *path = path_join(dir, name), *aside = aside_of(dir, name);
    int rc = dir_remove(aside, e);
    if (rc == 0)
        rc = dir_rename(path, aside, e);
    if (rc == 0)
        rc = dir_remove(aside, e);
    free(aside);
    free(path);
    return rc;
}

/* Oldest first until `keep` are left; the best one is not counted. */
static int prune(const train_run *r, hone_err *e)
{
    char **names;
    int64_t keep = r->c->save_total_limit;
    int rc = keep > 0 ? dir_list(&names, r->c->output_dir, e) : 0;
    if (rc != 0 || keep == 0)
        return rc;
    for (;;) {
        const char *oldest = NULL;
        int64_t n = 0;
        for (size_t i = 0; names[i] != NULL; i++) {
            int64_t step = step_of(names[i]);
            if (step < 0 || (r->c->load_best && step == r->s.best_step))
                continue;
            n++;
            if (oldest == NULL || step < step_of(oldest))
                oldest = names[i];
        }
        if (n <= keep || rc != 0)
            break;
        rc = take_away(r->c->output_dir, oldest, e);
        for (size_t i = 0; names[i] != NULL; i++)
            if (names[i] == oldest)
                names[i][0] = '\0';
    }
    dir_list_free(names);
    return rc;
}

static int tell(const train_run *r, const char *path, hone_err *e)
{
    if (!hook_wanted(r->t->hooks, HOOK_TRAIN_CHECKPOINT))
        return 0;
    json_t *data = json_pack("{s:s, s:I, s:o, s:o}", "path", path, "step", (json_int_t)r->s.step,
                             "loss", real(r->s.last_loss), "eval_loss", real(r->s.last_eval));
    int rc = hook_emit(r->t->hooks, HOOK_TRAIN_CHECKPOINT, &data, e);
    json_decref(data);
    return rc;
}

int checkpoint_save(train_run *r, hone_err *e)
{
    if (r->saved)
        return 0;
    char *path = path_of(r->c->output_dir, r->s.step);
    char *aside = aside_of(r->c->output_dir, path_base(path));
    hone_err ignored = {0};
    int rc = dir_remove(aside, e);
    if (rc == 0)
        rc = fill(r, aside, e);
    if (rc == 0)
        rc = dir_rename(aside, path, e);
    if (rc != 0)
        dir_remove(aside, &ignored);
    r->saved = rc == 0;
    if (rc == 0)
        rc = prune(r, e);
    if (rc == 0)
        rc = tell(r, path, e);
    if (rc != 0)
        hone_fail_at(e, "checkpoint of step %lld", (long long)r->s.step);
    free(aside);
    free(path);
    return rc;
}

/* ---- reading ---- */

static int check_files(const char *dir, const json_t *files, hone_err *e)
{
    const char *name;
    json_t *want;
    json_object_foreach ((json_t *)files, name, want) {
        char hex[65], *path = path_join(dir, name);
        int rc = file_sha256(hex, path, e);
        if (rc == 0 &&
            (json_string_value(want) == NULL || strcmp(hex, json_string_value(want)) != 0))
            rc = hone_fail(e, HONE_EFORMAT, "%s: its content is not what was saved", path);
        free(path);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Walks both objects; the first field that differs is named with both values. */
static int same(const char *where, const json_t *was, const json_t *is, hone_err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)is, key, v) {
        json_t *old = json_object_get(was, key);
        char *path = mem_printf("%s%s%s", where, *where ? "." : "", key);
        int rc = 0;
        if (json_is_object(v) && json_is_object(old)) {
            rc = same(path, old, v, e);
        } else if (!json_equal(old, v)) {
            char *a = old != NULL ? js_text(old, true) : mem_strdup("nothing"),
                 *b = js_text(v, true);
            rc = hone_fail(e, HONE_EINVAL, "%s was %.100s and is %.100s: another run", path, a, b);
            free(a);
            free(b);
        }
        free(path);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* The part of the state file that is ours, whole and of this run. New reference. */
static int read_state(json_t **out, json_t **history, const train_run *r, const char *dir,
                      hone_err *e)
{
    char hex[65], *path = path_join(dir, state_name);
    json_t *o = NULL;
    *out = NULL;
    int rc = js_load(&o, path, e);
    json_t *own = json_object_get(o, "hone");
    const char *digest = json_string_value(json_object_get(o, "hone_digest"));
    if (rc == 0 && (own == NULL || digest == NULL))
        rc = hone_fail(e, HONE_EFORMAT, "%s: not a checkpoint of this program", path);
    if (rc == 0) {
        digest_of(hex, own);
        if (strcmp(hex, digest) != 0)
            rc = hone_fail(e, HONE_EFORMAT, "%s: its content is not what was saved", path);
    }
    if (rc == 0 && json_integer_value(json_object_get(own, "version")) != STATE_VERSION)
        rc = hone_fail(e, HONE_EUNSUPPORTED, "%s: version %lld of the format, this program has %d",
                       path, (long long)json_integer_value(json_object_get(own, "version")),
                       STATE_VERSION);
    if (rc == 0)
        rc = same("", json_object_get(own, "identity"), r->t->identity, e);
    if (rc == 0)
        rc = check_files(dir, json_object_get(own, "files"), e);
    if (rc == 0) {
        *out = json_incref(own);
        *history = json_deep_copy(json_object_get(o, "log_history"));
    }
    json_decref(o);
    free(path);
    return rc;
}

/* One F32 tensor of the parameter's shape. */
static int find(const st_tensor **out, const safetensors *st, const char *name, const param *p,
                hone_err *e)
{
    const st_tensor *t = safetensors_find(st, name);
    int64_t n = 1;
    *out = t;
    if (t == NULL)
        return hone_fail(e, HONE_EFORMAT, "tensor '%s' is missing", name);
    for (int i = 0; i < t->n_dims; i++)
        n *= t->dim[i];
    if (t->dtype != ST_F32 || n != p->rows * p->cols)
        return hone_fail(e, HONE_EFORMAT, "tensor '%s' is not F32 of %lld x %lld", name,
                         (long long)p->rows, (long long)p->cols);
    return 0;
}

/* The one weight file of a checkpoint; aligned copies, as the map is not. */
static int read_weights(const train_run *r, const char *dir, hone_err *e)
{
    static const char *const names[] = {"adapter_model.safetensors", "model.safetensors"};
    param_list *l = r->t->params;
    safetensors *st = NULL;
    float *host = NULL;
    char *path = path_join(dir, names[0]);
    if (!file_exists(path)) {
        free(path);
        path = path_join(dir, names[1]);
    }
    int rc = safetensors_open(&st, path, e);
    for (size_t i = 0; rc == 0 && i < l->n; i++) {
        const st_tensor *t;
        rc = find(&t, st, l->items[i].name, &l->items[i], e);
        if (rc != 0)
            break;
        host = mem_resize(host, t->bytes);
        memcpy(host, t->data, t->bytes);
        rc = param_write(l, i, host, e);
    }
    free(host);
    safetensors_close(st);
    free(path);
    if (rc == 0 && r->t->after_step != NULL)
        rc = r->t->after_step(r->t->user, e);
    return rc;
}

static int read_moments(const train_run *r, const char *dir, hone_err *e)
{
    const param_list *l = r->t->params;
    const optim_row *kind = optim_kind(r->opt);
    safetensors *st = NULL;
    float *host = NULL;
    char *path = path_join(dir, optim_name);
    int rc = safetensors_open(&st, path, e);
    for (int k = 0; rc == 0 && k < kind->n_state; k++) {
        for (size_t i = 0; rc == 0 && i < l->n; i++) {
            const st_tensor *t;
            char *name = mem_printf("%s.%s", l->items[i].name, kind->state[k]);
            rc = find(&t, st, name, &l->items[i], e);
            free(name);
            if (rc != 0)
                break;
            host = mem_resize(host, t->bytes);
            memcpy(host, t->data, t->bytes);
            rc = optim_write(r->opt, k, i, host, e);
        }
    }
    free(host);
    safetensors_close(st);
    free(path);
    return rc;
}

/* Going on for longer is allowed; a schedule that follows the total is then another one, which is
 * said. */
static void say_longer(const train_run *r, const json_t *settings)
{
    static const char *const keys[] = {"num_epochs", "max_steps"};
    json_t *now = train_conf_json(r->c);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        double was = json_number_value(json_object_get(settings, keys[i]));
        double is = json_number_value(json_object_get(now, keys[i]));
        if (was != is)
            progress_line(r->show,
                          "note        %s was %g and is %g: the learning rate follows the "
                          "new length",
                          keys[i], was, is);
    }
    json_decref(now);
}

static int restore(train_run *r, const char *dir, hone_err *e)
{
    json_t *own = NULL, *history = NULL;
    int rc = read_state(&own, &history, r, dir, e);
    if (rc == 0)
        rc = unpack_state(&r->s, json_object_get(own, "state"), e);
    if (rc == 0)
        rc = read_weights(r, dir, e);
    if (rc == 0)
        rc = read_moments(r, dir, e);
    if (rc == 0 && r->s.step > r->len.steps)
        rc = hone_fail(e, HONE_EINVAL, "it is at step %lld, the run ends at %lld",
                       (long long)r->s.step, (long long)r->len.steps);
    if (rc == 0) {
        say_longer(r, json_object_get(own, "settings"));
        json_decref(r->s.history);
        r->s.history = json_is_array(history) ? json_incref(history) : json_array();
        r->first_step = r->s.step;
        r->saved = true;
        r->stop = trainer_impatient(r);
        progress_line(r->show, "resumed     %s", dir);
    }
    json_decref(own);
    json_decref(history);
    return rc == 0 ? 0 : hone_fail_at(e, "resume from %s", dir);
}

/* Leftovers of a killed save are removed; the newest checkpoint's name is returned (NULL: none). */
static int last_of(char **out, const char *dir, hone_err *e)
{
    char **names;
    int64_t best = -1;
    *out = NULL;
    int rc = dir_list(&names, dir, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(names[i], ".checkpoint-", 12) == 0 && n > 5 &&
            strcmp(names[i] + n - 5, ".part") == 0) {
            char *path = path_join(dir, names[i]);
            rc = dir_remove(path, e);
            free(path);
        }
        int64_t step = step_of(names[i]);
        if (step > best)
            best = step;
    }
    dir_list_free(names);
    if (rc == 0 && best >= 0)
        *out = path_of(dir, best);
    return rc;
}

/* overwrite_output_dir: the checkpoints of an earlier run go. */
static int remove_all(const char *dir, hone_err *e)
{
    char **names;
    int rc = dir_list(&names, dir, e);
    for (size_t i = 0; rc == 0 && names[i] != NULL; i++)
        if (step_of(names[i]) >= 0)
            rc = take_away(dir, names[i], e);
    dir_list_free(names);
    return rc;
}

static int refuse_old(const char *last, hone_err *e)
{
    return hone_fail(
        e, HONE_EEXIST,
        "%s is of an earlier run; set auto_resume_from_checkpoints: true to go on from "
        "it, overwrite_output_dir: true to remove it, or another output_dir",
        last);
}

int checkpoint_resume(train_run *r, hone_err *e)
{
    char *last = NULL;
    int rc = last_of(&last, r->c->output_dir, e);
    const char *dir = r->c->resume_from_checkpoint;
    if (dir == NULL && r->c->auto_resume)
        dir = last;
    if (rc == 0 && dir != NULL)
        rc = restore(r, dir, e);
    else if (rc == 0 && last != NULL)
        rc = r->c->overwrite ? remove_all(r->c->output_dir, e) : refuse_old(last, e);
    if (rc == 0 && dir != NULL && last != NULL && step_of(path_base(last)) > r->s.step)
        rc = hone_fail(e, HONE_EEXIST, "%s is newer than %s; move it away", last, dir);
    free(last);
    return rc;
}

int checkpoint_weights(train_run *r, int64_t step, hone_err *e)
{
    char *dir = path_of(r->c->output_dir, step);
    int rc = read_weights(r, dir, e);
    if (rc != 0)
        hone_fail_at(e, "best weights, %s", dir);
    free(dir);
    return rc;
}

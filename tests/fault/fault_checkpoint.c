/* A checkpoint of one small parameter, after another one: whatever fails, every directory called
 * checkpoint-N is whole. */
#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "core/model/safetensors.h"
#include "core/train/run.h"
#include "tests/fault/cases.h"

#include <stdlib.h>
#include <string.h>

static int save_weights(void *user, const char *dir, hone_err *e)
{
    static const float values[4] = {1, 2, 3, 4};
    static const int64_t dim[2] = {2, 2};
    st_writer *w = NULL;
    char *path = path_join(dir, "model.safetensors");
    (void)user;
    int rc = st_writer_open(&w, path, NULL, e);
    free(path);
    if (rc != 0)
        return rc;
    rc = st_writer_declare(w, "w", ST_F32, 2, dim, e);
    if (rc == 0)
        rc = st_writer_data(w, values, sizeof values, e);
    if (rc == 0)
        return st_writer_commit(w, e);
    st_writer_abort(w);
    return rc;
}

static int save(const char *dir, int64_t step, hone_err *e)
{
    char why[256];
    train_conf c = {.output_dir = (char *)dir, .given = NULL};
    kern_open_args one = {.threads = 1};
    kern_dev *dev = NULL;
    param_list params = {0};
    optim_settings adamw = {0, 0.9, 0.999, 1e-8, 0};
    json_t *identity = json_object();
    trainer t = {.conf = &c, .params = &params, .identity = identity, .save = save_weights};
    train_run r = {.t = &t, .c = &c, .plan.n_batches = 1, .s.step = step};
    r.s.history = json_array();
    r.show = progress_new(PROGRESS_NONE);
    int rc = kern_open(&dev, "cpu", &one, why);
    if (rc != 0)
        rc = hone_fail(e, rc, "%s", why);
    if (rc == 0) {
        param_list_init(&params, dev);
        param_list_add(&params, "w", 2, 2, true, 1);
        rc = param_list_alloc(&params, e);
    }
    if (rc == 0)
        rc = optim_new(&r.opt, &params, &adamw, e);
    if (rc == 0)
        rc = checkpoint_save(&r, e);
    optim_free(r.opt);
    if (dev != NULL)
        param_list_free(&params);
    kern_close(dev);
    progress_free(r.show);
    json_decref(r.s.history);
    json_decref(identity);
    return rc;
}

static void put_first(const char *dir)
{
    hone_err e = {0};
    if (save(dir, 1, &e) != 0)
        abort();
}

static int save_second(const char *dir, hone_err *e)
{
    return save(dir, 2, e);
}

/* Is the checkpoint there, with every file that its state names, and these hashes? */
static bool whole(const char *dir, const char *name)
{
    hone_err e = {0};
    json_t *state = NULL, *want;
    const char *file;
    char *path = path_join(dir, name), *state_path = path_join(path, "trainer_state.json");
    bool ok = js_load(&state, state_path, &e) == 0;
    json_t *files = json_object_get(json_object_get(state, "hone"), "files");
    ok = ok && json_object_size(files) == 2;
    json_object_foreach (files, file, want) {
        char hex[65], *at = path_join(path, file);
        ok = ok && file_sha256(hex, at, &e) == 0 && strcmp(hex, json_string_value(want)) == 0;
        free(at);
    }
    json_decref(state);
    free(state_path);
    free(path);
    return ok;
}

static fault_state look(const char *dir)
{
    char *second = path_join(dir, "checkpoint-2");
    bool there = file_exists(second);
    free(second);
    if (!whole(dir, "checkpoint-1") || (there && !whole(dir, "checkpoint-2")))
        return FAULT_BROKEN;
    return there ? FAULT_NEW : FAULT_OLD;
}

const fault_case fault_checkpoint = {
    .name = "checkpoint", .prepare = put_first, .act = save_second, .look = look, .durable = true};

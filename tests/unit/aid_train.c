#include "tests/unit/aid_train.h"

#include "core/base/file.h"
#include "core/base/js.h"
#include "core/base/mem.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIR_GOLDEN "tests/golden/train/"

dataset *aid_chat_rows(void)
{
    dataset *d = mem_alloc(sizeof *d);
    json_t *rows, *row, *v;
    size_t i, k;
    hone_err e = {0};
    assert_int_equal(js_load(&rows, DIR_GOLDEN "chat_rows.json", &e), 0);
    size_t n = json_array_size(rows);
    d->samples = mem_array(n, sizeof *d->samples);
    d->rows = mem_array(n, sizeof *d->rows);
    d->sources = mem_array(1, sizeof *d->sources);
    d->sources[0].path = mem_strdup("chat.jsonl");
    d->n_sources = 1;
    d->n_samples = d->n_rows = n;
    d->ids = mem_array(100000, sizeof *d->ids);
    d->mask = mem_array(100000, 1);
    json_array_foreach (rows, i, row) {
        data_sample *s = &d->samples[i];
        *s = (data_sample){.start = d->n_tokens, .row = (uint32_t)i};
        d->rows[i] = (data_row){
            .line = (int64_t)i + 1, .hash = (i + 1) * 0x9E3779B97F4A7C15U, .id = 1000 + i};
        json_array_foreach (json_object_get(row, "ids"), k, v) {
            d->ids[s->start + k] = (int32_t)json_integer_value(v);
            d->mask[s->start + k] =
                (uint8_t)json_integer_value(json_array_get(json_object_get(row, "mask"), k));
            s->n_targets += k > 0 && d->mask[s->start + k] != 0;
            s->n++;
        }
        d->n_tokens += (size_t)s->n;
    }
    json_decref(rows);
    return d;
}

void aid_rows_free(dataset *d)
{
    free(d->sources[0].path);
    free(d->sources);
    free(d->samples);
    free(d->rows);
    free(d->mask);
    free(d->ids);
    free(d);
}

int aid_rows_open(void **state)
{
    aid_rows *k = mem_alloc(sizeof *k);
    k->d = aid_chat_rows();
    k->dir = aid_dir();
    *state = k;
    return 0;
}

int aid_rows_close(void **state)
{
    aid_rows *k = *state;
    aid_rows_free(k->d);
    aid_dir_remove(k->dir);
    free(k);
    return 0;
}

int aid_texts_open(void **state)
{
    aid_texts *k = mem_alloc(sizeof *k);
    hone_err e = {0};
    k->dir = aid_dir();
    if (tok_open(&k->tok, DIR_GOLDEN "model", &e) != 0 ||
        chat_open(&k->chat, DIR_GOLDEN "model", NULL, &e) != 0)
        fail_msg("%s", e.msg);
    *state = k;
    return 0;
}

int aid_texts_close(void **state)
{
    aid_texts *k = *state;
    tok_close(k->tok);
    chat_close(k->chat);
    aid_dir_remove(k->dir);
    free(k);
    return 0;
}

static int on_step(hook_call *call, void *user, hone_err *e)
{
    aid_run *r = user;
    int64_t step;
    if (js_get_int(call->data, "step", &step, e) != 0 || r->n == AID_MAX_STEPS)
        return HONE_EINTERNAL;
    js_get_num(call->data, "loss", &r->loss[r->n], e);
    js_get_num(call->data, "grad_norm", &r->norm[r->n++], e);
    return r->stop_at > 0 && step >= r->stop_at ? HOOK_VETO : HOOK_CONTINUE;
}

typedef struct parts {
    model *m;
    adapter *a;
} parts;

static int save(void *user, const char *dir, hone_err *e)
{
    parts *p = user;
    return p->a != NULL ? adapter_save(p->a, dir, "model", e)
                        : model_save(p->m, dir, KERN_F32, 0, e);
}

static int refresh(void *user, hone_err *e)
{
    return model_refresh(((parts *)user)->m, e);
}

static void poison(param_list *l)
{
    hone_err e = {0};
    float *v = mem_array((size_t)(l->items[0].rows * l->items[0].cols), sizeof *v);
    assert_int_equal(param_read(l, 0, v, &e), 0);
    v[0] = NAN;
    assert_int_equal(param_write(l, 0, v, &e), 0);
    free(v);
}

static void take_weights(aid_run *r, const param_list *l)
{
    hone_err e = {0};
    r->weights = mem_array((size_t)l->total, sizeof *r->weights);
    for (size_t i = 0; i < l->n; i++) {
        assert_int_equal(param_read(l, i, r->weights + r->n_weights, &e), 0);
        r->n_weights += (size_t)(l->items[i].rows * l->items[i].cols);
    }
}

int aid_train(aid_run *out, const dataset *d, const char *settings, const char *start, double val,
              const char *out_dir, hone_err *e)
{
    json_t *tree, *identity;
    train_conf c;
    parts p = {0};
    data_view train, eval;
    hooks *h = hook_new();
    kern_dev *dev;
    char why[256];
    kern_open_args one = {.threads = 1}; /* the model is too small for more */
    if (kern_open(&dev, aid_device_name(), &one, why) != 0)
        fail_msg("%s", why);
    dev->records = dev->records || out->records;
    assert_int_equal(js_parse(&tree, settings, strlen(settings), e), 0);
    json_object_set_new(tree, "base_model", json_string(DIR_GOLDEN "model"));
    json_object_set_new(tree, "datasets", json_string("chat.jsonl"));
    json_object_set_new(tree, "output_dir", json_string(out_dir));
    json_object_set_new(tree, "progress", json_string("none"));
    if (val > 0)
        json_object_set_new(tree, "val_set_size", json_real(val));
    if (train_conf_from(&c, tree, e) != 0)
        fail_msg("%s", e->msg);
    assert_int_equal(data_view_split(&train, &eval, d, val, e), 0);
    p.m = aid_open(dev, DIR_GOLDEN "model", KERN_F32, start == NULL, RECOMPUTE_NONE);
    bool own = start != NULL && start[0] == '/';
    char *from = mem_printf("%s%s", own ? "" : DIR_GOLDEN, start != NULL ? start : "");
    if (start != NULL && adapter_open(&p.a, from, p.m, true, NULL, NULL, e) != 0)
        fail_msg("%s", e->msg);
    param_list *l = p.a != NULL ? adapter_params(p.a) : model_params(p.m);
    for (size_t i = 0; i < l->n; i++)
        if (c.loraplus_lr_ratio > 0 && strstr(l->items[i].name, ".lora_B.") != NULL)
            l->items[i].lr_scale = (float)c.loraplus_lr_ratio;
    if (out->poison)
        poison(l);
    identity = json_pack("{s:o, s:s}", "settings", train_conf_identity(&c), "base", "golden");
    if (!out->ahead)
        assert_int_equal(hook_on(h, HOOK_TRAIN_STEP, "test", 0, on_step, out, e), 0);
    if (out->subscribe != NULL)
        out->subscribe(h);
    trainer t = {.conf = &c,
                 .model = p.m,
                 .params = l,
                 .train = &train,
                 .eval = &eval,
                 .hooks = h,
                 .identity = identity,
                 .save = save,
                 .after_step = p.a != NULL ? NULL : refresh,
                 .user = &p};
    int rc = trainer_run(&t, &out->result, e);
    take_weights(out, l);
    json_decref(identity);
    json_decref(tree);
    free(from);
    adapter_close(p.a);
    model_close(p.m);
    kern_close(dev);
    data_view_free(&train);
    data_view_free(&eval);
    hook_free(h);
    train_conf_free(&c);
    return rc;
}

void aid_run_free(aid_run *r)
{
    free(r->weights);
    *r = (aid_run){0};
}

#include "core/model/param.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { PAD = 16 };

static int from_device(const param_list *l, int rc, const char *what, hone_err *e)
{
    return rc == 0 ? 0 : hone_fail(e, rc, "%s: %s", what, l->dev->err);
}

void param_list_init(param_list *l, kern_dev *dev)
{
    *l = (param_list){.dev = dev};
}

size_t param_list_add(param_list *l, const char *name, int64_t rows, int64_t cols, bool decay,
                      float lr_scale)
{
    l->items = mem_grow(l->items, &l->cap, l->n + 1, sizeof *l->items);
    l->items[l->n] = (param){
        .name = mem_strdup(name),
        .rows = rows,
        .cols = cols,
        .offset = l->total,
        .decay = decay,
        .lr_scale = lr_scale,
    };
    l->total += (rows * cols + PAD - 1) / PAD * PAD;
    return l->n++;
}

int param_list_alloc(param_list *l, hone_err *e)
{
    size_t bytes = (size_t)l->total * sizeof(float);
    void *value = NULL, *grad = NULL;
    int rc = kern_do(l->dev, alloc, bytes, &value);
    if (rc == 0)
        rc = kern_do(l->dev, alloc, bytes, &grad);
    l->value = value;
    l->grad = grad;
    if (rc != 0)
        return hone_fail(e, rc, "%zu parameters of %lld numbers: %s", l->n, (long long)l->total,
                         l->dev->err);
    return 0;
}

void param_list_free(param_list *l)
{
    if (l->dev != NULL) {
        kern_do(l->dev, release, l->value);
        kern_do(l->dev, release, l->grad);
    }
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i].name);
    free(l->items);
    *l = (param_list){0};
}

kern_tensor param_value(const param_list *l, size_t i)
{
    const param *p = &l->items[i];
    return kern_mat(KERN_F32, p->rows, p->cols, l->value + p->offset);
}

kern_tensor param_grad(const param_list *l, size_t i)
{
    const param *p = &l->items[i];
    return kern_mat(KERN_F32, p->rows, p->cols, l->grad + p->offset);
}

static size_t item_bytes(const param *p)
{
    return (size_t)p->rows * (size_t)p->cols * sizeof(float);
}

int param_zero_grad(param_list *l, hone_err *e)
{
    if (l->total == 0)
        return 0;
    int rc = kern_do(l->dev, zero, l->grad, (size_t)l->total * sizeof(float));
    return from_device(l, rc, "gradients", e);
}

int param_read(const param_list *l, size_t i, float *host, hone_err *e)
{
    const param *p = &l->items[i];
    int rc = kern_do(l->dev, read, host, l->value + p->offset, item_bytes(p));
    return from_device(l, rc, p->name, e);
}

int param_write(param_list *l, size_t i, const float *host, hone_err *e)
{
    const param *p = &l->items[i];
    int rc = kern_do(l->dev, write, l->value + p->offset, host, item_bytes(p));
    return from_device(l, rc, p->name, e);
}

int64_t param_find(const param_list *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->items[i].name, name) == 0)
            return (int64_t)i;
    return -1;
}

/* Finding a backend by name, and the few helpers every user of tensors needs. */
#include "kernels/kern.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cpu/backend.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [KERN_F32] = {"f32", 4}, [KERN_BF16] = {"bf16", 2}, [KERN_F16] = {"f16", 2},
    [KERN_I32] = {"i32", 4}, [KERN_U8] = {"u8", 1},
};

size_t kern_dtype_size(kern_dtype t)
{
    return dtypes[t].size;
}

const char *kern_dtype_name(kern_dtype t)
{
    return dtypes[t].name;
}

kern_tensor kern_cols(const kern_tensor *x, int64_t c0, int64_t cols)
{
    char *p = (char *)x->data + (size_t)c0 * kern_dtype_size(x->dtype);
    return (kern_tensor){x->dtype, x->rows, cols, x->ld, p};
}

kern_tensor kern_rows(const kern_tensor *x, int64_t r0, int64_t rows)
{
    char *p = (char *)x->data + (size_t)(r0 * x->ld) * kern_dtype_size(x->dtype);
    return (kern_tensor){x->dtype, rows, x->cols, x->ld, p};
}

/* ---- opening --------------------------------------------------------------------------------- */

static const kern_backend *load_cuda(char err[256])
{
    void *lib = dlopen("libhone_cuda.so", RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        snprintf(err, 256, "cuda: %.200s", dlerror());
        return NULL;
    }
    const kern_backend *(*get)(void) = NULL;
    *(void **)&get = dlsym(lib, "kern_backend_get");
    if (get == NULL) {
        snprintf(err, 256, "cuda: libhone_cuda.so has no kern_backend_get");
        return NULL;
    }
    return get();
}

static const kern_backend *load_cpu(char err[256])
{
    (void)err;
    return &cpu_backend;
}

static const struct {
    const char *name;
    const kern_backend *(*load)(char err[256]);
} backends[] = {{"cuda", load_cuda}, {"cpu", load_cpu}}; /* "auto" takes the first that works */

enum { N_BACKENDS = sizeof backends / sizeof backends[0] };

/* The backend, when it can be loaded, speaks our ABI and finds its device. */
static const kern_backend *usable(int i, char err[256])
{
    const kern_backend *b = backends[i].load(err);
    if (b == NULL)
        return NULL;
    if (b->abi != KERN_ABI) {
        snprintf(err, 256, "%s: the backend has ABI %d, this program has %d", backends[i].name,
                 b->abi, KERN_ABI);
        return NULL;
    }
    return b->probe(err) == 0 ? b : NULL;
}

static const kern_backend *find(const char *name, char err[256])
{
    bool any = strcmp(name, "auto") == 0;
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!any && strcmp(name, backends[i].name) != 0)
            continue;
        const kern_backend *b = usable(i, err);
        if (b != NULL || !any)
            return b;
    }
    if (!any)
        snprintf(err, 256, "no device '%.100s'; there are cpu, cuda and auto", name);
    return NULL;
}

int kern_open(kern_dev **out, const char *name, const kern_open_args *a, char err[256])
{
    *out = NULL;
    err[0] = '\0';
    kern_open_args none = {0};
    const kern_backend *b = find(name, err);
    if (b == NULL)
        return KERN_EUNSUPPORTED;
    int rc = b->open(out, a != NULL ? a : &none, err);
    if (rc != 0) {
        *out = NULL;
        return rc;
    }
    (*out)->from = b;
    err[0] = '\0';
    return 0;
}

void kern_close(kern_dev *d)
{
    if (d != NULL)
        d->from->close(d);
}

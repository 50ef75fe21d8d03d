/* Finding a backend by name. */
#include "kernels/kern.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/backend.h"

/* ---- opening --------------------------------------------------------------------------------- */

/* It lies beside the program (its rpath says where); HONE_CUDA_LIB names another file. */
static const kern_backend *load_cuda(char err[256])
{
    const char *file = getenv("HONE_CUDA_LIB");
    if (file == NULL || file[0] == '\0')
        file = "libhone_cuda.so";
    void *lib = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        snprintf(err, 256, "cuda: %.150s; build it with nvcc (make cuda), or use --device cpu",
                 dlerror());
        return NULL;
    }
    const kern_backend *(*get)(void) = NULL;
    *(void **)&get = dlsym(lib, "kern_backend_get");
    if (get == NULL) {
        snprintf(err, 256, "cuda: %.100s has no kern_backend_get", file);
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

static int open_one(kern_dev **out, int i, const kern_open_args *a, char err[256])
{
    const kern_backend *b = usable(i, err);
    int rc = b != NULL ? b->open(out, a, err) : KERN_EUNSUPPORTED;
    if (rc != 0) {
        *out = NULL;
        return rc;
    }
    (*out)->from = b;
    return 0;
}

/* The first that opens; err keeps why the first that did not was passed over. */
static int open_any(kern_dev **out, const kern_open_args *a, char err[256])
{
    char why[256] = "";
    int rc = KERN_EUNSUPPORTED;
    for (int i = 0; i < N_BACKENDS && rc != 0; i++) {
        rc = open_one(out, i, a, why);
        if (rc != 0 && (err[0] == '\0' || i == N_BACKENDS - 1))
            memcpy(err, why, sizeof why);
    }
    return rc;
}

int kern_open(kern_dev **out, const char *name, const kern_open_args *a, char err[256])
{
    const kern_open_args none = {0};
    const kern_open_args *args = a != NULL ? a : &none;
    *out = NULL;
    err[0] = '\0';
    if (strcmp(name, "auto") == 0)
        return open_any(out, args, err);
    for (int i = 0; i < N_BACKENDS; i++)
        if (strcmp(name, backends[i].name) == 0)
            return open_one(out, i, args, err);
    snprintf(err, 256, "no device '%.100s'; there are cpu, cuda and auto", name);
    return KERN_EUNSUPPORTED;
}

void kern_close(kern_dev *d)
{
    if (d != NULL)
        d->from->close(d);
}

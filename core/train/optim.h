#pragma once
/* Optimizers over the flat list of parameters. optimizers[] is the only list. State is F32 and
 * lives on the device. */
#include "core/base/err.h"
#include "core/model/param.h"

#include <stdint.h>

enum { OPTIM_MAX_STATE = 2 };

typedef struct optim_settings {
    int kind; /* index into optimizers[]: the order of the setting's choices */
    double beta1, beta2, eps, weight_decay;
} optim_settings;

typedef struct optim optim;

typedef struct optim_row {
    const char *name;
    int n_state;
    const char *state[OPTIM_MAX_STATE]; /* as torch names them */
    /* One update of the range [at, at + n) of the flat buffers. */
    int (*step)(optim *o, int64_t at, int64_t n, double lr, double decay, hone_err *e);
} optim_row;
extern const optim_row optimizers[]; /* ends with a row whose name is NULL */

/* params must outlive it. */
int optim_new(optim **out, param_list *params, const optim_settings *s, hone_err *e);
void optim_free(optim *o); /* NULL is a no-op */
const optim_row *optim_kind(const optim *o);
size_t optim_bytes(int kind, int64_t total); /* state of `total` parameters */

/* Queues the sum of squares of all gradients into *sum, which is the device's. */
int optim_grad_sumsq(const optim *o, double *sum, hone_err *e);
/* Name of the first parameter whose gradient is not finite; NULL when all are. Borrowed. Waits. */
int optim_not_finite(const optim *o, const char **name, hone_err *e);

typedef struct optim_update {
    int64_t step; /* from 1 */
    double lr;
    double max_norm; /* gradients are clipped to this norm; 0: they are not */
    /* DEVICE [n_sums]: sums of squares, the first of all gradients. Where one of them is not finite
     * this update changes nothing, and neither does any after it. */
    const double *sum;
    int n_sums;
} optim_update;
/* Queues one update; nothing waits. */
int optim_step(optim *o, const optim_update *u, hone_err *e);

/* State `k` of parameter i, on the host [rows * cols]. */
int optim_read(const optim *o, int k, size_t i, float *host, hone_err *e);
int optim_write(optim *o, int k, size_t i, const float *host, hone_err *e);

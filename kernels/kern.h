#pragma once
/* Numbers on a device: the one list of ops, and how a backend gives them.
 *
 * Model code is written against this header only. A backend is a table of functions of the same
 * names; the CPU's is built in, others are opened with dlopen and refused when their `abi` differs.
 * Ops are the size of what a device fuses, so that a backend can get faster without the model
 * changing.
 *
 * Conventions
 * - Every op returns 0 or a negative status (KERN_E*); the text is in dev->err. Nothing is silently
 * skipped.
 * - Ops queue in order on the device; only `read`, `read_end`, `sync` and `sample` wait.
 * - A recorded op reads its device arrays anew at each graph_run; host values are as they were.
 * What waits, allocates or takes host data cannot be recorded. An op allocates only when it meets a
 * larger shape than before: run a step once before recording it.
 * - Tensors are views of row-major matrices: element (r, c) stands at data[r * ld + c]. Memory is
 * the device's
 *   (`alloc`), except where a field says "host".
 * - Activations are all of one dtype in a model (F32: the reference; BF16: the fast mode). Sums,
 * norms, softmax, loss, adapters, their gradients and optimizer state are F32 always; among BF16 a
 * backend may round an adapter's factors on their way into a product.
 * - Gradients are ADDED to what stands in the destination, unless the contract says "written".
 * - Same inputs, same bits: every reduction has a fixed order, whatever the number of threads
 * (op_check threads). Another machine or library may give other bits.
 * - n is the number of tokens of a packed batch; segments (sequences) lie one after the other. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { KERN_ABI = 3, KERN_MAX_PARTS = 4 };

enum {
    KERN_EINVAL = -1,       /* a shape, dtype or pointer that cannot be */
    KERN_ENOMEM = -2,       /* no memory on the device */
    KERN_EUNSUPPORTED = -7, /* the backend has no such case; err names it */
    KERN_EDEVICE = -11      /* the device or its library failed */
};

typedef enum { KERN_F32, KERN_BF16, KERN_F16, KERN_I32, KERN_U8 } kern_dtype;
size_t kern_dtype_size(kern_dtype t);
const char *kern_dtype_name(kern_dtype t);

typedef struct kern_tensor {
    kern_dtype dtype;
    int64_t rows, cols;
    int64_t ld; /* elements from one row to the next, >= cols */
    void *data;
} kern_tensor;

/* A view of whole rows without gaps. */
static inline kern_tensor kern_mat(kern_dtype t, int64_t rows, int64_t cols, void *data)
{
    kern_tensor x = {t, rows, cols, cols, data};
    return x;
}
/* Columns [c0, c0 + cols) of x. */
kern_tensor kern_cols(const kern_tensor *x, int64_t c0, int64_t cols);
/* Rows [r0, r0 + rows) of x. */
kern_tensor kern_rows(const kern_tensor *x, int64_t r0, int64_t rows);

/* ---- weights
 * -------------------------------------------------------------------------------------------------
 */

/* Frozen or trainable matrices that share an input, prepared once for the device: concatenated
 * along the output, packed as its products want them. Opaque; made by weight_new, freed by
 * weight_free. */
typedef struct kern_weight kern_weight;

typedef struct kern_weight_desc {
    int n_parts; /* 1 to KERN_MAX_PARTS: q|k|v, gate|up, o, down, head */
    kern_tensor
        part[KERN_MAX_PARTS]; /* HOST memory; part p is [out_p, in], F32, F16 or BF16; copied */
    kern_tensor bias[KERN_MAX_PARTS]; /* HOST; [1, out_p]; data NULL: none */
    kern_dtype compute;               /* dtype of the activations that will meet it */
    bool need_dx;                     /* pack for the gradient to the input too */
    bool trainable;                   /* weight_update will be called */
} kern_weight_desc;

/* A low-rank term beside one part: y_p += scale * B (A dropout(x)).  arXiv:2106.09685.
 * All four are F32 on the device; dA and dB may have data NULL (not trained). */
typedef struct kern_lora {
    kern_tensor A, B;   /* [r, in], [out_p, r] */
    kern_tensor dA, dB; /* same shapes; gradients are added */
    float scale;
    float dropout;   /* probability; applies only when kern_linear.training is set */
    uint64_t stream; /* Philox stream of this term's mask */
} kern_lora;

/* A group of linear layers that share their input, with bias and low-rank terms in the same call.
 * Forward: y[:, part p] = x W_p^T + b_p + scale_p B_p A_p drop_p(x)   (+ y itself when add_to_y).
 */
typedef struct kern_linear {
    const kern_weight *w;
    const kern_lora *lora[KERN_MAX_PARTS]; /* NULL: none for that part */
    kern_tensor x;                         /* [n, in] */
    kern_tensor y;                         /* [n, sum out_p] written */
    kern_tensor xa; /* [n, sum r_p] F32: A_p drop_p(x), kept for the backward; needed when any
                       lora is there */
    bool add_to_y;
    bool training;       /* apply dropout */
    const uint64_t *rng; /* [2] seed and row offset, needed for dropout: element (row, col) of the
                            mask of a term is word (offset + row) * in + col of (seed, stream), kept
                            when its uniform value >= dropout, and scaled by 1 / (1 - dropout) */
} kern_linear;

/* Backward of the same group. dx, dw, db may have data NULL: not wanted. */
typedef struct kern_linear_grad {
    kern_linear f;  /* as in the forward (w, lora, x, xa, training, rng); y unused */
    kern_tensor dy; /* [n, sum out_p] */
    kern_tensor dx; /* [n, in]; written, or added when add_to_dx */
    bool add_to_dx;
    kern_tensor dw[KERN_MAX_PARTS]; /* F32 [out_p, in], added */
    kern_tensor db[KERN_MAX_PARTS]; /* F32 [1, out_p], added */
} kern_linear_grad;

typedef struct kern_weight_new_args {
    const kern_weight_desc *desc;
    kern_weight **out;
} kern_weight_new_args;
/* Repacks part p from src, F32 on the DEVICE [out_p, in]; bias likewise when data is not NULL. */
typedef struct kern_weight_update_args {
    kern_weight *w;
    int part;
    kern_tensor src, bias;
} kern_weight_update_args;

/* ---- embedding, norms, rope
 * ---------------------------------------------------------------------------------- */

typedef struct kern_embed {
    kern_tensor table;  /* [vocab, h] F32, F16 or BF16 */
    const int32_t *ids; /* [n]; each in [0, vocab) (checked by the caller on the host) */
    int64_t n;
    kern_tensor x; /* [n, h] written */
} kern_embed;

typedef struct kern_embed_grad {
    const int32_t *ids;
    int64_t n;
    kern_tensor dx;     /* [n, h] */
    kern_tensor dtable; /* F32 [vocab, h], added in row order */
} kern_embed_grad;

/* Residual add and RMSNorm: res = x + add; y = res / sqrt(mean(res^2) + eps) * (weight +
 * weight_offset). arXiv:1910.07467. As Hugging Face does it, the normalised value is rounded to the
 * activation dtype before the product with the weight. */
typedef struct kern_norm {
    kern_tensor x;      /* [n, h] */
    kern_tensor add;    /* [n, h]; data NULL: none */
    kern_tensor weight; /* F32 [1, h] */
    float eps, weight_offset;
    kern_tensor res;  /* [n, h] written; may be x; data NULL with add NULL: not wanted */
    kern_tensor y;    /* [n, h] written */
    kern_tensor rstd; /* F32 [n, 1] written; data NULL: not wanted */
} kern_norm;

/* dx = dres + gradient of the norm (dres: gradient that reaches `res` by the residual path; data
 * NULL: none). */
typedef struct kern_norm_grad {
    kern_tensor dy, res, weight, rstd;
    float weight_offset;
    kern_tensor dres;    /* [n, h] */
    kern_tensor dx;      /* [n, h] written; may be dres or dy */
    kern_tensor dweight; /* F32 [1, h] added; data NULL: frozen */
} kern_norm_grad;

/* Per-head RMSNorm on q and k (Qwen3; data NULL: none), then rotary embedding in the half-split
 * layout with one position a token; optionally the write of k and v into the paged cache.
 * arXiv:2104.09864. */
typedef struct kern_qk {
    kern_tensor q, k, v; /* [n, n_q*d], [n, n_kv*d]: views of the q|k|v product */
    int n_q, n_kv, d;
    kern_tensor q_norm, k_norm; /* F32 [1, d] */
    float eps;
    const int32_t *pos; /* [n] */
    kern_tensor cos,
        sin; /* F32 [max_pos, d/2], made by the model from its rope settings, scaling included */
    kern_tensor q_out,
        k_out; /* written; may be q and k themselves when there is no norm or no backward */
    struct kern_kv *kv;
    int layer;           /* NULL: no cache */
    const int32_t *slot; /* [n] with kv: position in the pool, block * block_tokens + offset */
} kern_qk;

typedef struct kern_qk_grad {
    kern_qk f;          /* as in the forward: q, k are the values before norm and rope */
    kern_tensor dq, dk; /* gradients of q_out, k_out on entry; of q, k on return (in place) */
    kern_tensor dq_norm, dk_norm; /* F32 [1, d] added; data NULL: frozen */
} kern_qk_grad;

/* ---- attention
 * -----------------------------------------------------------------------------------------------
 */

/* Causal attention inside each segment of a packed batch: rows [cu[s], cu[s+1]) see themselves and
 * what is before them in their own segment, at most `window` tokens back counting themselves (0: no
 * window). Grouped heads: query head h uses key head h / (n_q / n_kv). FlashAttention:
 * arXiv:2205.14135, 2307.08691. */
typedef struct kern_attn {
    kern_tensor q, k, v; /* [n, n_q*d], [n, n_kv*d] after rope */
    int n_q, n_kv, d;
    const int32_t *cu; /* [n_seg + 1] */
    int n_seg;
    int64_t max_len; /* longest segment */
    float scale;
    int64_t window;
    kern_tensor out; /* [n, n_q*d] written */
    kern_tensor lse; /* F32 [n, n_q] log-sum-exp, for the backward; data NULL: not wanted */
} kern_attn;

typedef struct kern_attn_grad {
    kern_attn f; /* as in the forward, out and lse filled */
    kern_tensor dout;
    kern_tensor dq, dk, dv; /* written */
} kern_attn_grad;

/* Keys and values of all layers in blocks of block_tokens; a sequence owns a list of blocks
 * (PagedAttention, arXiv:2309.06180). Opaque. */
typedef struct kern_kv kern_kv;
typedef struct kern_kv_new_args {
    int n_layers, n_kv, d, block_tokens;
    int64_t n_blocks;
    kern_dtype dtype;
    kern_kv **out;
} kern_kv_new_args;

typedef struct kern_paged {
    kern_tensor q; /* [n, n_q*d] after rope; rows of sequence s are [q_start[s], q_start[s+1]) */
    int n_q, n_kv, d;
    const kern_kv *kv;
    int layer;
    int n_seq;
    const int32_t *q_start; /* [n_seq + 1] */
    const int32_t *kv_len;  /* [n_seq] tokens in the cache with this step's own */
    const int32_t *blocks;  /* [n_seq, max_blocks] block numbers */
    int64_t max_blocks;
    float scale;
    int64_t window;
    kern_tensor out; /* [n, n_q*d] written */
} kern_paged;

/* ---- gated activation, head, sampling
 * ------------------------------------------------------------------------ */

typedef enum { KERN_SILU, KERN_GELU_TANH, KERN_GELU } kern_act_kind;
typedef struct kern_act {
    kern_act_kind kind;
    kern_tensor gu; /* [n, 2i]: gate | up */
    kern_tensor h;  /* [n, i] written: act(gate) * up */
} kern_act;
typedef struct kern_act_grad {
    kern_act f;      /* gu as in the forward; h is written again when its data is not NULL */
    kern_tensor dh;  /* [n, i] */
    kern_tensor dgu; /* [n, 2i] written; may be gu */
} kern_act_grad;

/* Output head with loss: for every row r that `row` lists, logp[r] = log softmax(W x_r)[target[r]];
 * rows that it does not list are left out of the product altogether and get logp 0. When dx.data is
 * not NULL it receives the gradient of sum_r coef[r] * -logp[r] (rows left out get 0); dw likewise
 * when trainable. Logits exist for a chunk of rows only. */
typedef struct kern_head {
    const kern_weight *w;
    kern_tensor x; /* [n, h] */
    int64_t n_rows;
    const int32_t *row;    /* [n_rows] ascending, in [0, n) (checked by the caller on the host) */
    const int32_t *target; /* [n]; in [0, vocab) where listed (checked likewise) */
    const float *coef;     /* [n]; may be NULL when dx.data is NULL */
    float *logp;           /* [n] written */
    kern_tensor dx;        /* [n, h] written */
    kern_tensor dw;        /* F32 [vocab, h] added */
} kern_head;

/* Logits of chosen rows, F32: logits[i, :] = W x[row[i], :]. */
typedef struct kern_logits {
    const kern_weight *w;
    kern_tensor x;
    const int32_t *row; /* [n_rows]; NULL: all rows in order */
    int64_t n_rows;
    kern_tensor logits; /* F32 [n_rows, vocab] written */
} kern_logits;

enum { KERN_MAX_TOP = 20 };

/* One row of a sampling step. Order, as vLLM and transformers do it: logit bias, penalties,
 * temperature, top-k, top-p, min-p. temperature 0 is greedy (ties: the lowest id). */
typedef struct kern_sample_row {
    float temperature, top_p, min_p;
    int32_t top_k; /* 0: off */
    float repetition, presence, frequency;
    int64_t n_context;
    const int32_t *context; /* HOST: prompt and answer ids, for repetition */
    int64_t n_answer;
    const int32_t *answer; /* HOST: answer ids only, for presence and frequency */
    int64_t n_bias;
    const int32_t *bias_id;
    const float *bias; /* HOST */
    float u;           /* uniform in [0, 1) from the sequence's own stream */
    int32_t n_top;     /* top log-probabilities wanted, at most KERN_MAX_TOP */
    /* results (host) */
    int32_t id;
    float logp; /* of id, from the model's own distribution (before all of the above) */
    int32_t top_id[KERN_MAX_TOP];
    float top_logp[KERN_MAX_TOP];
} kern_sample_row;

typedef struct kern_sample {
    kern_tensor logits; /* F32 [n, vocab]; may be changed */
    kern_sample_row *row;
} kern_sample;

/* ---- optimizer
 * -----------------------------------------------------------------------------------------------
 */

/* AdamW with decoupled weight decay and bias correction (arXiv:1711.05101), as torch does it, over
 * a flat range: g' = g * *scale. Where *scale is not a number nothing is changed. */
typedef struct kern_adamw {
    int64_t n;
    float *p, *m, *v;
    const float *g;
    const float *scale; /* [1] as `clip` writes it; NULL: 1 */
    float lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1 for the first */
} kern_adamw;

/* Sum of squares of a flat range in a fixed order. Not finite is reported as it is. */
typedef struct kern_sumsq {
    const float *g;
    int64_t n;
    double *out; /* [1] written */
} kern_sumsq;

/* What a step multiplies its gradients by, as torch's clip_grad_norm_ has it: *scale = min(1,
 * max_norm / (sqrt(sum[0]) + 1e-6)). Not a number where one of sum[0..n) is not finite, and ever
 * after where *scale was none: once a step has failed, no later one changes anything. */
typedef struct kern_clip {
    const double *sum; /* [n]: sums of squares; the first is that of all gradients */
    int n;
    double max_norm; /* 0: no limit */
    float *scale;    /* [1] read and written */
} kern_clip;

/* ---- the table
 * -----------------------------------------------------------------------------------------------
 */

typedef struct kern_dev kern_dev;
typedef struct kern_graph kern_graph;
typedef struct kern_read kern_read;
typedef struct kern_backend kern_backend;

/* X(name, argument list after the device) */
/* clang-format off */
#define KERN_OPS(X)                                                                                \
    X(alloc, (kern_dev *d, size_t bytes, void **out))        /* aligned to 64 bytes, zeroed */     \
    X(release, (kern_dev *d, void *p))                       /* NULL is a no-op */                 \
    X(write, (kern_dev *d, void *dst, const void *host, size_t bytes))                             \
    X(read, (kern_dev *d, void *host, const void *src, size_t bytes))                              \
    X(read_begin, (kern_dev *d, const void *src, size_t bytes, kern_read **out)) /* queues */      \
    X(read_end, (kern_dev *d, kern_read *r, void *host)) /* waits for that one and frees it; */    \
                                                         /* host NULL: it is not wanted */         \
    X(copy, (kern_dev *d, const kern_tensor *src, const kern_tensor *dst)) /* converts dtypes */   \
    X(zero, (kern_dev *d, void *p, size_t bytes))                                                  \
    X(add, (kern_dev *d, const kern_tensor *src, const kern_tensor *dst))  /* dst += src */        \
    X(sync, (kern_dev *d))                                                                         \
    X(capture_begin, (kern_dev *d))  /* ops up to capture_end are recorded, not run */             \
    X(capture_end, (kern_dev *d, kern_graph **out)) /* NULL: they have run, nothing is recorded */ \
    X(graph_run, (kern_dev *d, kern_graph *g))                                                     \
    X(graph_free, (kern_dev *d, kern_graph *g))                                                    \
    X(weight_new, (kern_dev *d, const kern_weight_new_args *a))                                    \
    X(weight_update, (kern_dev *d, const kern_weight_update_args *a))                              \
    X(weight_free, (kern_dev *d, kern_weight *w))                                                  \
    X(linear, (kern_dev *d, const kern_linear *a))                                                 \
    X(linear_grad, (kern_dev *d, const kern_linear_grad *a))                                       \
    X(embed, (kern_dev *d, const kern_embed *a))                                                   \
    X(embed_grad, (kern_dev *d, const kern_embed_grad *a))                                         \
    X(norm, (kern_dev *d, const kern_norm *a))                                                     \
    X(norm_grad, (kern_dev *d, const kern_norm_grad *a))                                           \
    X(qk, (kern_dev *d, const kern_qk *a))                                                         \
    X(qk_grad, (kern_dev *d, const kern_qk_grad *a))                                               \
    X(attn, (kern_dev *d, const kern_attn *a))                                                     \
    X(attn_grad, (kern_dev *d, const kern_attn_grad *a))                                           \
    X(kv_new, (kern_dev *d, const kern_kv_new_args *a))                                            \
    X(kv_free, (kern_dev *d, kern_kv *kv))                                                         \
    X(paged, (kern_dev *d, const kern_paged *a))                                                   \
    X(act, (kern_dev *d, const kern_act *a))                                                       \
    X(act_grad, (kern_dev *d, const kern_act_grad *a))                                             \
    X(head, (kern_dev *d, const kern_head *a))                                                     \
    X(logits, (kern_dev *d, const kern_logits *a))                                                 \
    X(sample, (kern_dev *d, const kern_sample *a))                                                 \
    X(adamw, (kern_dev *d, const kern_adamw *a))                                                   \
    X(sumsq, (kern_dev *d, const kern_sumsq *a))                                                   \
    X(clip, (kern_dev *d, const kern_clip *a))
/* clang-format on */

typedef struct kern_ops {
#define KERN_SLOT(name, args) int(*name) args;
    KERN_OPS(KERN_SLOT)
#undef KERN_SLOT
} kern_ops;

/* A backend's own device struct begins with this. One thread at a time uses a device. */
struct kern_dev {
    const kern_ops *ops;
    const kern_backend *from; /* set by kern_open, used by kern_close */
    const char *backend;      /* "cpu", "cuda" */
    char name[128];           /* "AMD EPYC (2 threads, avx512_bf16)" */
    int threads;
    bool records;                         /* capture_begin and capture_end record */
    size_t mem_used, mem_peak, mem_total; /* bytes that alloc and weights hold; total: that they
                                                                 could, 0: not known */
    char err[256];
};

typedef struct kern_open_args {
    int threads;          /* CPU: 0 takes what the process may use */
    int index;            /* which card */
    const char *features; /* CPU: NULL all there are; "avx2" or "generic" to hold back (tests) */
} kern_open_args;

/* What a backend gives. The shared object exports `const kern_backend *kern_backend_get(void)`. */
struct kern_backend {
    int abi;
    const char *name;
    /* 0 when this machine has such a device; otherwise why not, in err. */
    int (*probe)(char err[256]);
    int (*open)(kern_dev **out, const kern_open_args *a, char err[256]);
    void (*close)(kern_dev *d);
};

/* name: "cpu", "cuda", or "auto" (cuda where there is one that can be used, else cpu). On failure
 * *out is NULL and err says what to do. The CPU never stands in for a card that was asked for by
 * name; where "auto" takes it, err says why it is not the card, and is empty in all other cases. */
int kern_open(kern_dev **out, const char *name, const kern_open_args *a, char err[256]);
void kern_close(kern_dev *d); /* NULL is a no-op */

/* One call form for all: kern_linear(d, &a) is d->ops->linear(d, &a). */
#define kern_do(d, op, ...) ((d)->ops->op((d), ##__VA_ARGS__))

#ifdef __cplusplus
}
#endif

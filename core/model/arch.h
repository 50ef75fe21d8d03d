#pragma once
/* What kind of decoder a checkpoint holds: config.json read against the list of known
 * architectures. archs.c is the only list; one row is one architecture; one block forward and one
 * backward serve every row. */
#include "core/base/err.h"
#include "kernels/kern.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } rope_kind;

/* Where a flag comes from: the architecture has it or not whatever config.json says, or config.json
 * decides. */
typedef enum { ARCH_NO, ARCH_YES, ARCH_ASK } arch_flag;

/* One row of archs.c. */
typedef struct arch {
    const char *hf_name;        /* "Qwen3ForCausalLM" */
    const char *model_type;     /* "qwen3" */
    arch_flag qkv_bias, o_bias; /* ARCH_ASK: attention_bias */
    arch_flag mlp_bias;         /* ARCH_ASK: mlp_bias */
    arch_flag window;           /* ARCH_ASK: only with use_sliding_window */
    bool qk_norm;
    int64_t window_default; /* sliding_window where config.json has no such key */
    int head_dim_default;   /* where config.json has none; 0: hidden / heads */
} arch;
extern const arch *const archs[]; /* NULL-ended */

/* Everything the model needs to know, from the row and config.json. Plain data. */
typedef struct arch_config {
    const arch *row;
    int64_t vocab, hidden, inter, n_layers;
    int n_q, n_kv, head_dim;
    float norm_eps;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    int64_t window; /* 0: none */
    int64_t
        window_layers; /* layers with index >= this use the window (Qwen2's max_window_layers) */
    int64_t max_positions;
    rope_kind rope;
    double rope_theta, rope_factor, rope_low, rope_high;
    int64_t rope_original; /* original_max_position_embeddings */
    kern_act_kind hidden_act;
    double init_range;
} arch_config;

/* Refuses by name: an architecture that is not in the list, an activation, a rope type, sizes out
 * of range or that do not divide. Unknown keys of config.json are let be (it has many that do not
 * concern us), those that would change the numbers are checked. Rope settings are read from
 * rope_parameters (transformers 5) or from rope_theta and rope_scaling. A key that transformers has
 * a default for, and which checkpoints leave out, gets that default. */
int arch_read(arch_config *out, const json_t *config, hone_err *e);
int arch_load(arch_config *out, const char *dir, hone_err *e); /* dir/config.json */

/* The window of a layer in tokens, 0 when it sees everything before it. */
int64_t arch_window(const arch_config *c, int64_t layer);

#pragma once
/* What kind of decoder a checkpoint holds: config.json read against the list of known architectures. archs.c is the
 * only list; one row is one architecture; one block forward and one backward serve every row. */
#include "core/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 } rope_kind;

/* One row of archs.c. */
typedef struct arch {
    const char *hf_name;    /* "Qwen3ForCausalLM" */
    const char *model_type; /* "qwen3" */
    bool qkv_bias;          /* always there; rows may also follow config's attention_bias */
    bool qk_norm;
    bool window_if_used;    /* sliding_window applies only with use_sliding_window */
} arch;
extern const arch *const archs[]; /* NULL-ended */

/* Everything the model needs to know, from the row and config.json. Plain data. */
typedef struct arch_config {
    const arch *row;
    int64_t vocab, hidden, inter, n_layers;
    int n_q, n_kv, head_dim;
    float norm_eps;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    int64_t window;          /* 0: none */
    int64_t window_layers;   /* layers with index >= this use the window (Qwen2's max_window_layers); 0: all */
    int64_t max_positions;
    rope_kind rope;
    double rope_theta, rope_factor, rope_low, rope_high;
    int64_t rope_original;   /* original_max_position_embeddings */
    int hidden_act;          /* kern_act_kind */
    double init_range;
} arch_config;

/* Refuses by name: an architecture that is not in the list, an activation, a rope type, sizes out of range or that
 * do not divide. Unknown keys of config.json are let be (it has many that do not concern us), those that would
 * change the numbers are checked. */
int arch_read(arch_config *out, const json_t *config, hone_err *e);
int arch_load(arch_config *out, const char *dir, hone_err *e); /* dir/config.json */

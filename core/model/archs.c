/* The only list of architectures. A new one is a row here, its names in weights.c where they
 * differ, and a golden. */
#include "core/model/arch.h"

/* clang-format off */
static const arch llama = {
    .hf_name = "LlamaForCausalLM", .model_type = "llama",
    .qkv_bias = ARCH_ASK, .o_bias = ARCH_ASK, .mlp_bias = ARCH_ASK,
};
static const arch mistral = {
    .hf_name = "MistralForCausalLM", .model_type = "mistral",
    .window = ARCH_YES, .window_default = 4096,
};
static const arch qwen2 = {
    .hf_name = "Qwen2ForCausalLM", .model_type = "qwen2",
    .qkv_bias = ARCH_YES, .window = ARCH_ASK, .window_default = 4096,
};
static const arch qwen3 = {
    .hf_name = "Qwen3ForCausalLM", .model_type = "qwen3",
    .qkv_bias = ARCH_ASK, .o_bias = ARCH_ASK, .qk_norm = true,
    .window = ARCH_ASK, .window_default = 4096, .head_dim_default = 128,
};
/* clang-format on */

const arch *const archs[] = {&llama, &mistral, &qwen2, &qwen3, NULL};

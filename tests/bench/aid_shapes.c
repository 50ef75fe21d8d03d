#include "tests/bench/shapes.h"

#include <string.h>

#include "core/base/mem.h"

/* clang-format off */
const bench_shape bench_shapes[] = {
    {"tiny",          "LlamaForCausalLM",   64,   160,  2,  4, 2,  16,    500, 1e4, 1},
    {"smollm2-135m",  "LlamaForCausalLM",  576,  1536, 30,  9, 3,  64,  49152, 1e4, 1},
    {"qwen2.5-0.5b",  "Qwen2ForCausalLM",  896,  4864, 24, 14, 2,  64, 151936, 1e6, 1},
    {"qwen3-0.6b",    "Qwen3ForCausalLM", 1024,  3072, 28, 16, 8, 128, 151936, 1e6, 1},
    {"llama-3.2-1b",  "LlamaForCausalLM", 2048,  8192, 16, 32, 8,  64, 128256, 5e5, 1},
    {"qwen2.5-7b",    "Qwen2ForCausalLM", 3584, 18944, 28, 28, 4, 128, 152064, 1e6, 0},
    {"llama-3.1-8b",  "LlamaForCausalLM", 4096, 14336, 32, 32, 8, 128, 128256, 5e5, 0},
    {NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};
/* clang-format on */

const bench_shape *bench_shape_find(const char *name)
{
    for (const bench_shape *s = bench_shapes; s->name != NULL; s++)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

char *bench_shape_config(const bench_shape *s)
{
    return mem_printf("{\"architectures\":[\"%s\"],\"hidden_size\":%lld,\"intermediate_size\":%lld,"
                      "\"num_hidden_layers\":%lld,\"num_attention_heads\":%lld,"
                      "\"num_key_value_heads\":%lld,\"head_dim\":%lld,\"vocab_size\":%lld,"
                      "\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-5,"
                      "\"rope_theta\":%.1f,\"tie_word_embeddings\":%s}",
                      s->arch, (long long)s->hidden, (long long)s->inter, (long long)s->layers,
                      (long long)s->heads, (long long)s->kv_heads, (long long)s->head_dim,
                      (long long)s->vocab, s->rope_theta, s->tied ? "true" : "false");
}

double bench_shape_linear(const bench_shape *s)
{
    double q = (double)(s->heads * s->head_dim), kv = (double)(s->kv_heads * s->head_dim);
    double h = (double)s->hidden, i = (double)s->inter;
    return (double)s->layers * (h * (q + 2 * kv) + q * h + 3 * h * i);
}

double bench_shape_head(const bench_shape *s)
{
    return (double)(s->hidden * s->vocab);
}

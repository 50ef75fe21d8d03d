#include "core/model/arch.h"

#include "core/base/js.h"

#include "tests/unit/aid.h"

#include <string.h>

/* A sound configuration with the keys of `patch` put over it; a key whose value is "-" is taken
 * out. */
static int read_patched(arch_config *c, const char *patch, hone_err *e)
{
    static const char sound[] =
        "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":100,\"hidden_size\":48,"
        "\"intermediate_size\":80,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
        "\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5}";
    json_t *o, *p;
    const char *key;
    json_t *v;
    assert_int_equal(js_parse(&o, sound, strlen(sound), NULL), 0);
    assert_int_equal(js_parse(&p, patch, strlen(patch), NULL), 0);
    json_object_foreach (p, key, v) {
        if (json_is_string(v) && strcmp(json_string_value(v), "-") == 0)
            json_object_del(o, key);
        else
            json_object_set(o, key, v);
    }
    int rc = arch_read(c, o, e);
    json_decref(o);
    json_decref(p);
    return rc;
}

static void test_bad_configurations(void **state)
{
    (void)state;
    static const struct {
        const char *patch;
        int code;
        const char *want;
    } rows[] = {
        {"{\"architectures\":[\"GPT2LMHeadModel\"]}", HONE_EUNSUPPORTED,
         "architecture 'GPT2LMHeadModel' is not supported (known: LlamaForCausalLM, "
         "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)"},
        {"{\"architectures\":\"-\",\"model_type\":\"mamba\"}", HONE_EUNSUPPORTED,
         "architecture 'mamba' is not supported (known: LlamaForCausalLM, MistralForCausalLM, "
         "Qwen2ForCausalLM, Qwen3ForCausalLM)"},
        {"{\"architectures\":\"-\"}", HONE_EFORMAT, "field 'architectures' is missing"},
        {"{\"hidden_size\":\"-\"}", HONE_EFORMAT, "field 'hidden_size' is missing"},
        {"{\"rms_norm_eps\":\"-\"}", HONE_EFORMAT, "field 'rms_norm_eps' is missing"},
        {"{\"rms_norm_eps\":0}", HONE_EFORMAT, "rms_norm_eps is 0, it must be positive"},
        {"{\"vocab_size\":0}", HONE_ELIMIT, "vocab_size is 0, 1 to 4194304 are read"},
        {"{\"num_hidden_layers\":\"x\"}", HONE_EFORMAT,
         "field 'num_hidden_layers' is not an integer"},
        {"{\"num_key_value_heads\":3}", HONE_EFORMAT,
         "num_attention_heads (4) is not a multiple of num_key_value_heads (3)"},
        {"{\"hidden_size\":50}", HONE_EFORMAT,
         "hidden_size (50) is not a multiple of num_attention_heads (4), and there is no head_dim"},
        {"{\"head_dim\":7}", HONE_EFORMAT, "head_dim (7) is odd"},
        {"{\"hidden_act\":\"relu2\"}", HONE_EUNSUPPORTED,
         "hidden_act 'relu2' is not supported (known: silu, gelu, gelu_pytorch_tanh)"},
        {"{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", HONE_EUNSUPPORTED,
         "rope_scaling: rope type 'yarn' is not supported (known: default, linear, llama3)"},
        {"{\"rope_scaling\":{\"type\":\"linear\"}}", HONE_EFORMAT,
         "rope_scaling: field 'factor' is missing"},
        {"{\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":1,\"original_max_position_embeddings\":32}}",
         HONE_EFORMAT, "rope_parameters: high_freq_factor (1) is not above low_freq_factor (4)"},
        {"{\"rope_theta\":-1}", HONE_EFORMAT, "rope_theta is -1, it must be positive"},
        {"{\"partial_rotary_factor\":0.5}", HONE_EUNSUPPORTED,
         "partial_rotary_factor 0.5 is not supported"},
        {"{\"quantization_config\":{\"bits\":4}}", HONE_EUNSUPPORTED,
         "quantization_config: quantised checkpoints are not supported"},
        {"{\"attention_dropout\":0.1}", HONE_EUNSUPPORTED,
         "attention_dropout 0.1 is not supported"},
        {"{\"layer_types\":[\"full_attention\",\"full_attention\"]}", HONE_EFORMAT,
         "field 'layer_types' is not an array of 3"},
        {"{\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
         HONE_EUNSUPPORTED, "layer_types: layer 1 is 'sliding_attention', not 'full_attention'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        arch_config c;
        hone_err e = {0};
        assert_int_equal(read_patched(&c, rows[i].patch, &e), rows[i].code);
        assert_string_equal(e.msg, rows[i].want);
    }
}

static void test_rows_follow_their_architecture(void **state)
{
    (void)state;
    arch_config c;
    hone_err e = {0};
    assert_int_equal(read_patched(&c, "{}", &e), 0);
    assert_int_equal(c.head_dim, 12);
    assert_false(c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm || c.tied);
    assert_int_equal(c.window, 0);
    assert_int_equal(c.rope, ROPE_PLAIN);
    assert_true(c.rope_theta == 10000);

    assert_int_equal(read_patched(&c,
                                  "{\"attention_bias\":true,\"mlp_bias\":true,"
                                  "\"tie_word_embeddings\":true,\"sliding_window\":9}",
                                  &e),
                     0);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias && c.tied);
    assert_int_equal(c.window, 0);

    assert_int_equal(read_patched(&c,
                                  "{\"architectures\":[\"MistralForCausalLM\"],"
                                  "\"attention_bias\":true}",
                                  &e),
                     0);
    assert_false(c.qkv_bias);
    assert_int_equal(c.window, 4096);
    assert_int_equal(read_patched(&c,
                                  "{\"architectures\":[\"MistralForCausalLM\"],"
                                  "\"sliding_window\":null}",
                                  &e),
                     0);
    assert_int_equal(c.window, 0);

    assert_int_equal(read_patched(&c,
                                  "{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":8,"
                                  "\"use_sliding_window\":true,\"max_window_layers\":2,"
                                  "\"layer_types\":[\"full_attention\",\"full_attention\","
                                  "\"sliding_attention\"]}",
                                  &e),
                     0);
    assert_true(c.qkv_bias && !c.o_bias);
    assert_int_equal(arch_window(&c, 1), 0);
    assert_int_equal(arch_window(&c, 2), 8);

    assert_int_equal(read_patched(&c,
                                  "{\"architectures\":\"-\",\"model_type\":\"qwen3\","
                                  "\"sliding_window\":8}",
                                  &e),
                     0);
    assert_true(c.qk_norm && !c.qkv_bias);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.window, 0);
}

static void test_both_spellings_of_rope(void **state)
{
    (void)state;
    arch_config a, b;
    assert_int_equal(
        read_patched(&a,
                     "{\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
                     "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                     "\"original_max_position_embeddings\":8192}}",
                     NULL),
        0);
    assert_int_equal(
        read_patched(&b,
                     "{\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":500000.0,"
                     "\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                     "\"original_max_position_embeddings\":8192}}",
                     NULL),
        0);
    assert_int_equal(a.rope, ROPE_LLAMA3);
    assert_true(a.rope_theta == 500000 && b.rope_theta == 500000);
    assert_int_equal(b.rope, ROPE_LLAMA3);
    assert_true(a.rope_factor == 8 && b.rope_factor == 8);
    assert_int_equal(b.rope_original, 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_configurations),
        cmocka_unit_test(test_rows_follow_their_architecture),
        cmocka_unit_test(test_both_spellings_of_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

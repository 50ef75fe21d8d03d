/* Weights larger than the pieces in which they are converted. */
#include "core/base/mem.h"
#include "core/model/model.h"
#include "tests/unit/aid.h"
#include "tests/unit/aid_dir.h"
#include "tests/unit/aid_model.h"

#include <stdlib.h>
#include <string.h>

/* An embedding of 1.3 million values, written and read back, gives the same scores. */
static void test_survives_a_round_trip(void **state)
{
    hone_err e = {0};
    model *m;
    kern_dev *dev = aid_device();
    json_t *config =
        json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:b}", "architectures",
                  "LlamaForCausalLM", "model_type", "llama", "vocab_size", 20011, "hidden_size", 64,
                  "intermediate_size", 96, "num_hidden_layers", 1, "num_attention_heads", 4,
                  "num_key_value_heads", 2, "max_position_embeddings", 64, "rms_norm_eps", 1e-5,
                  "tie_word_embeddings", 1);
    const model_options o = {.dev = dev, .dtype = KERN_F32, .backward = true, .train_base = true};
    if (model_create(&m, config, 3, &o, &e) != 0)
        fail_msg("%s", e.msg);
    if (model_save(m, *state, KERN_F32, 0, &e) != 0)
        fail_msg("%s", e.msg);
    const int32_t ids[] = {5, 20010, 11111, 17000, 3}, pos[] = {0, 1, 2, 3, 4}, cu[] = {0, 5};
    const int32_t target[] = {20010, 11111, 17000, 3, -1};
    const model_batch b = {.n = 5, .ids = ids, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    float want[5], got[5];
    assert_int_equal(model_score(m, &b, want, &e), 0);
    model_close(m);
    m = aid_open(dev, *state, KERN_F32, false, RECOMPUTE_NONE);
    assert_int_equal(model_score(m, &b, got, &e), 0);
    assert_true(aid_max_diff(want, got, 5) < 1e-5);
    model_close(m);
    kern_close(dev);
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_survives_a_round_trip, aid_dir_setup,
                                        aid_dir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

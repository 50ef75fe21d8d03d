#include "tests/unit/aid_tiny.h"

#include "core/base/file.h"
#include "tests/unit/aid.h"

#include <stdlib.h>

static void copy(const char *from_dir, const char *name, const char *to_dir)
{
    hone_err e = {0};
    char *from = path_join(from_dir, name), *to = path_join(to_dir, name);
    if (file_copy(from, to, &e) != 0)
        fail_msg("%s", e.msg);
    free(from);
    free(to);
}

void aid_tiny_make(const char *dir)
{
    assert_int_equal(dir_make(dir, NULL), 0);
    copy("tests/golden/model/llama", "config.json", dir);
    copy("tests/golden/model/llama", "model.safetensors", dir);
    copy("tests/golden/tiny", "tokenizer.json", dir);
    copy("tests/golden/tiny", "tokenizer_config.json", dir);
}

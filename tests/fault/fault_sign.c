/* Signing: a directory is signed or as it was, and a signing key is whole or not there. */
#include "adapters/sign.h"
#include "core/base/file.h"
#include "tests/fault/cases.h"

#include <stdlib.h>

/* The key's directory is the case's own; what is signed lies below it. */
static char *model_of(const char *dir)
{
    return path_join(dir, "model");
}

static void prepare_files(const char *dir)
{
    fault_put(dir, "model/config.json", "{}");
    fault_put(dir, "model/notes/README.md", "made for a test");
}

static void prepare_with_key(const char *dir)
{
    sign_public own;
    prepare_files(dir);
    if (sign_public_own(&own, dir, NULL) != 0)
        abort();
}

static int act_sign(const char *dir, hone_err *e)
{
    sign_report r;
    char *model = model_of(dir);
    int rc = sign_dir(model, "test", dir, &r, e);
    free(model);
    return rc;
}

static fault_state look_signed(const char *dir)
{
    sign_trust t;
    sign_report r;
    char *model = model_of(dir);
    int rc = sign_trust_open(&t, dir, NULL, true, NULL);
    if (rc == 0) {
        rc = sign_dir_check(model, &t, &r, NULL);
        sign_trust_close(&t);
    }
    free(model);
    return rc == 0 ? FAULT_NEW : rc == HONE_ENOTFOUND ? FAULT_OLD : FAULT_BROKEN;
}

const fault_case fault_sign_dir = {.name = "sign_dir",
                                   .prepare = prepare_with_key,
                                   .act = act_sign,
                                   .look = look_signed,
                                   .durable = true};

static int act_key(const char *dir, hone_err *e)
{
    sign_public own;
    return sign_public_own(&own, dir, e);
}

/* Looking must not make one. A key that was made stands, though reading it back may fail. */
static fault_state look_key(const char *dir)
{
    char *path = path_join(dir, "signing.key");
    bool there = file_exists(path);
    free(path);
    if (!there)
        return FAULT_OLD;
    return act_key(dir, NULL) == 0 ? FAULT_NEW : FAULT_BROKEN;
}

const fault_case fault_sign_key = {.name = "sign_key",
                                   .prepare = prepare_files,
                                   .act = act_key,
                                   .look = look_key,
                                   .error_after_new = true,
                                   .durable = true};

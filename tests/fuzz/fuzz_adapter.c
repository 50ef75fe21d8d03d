/* A PEFT directory beside a tiny model: adapter_config.json, then after a zero byte
 * adapter_model.safetensors. What is accepted computes, and is the same adapter when it was saved
 * and read again; what is refused says why. */
#include "adapters/lora.h"
#include "core/base/file.h"
#include "core/base/utf8.h"
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOKENS = 4 };

/* Made once, on files in memory where there are any. */
static struct {
    model *m;
    char dir[64], again[96];
    int config, weights;
} g;

static int file_in(const char *dir, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0);
    return fd;
}

static void begin(void)
{
    char err[256];
    kern_dev *dev;
    hone_err e = {0};
    snprintf(g.dir, sizeof g.dir, "%s/fuzz-adapter-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(g.dir) != NULL);
    snprintf(g.again, sizeof g.again, "%s/again", g.dir);
    FUZZ_CHECK(mkdir(g.again, 0700) == 0);
    g.config = file_in(g.dir, "adapter_config.json");
    g.weights = file_in(g.dir, "adapter_model.safetensors");
    FUZZ_CHECK(kern_open(&dev, "cpu", &(kern_open_args){.threads = 1}, err) == 0);
    const model_options o = {.dev = dev, .dtype = KERN_F32, .backward = true};
    FUZZ_CHECK(model_open(&g.m, "tests/golden/model/llama", &o, &e) == 0);
}

static void put(int fd, const void *data, size_t n)
{
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
}

static adapter *try_open(const char *dir)
{
    adapter *a;
    hone_err e = {0};
    int rc = adapter_open(&a, dir, g.m, true, NULL, NULL, &e);
    FUZZ_CHECK((rc == 0) == (a != NULL));
    if (rc != 0)
        FUZZ_CHECK(rc == e.code && e.msg[0] != '\0' &&
                   utf8_valid(e.msg, strlen(e.msg)) == strlen(e.msg));
    return a;
}

static void score(float logp[TOKENS])
{
    static const int32_t ids[TOKENS] = {1, 5, 9, 13}, pos[TOKENS] = {0, 1, 2, 3},
                         target[TOKENS] = {5, 9, 13, 2}, cu[2] = {0, TOKENS};
    const model_batch b = {
        .n = TOKENS, .ids = ids, .pos = pos, .target = target, .cu = cu, .n_seg = 1};
    hone_err e = {0};
    FUZZ_CHECK(model_score(g.m, &b, logp, &e) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    float one[TOKENS], two[TOKENS];
    hone_err e = {0};
    const uint8_t *zero = size == 0 ? NULL : memchr(data, 0, size);
    size_t n = zero != NULL ? (size_t)(zero - data) : size;
    if (g.m == NULL)
        begin();
    put(g.config, data, n);
    put(g.weights, zero != NULL ? zero + 1 : data, zero != NULL ? size - n - 1 : 0);
    adapter *a = try_open(g.dir);
    if (a == NULL)
        return 0;
    score(one);
    FUZZ_CHECK(adapter_save(a, g.again, "base", &e) == 0);
    adapter_close(a);
    a = try_open(g.again);
    FUZZ_CHECK(a != NULL);
    score(two);
    FUZZ_CHECK(memcmp(one, two, sizeof one) == 0);
    adapter_close(a);
    return 0;
}

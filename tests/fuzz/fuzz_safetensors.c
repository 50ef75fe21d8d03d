/* Bytes as a safetensors file: opened, every tensor read to its end. */
#include "core/model/safetensors.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    safetensors *st;
    hone_err e = {0};
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (safetensors_open(&st, path, &e) != 0) {
        FUZZ_CHECK(st == NULL && e.msg[0] != '\0');
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const st_tensor *t = safetensors_at(st, i);
        FUZZ_CHECK(safetensors_find(st, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++)
            sum += ((const uint8_t *)t->data)[k];
    }
    safetensors_close(st);
    return sum == 1 ? -1 : 0; /* the sum must not be optimised away */
}

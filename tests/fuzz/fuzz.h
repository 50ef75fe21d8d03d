#pragma once
/* A fuzz target is one function; clang's driver calls it. It must return 0, and nothing it calls
 * may crash, leak, hang or accept what it should not, whatever the bytes are. */
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the run where a property does not hold. */
#define FUZZ_CHECK(condition) ((condition) ? (void)0 : __builtin_trap())

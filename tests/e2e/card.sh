#!/bin/bash
# The card's own tests on the emulated card: models against transformers' numbers, gradients,
# low-rank terms, the paged cache with recorded steps, the engine, and the same text as the CPU.
set -eu
lib=$BUILD/emu/libhone_cuda.so
if [ ! -e "$lib" ]; then
    echo "skipped: no emulated card (g++ and x86-64 make one)"
    exit 77
fi
# Which product is the fastest differs from run to run here, and with it the last bits.
export HONE_CUDA_LIB=$lib HONE_GEMM_CACHE=off
rows="unit_model unit_model_train unit_paged unit_peft unit_gen unit_engine unit_merge same_text"
build=${BUILD#"$PWD"/}
programs=()
for r in $rows; do
    [[ $r != unit_* ]] || programs+=("$build/tests/unit/test_${r#unit_}")
done
make -s NVCC= B="$build" "${programs[@]}"
GPU_ROWS="$rows" tests/gpu/run "$BUILD"
if EMU_NO_CARD=1 "$HONE" generate --model examples/model --device cuda Hi 2>"$SCRATCH/why"; then
    echo "FAIL: a card that is not there was used"
    exit 1
fi
grep -q "no card" "$SCRATCH/why" || {
    cat "$SCRATCH/why"
    exit 1
}

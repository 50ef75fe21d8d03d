#pragma once
#include "tests/emu/cuda_bf16.h"

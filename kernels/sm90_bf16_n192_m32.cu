// Many rows on Hopper, bfloat16 activations: tiles of 32 rows by 192 columns.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_N192_M32(bf16, ExactBfloat)

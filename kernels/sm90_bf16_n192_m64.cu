// Many rows on Hopper, bfloat16 activations: tiles of 64 rows by 192 columns.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_N192_M64(bf16, ExactBfloat)

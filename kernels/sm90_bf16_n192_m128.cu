// Many rows on Hopper, bfloat16 activations: tiles of 128 rows by 192 columns.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_N192(bf16, Bfloat16)

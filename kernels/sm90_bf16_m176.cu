// Many rows on Hopper, bfloat16 activations: tiles of 176 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_M176(bf16, Bfloat16)

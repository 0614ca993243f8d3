// Many rows on Hopper, bfloat16 activations.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16(bf16, ExactBfloat, Bfloat16)

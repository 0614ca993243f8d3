// Many rows on Hopper, int8 activations with a scale per (row, 128 columns).
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8(s8b, true)

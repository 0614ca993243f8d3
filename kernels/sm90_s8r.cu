// Many rows on Hopper, int8 activations with one scale per row.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8(s8r, false)

// Many rows on Hopper, int8 activations with a scale per (row, 128 columns): tiles of 32 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M32(s8b, true)

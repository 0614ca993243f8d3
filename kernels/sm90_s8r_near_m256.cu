// Many rows on Hopper, int8 activations with one scale per row, output of 16 bits: tiles of 256 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M256_NEAR(s8r_near)

// Many rows on Hopper, int8 activations with a scale per (row, 128): tiles of 256 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M256_BLOCKS(s8b)

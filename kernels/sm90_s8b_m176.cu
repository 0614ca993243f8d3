// Many rows on Hopper, int8 activations with a scale per (row, 128 columns): tiles of 176 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M176_BLOCKS(s8b)

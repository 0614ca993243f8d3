// Many rows on Hopper, int8 activations with one scale per row: tiles of 128 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M128_ROWS(s8r)

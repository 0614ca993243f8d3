// Many rows on Hopper, int8 activations with one scale per row: tiles of 176 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_8_M176_ROWS(s8r)

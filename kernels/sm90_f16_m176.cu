// Many rows on Hopper, half-precision activations: tiles of 176 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_M176(f16, Half16)

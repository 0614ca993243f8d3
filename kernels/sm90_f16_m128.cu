// Many rows on Hopper, half-precision activations: tiles of 128 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_M128(f16, Half16)

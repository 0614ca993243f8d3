// Many rows on Hopper, half-precision activations: tiles of 256 rows.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_M256(f16, Half16)

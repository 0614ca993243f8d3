// Many rows on Hopper, half-precision activations: tiles of 64 rows by 192 columns.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16_N192_M64(f16, ExactHalf)

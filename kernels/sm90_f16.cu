// Many rows on Hopper, half-precision activations.
#include "flexq/sm90/kernels.cuh"

FLEXQ_SM90_16(f16, ExactHalf, Half16)

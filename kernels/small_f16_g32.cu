// Small M, f16 activations, one weight scale per 32 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(f16_g32_m8, 2, Float16<flexq::Half, 1, 4>)
FLEXQ_SMALL(f16_g32_m16, 1, Float16<flexq::Half, 2, 4>)
FLEXQ_SMALL(f16_g32_m32, 1, Float16<flexq::Half, 4, 4>)

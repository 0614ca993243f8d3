// Small M, f16 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(f16_g128_m8, 16, 3, Float16<flexq::Half, 1, 1>)
FLEXQ_SMALL(f16_g128_m16, 8, 4, Float16<flexq::Half, 2, 1>)
FLEXQ_SMALL(f16_g128_m32, 8, 4, Float16<flexq::Half, 4, 1>)

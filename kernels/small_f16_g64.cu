// Small M, f16 activations, one weight scale per 64 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(f16_g64_m8, 2, Float16<flexq::Half, 1, 2>)
FLEXQ_SMALL(f16_g64_m16, 2, Float16<flexq::Half, 2, 2>)
FLEXQ_SMALL(f16_g64_m32, 1, Float16<flexq::Half, 4, 2>)

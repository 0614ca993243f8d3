// Small M, bf16 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(bf16_g128_m8, 2, Float16<flexq::Bfloat, 1, 1>)
FLEXQ_SMALL(bf16_g128_m16, 2, Float16<flexq::Bfloat, 2, 1>)
FLEXQ_SMALL(bf16_g128_m32, 1, Float16<flexq::Bfloat, 4, 1>)

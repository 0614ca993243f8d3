// Small M, bf16 activations, one weight scale per 64 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(bf16_g64_m8, 2, Float16<flexq::Bfloat, 1, 2>)
FLEXQ_SMALL(bf16_g64_m16, 2, Float16<flexq::Bfloat, 2, 2>)
FLEXQ_SMALL(bf16_g64_m32, 1, Float16<flexq::Bfloat, 4, 2>)

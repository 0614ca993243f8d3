// Small M, bf16 activations, one weight scale per 64 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(bf16_g64_m8, 16, 3, Float16<flexq::Bfloat, 1, 2>)
FLEXQ_SMALL(bf16_g64_m16, 8, 4, Float16<flexq::Bfloat, 2, 2>)
FLEXQ_SMALL(bf16_g64_m32, 8, 4, Float16<flexq::Bfloat, 4, 2>)

// Up to 8 rows of f16 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(f16_g128_m8, 2, Float16<flexq::Half, 1, 1>)

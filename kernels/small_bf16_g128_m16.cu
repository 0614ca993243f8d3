// Up to 16 rows of bf16 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(bf16_g128_m16, 2, Float16<flexq::Bfloat, 2, 1>)

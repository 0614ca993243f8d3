// Up to 8 rows of int8 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(s8_g128_m8, 2, Int8<1, 1>)

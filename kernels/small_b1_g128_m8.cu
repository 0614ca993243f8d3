// Up to 8 rows of bit planes of int8 activations, one weight scale per 128 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(b1_g128_m8, 2, Bits<8>)

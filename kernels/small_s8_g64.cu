// Small M, int8 activations, one weight scale per 64 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(s8_g64_m8, 2, Int8<1, 2>)
FLEXQ_SMALL(s8_g64_m16, 2, Int8<2, 2>)
FLEXQ_SMALL(s8_g64_m32, 1, Int8<4, 2>)

// Small M, int8 activations, one weight scale per 32 columns.
#include "flexq/small/instantiate.cuh"

FLEXQ_SMALL(s8_g32_m8, 2, Int8<1, 4>)
FLEXQ_SMALL(s8_g32_m16, 1, Int8<2, 4>)
FLEXQ_SMALL(s8_g32_m32, 1, Int8<4, 4>)

// Few rows by expert, int8 activations.
#include "flexq/small/int8.cuh"
#include "flexq/small_grouped.cuh"

FLEXQ_SMALL_GROUPED(s8_g128, Int8<1, 1>)
FLEXQ_SMALL_GROUPED(s8_g64, Int8<1, 2>)
FLEXQ_SMALL_GROUPED(s8_g32, Int8<1, 4>)

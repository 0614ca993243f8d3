// Few rows by expert, f16 activations.
#include "flexq/small/float16.cuh"
#include "flexq/small_grouped.cuh"

FLEXQ_SMALL_GROUPED(f16_g128, Float16<flexq::Half, 1, 1>)
FLEXQ_SMALL_GROUPED(f16_g64, Float16<flexq::Half, 1, 2>)
FLEXQ_SMALL_GROUPED(f16_g32, Float16<flexq::Half, 1, 4>)

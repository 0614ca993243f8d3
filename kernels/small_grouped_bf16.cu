// Few rows by expert, bf16 activations.
#include "flexq/small/float16.cuh"
#include "flexq/small_grouped.cuh"

FLEXQ_SMALL_GROUPED(bf16_g128, Float16<flexq::Bfloat, 1, 1>)
FLEXQ_SMALL_GROUPED(bf16_g64, Float16<flexq::Bfloat, 1, 2>)
FLEXQ_SMALL_GROUPED(bf16_g32, Float16<flexq::Bfloat, 1, 4>)

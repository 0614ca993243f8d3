// Up to 8 rows of bf16 activations that come while weights do, one weight scale per 128 columns.
#include "flexq/small_streamed.cuh"

FLEXQ_SMALL_STREAMED(bf16_m8, FloatBlock<flexq::Bfloat, 1, 1>)

// 9 to 16 rows of bf16 activations that come while weights do, one weight scale per 128 columns.
#include "flexq/small_streamed.cuh"

FLEXQ_SMALL_STREAMED(bf16_m16, 1, FloatBlock<flexq::Bfloat, 2, 1>)

// Up to 8 rows of 16-bit activations that come while weights do and are quantized on the way, one scale per
// 128 columns of either.
#include "flexq/small_streamed.cuh"

FLEXQ_SMALL_STREAMED(s8_m8, QuantizedBlock<1, 1>)

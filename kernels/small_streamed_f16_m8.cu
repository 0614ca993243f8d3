// Up to 8 rows of f16 activations that come while weights do, one weight scale per 128 columns.
#include "flexq/small_streamed.cuh"

FLEXQ_SMALL_STREAMED(f16_m8, FloatBlock<flexq::Half, 1, 1>)

// W6A16 for M up to 32: tiles of 8 activation rows x scale segments per 128 columns.
#include "flexq/small.cuh"

#define FLEXQ_SMALL(name, act, tiles, segments, warps, stages)                            \
  extern "C" __global__ void __launch_bounds__(warps * 32, 1)                             \
      name(const __grid_constant__ flexq::SmallArgs a) {                                  \
    flexq::small_product<flexq::small::act, tiles, segments, warps, stages>(a);           \
  }

FLEXQ_SMALL(test_a, F16, 1, 1, 16, 4)
FLEXQ_SMALL(test_b, F16, 2, 1, 16, 4)
FLEXQ_SMALL(test_c, F16, 4, 1, 16, 4)
FLEXQ_SMALL(test_d, BF16, 1, 1, 16, 4)
FLEXQ_SMALL(test_e, BF16, 1, 4, 16, 4)
FLEXQ_SMALL(test_f, S8<flexq::Half>, 1, 1, 16, 4)
FLEXQ_SMALL(test_g, S8<flexq::Half>, 4, 4, 16, 4)

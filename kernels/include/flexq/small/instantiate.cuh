// Names for the small-M kernels: flexq_small_<activations>_g<segment>_m<rows>.
#pragma once

#include "flexq/small.cuh"
#include "flexq/small/bits.cuh"
#include "flexq/small/float16.cuh"
#include "flexq/small/int8.cuh"

#define FLEXQ_SMALL(name, warps, stages, ...)                                  \
  extern "C" __global__ void __launch_bounds__(warps * 32, 1)                  \
      flexq_small_##name(const __grid_constant__ flexq::SmallArgs a) {         \
    flexq::small_product<flexq::small::__VA_ARGS__, warps, stages>(a);         \
  }

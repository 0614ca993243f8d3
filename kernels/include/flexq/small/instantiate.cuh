// Names for the small-M kernels: flexq_small_<activations>_g<segment>_m<rows>.
#pragma once

#include "flexq/small.cuh"
#include "flexq/small/bits.cuh"
#include "flexq/small/float16.cuh"
#include "flexq/small/int8.cuh"

// Kernels of `blocks` blocks a multiprocessor leave room for the next product, which fetches its
// first weights while this one finishes.
#define FLEXQ_SMALL(name, blocks, ...)                                                  \
  extern "C" __global__ void __launch_bounds__(flexq::small::kWarps * 32, blocks)       \
      flexq_small_##name(const __grid_constant__ flexq::SmallArgs a) {                  \
    flexq::small_product<flexq::small::__VA_ARGS__, flexq::small::kWarps>(a, blockIdx.x); \
  }

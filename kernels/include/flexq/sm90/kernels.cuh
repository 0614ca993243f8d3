// The kernels of one kind of activations. Names: n<columns of N>_m<rows of M> that a cluster covers.
// Tiles are mirrored by crates/flexq-cuda/src/config/hopper.rs.
#pragma once

#include "flexq/sm90/consume_a16.cuh"
#include "flexq/sm90/consume.cuh"
#include "flexq/sm90/consume_few.cuh"
#include "flexq/sm90/product.cuh"

#define FLEXQ_SM90(name, T, ...)                                                     \
  extern "C" __global__ void __launch_bounds__((flexq::sm90::T::kThreads), 1)        \
      flexq_sm90_##name(const __grid_constant__ flexq::HopperArgs a) {               \
    flexq::sm90::product<flexq::sm90::T, flexq::sm90::__VA_ARGS__>(a);               \
  }

namespace flexq::sm90 {

// groups, rows, part, stages, x_stages, boxes, element, block_scales, cluster
using Half32 = Tile<2, 32, 32, 8, 8, 2, 2>;
using Half64 = Tile<2, 64, 64, 6, 6, 2, 2>;
using Half128 = Tile<2, 128, 128, 4, 4, 2, 2>;
using Half256 = Tile<2, 256, 256, 3, 5, 1, 2>;
using Half256x2 = Tile<2, 256, 256, 3, 5, 1, 2, false, 2>;
template <bool block_scales>
using Byte32 = Tile<2, 32, 32, 10, 10, 1, 1, block_scales>;
template <bool block_scales>
using Byte64 = Tile<2, 64, 64, 8, 8, 1, 1, block_scales>;
template <bool block_scales>
using Byte128 = Tile<2, 128, 128, 6, 6, 1, 1, block_scales>;
template <bool block_scales>
using Byte256 = Tile<2, 256, 64, 4, 4, 1, 1, block_scales>;

}  // namespace flexq::sm90

#define FLEXQ_SM90_16(name, exact, rounded)                                                      \
  FLEXQ_SM90(name##_n128_m32, Half32, ConsumeFew<flexq::sm90::Half32, flexq::sm90::exact>)       \
  FLEXQ_SM90(name##_n128_m64, Half64, ConsumeFew<flexq::sm90::Half64, flexq::sm90::exact>)       \
  FLEXQ_SM90(name##_n128_m128, Half128, ConsumeFew<flexq::sm90::Half128, flexq::sm90::exact>)    \
  FLEXQ_SM90(name##_n128_m256, Half256, Consume16<flexq::sm90::Half256, flexq::sm90::rounded>)   \
  FLEXQ_SM90(name##_n256_m256, Half256x2, Consume16<flexq::sm90::Half256x2, flexq::sm90::rounded>)
#define FLEXQ_SM90_8(name, scales)                                                               \
  FLEXQ_SM90(name##_n128_m32, Byte32<scales>,                                                    \
             ConsumeFew<flexq::sm90::Byte32<scales>, flexq::sm90::Int8>)                         \
  FLEXQ_SM90(name##_n128_m64, Byte64<scales>,                                                    \
             ConsumeFew<flexq::sm90::Byte64<scales>, flexq::sm90::Int8>)                         \
  FLEXQ_SM90(name##_n128_m128, Byte128<scales>,                                                  \
             ConsumeFew<flexq::sm90::Byte128<scales>, flexq::sm90::Int8>)                        \
  FLEXQ_SM90(name##_n128_m256, Byte256<scales>,                                                  \
             Consume<flexq::sm90::Byte256<scales>, flexq::sm90::Int8, 1>)

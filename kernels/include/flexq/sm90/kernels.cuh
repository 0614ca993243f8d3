// The kernels of one kind of activations. Names: n<columns of N>_m<rows of M> that a cluster covers.
// Tiles are mirrored by crates/flexq-cuda/src/config/hopper.rs.
#pragma once

#include "flexq/sm90/consume_a16.cuh"
#include "flexq/sm90/consume.cuh"
#include "flexq/sm90/consume_few.cuh"
#include "flexq/sm90/consume_rows.cuh"
#include "flexq/sm90/consume_turns.cuh"
#include "flexq/sm90/product.cuh"

#define FLEXQ_SM90(name, T, ...)                                                     \
  extern "C" __global__ void __launch_bounds__((flexq::sm90::T::kThreads), 1)        \
      flexq_sm90_##name(const __grid_constant__ flexq::HopperArgs a) {               \
    flexq::sm90::product<flexq::sm90::T, flexq::sm90::__VA_ARGS__>(a);               \
  }

namespace flexq::sm90 {

// groups, rows, part, stages, x_stages, boxes, element, block_scales, cluster
using Half32 = Tile<2, 32, 32, 8, 8, 2, 2>;
using Half32x3 = Tile<3, 32, 32, 8, 8, 2, 2>;
using Half64 = Tile<2, 64, 64, 6, 6, 2, 2>;
using Half64x3 = Tile<3, 64, 64, 6, 6, 2, 2>;
using Half128 = Tile<2, 128, 128, 4, 4, 2, 2>;
using Half128x3 = Tile<3, 128, 128, 3, 3, 2, 2>;
using Half176 = Tile<2, 176, 176, 3, 3, 2, 2>;
using Half192 = Tile<2, 192, 192, 3, 3, 2, 2>;
using Half256 = Tile<2, 256, 256, 3, 5, 1, 2>;
using Half256x2 = Tile<2, 256, 256, 3, 5, 1, 2, false, 2>;
template <bool block_scales>
using Byte32 = Tile<2, 32, 32, 10, 10, 1, 1, block_scales>;
template <bool block_scales>
using Byte64 = Tile<2, 64, 64, 8, 8, 1, 1, block_scales>;
template <bool block_scales>
using Byte128 = Tile<2, 128, 128, 6, 6, 1, 1, block_scales>;
template <bool block_scales>
using Byte128x3 = Tile<3, 128, 128, 5, 5, 1, 1, block_scales>;
template <bool block_scales>
using Byte176 = Tile<2, 176, 176, 5, 5, 1, 1, block_scales>;
using Byte256 = Tile<2, 256, 64, 4, 4, 1, 1>;
using Byte256Near = Tile<2, 256, 128, 4, 4, 1, 1>;
using Byte256Blocks = Tile<2, 256, 128, 4, 4, 1, 1, true>;

}  // namespace flexq::sm90

// 16-bit activations. Up to 64 rows, where every launch is short, products of exact codes; more rows
// leave no registers for a second set of sums.
#define FLEXQ_SM90_FEW(name, T, format) \
  FLEXQ_SM90(name, T, ConsumeFew<flexq::sm90::T, flexq::sm90::format>)
#define FLEXQ_SM90_ROUNDED(name, T, format) \
  FLEXQ_SM90(name, T, Consume16<flexq::sm90::T, flexq::sm90::format>)
#define FLEXQ_SM90_16_M32(name, format) FLEXQ_SM90_FEW(name##_n128_m32, Half32, format)
#define FLEXQ_SM90_16_N192_M32(name, format) FLEXQ_SM90_FEW(name##_n192_m32, Half32x3, format)
#define FLEXQ_SM90_16_M64(name, format) FLEXQ_SM90_FEW(name##_n128_m64, Half64, format)
#define FLEXQ_SM90_16_N192_M64(name, format) FLEXQ_SM90_FEW(name##_n192_m64, Half64x3, format)
#define FLEXQ_SM90_16_M128(name, format) FLEXQ_SM90_ROUNDED(name##_n128_m128, Half128, format)
#define FLEXQ_SM90_16_N192(name, format) FLEXQ_SM90_ROUNDED(name##_n192_m128, Half128x3, format)
#define FLEXQ_SM90_16_M176(name, format) FLEXQ_SM90_ROUNDED(name##_n128_m176, Half176, format)
#define FLEXQ_SM90_16_M192(name, format) FLEXQ_SM90_ROUNDED(name##_n128_m192, Half192, format)
#define FLEXQ_SM90_16_M256(name, format)                  \
  FLEXQ_SM90_ROUNDED(name##_n128_m256, Half256, format) \
  FLEXQ_SM90_ROUNDED(name##_n256_m256, Half256x2, format)

// int8 activations, always exact codes. With one scale a row tiles of two groups add in turns.
#define FLEXQ_SM90_TURNS(name, T, sums) \
  FLEXQ_SM90(name, T, ConsumeRows<flexq::sm90::T, flexq::sm90::Int8, flexq::sm90::sums<flexq::sm90::T>>)
#define FLEXQ_SM90_8_M32(name, scales) FLEXQ_SM90_FEW(name##_n128_m32, Byte32<scales>, Int8)
#define FLEXQ_SM90_8_M64(name, scales) FLEXQ_SM90_FEW(name##_n128_m64, Byte64<scales>, Int8)
#define FLEXQ_SM90_8_M128_BLOCKS(name) FLEXQ_SM90_FEW(name##_n128_m128, Byte128<true>, Int8)
#define FLEXQ_SM90_8_M128_ROWS(name) FLEXQ_SM90_TURNS(name##_n128_m128, Byte128<false>, Converted)
#define FLEXQ_SM90_8_N192(name, scales) FLEXQ_SM90_FEW(name##_n192_m128, Byte128x3<scales>, Int8)
#define FLEXQ_SM90_8_M176_BLOCKS(name) FLEXQ_SM90_FEW(name##_n128_m176, Byte176<true>, Int8)
#define FLEXQ_SM90_8_M176_ROWS(name) FLEXQ_SM90_TURNS(name##_n128_m176, Byte176<false>, Converted)
#define FLEXQ_SM90_8_M256_NEAR(name) FLEXQ_SM90_TURNS(name##_n128_m256, Byte256Near, Near)
#define FLEXQ_SM90_8_M256(name) \
  FLEXQ_SM90(name##_n128_m256, Byte256, Consume<flexq::sm90::Byte256, flexq::sm90::Int8>)
#define FLEXQ_SM90_8_M256_BLOCKS(name)       \
  FLEXQ_SM90(name##_n128_m256, Byte256Blocks, \
             ConsumeTurns<flexq::sm90::Byte256Blocks, flexq::sm90::Int8>)

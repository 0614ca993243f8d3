// Staging of int8 activations: codes that another kernel made, or 16-bit numbers that this block
// quantizes for itself, code for code as that kernel would.
#pragma once

#include "flexq/activations.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/small/args.cuh"

namespace flexq::small {

// Codes of the x slice, and its scales as [K block][m].
template <int warps>
__device__ __forceinline__ void stage_codes(const SmallArgs& a, u8* x, float* scales, int block0,
                                            int blocks) {
  constexpr int threads = warps * 32;
  const int k_pad = round_up(a.k, layout::kTileCols);
  wait_for_x(a);
  for (int i = threadIdx.x; i < a.m * blocks; i += threads) {
    const int block = quotient(i, a.m);
    scales[i] = a.x_scales[u64(block0 + block) * a.x_scale_stride + i - block * a.m];
  }
  stage_pieces<threads>(a, static_cast<const u8*>(a.x), k_pad, a.m, block0 * layout::kTileCols,
                        blocks * layout::kTileCols, k_pad, x, x_row_bytes<1>(a.split_blocks));
}

// Calls use(row, block, values) for each (row, 128 columns) of `blocks` blocks from `block0` on:
// eight lanes at a time, each with its sixteen columns. All lanes of a warp make the same number
// of calls; those past the end are for row 0 and have `valid` false.
template <int warps, class Use>
__device__ __forceinline__ void for_each_block(const SmallArgs& a, int block0, int blocks,
                                               const Use& use) {
  using namespace activations;
  constexpr int kAtOnce = warps * 32 / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int items = a.m * blocks, last = round_up(items, 32 / kLanes);
  const u16* from = static_cast<const u16*>(a.x);
  const int start = turn(items);
  const auto place = [&](int item) {
    const int at = (item < items ? item : 0) + start;
    return at < items ? at : at - items;
  };
  for (int first = threadIdx.x / kLanes; first < last; first += kBatch * kAtOnce) {
    u32 w[kBatch][8];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int item = first + j * kAtOnce, at = place(item);
      const int row = quotient(at, blocks), block = at - row * blocks;
      load(from + u64(row) * a.x_stride, (block0 + block) * layout::kTileCols + lane * kColumns, a.k,
           w[j]);
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int item = first + j * kAtOnce, at = place(item);
      float v[kColumns];
      widen(w[j], a.x_type, v);
      const int row = quotient(at, blocks);
      use(row, at - row * blocks, v, item < items);
    }
  }
}

// The same from 16-bit x; `most` is room for a number per row.
template <int warps>
__device__ __forceinline__ void stage_quantized(const SmallArgs& a, u8* x, float* scales, int block0,
                                                int blocks, u32* most) {
  using namespace activations;
  const int lane = threadIdx.x % kLanes;
  wait_for_x(a);
  if (a.per_row) {
    if (threadIdx.x < a.m) most[threadIdx.x] = 0;
    __syncthreads();
    for_each_block<warps>(a, 0, ceil_div(a.k, layout::kTileCols),
                          [&](int row, int, const float(&v)[kColumns], bool) {
                            // bits of numbers that are not negative are ordered as they are
                            const float m = lane_max<kLanes>(max_abs(v));
                            if (lane == 0) atomicMax(most + row, __float_as_uint(m));
                          });
    __syncthreads();
  }
  for_each_block<warps>(
      a, block0, blocks, [&](int row, int block, const float(&v)[kColumns], bool valid) {
        const float m =
            a.per_row ? __uint_as_float(most[row]) : lane_max<kLanes>(max_abs(v));
        const Quantizer code(m, a.q_max);
        if (!valid) return;
        if (lane == 0) scales[block * a.m + row] = code.scale();
        u8* const to = x + row * x_row_bytes<1>(a.split_blocks) + block * layout::kTileCols;
        reinterpret_cast<uint4*>(to)[lane] = code(v);
      });
  if (a.per_row) __syncthreads();  // `most` is used for sums next
}

template <int warps>
__device__ __forceinline__ void stage_int8(const SmallArgs& a, u8* x, float* scales, int block0,
                                           int blocks) {
  if (a.x_scales != nullptr) {
    stage_codes<warps>(a, x, scales, block0, blocks);
  } else {
    u32* const most = reinterpret_cast<u32*>(scales + round_up(a.m * blocks, 4));
    stage_quantized<warps>(a, x, scales, block0, blocks, most);
  }
}

}  // namespace flexq::small

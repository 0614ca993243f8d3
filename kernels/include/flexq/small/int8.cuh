// Small M, int8 activations: m16n8k32 with exact int32 sums per scale segment.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/mma.cuh"
#include "flexq/small/args.cuh"
#include "flexq/small/quantize.cuh"
#include "flexq/unpack.cuh"

namespace flexq::small {

// `tiles` tiles of eight activation rows.
template <int tiles, int segments>
struct Int8 {
  static constexpr int kElement = 1;
  static constexpr int kSegments = segments;
  static constexpr int kStep = layout::kTileCols * kElement;

  u32 x_row[tiles], x[tiles];
  const float* x_scales;
  const float* x_scale;
  float sum[tiles][4] = {};

  static __device__ __forceinline__ int scale_floats(int m, int blocks) {
    return round_up(m * blocks, 4);
  }

  template <int warps>
  static __device__ __forceinline__ void stage(const SmallArgs& a, u8* x, float* scales, int block0,
                                               int blocks) {
    stage_int8<warps>(a, x, scales, block0, blocks);
  }

  __device__ __forceinline__ Int8(const SmallArgs& a, const u8* slice, const float* scales)
      : x_scales(scales) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      const int row = min(i * 8 + lane % 8, a.m - 1);
      x_row[i] = ptx::shared_address(slice) + row * x_row_bytes<kElement>(a.split_blocks) +
                 lane / 8 * 16;
    }
  }

  __device__ __forceinline__ void seek(const SmallArgs& a, int block) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] = x_row[i] + block * kStep;
    x_scale = x_scales + block * a.m;
  }

  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2]) {
    constexpr int quads = layout::kQuads / segments;
#pragma unroll
    for (int s = 0; s < segments; ++s) {
      i32 c[tiles][4] = {};
      u32 b[tiles][4];
#pragma unroll
      for (int j = s * quads; j < (s + 1) * quads; ++j) {
        const u32 quad[3] = FLEXQ_QUAD(w, j);
        u32 frag[4];
        fragment_s8(quad, frag);
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
          if (j % 2 == 0 || j == s * quads) ptx::ldmatrix_x4(b[i], x[i] + (j / 2) * 64);
          ptx::mma_s8(c[i], frag, b[i][2 * (j % 2)], b[i][2 * (j % 2) + 1]);
        }
      }
      const float s0 = load16(scale[s][0], a.scale_type), s1 = load16(scale[s][1], a.scale_type);
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        const int row = i * 8 + 2 * (threadIdx.x % 4);
        const float x0 = x_scale[min(row, a.m - 1)], x1 = x_scale[min(row + 1, a.m - 1)];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float product = (j < 2 ? s0 : s1) * (j % 2 == 0 ? x0 : x1);
          sum[i][j] = fmaf(float(c[i][j]), product, sum[i][j]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] += kStep;
    x_scale += a.m;
  }

  __device__ __forceinline__ void flush(const SmallArgs& a, float* slot) {
    store_fragments(a.m, slot, sum, 0.25f);
  }
};

}  // namespace flexq::small

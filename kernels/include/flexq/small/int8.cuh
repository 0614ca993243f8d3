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
  static constexpr int kTiles = tiles;
  static constexpr float kInverse = 0.25f;  // codes are multiplied as 4 q
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

  __device__ __forceinline__ Int8(int m, const u8* slice, int row_bytes, const float* scales)
      : x_scales(scales) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      const int row = min(i * 8 + lane % 8, m - 1);
      x_row[i] = ptx::shared_address(slice) + row * row_bytes + lane / 8 * 16;
    }
  }

  __device__ __forceinline__ Int8(const SmallArgs& a, const u8* slice, const float* scales)
      : Int8(a.m, slice, x_row_bytes<kElement>(a.split_blocks), scales) {}

  __device__ __forceinline__ void seek(const SmallArgs& a, int block) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] = x_row[i] + block * kStep;
    x_scale = x_scales + block * a.m;
  }

  // B fragments and scales of the first K block of the slice, to be used for several strips.
  struct Fragments {
    u32 b[layout::kQuads / 2][tiles][4];
    float scale[tiles][2];
  };

  __device__ __forceinline__ void load(const SmallArgs& a, Fragments& f) const {
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
#pragma unroll
      for (int j = 0; j < layout::kQuads / 2; ++j) ptx::ldmatrix_x4(f.b[j][i], x_row[i] + j * 64);
      scales_of(a, i, x_scales, f.scale[i]);
    }
  }

  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2], const Fragments& f) {
    add_product(
        a, w, scale,
        [&](int i, int j, u32(&b)[4]) {
#pragma unroll
          for (int r = 0; r < 4; ++r) b[r] = f.b[j][i][r];
        },
        [&](int i, float(&s)[2]) { s[0] = f.scale[i][0], s[1] = f.scale[i][1]; });
  }

  // Adds the product of one K block and steps to the next.
  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2]) {
    add_product(
        a, w, scale, [&](int i, int j, u32(&b)[4]) { ptx::ldmatrix_x4(b, x[i] + j * 64); },
        [&](int i, float(&s)[2]) { scales_of(a, i, x_scale, s); });
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] += kStep;
    x_scale += a.m;
  }

  // The sums of tile `i`, which can be kept elsewhere.
  __device__ __forceinline__ void set(int i, const float4& v) {
    sum[i][0] = v.x, sum[i][1] = v.y, sum[i][2] = v.z, sum[i][3] = v.w;
  }
  __device__ __forceinline__ float4 get(int i) const {
    return make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
  }

  __device__ __forceinline__ void flush(const SmallArgs& a, float* slot) {
    store_fragments(a.m, slot, sum, kInverse);
  }

 private:
  // Of the two rows that a lane has sums of.
  static __device__ __forceinline__ void scales_of(const SmallArgs& a, int i, const float* from,
                                                   float (&s)[2]) {
    const int row = i * 8 + 2 * (threadIdx.x % 4);
    s[0] = from[min(row, a.m - 1)], s[1] = from[min(row + 1, a.m - 1)];
  }

  template <class X, class Scales>
  __device__ __forceinline__ void add_product(const SmallArgs& a, const u32 (&w)[3][4],
                                              const u16 (&scale)[segments][2], const X& x_of,
                                              const Scales& scales_of_tile) {
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
          if (j % 2 == 0 || j == s * quads) x_of(i, j / 2, b[i]);
          ptx::mma_s8(c[i], frag, b[i][2 * (j % 2)], b[i][2 * (j % 2) + 1]);
        }
      }
      const float s0 = load16(scale[s][0], a.scale_type), s1 = load16(scale[s][1], a.scale_type);
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        float x_scale_of[2];
        scales_of_tile(i, x_scale_of);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sum[i][j] = fmaf(float(c[i][j]), (j < 2 ? s0 : s1) * x_scale_of[j % 2], sum[i][j]);
        }
      }
    }
  }
};

}  // namespace flexq::small

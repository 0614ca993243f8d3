// Small M, 16-bit activations as they are: m16n8k16 with f32 sums.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/mma.cuh"
#include "flexq/small/args.cuh"
#include "flexq/unpack.cuh"

namespace flexq::small {

// `tiles` tiles of eight activation rows.
template <class Format, int tiles, int segments>
struct Float16 {
  static constexpr int kElement = 2;
  static constexpr int kSegments = segments;
  static constexpr int kTiles = tiles;
  static constexpr float kInverse = Format::kInverse;
  static constexpr int kStep = layout::kTileCols * kElement;
  // A single tile alternates between two sums, so that its instructions need not wait in line.
  static constexpr int kChains = tiles == 1 ? 2 : 1;

  u32 x_row[tiles], x[tiles];
  float sum[tiles][4] = {};

  static __device__ __forceinline__ int scale_floats(int, int) { return 0; }

  template <int warps>
  static __device__ __forceinline__ void stage(const SmallArgs& a, u8* x, float*, int block0,
                                               int blocks) {
    constexpr int threads = warps * 32;
    const int row_bytes = x_row_bytes<2>(a.split_blocks);
    const int col0 = block0 * layout::kTileCols, width = blocks * layout::kTileCols;
    const u16* from = static_cast<const u16*>(a.x);
    if (((reinterpret_cast<u64>(from) | u64(a.x_stride) * 2 | u64(a.k) * 2) & 15) == 0) {
      stage_pieces<threads>(a, reinterpret_cast<const u8*>(from), u64(a.x_stride) * 2, a.m, col0 * 2,
                            width * 2, a.k * 2, x, row_bytes);
      return;
    }
    wait_for_x(a);
    for (int i = threadIdx.x; i < a.m * width; i += threads) {
      const int row = i / width, col = i % width;
      *reinterpret_cast<u16*>(x + row * row_bytes + col * 2) =
          col0 + col < a.k ? from[u64(row) * a.x_stride + col0 + col] : u16(0);
    }
  }

  // B fragments: lane l addresses row l % 8, 16 bytes l / 8, of a slice of x; rows past the last
  // repeat it.
  __device__ __forceinline__ Float16(int m, const u8* slice, int row_bytes) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      const int row = min(i * 8 + lane % 8, m - 1);
      x_row[i] = ptx::shared_address(slice) + row * row_bytes + lane / 8 * 16;
    }
  }

  __device__ __forceinline__ Float16(const SmallArgs& a, const u8* slice, const float*)
      : Float16(a.m, slice, x_row_bytes<kElement>(a.split_blocks)) {}

  __device__ __forceinline__ void seek(const SmallArgs&, int block) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] = x_row[i] + block * kStep;
  }

  // B fragments of the first K block of the slice, to be used for several strips.
  struct Fragments {
    u32 b[layout::kQuads][tiles][4];
  };

  __device__ __forceinline__ void load(const SmallArgs&, Fragments& f) const {
#pragma unroll
    for (int j = 0; j < layout::kQuads; ++j) {
#pragma unroll
      for (int i = 0; i < tiles; ++i) ptx::ldmatrix_x4(f.b[j][i], x_row[i] + j * 64);
    }
  }

  // Adds the product of one K block and steps to the next.
  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2]) {
    add_product(a, w, scale,
                [&](int i, int j, u32(&b)[4]) { ptx::ldmatrix_x4(b, x[i] + j * 64); });
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] += kStep;
  }

  // Adds the product of one K block whose fragments are here.
  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2], const Fragments& f) {
    add_product(a, w, scale, [&](int i, int j, u32(&b)[4]) {
#pragma unroll
      for (int r = 0; r < 4; ++r) b[r] = f.b[j][i][r];
    });
  }

  // The sums of tile `i`, which can be kept elsewhere.
  __device__ __forceinline__ void set(int i, const float4& v) {
    sum[i][0] = v.x, sum[i][1] = v.y, sum[i][2] = v.z, sum[i][3] = v.w;
  }
  __device__ __forceinline__ float4 get(int i) const {
    return make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
  }

  // Moves the sums of a strip to its slot.
  __device__ __forceinline__ void flush(const SmallArgs& a, float* slot) {
    store_fragments(a.m, slot, sum, Format::kInverse);
  }

 private:
  template <class X>
  __device__ __forceinline__ void add_product(const SmallArgs& a, const u32 (&w)[3][4],
                                              const u16 (&scale)[segments][2], const X& x_of) {
    constexpr int quads = layout::kQuads / segments;
#pragma unroll
    for (int s = 0; s < segments; ++s) {
      float c[kChains][tiles][4] = {};
#pragma unroll
      for (int j = s * quads; j < (s + 1) * quads; ++j) {
        const u32 quad[3] = FLEXQ_QUAD(w, j);
        u32 frag[2][4];
        fragments<Format>(quad, frag);
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
          u32 b[4];
          x_of(i, j, b);
          Format::mma(c[0][i], frag[0], b[0], b[1]);
          Format::mma(c[kChains - 1][i], frag[1], b[2], b[3]);
        }
      }
      const float s0 = load16(scale[s][0], a.scale_type), s1 = load16(scale[s][1], a.scale_type);
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if constexpr (kChains == 2) c[0][i][j] += c[1][i][j];
          sum[i][j] = fmaf(c[0][i][j], j < 2 ? s0 : s1, sum[i][j]);
        }
      }
    }
  }
};

}  // namespace flexq::small

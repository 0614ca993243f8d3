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

  // B fragments: lane l addresses row l % 8, 16 bytes l / 8; rows past the last repeat it.
  __device__ __forceinline__ Float16(const SmallArgs& a, const u8* slice, const float*) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      const int row = min(i * 8 + lane % 8, a.m - 1);
      x_row[i] = ptx::shared_address(slice) + row * x_row_bytes<kElement>(a.split_blocks) +
                 lane / 8 * 16;
    }
  }

  __device__ __forceinline__ void seek(const SmallArgs&, int block) {
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] = x_row[i] + block * kStep;
  }

  // Adds the product of one K block and steps to the next.
  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[segments][2]) {
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
          ptx::ldmatrix_x4(b, x[i] + j * 64);
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
#pragma unroll
    for (int i = 0; i < tiles; ++i) x[i] += kStep;
  }

  // Moves the sums of a strip to its slot.
  __device__ __forceinline__ void flush(const SmallArgs& a, float* slot) {
    store_fragments(a.m, slot, sum, Format::kInverse);
  }
};

}  // namespace flexq::small

// Product for many rows of activations, with the matrix instructions that every card from
// Ampere on has: the path for M above a few dozen where wgmma is missing, and for experts.
//
// A block of eight warps computes 128 columns of N by `rows` rows of M: four warps
// along N (32 weight rows, two strips, each) by two along M. K blocks of 128 columns stream through
// a ring of stages filled by asynchronous copies: the packed weights and their scales as they
// are, activations in 16-byte pieces swizzled by row. Weights become fragments in registers.
// Sums of one scale segment are kept apart from the f32 sums of all, so that a scale
// multiplies a finished sum.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/mma.cuh"
#include "flexq/types.cuh"
#include "flexq/unpack.cuh"

namespace flexq {

struct TileArgs {
  const u8* weights;      // device order; expert e at e * weights_stride
  const u16* scales;      // [Kpad / segment][Npad]; expert e at e * scales_stride
  const void* x;          // 16-bit [m][x_stride], or int8 in fragment order
  const float* x_scales;  // int8 only: [K block][x_scale_stride] or, with stride 0, [m]
  const void* bias;       // [n], type bias_type, or null; expert e at e * n
  void* y;                // [m][n], type y_type
  float* partial;         // [splits][m][Npad], when splits > 1
  u32* arrivals;          // [tiles], zero before and after
  const i32* ends;        // null, or [experts]: rows of expert e are ends[e - 1] .. ends[e]
  u64 weights_stride, scales_stride;
  i32 m, n, k;
  i32 x_stride, x_scale_stride;
  i32 splits, split_blocks;
  Dtype scale_type, bias_type, y_type;
};

namespace tile {

constexpr int kCols = 128;  // of N
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kStrips = 2;  // a warp
constexpr int kRaster = 8;  // neighbouring N tiles that run together, for reuse in L2

struct F16 {
  using Sum = float;
  using Format = Half;
  static constexpr int kElement = 2;
  static constexpr float kInverse = Half::kInverse;
  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_f16(d, a, b0, b1);
  }
};

struct BF16 {
  using Sum = float;
  using Format = Bfloat;
  static constexpr int kElement = 2;
  static constexpr float kInverse = Bfloat::kInverse;
  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_bf16(d, a, b0, b1);
  }
};

struct S8 {
  using Sum = i32;
  static constexpr int kElement = 1;
  static constexpr float kInverse = 0.25f;
};

// Sizes of one stage, in this order: weights, weight scales, activation scales, activations.
template <class Act, int rows, int segments>
struct Stage {
  static constexpr int kWeights = kCols / layout::kTileRows * layout::kTileBytes;
  static constexpr int kScales = kCols * segments * 2;
  static constexpr int kXScales = Act::kElement == 1 ? rows * 4 : 0;
  static constexpr int kRowBytes = layout::kTileCols * Act::kElement;
  static constexpr int kBytes = kWeights + kScales + kXScales + rows * kRowBytes;
  static_assert(kScales % 16 == 0 && kXScales % 128 == 0 && rows % 32 == 0);
};

// Place of 16-byte piece `piece` of a row of activations in a stage.
template <int row_bytes>
__device__ __forceinline__ u32 swizzled(int row, int piece) {
  return row * row_bytes + ((piece ^ (row % 8)) * 16);
}

// What one block of threads works on.
struct Work {
  const u8* weights;
  const u16* scales;
  int n0;                // first column of N
  int m0, m_end;         // rows of this tile start at m0; rows of the problem end at m_end
  int block0, blocks;    // K blocks
};

template <class Act, int rows, int segments>
__device__ __forceinline__ void load_stage(const TileArgs& a, const Work& work, u8* stage, int kb,
                                           bool whole) {
  using S = Stage<Act, rows, segments>;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const u32 base = ptx::shared_address(stage);
  constexpr int kPieces = layout::kTileBytes / 16;
  for (int i = threadIdx.x; i < S::kWeights / 16; i += kThreads) {
    const int tile = work.n0 / layout::kTileRows + i / kPieces;
    const bool inside = tile < n_pad / layout::kTileRows;
    const u8* from = work.weights + (u64(inside ? tile : 0) * k_blocks + kb) * layout::kTileBytes;
    ptx::copy_async_or_zero(base + i * 16, from + i % kPieces * 16, inside);
  }
  for (int i = threadIdx.x; i < S::kScales / 16; i += kThreads) {
    const int segment = i / (kCols / 8), col = work.n0 + i % (kCols / 8) * 8;
    const bool inside = col < n_pad;
    const u16* from = work.scales + u64(kb * segments + segment) * n_pad + (inside ? col : 0);
    ptx::copy_async_or_zero(base + S::kWeights + i * 16, from, inside);
  }
  u8* const x_scales = stage + S::kWeights + S::kScales;
  if constexpr (Act::kElement == 1) {
    for (int i = threadIdx.x; i < rows; i += kThreads) {
      const int row = min(work.m0 + i, work.m_end - 1);
      ptx::copy_async_4(ptx::shared_address(x_scales) + i * 4,
                        a.x_scales + u64(kb) * a.x_scale_stride + row);
    }
  }
  u8* const x = x_scales + S::kXScales;
  const u32 x_base = ptx::shared_address(x);
  constexpr int kRowPieces = S::kRowBytes / 16, kPieceCols = 16 / Act::kElement;
  for (int i = threadIdx.x; i < rows * kRowPieces; i += kThreads) {
    const int r = i / kRowPieces, piece = i % kRowPieces;
    const int row = min(work.m0 + r, work.m_end - 1);
    const int col = kb * layout::kTileCols + piece * kPieceCols;
    const u32 to = swizzled<S::kRowBytes>(r, piece);
    if (Act::kElement == 1 || whole) {
      const bool inside = Act::kElement == 1 || col < a.k;
      const u8* from = static_cast<const u8*>(a.x) +
                       (u64(row) * a.x_stride + (inside ? col : 0)) * Act::kElement;
      ptx::copy_async_or_zero(x_base + to, from, inside);
    } else {
      const u16* from = static_cast<const u16*>(a.x) + u64(row) * a.x_stride;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        reinterpret_cast<u16*>(x + to)[j] = col + j < a.k ? from[col + j] : u16(0);
      }
    }
  }
  ptx::copy_commit();
}

// One K block in shared memory: this warp's two strips by half of the rows.
template <class Act, int rows, int segments>
__device__ __forceinline__ void multiply_stage(const TileArgs& a, const u8* stage,
                                               float (&sum)[kStrips][rows / 16][4]) {
  using S = Stage<Act, rows, segments>;
  using Sum = typename Act::Sum;
  constexpr int tiles = rows / 16, quads = layout::kQuads / segments;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int g = lane / 4, t = lane % 4;
  const int warp_n = warp % 4, warp_m = warp / 4;
  const u32 weights = ptx::shared_address(stage) + lane * 16;
  const u16* scales = reinterpret_cast<const u16*>(stage + S::kWeights);
  const float* x_scales = reinterpret_cast<const float*>(stage + S::kWeights + S::kScales);
  const u32 x = ptx::shared_address(stage) + S::kWeights + S::kScales + S::kXScales;
  const int x_row = warp_m * (rows / 2) + lane % 8;

  u32 w[kStrips][3][4];
#pragma unroll
  for (int p = 0; p < kStrips; ++p) {
    // The stage holds two tiles of four blocks; a warp's strips are neighbours in one tile.
    const u32 block = weights + (warp_n * kStrips + p) * layout::kBlockBytes;
#pragma unroll
    for (int c = 0; c < 3; ++c) ptx::load_shared(w[p][c], block + c * layout::kChunkBytes);
  }
#pragma unroll
  for (int s = 0; s < segments; ++s) {
    Sum c[kStrips][tiles][4] = {};
#pragma unroll
    for (int j = s * quads; j < (s + 1) * quads; ++j) {
      if constexpr (Act::kElement == 1) {
        u32 frag[kStrips][4];
#pragma unroll
        for (int p = 0; p < kStrips; ++p) {
          const u32 quad[3] = {w[p][3 * j / 4][3 * j % 4], w[p][(3 * j + 1) / 4][(3 * j + 1) % 4],
                               w[p][(3 * j + 2) / 4][(3 * j + 2) % 4]};
          fragment_s8(quad, frag[p]);
        }
#pragma unroll
        for (int i = 0; i < tiles; i += 2) {
          // Lanes 0-15 address tile i, lanes 16-31 tile i + 1; two pieces of 16 columns each.
          u32 b[4];
          const int row = x_row + (i + lane / 16) * 8;
          ptx::ldmatrix_x4(b, x + swizzled<S::kRowBytes>(row, 2 * j + lane / 8 % 2));
#pragma unroll
          for (int p = 0; p < kStrips; ++p) {
            ptx::mma_s8(c[p][i], frag[p], b[0], b[1]);
            ptx::mma_s8(c[p][i + 1], frag[p], b[2], b[3]);
          }
        }
      } else {
        u32 frag[kStrips][2][4];
#pragma unroll
        for (int p = 0; p < kStrips; ++p) {
          const u32 quad[3] = {w[p][3 * j / 4][3 * j % 4], w[p][(3 * j + 1) / 4][(3 * j + 1) % 4],
                               w[p][(3 * j + 2) / 4][(3 * j + 2) % 4]};
          fragments<typename Act::Format>(quad, frag[p]);
        }
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
          u32 b[4];
          ptx::ldmatrix_x4(b, x + swizzled<S::kRowBytes>(x_row + i * 8, 4 * j + lane / 8));
#pragma unroll
          for (int p = 0; p < kStrips; ++p) {
            Act::mma(c[p][i], frag[p][0], b[0], b[1]);
            Act::mma(c[p][i], frag[p][1], b[2], b[3]);
          }
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kStrips; ++p) {
      const int row = (warp_n * kStrips + p) * layout::kBlockRows + g;
      const float s0 = load16(scales[s * kCols + row], a.scale_type);
      const float s1 = load16(scales[s * kCols + row + 8], a.scale_type);
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        float2 xs = {1.0f, 1.0f};
        if constexpr (Act::kElement == 1) {
          xs = *reinterpret_cast<const float2*>(x_scales + warp_m * (rows / 2) + i * 8 + 2 * t);
        }
        sum[p][i][0] = fmaf(float(c[p][i][0]), s0 * xs.x, sum[p][i][0]);
        sum[p][i][1] = fmaf(float(c[p][i][1]), s0 * xs.y, sum[p][i][1]);
        sum[p][i][2] = fmaf(float(c[p][i][2]), s1 * xs.x, sum[p][i][2]);
        sum[p][i][3] = fmaf(float(c[p][i][3]), s1 * xs.y, sum[p][i][3]);
      }
    }
  }
}

template <class Act, int rows, int segments, int stages>
__device__ __forceinline__ void product(const TileArgs& a, const Work& work, u8* shared,
                                        float (&sum)[kStrips][rows / 16][4]) {
  constexpr int kBytes = Stage<Act, rows, segments>::kBytes;
  const bool whole = ((reinterpret_cast<u64>(a.x) | u64(a.x_stride) * 2 | u64(a.k) * 2) & 15) == 0;
#pragma unroll
  for (int i = 0; i < stages - 1; ++i) {
    if (i < work.blocks) {
      load_stage<Act, rows, segments>(a, work, shared + i * kBytes, work.block0 + i, whole);
    } else {
      ptx::copy_commit();
    }
  }
  for (int i = 0; i < work.blocks; ++i) {
    ptx::copy_wait<stages - 2>();
    __syncthreads();
    const int ahead = i + stages - 1;
    if (ahead < work.blocks) {
      u8* to = shared + ahead % stages * kBytes;
      load_stage<Act, rows, segments>(a, work, to, work.block0 + ahead, whole);
    } else {
      ptx::copy_commit();
    }
    multiply_stage<Act, rows, segments>(a, shared + i % stages * kBytes, sum);
  }
  ptx::copy_wait<0>();
  __syncthreads();
}

// Calls `visit(row of M, column of N, value)` for the sums a thread holds, bounds checked.
template <int rows, class Visit>
__device__ __forceinline__ void for_each(const TileArgs& a, const Work& work,
                                         float (&sum)[kStrips][rows / 16][4], Visit visit) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int p = 0; p < kStrips; ++p) {
#pragma unroll
    for (int i = 0; i < rows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int n = work.n0 + (warp % 4 * kStrips + p) * layout::kBlockRows + lane / 4 + 8 * (j / 2);
        const int m = work.m0 + warp / 4 * (rows / 2) + i * 8 + 2 * (lane % 4) + j % 2;
        if (n < a.n && m < work.m_end) visit(m, n, sum[p][i][j]);
      }
    }
  }
}

template <class Act, int rows>
__device__ __forceinline__ void store(const TileArgs& a, const Work& work, int expert,
                                      float (&sum)[kStrips][rows / 16][4]) {
  for_each<rows>(a, work, sum, [&](int m, int n, float v) {
    if (a.bias != nullptr) v += load_float(a.bias, u64(expert) * a.n + n, a.bias_type);
    store_float(a.y, u64(m) * a.n + n, v, a.y_type);
  });
}

template <class Act, int rows>
__device__ __forceinline__ void unscale(float (&sum)[kStrips][rows / 16][4]) {
#pragma unroll
  for (int p = 0; p < kStrips; ++p) {
#pragma unroll
    for (int i = 0; i < rows / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[p][i][j] *= Act::kInverse;
    }
  }
}

}  // namespace tile

// One dense product; the grid is N tiles x M tiles x splits, splits fastest.
template <class Act, int rows, int segments, int stages>
__device__ __forceinline__ void tile_product(const TileArgs& a) {
  using namespace tile;
  extern __shared__ __align__(128) u8 shared[];
  const int n_tiles = ceil_div(a.n, kCols), m_tiles = ceil_div(a.m, rows);
  const int split = blockIdx.x % a.splits, index = blockIdx.x / a.splits;
  const int band = index / (kRaster * m_tiles), in_band = index % (kRaster * m_tiles);
  const int width = min(kRaster, n_tiles - band * kRaster);
  const int k_blocks = ceil_div(a.k, layout::kTileCols), block0 = split * a.split_blocks;
  const Work work = {a.weights,
                     a.scales,
                     (band * kRaster + in_band % width) * kCols,
                     in_band / width * rows,
                     a.m,
                     block0,
                     min(a.split_blocks, k_blocks - block0)};
  float sum[kStrips][rows / 16][4] = {};
  product<Act, rows, segments, stages>(a, work, shared, sum);
  unscale<Act, rows>(sum);
  if (a.splits == 1) {
    store<Act, rows>(a, work, 0, sum);
    return;
  }

  // The block that arrives last adds the splits in order.
  const int n_pad = round_up(a.n, layout::kTileRows);
  for_each<rows>(a, work, sum, [&](int m, int n, float v) {
    a.partial[(u64(split) * a.m + m) * n_pad + n] = v;
  });
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = ptx::fetch_increment(a.arrivals + index) == a.splits - 1;
  __syncthreads();
  if (!is_last) return;
  for_each<rows>(a, work, sum, [&](int m, int n, float& v) {
    v = 0.0f;
    for (int s = 0; s < a.splits; ++s) {
      v += ptx::load_l2_f32(a.partial + (u64(s) * a.m + m) * n_pad + n);
    }
  });
  store<Act, rows>(a, work, 0, sum);
  if (threadIdx.x == 0) a.arrivals[index] = 0;
}

// Experts: x is sorted by expert, `ends` on the device says where each one's rows end. The grid
// is N tiles x experts; a block walks the M tiles of its expert, so the host need not know any count.
template <class Act, int rows, int segments, int stages>
__device__ __forceinline__ void tile_grouped_product(const TileArgs& a) {
  using namespace tile;
  extern __shared__ __align__(128) u8 shared[];
  const int n_tiles = ceil_div(a.n, kCols);
  const int expert = blockIdx.x / n_tiles;
  const int begin = expert == 0 ? 0 : max(a.ends[expert - 1], 0);
  const int end = min(a.ends[expert], a.m);
  for (int m0 = begin; m0 < end; m0 += rows) {
    const Work work = {a.weights + expert * a.weights_stride,
                       a.scales + expert * a.scales_stride,
                       int(blockIdx.x % n_tiles) * kCols,
                       m0,
                       end,
                       0,
                       ceil_div(a.k, layout::kTileCols)};
    float sum[kStrips][rows / 16][4] = {};
    product<Act, rows, segments, stages>(a, work, shared, sum);
    unscale<Act, rows>(sum);
    store<Act, rows>(a, work, expert, sum);
  }
}

}  // namespace flexq

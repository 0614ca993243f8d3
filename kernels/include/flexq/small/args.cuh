// Arguments of the small-M kernels, and what their parts share.
#pragma once

#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/types.cuh"

namespace flexq {

// Mirrored by crates/flexq-cuda/src/launch/small.rs.
struct SmallArgs {
  const u8* weights;      // device order
  const u16* scales;      // [Kpad / segment][Npad]
  const void* x;          // 16-bit [m][x_stride], or int8 in fragment order [m][Kpad]
  const float* x_scales;  // of int8 x: [K block][x_scale_stride] or, with stride 0, [m]; null
                          // where the kernel itself quantizes x
  const void* bias;       // [n], type bias_type, or null
  void* y;                // [m][n], type y_type
  float* partial;         // [splits][m][Npad], when splits > 1 and no cluster adds them
  u32* arrivals;          // [row groups], zero before and after; likewise
  i32 m, n, k;
  i32 x_stride, x_scale_stride;
  i32 splits;
  i32 split_blocks;       // K blocks per split
  i32 strips;             // of a row group, at most
  i32 longer;             // row groups that have as many, before those with one less
  i32 stages;             // depth of each warp's ring, on Hopper
  i32 per_row;            // quantization: one scale a row
  i32 late;               // the next kernel starts after this one's wait; see ptx/copy.cuh
  float q_max;            // and the largest code
  Dtype x_type, scale_type, bias_type, y_type;
};

namespace small {

// Warps of a block; mirrored in crates/flexq-cuda/src/config/small.rs. Twice twelve leave 80
// registers a thread, enough where bulk copies need none.
#if __CUDA_ARCH__ >= 900
constexpr int kWarps = 12;
#else
constexpr int kWarps = 8;
#endif

// Floats per activation row of a slot: 16, padded against bank conflicts.
constexpr int kSlotStride = 20;

// Bytes of one row of the x slice: padded so that eight rows fall into different banks.
template <int element>
__device__ constexpr int x_row_bytes(int blocks) {
  return blocks * layout::kTileCols * element + 16;
}

// From here on x may be read.
__device__ __forceinline__ void wait_for_x(const SmallArgs& a) {
  ptx::wait_for_previous();
  if (a.late) ptx::launch_dependents();
}

// Where this block begins with `total` things that every block reads: all at the same time would ask
// the same slices of the L2 cache.
__device__ __forceinline__ int turn(int total) { return total * int(blockIdx.x % 32) / 32; }

// Copies bytes [first, first + bytes) of each row of x into the slice, zeros from byte `valid`
// of a row on. Plain loads, several in flight before the first store: asynchronous and bulk copies
// would have to wait for the weights requested before them, of this product and of the next.
// Rows must be made of whole 16-byte pieces. What can be counted before x is there, is.
template <int threads>
__device__ __forceinline__ void stage_pieces(const SmallArgs& a, const u8* x, u64 x_stride, int rows,
                                             int first, int bytes, int valid, u8* slice,
                                             int slice_stride) {
  constexpr int kBatch = 8;
  const int pieces = bytes / 16, total = rows * pieces;
  const int from = threadIdx.x + turn(total);
  int row = quotient(from, pieces), piece = from - row * pieces;
  int left = total - threadIdx.x;
  wait_for_x(a);
  while (left > 0) {
    uint4 v[kBatch];
    u8* to[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      while (row >= rows) row -= rows;
      const int byte = first + piece * 16;
      v[j] = make_uint4(0, 0, 0, 0);
      to[j] = left > 0 ? slice + row * slice_stride + piece * 16 : nullptr;
      if (left > 0 && byte < valid) {
        v[j] = __ldg(reinterpret_cast<const uint4*>(x + row * x_stride + byte));
      }
      left -= threads, piece += threads;
      while (piece >= pieces) piece -= pieces, ++row;
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      if (to[j] != nullptr) *reinterpret_cast<uint4*>(to[j]) = v[j];
    }
  }
}

// Moves accumulator fragments (rows g, g + 8 of a strip; activation rows 2 t, 2 t + 1 of
// each tile) to a slot, times `factor`, and clears them.
template <int tiles>
__device__ __forceinline__ void store_fragments(int m, float* slot, float (&sum)[tiles][4],
                                                float factor) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < tiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = i * 8 + 2 * t + j % 2;
      if (row < m) slot[row * kSlotStride + g + 8 * (j / 2)] = sum[i][j] * factor;
      sum[i][j] = 0.0f;
    }
  }
}

// The three words of quad `j` among a lane's twelve.
#define FLEXQ_QUAD(w, j)                                                       \
  {                                                                            \
    w[3 * (j) / 4][3 * (j) % 4], w[(3 * (j) + 1) / 4][(3 * (j) + 1) % 4],      \
        w[(3 * (j) + 2) / 4][(3 * (j) + 2) % 4]                                \
  }

}  // namespace small
}  // namespace flexq

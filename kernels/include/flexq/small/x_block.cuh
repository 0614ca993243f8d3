// 128 columns of x on their way into a warp's place in shared memory: loaded into registers while the
// warp multiplies with those before, then stored as rows that a policy takes fragments from.
#pragma once

#include "flexq/activations.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/small/float16.cuh"
#include "flexq/small/int8.cuh"

namespace flexq::small {

// 16-bit numbers as they are. Rows are aligned to 16 bytes and made of whole pieces of them.
template <class Format, int tiles, int segments>
struct FloatBlock {
  using Policy = Float16<Format, tiles, segments>;
  static constexpr int kPieces = layout::kTileCols / 8;  // of 16 bytes, in a row
  static constexpr int kRowBytes = x_row_bytes<2>(1);

  uint4 v[tiles * 4];  // two rows each

  static __device__ __forceinline__ int place_bytes(int m) { return m * kRowBytes; }

  static __device__ __forceinline__ Policy policy(const SmallArgs& a, const u8* place) {
    return Policy(a.m, place, kRowBytes);
  }

  static __device__ __forceinline__ int row(int i) { return i * 2 + threadIdx.x % 32 / kPieces; }
  static __device__ __forceinline__ int piece() { return threadIdx.x % kPieces; }

  __device__ __forceinline__ void load(const SmallArgs& a, int block) {
    const int col = block * layout::kTileCols + piece() * 8;
    const u16* const from = static_cast<const u16*>(a.x) + u64(row(0)) * a.x_stride + col;
#pragma unroll
    for (int i = 0; i < tiles * 4; ++i) {
      v[i] = make_uint4(0, 0, 0, 0);
      if (row(i) < a.m && col < a.k) v[i] = ptx::load_global(from + u64(i * 2) * a.x_stride);
    }
  }

  __device__ __forceinline__ void store(const SmallArgs& a, u8* place) const {
#pragma unroll
    for (int i = 0; i < tiles * 4; ++i) {
      if (row(i) < a.m) *reinterpret_cast<uint4*>(place + row(i) * kRowBytes + piece() * 16) = v[i];
    }
  }
};

// int8 codes of 16-bit numbers, one scale per row of the block, code for code as the kernel for that
// makes them.
template <int tiles, int segments>
struct QuantizedBlock {
  using Policy = Int8<tiles, segments>;
  static constexpr int kRowBytes = x_row_bytes<1>(1);
  static constexpr int kRows = 32 / activations::kLanes;  // at a time

  u32 v[tiles * 8 / kRows][8];

  // Codes, then scales.
  static __device__ __forceinline__ int place_bytes(int m) {
    return m * kRowBytes + round_up(m, 4) * 4;
  }

  static __device__ __forceinline__ Policy policy(const SmallArgs& a, const u8* place) {
    return Policy(a.m, place, kRowBytes, reinterpret_cast<const float*>(place + a.m * kRowBytes));
  }

  static __device__ __forceinline__ int row(int i) {
    return i * kRows + threadIdx.x % 32 / activations::kLanes;
  }
  static __device__ __forceinline__ int lane() { return threadIdx.x % activations::kLanes; }

  __device__ __forceinline__ void load(const SmallArgs& a, int block) {
    const int col = block * layout::kTileCols + lane() * activations::kColumns;
#pragma unroll
    for (int i = 0; i < tiles * 8 / kRows; ++i) {
      if (i * kRows >= a.m) break;
      activations::load(static_cast<const u16*>(a.x) + u64(min(row(i), a.m - 1)) * a.x_stride, col,
                        a.k, v[i]);
    }
  }

  __device__ __forceinline__ void store(const SmallArgs& a, u8* place) const {
    using namespace activations;
    float* const scales = reinterpret_cast<float*>(place + a.m * kRowBytes);
#pragma unroll
    for (int i = 0; i < tiles * 8 / kRows; ++i) {
      if (i * kRows >= a.m) break;
      float f[kColumns];
      widen(v[i], a.x_type, f);
      const Quantizer code(lane_max<kLanes>(max_abs(f)), a.q_max);
      if (row(i) >= a.m) continue;
      if (lane() == 0) scales[row(i)] = code.scale();
      reinterpret_cast<uint4*>(place + row(i) * kRowBytes)[lane()] = code(f);
    }
  }
};

}  // namespace flexq::small

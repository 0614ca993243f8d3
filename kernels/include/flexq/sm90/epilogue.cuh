// From accumulators to the output: rows and columns change places on the way to y [m][n].
//
// A consumer thread (warp w of its group, lane 4 g + t) holds, of part p,
//   sum[p][4 i + j]  at weight row 16 w + g + 8 (j / 2), activation row 8 i + 2 t + j % 2.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/ring.cuh"

namespace flexq::sm90 {

// Named barriers: 1 + group for each group, and one for all.
constexpr int kAllConsumers = 15;

template <class T>
using Sums = float[T::kParts][T::kPart / 2];

template <class T>
__device__ __forceinline__ void zero(Sums<T>& sum) {
#pragma unroll
  for (int p = 0; p < T::kParts; ++p) {
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) sum[p][i] = 0.0f;
  }
}

// Multiplies each activation row of the tile with its scale, the first of which is at `scales`. Those
// past the last row are read, too.
template <class T>
__device__ __forceinline__ void scale_rows(const float* scales, Sums<T>& sum) {
  const float2* const from = reinterpret_cast<const float2*>(scales) + threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < T::kM / 8; ++i) {
    const float2 x = __ldg(from + 4 * i);
    float* s = &sum[i / (T::kPart / 8)][4 * (i % (T::kPart / 8))];
    s[0] *= x.x, s[1] *= x.y, s[2] *= x.x, s[3] *= x.y;
  }
}

__device__ __forceinline__ u32 pack16(float low, float high, Dtype type) {
  u32 r;
  if (type == Dtype::BF16) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  }
  return r;
}

// Eight outputs at (row, col): one 16-byte store where the row allows it.
__device__ __forceinline__ void store_eight(const HopperArgs& a, int row, int col, u32 (&v)[4]) {
  if (row >= a.m || col >= a.n) return;
  u16* const to = static_cast<u16*>(a.y) + u64(row) * a.n + col;
  if (col + 8 <= a.n && (reinterpret_cast<u64>(to) & 15) == 0) {
    *reinterpret_cast<uint4*>(to) = make_uint4(v[0], v[1], v[2], v[3]);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (col + i < a.n) to[i] = u16(v[i / 2] >> (16 * (i % 2)));
    }
  }
}

// Adds the bias and stores a group's sums, whose first output is (row0, col): all slices of rows, or
// every second from slice `rank` on where `splits` is two.
template <class T>
__device__ __forceinline__ void store_tile(const HopperArgs& a, int row0, int col, int group,
                                           u32 slice, int rank, int splits, Sums<T>& sum) {
  constexpr int kVectors = T::kPart / 8, kSliceVectors = T::kSlice / 8;
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, t = lane % 4;
  const auto is_mine = [&](int slice) { return (slice & (splits - 1)) == rank; };
  if (col >= a.n) return;
  if (a.bias != nullptr) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int c = col + warp * 16 + g + 8 * h;
      const float bias = c < a.n ? load_float(a.bias, c, a.bias_type) : 0.0f;
#pragma unroll
      for (int i = 0; i < T::kParts * kVectors; ++i) {
        float* s = &sum[i / kVectors][4 * (i % kVectors) + 2 * h];
        s[0] += bias, s[1] += bias;
      }
    }
  }
  if (a.y_type == Dtype::F32) {
#pragma unroll
    for (int i = 0; i < T::kParts * kVectors; ++i) {
      if (!is_mine(i / kSliceVectors)) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int y_row = row0 + 8 * i + 2 * t + j % 2, c = col + warp * 16 + g + 8 * (j / 2);
        if (y_row < a.m && c < a.n) {
          static_cast<float*>(a.y)[u64(y_row) * a.n + c] =
              sum[i / kVectors][4 * (i % kVectors) + j];
        }
      }
    }
    return;
  }
  // Lane l stores row l % 8 of matrix l / 8: activation rows 8 (l / 16), weight rows 8 (l / 8 % 2).
  const u32 to = slice + ((lane / 16) * 8 + lane % 8) * T::kSliceRow + warp * 32 +
                 (lane / 8 % 2) * 16;
#pragma unroll
  for (int first = 0; first < T::kParts * kVectors; first += kSliceVectors) {
    if (!is_mine(first / kSliceVectors)) continue;
    ptx::named_barrier(1 + group, 128);
#pragma unroll
    for (int i = 0; i < kSliceVectors; i += 2) {
      const float* s = &sum[(first + i) / kVectors][4 * ((first + i) % kVectors)];
      const u32 v[4] = {pack16(s[0], s[1], a.y_type), pack16(s[2], s[3], a.y_type),
                        pack16(s[4], s[5], a.y_type), pack16(s[6], s[7], a.y_type)};
      ptx::store_matrix_transposed(to + i * 8 * T::kSliceRow, v);
    }
    ptx::named_barrier(1 + group, 128);
    const int row = thread / 8, piece = thread % 8;
    u32 v[T::kSlice / 16][4];
#pragma unroll
    for (int i = 0; i < T::kSlice / 16; ++i) {
      ptx::load_shared(v[i], slice + (i * 16 + row) * T::kSliceRow + piece * 16);
    }
#pragma unroll
    for (int i = 0; i < T::kSlice / 16; ++i) {
      store_eight(a, row0 + first * 8 + i * 16 + row, col + piece * 8, v[i]);
    }
  }
}

}  // namespace flexq::sm90

// Sums of the products of codes, scaled by one number a row of weights: converted, or read as floats.
#pragma once

#include "flexq/sm90/epilogue.cuh"

namespace flexq::sm90 {

// A conversion and a multiply-add for every sum.
template <class T>
class Converted {
 public:
  using Part = i32[T::kPart / 2];
  static constexpr bool kFromZero = true;  // products set the registers of a part, not add to them
  static constexpr float kScale = 1.0f;    // of scales

  static __device__ __forceinline__ void start(Part&) {}
  static __device__ __forceinline__ void begin(float, float, int, Sums<T>&) {}
  static __device__ __forceinline__ void add(float s0, float s1, const Part& part,
                                             float (&sum)[T::kPart / 2]) {
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) {
      sum[i] = fmaf(float(part[i]), i / 2 % 2 ? s1 : s0, sum[i]);
    }
  }
  static __device__ __forceinline__ void end(Sums<T>&) {}
};

// Read as floats: a multiply-add for every sum and, for every other, a move. Two parts are summed one after the
// other in the same registers.
//
// A float of 0 <= d < 2^24 units of 2^-149 has the bits of the integer d. The sum of a part is at most
// 4 * 32 * 127 * 128 < 2^21 in magnitude, so one that starts at 2^22 stays in (0, 2^23) through both. Over K
// blocks with scales s, sums S of the first part and S' of the second,
//
//   first = sum of s (2^22 + S)    second = sum of s (2^22 + S + S')    zero = sum of s 2^22
//
// the results are first - zero and second - first, rounded where zero is large. So zero is taken out every
// sixteen K blocks; docs/kernels.md says what is left of it. A row of zeros gives zeros.
template <class T>
class Near {
  static_assert(T::kParts == 2);

 public:
  using Part = i32[T::kPart / 2];
  static constexpr bool kFromZero = false;
  static constexpr float kScale = 0x1p112f;  // 65504 / 4 of them, the most of float16, are finite

  static __device__ __forceinline__ void start(Part& part) {
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) part[i] = kStart;
    ptx::pin(part);
  }

  // A K block with the scales of this thread's rows, the last but `left` - 1.
  __device__ __forceinline__ void begin(float s0, float s1, int left, Sums<T>& sum) {
    if (left % kSettle == 0) settle(sum);
    zero_[0] = fmaf(__int_as_float(kStart), s0, zero_[0]);
    zero_[1] = fmaf(__int_as_float(kStart), s1, zero_[1]);
  }

  static __device__ __forceinline__ void add(float s0, float s1, const Part& part,
                                             float (&sum)[T::kPart / 2]) {
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) {
      sum[i] = fmaf(__int_as_float(part[i]), i / 2 % 2 ? s1 : s0, sum[i]);
    }
  }

  // The sums, at the end of a piece.
  __device__ __forceinline__ void end(Sums<T>& sum) {
    constexpr float kUnit = 0x1p37f;  // 2^149 / kScale
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) {
      sum[1][i] = (sum[1][i] - sum[0][i]) * kUnit;
      sum[0][i] = (sum[0][i] - zero_[i / 2 % 2]) * kUnit;
    }
    zero_[0] = zero_[1] = 0.0f;
  }

 private:
  static constexpr i32 kStart = 1 << 22;
  static constexpr int kSettle = 16;

  __device__ __forceinline__ void settle(Sums<T>& sum) {
#pragma unroll
    for (int p = 0; p < T::kParts; ++p) {
#pragma unroll
      for (int i = 0; i < T::kPart / 2; ++i) sum[p][i] -= zero_[i / 2 % 2];
      ptx::pin(sum[p]);
    }
    zero_[0] = zero_[1] = 0.0f;
  }

  float zero_[2] = {0.0f, 0.0f};
};

}  // namespace flexq::sm90

// Integer names without host headers (NVRTC compiles without any), and the two
// enumerations that kernels are instantiated over.
#pragma once

namespace flexq {

using i8 = signed char;
using u8 = unsigned char;
using u16 = unsigned short;
using i32 = int;
using u32 = unsigned int;
using i64 = long long;
using u64 = unsigned long long;

// Storage types of activations, scales, bias and output. The values are part of
// the launch interface (crates/flexq-cuda/src/dtype.rs).
enum class Dtype : int { F16 = 0, BF16 = 1, F32 = 2 };

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

template <class T>
__host__ __device__ constexpr T round_up(T a, T b) {
  return ceil_div(a, b) * b;
}

// a / b of numbers that are not negative, a below 2^21: a whole number and a half over b is further
// from the next whole number than both roundings reach. A tenth of an integer division.
__device__ __forceinline__ int quotient(int a, int b) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(float(b)));
  return int((float(a) + 0.5f) * inverse);
}

}  // namespace flexq

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

}  // namespace flexq

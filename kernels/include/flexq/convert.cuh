// 16-bit floats as raw bits, to and from f32, chosen at compile time or at run time.
#pragma once

#include "flexq/types.cuh"

namespace flexq {

__device__ __forceinline__ float half_to_float(u16 h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}

__device__ __forceinline__ float bfloat_to_float(u16 b) { return __uint_as_float(u32(b) << 16); }

__device__ __forceinline__ u16 float_to_half(float f) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}

__device__ __forceinline__ u16 float_to_bfloat(float f) {
  u16 b;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
  return b;
}

// A 16-bit float of either type.
__device__ __forceinline__ float load16(u16 bits, Dtype type) {
  return type == Dtype::BF16 ? bfloat_to_float(bits) : half_to_float(bits);
}

__device__ __forceinline__ float load_float(const void* p, u64 i, Dtype type) {
  if (type == Dtype::F32) return static_cast<const float*>(p)[i];
  return load16(static_cast<const u16*>(p)[i], type);
}

__device__ __forceinline__ void store_float(void* p, u64 i, float v, Dtype type) {
  if (type == Dtype::F32) {
    static_cast<float*>(p)[i] = v;
  } else {
    static_cast<u16*>(p)[i] = type == Dtype::BF16 ? float_to_bfloat(v) : float_to_half(v);
  }
}

// Stores `v` at columns col .. col + 3 of the row that starts at element `row`, up to column
// `n`; as one store where the row length allows it.
__device__ __forceinline__ void store_float4(void* p, u64 row, int col, int n, const float (&v)[4],
                                             Dtype type) {
  if (n % 4 == 0) {
    if (col >= n) return;
    if (type == Dtype::F32) {
      *reinterpret_cast<float4*>(static_cast<float*>(p) + row + col) =
          make_float4(v[0], v[1], v[2], v[3]);
    } else {
      u32 h[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        h[i] = type == Dtype::BF16 ? float_to_bfloat(v[i]) : float_to_half(v[i]);
      }
      *reinterpret_cast<uint2*>(static_cast<u16*>(p) + row + col) =
          make_uint2(h[0] | h[1] << 16, h[2] | h[3] << 16);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (col + i < n) store_float(p, row + col + i, v[i], type);
    }
  }
}

}  // namespace flexq

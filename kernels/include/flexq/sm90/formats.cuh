// How codes become operands of warp-group instructions, in registers, and what those add up.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/unpack.cuh"

namespace flexq::sm90 {

// kSteps instructions multiply 128 columns; a quad (32 columns) makes the operands of
// kSteps / 4 of them. Operands are q / kInverse, exactly.
struct Int8 {
  using Sum = i32;
  static constexpr int kSteps = 4;
  static constexpr float kInverse = 0.25f;

  // As fragment_s8, one instruction a byte-word: of its two constants only one may be immediate,
  // so the other is in a register whose value the compiler does not know.
  u32 code = 0xFCFCFCFDu - gridDim.y;  // the grid is flat: 0xFCFCFCFC

  __device__ __forceinline__ void unpack(const u32 (&w)[3], u32 (*a)[4]) const {
    constexpr u32 kSign = 0x80808080u;
    const u32 high = select(w[0] << 6, w[1] << 4, 0xC0C0C0C0u);
    a[0][0] = (w[0] & code) ^ kSign;
    a[0][1] = (w[1] & code) ^ kSign;
    a[0][2] = (w[2] & code) ^ kSign;
    a[0][3] = (select(high, w[2] << 2, 0xF0F0F0F0u) & code) ^ kSign;
  }
  // As select_bits, of which the compiler makes two instructions where it knows that bits are zero.
  static __device__ __forceinline__ u32 select(u32 a, u32 b, u32 mask) {
    u32 r;
    asm("lop3.b32 %0, %1, %2, %3, 0xE4;" : "=r"(r) : "r"(a), "r"(b), "r"(mask));
    return r;
  }
  template <int n>
  static __device__ __forceinline__ void wgmma(i32 (&d)[n], const u32 (&a)[4], u32 b, bool clear) {
    ptx::wgmma_s8(d, a, b, clear);
  }
  template <int n>
  static __device__ __forceinline__ void wgmma(i32 (&d)[n], const u32 (&a)[4], u64 b, bool clear) {
    ptx::wgmma_s8(d, a, u32(b), clear, u32(b >> 32));
  }
};

template <class Pair>
struct Exact16 {
  using Sum = float;
  static constexpr int kSteps = 8;
  static constexpr float kInverse = Pair::kInverse;

  static __device__ __forceinline__ void unpack(const u32 (&w)[3], u32 (*a)[4]) {
    u32 b[4];
    byte_words<0>(w, b);
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      Pair::pair(b[2 * s], a[s][0], a[s][2]);
      Pair::pair(b[2 * s + 1], a[s][1], a[s][3]);
    }
  }
};

struct ExactHalf : Exact16<Half> {
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b,
                                               bool clear) {
    ptx::wgmma_f16(d, a, b, clear);
  }
};

struct ExactBfloat : Exact16<Bfloat> {
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b,
                                               bool clear) {
    ptx::wgmma_bf16(d, a, b, clear);
  }
};

}  // namespace flexq::sm90

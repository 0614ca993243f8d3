// From packed words to matrix-instruction operands, in registers.
#pragma once

#include "flexq/ptx/mma.cuh"
#include "flexq/types.cuh"

namespace flexq {

// One LOP3: bits of `a` where `mask` is set, bits of `b` elsewhere.
__device__ __forceinline__ u32 select_bits(u32 a, u32 b, u32 mask) {
  return (a & mask) | (b & ~mask);
}

// Four byte-words of a quad: offset-binary codes in the top six bits of each
// byte, XORed with `flip` (0x80808080 turns them into int8 values 4 q).
template <u32 flip>
__device__ __forceinline__ void byte_words(const u32 (&w)[3], u32 (&b)[4]) {
  constexpr u32 kCode = 0xFCFCFCFCu;
  b[0] = (w[0] & kCode) ^ flip;
  b[1] = (w[1] & kCode) ^ flip;
  b[2] = (w[2] & kCode) ^ flip;
  const u32 high = select_bits(w[0] << 6, w[1] << 4, 0xC0C0C0C0u);
  b[3] = (select_bits(high, w[2] << 2, 0xF0F0F0F0u) & kCode) ^ flip;
}

// Numeric forms of weights in a 16-bit fragment and their matrix instruction. The operand
// is a small multiple of q; the sum is multiplied by kInverse at the end.
struct Half {
  static constexpr float kInverse = 0.25f;

  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_f16(d, a, b0, b1);
  }

  // Bytes 0,1 and 2,3 of a byte-word become two half2 registers 4 q.
  // 0x6400 | byte is the half 1024 + byte; subtracting 1152 leaves 4 (u - 32).
  static __device__ __forceinline__ void pair(u32 b, u32& lo, u32& hi) {
    lo = __byte_perm(b, 0x64646464u, 0x4140);
    hi = __byte_perm(b, 0x64646464u, 0x4342);
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(lo) : "r"(0x64806480u));
    asm("sub.rn.f16x2 %0, %0, %1;" : "+r"(hi) : "r"(0x64806480u));
  }
};

struct Bfloat {
  static constexpr float kInverse = 0.5f;

  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_bf16(d, a, b0, b1);
  }

  // 0x4300 | byte / 2 is the bfloat16 128 + 2 u; subtracting 192 leaves 2 (u - 32).
  // Ampere has no bf16 subtraction, so it is an exact fused multiply-add by one.
  static __device__ __forceinline__ void pair(u32 b, u32& lo, u32& hi) {
    const u32 half = b >> 1;
    lo = __byte_perm(half, 0x43434343u, 0x4140);
    hi = __byte_perm(half, 0x43434343u, 0x4342);
    asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(lo) : "r"(0x3F803F80u), "r"(0xC340C340u));
    asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(hi) : "r"(0x3F803F80u), "r"(0xC340C340u));
  }
};

// From Hopper on, which subtracts bfloat16: two registers less of constants.
struct BfloatHopper : Bfloat {
  static __device__ __forceinline__ void pair(u32 b, u32& lo, u32& hi) {
    const u32 half = b >> 1;
    lo = __byte_perm(half, 0x43434343u, 0x4140);
    hi = __byte_perm(half, 0x43434343u, 0x4342);
    asm("sub.rn.bf16x2 %0, %0, %1;" : "+r"(lo) : "r"(0x43404340u));
    asm("sub.rn.bf16x2 %0, %0, %1;" : "+r"(hi) : "r"(0x43404340u));
  }
};

// A fragments of the two k16 steps of a quad: a[s] = {(g; low k), (g+8; low k),
// (g; high k), (g+8; high k)}.
template <class Format>
__device__ __forceinline__ void fragments(const u32 (&w)[3], u32 (&a)[2][4]) {
  u32 b[4];
  byte_words<0>(w, b);
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    Format::pair(b[2 * s], a[s][0], a[s][2]);
    Format::pair(b[2 * s + 1], a[s][1], a[s][3]);
  }
}

// The int8 A fragment of a quad's 32 columns, values 4 q.
__device__ __forceinline__ void fragment_s8(const u32 (&w)[3], u32 (&a)[4]) {
  byte_words<0x80808080u>(w, a);
}

}  // namespace flexq

// 16-bit activations: weights become 16-bit fragments in registers, scale included, while the
// previous step's product runs.
//
// Issue slots per 16 columns and 64 weight rows: about 20 a warp for fp16, 24 for bf16, under
// 128 tensor cycles at 256 activation rows (two row blocks of 128, say).
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/unpack.cuh"

namespace flexq::sm90 {

// Weights q s in fp16, rounded once. 0x6400 | byte is 1024 + 4 u; a quarter of it less 288
// is q, exactly.
struct Half16 {
  struct Scale {
    u32 s;
  };
  static __device__ __forceinline__ Scale scale(u16 bits, Dtype type) {
    const u32 s = type == Dtype::F16 ? bits : float_to_half(load16(bits, type));
    return {s | s << 16};
  }
  static __device__ __forceinline__ u32 weights(u32 bytes, int selector, Scale k) {
    u32 v = __byte_perm(bytes, 0x64646464u, selector);
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(v) : "r"(0x34003400u), "r"(0xDC80DC80u));
    asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(v) : "r"(k.s));
    return v;
  }
  static __device__ __forceinline__ u32 prepare(u32 bytes) { return bytes; }
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b) {
    ptx::wgmma_f16(d, a, b, false);
  }
};

// Weights q s in bf16. 0x4300 | byte / 2 is 128 + 2 u; half of it less 96 is q, exactly. The
// scale is a sum of two bf16 numbers, since one would round it: s = high + low.
struct Bfloat16 {
  struct Scale {
    u32 high, low;
  };
  static __device__ __forceinline__ Scale scale(u16 bits, Dtype type) {
    const float s = load16(bits, type);
    const u32 high = float_to_bfloat(s), low = float_to_bfloat(s - bfloat_to_float(high));
    return {high | high << 16, low | low << 16};
  }
  static __device__ __forceinline__ u32 weights(u32 bytes, int selector, Scale k) {
    u32 q = __byte_perm(bytes, 0x43434343u, selector), v;
    asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(q) : "r"(0x3F003F00u), "r"(0xC2C0C2C0u));
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(v) : "r"(q), "r"(k.low));
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(v) : "r"(q), "r"(k.high));
    return v;
  }
  static __device__ __forceinline__ u32 prepare(u32 bytes) { return bytes >> 1; }
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b) {
    ptx::wgmma_bf16(d, a, b, false);
  }
};

template <class T, class Format>
class Consume16 {
  static_assert(!T::kJoint, "a stage of activations is 64 columns");

 public:
  __device__ __forceinline__ Consume16(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), scale_type_(a.scale_type) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    u32 fragment[2][4];
    zero<T>(sum);
    open(fragment[0]);
    for (int block = 1;; ++block) {
      step<0>(fragment, sum);
      if (block > 1) release();
      step<1>(fragment, sum);
      step<2>(fragment, sum);
      step<3>(fragment, sum);
      step<4>(fragment, sum);
      release();
      step<5>(fragment, sum);
      step<6>(fragment, sum);
      step<7>(fragment, sum);
      if (block == blocks) break;
      open(fragment[0]);
    }
    ptx::wgmma_wait<0>();
    release();
    ptx::pin(sum);
  }

  __device__ __forceinline__ void finish(int, Sums<T>&) const {}

 private:
  static constexpr int kSteps = layout::kTileCols / 16, kStepsPerBox = kSteps / 2;

  // Waits for the next weights: their words, scales and first fragments.
  __device__ __forceinline__ void open(u32 (&fragment)[4]) {
    ptx::barrier_wait(ring_.full(at_.stage), at_.parity);
    const u32 weights = ring_.weights(at_.stage);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words_[c], weights + weights_ + c * layout::kChunkBytes);
    }
    scale_[0] = Format::scale(ptx::load_shared_u16(weights + scales_), scale_type_);
    scale_[1] = Format::scale(ptx::load_shared_u16(weights + scales_ + 16), scale_type_);
    ring_.release(at_.stage);
    at_.advance();
    unpack<0>(fragment);
  }

  // Products of 16 columns; then, while they run, the weights of the next 16.
  template <int s>
  __device__ __forceinline__ void step(u32 (&fragment)[2][4], Sums<T>& sum) {
    if constexpr (s % kStepsPerBox == 0) {
      ptx::barrier_wait(ring_.x_full(x_at_.stage), x_at_.parity);
      x_ = ptx::wgmma_operand(ring_.x(x_at_.stage));
      x_at_.advance();
    }
    ptx::wgmma_fence();
#pragma unroll
    for (int p = 0; p < T::kParts; ++p) {
      Format::wgmma(sum[p], fragment[s % 2], x_ + s % kStepsPerBox * 2 + p * (T::kPart * 8));
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if constexpr (s + 1 < kSteps) unpack<s + 1>(fragment[(s + 1) % 2]);
  }

  // The fragments of columns 16 s: byte-words B(2 (s % 2)) and B(2 (s % 2) + 1) of quad s / 2.
  template <int s>
  __device__ __forceinline__ void unpack(u32 (&fragment)[4]) {
    const auto word = [&](int i) { return words_[(s / 2 * 3 + i) / 4][(s / 2 * 3 + i) % 4]; };
    const u32 w[3] = {word(0), word(1), word(2)};
    u32 b[4];
    byte_words<0>(w, b);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const u32 bytes = Format::prepare(b[2 * (s % 2) + h]);
      fragment[h] = Format::weights(bytes, 0x4140, scale_[h]);
      fragment[h + 2] = Format::weights(bytes, 0x4342, scale_[h]);
    }
    ptx::pin(fragment);
  }

  // Gives back the activations whose last products are complete.
  __device__ __forceinline__ void release() {
    ring_.release_x(released_);
    released_ = released_ + 1 == T::kXStages ? 0 : released_ + 1;
  }

  Ring<T> ring_;
  Dtype scale_type_;
  u32 weights_, scales_, x_ = 0;
  Cursor<T::kStages> at_;
  Cursor<T::kXStages> x_at_;
  i32 released_ = 0;
  u32 words_[3][4];
  typename Format::Scale scale_[2];
};

}  // namespace flexq::sm90

// 16-bit activations: weights become 16-bit operands in registers, scale included, while the
// products of the quad (32 columns) before run.
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
  static_assert(!T::kJoint, "weights are given back long before activations");

 public:
  __device__ __forceinline__ Consume16(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), scale_type_(a.scale_type) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    zero<T>(sum);
    left_ = blocks;
    ready_ = x_ready_ = false;
    open();
    unpack<0>();
    block<true>(sum);
    while (left_ > 0) block<false>(sum);
    ptx::wgmma_wait<0>();
    release();
    ptx::pin(sum);
  }

  __device__ __forceinline__ void finish(int, Sums<T>&) const {}

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(x_at_); }
  __device__ __forceinline__ void end_stage(int stage) {
    ring_.release_sums(stage);
    released_ = x_at_.stage();
  }

 private:
  static constexpr int kSteps = layout::kTileCols / 16 / layout::kQuads;
  // Quads of a stage of activations.
  static constexpr int kStageQuads = layout::kQuads / T::kElement * T::kBoxes;

  // One K block; its first operands are ready, and at the end those of the next are.
  template <bool first>
  __device__ __forceinline__ void block(Sums<T>& sum) {
    --left_;
    quad<0>(sum);
    if constexpr (!first) release();
    ready_ = ptx::barrier_test(ring_.full(at_.stage()), at_.parity());
    unpack<1>();
    quad<1>(sum);
    unpack<2>();
    quad<2>(sum);
    if constexpr (kStageQuads == 2) release();
    unpack<3>();
    if (left_ > 0) open();
    quad<3>(sum);
    unpack<0>();
  }

  // Waits for the next weights and takes their words and scales: then the stage is free.
  __device__ __forceinline__ void open() {
    if (!ready_) ptx::barrier_wait(ring_.full(at_.stage()), at_.parity());
    const u32 weights = ring_.weights(at_.stage());
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words_[c], weights + weights_ + c * layout::kChunkBytes);
    }
    scale_[0] = Format::scale(ptx::load_shared_u16(weights + scales_), scale_type_);
    scale_[1] = Format::scale(ptx::load_shared_u16(weights + scales_ + 16), scale_type_);
    ring_.release(at_.stage());
    at_.advance();
  }

  // Starts the products of quad j and waits for those of the quad before.
  template <int j>
  __device__ __forceinline__ void quad(Sums<T>& sum) {
    if constexpr (j % kStageQuads == 0) {
      if (!x_ready_) ptx::barrier_wait(ring_.x_full(x_at_.stage()), x_at_.parity());
      x_ = ptx::wgmma_operand(ring_.x(x_at_.stage()));
      x_at_.advance();
    }
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      constexpr int kFirst = j % kStageQuads * kSteps;
      const int step = kFirst + i;
#pragma unroll
      for (int p = 0; p < T::kParts; ++p) {
        Format::wgmma(sum[p], operands_[j % 2][i],
                      x_ + step / 4 * (T::kBoxBytes / 16) + step % 4 * 2 + p * (T::kPart * 8));
      }
    }
    ptx::wgmma_commit();
    if constexpr ((j + 1) % kStageQuads == 0) {
      x_ready_ = ptx::barrier_test(ring_.x_full(x_at_.stage()), x_at_.parity());
    }
    ptx::wgmma_wait<1>();
  }

  // The operands of quad j: byte-words B(2 s) and B(2 s + 1) are those of step s.
  template <int j>
  __device__ __forceinline__ void unpack() {
    const auto word = [&](int i) { return words_[(3 * j + i) / 4][(3 * j + i) % 4]; };
    const u32 w[3] = {word(0), word(1), word(2)};
    u32 b[4];
    byte_words<0>(w, b);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const u32 bytes = Format::prepare(b[2 * s + h]);
        operands_[j % 2][s][h] = Format::weights(bytes, 0x4140, scale_[h]);
        operands_[j % 2][s][h + 2] = Format::weights(bytes, 0x4342, scale_[h]);
      }
      ptx::pin(operands_[j % 2][s]);
    }
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
  i32 released_ = 0, left_ = 0;
  bool ready_ = false, x_ready_ = false;
  u32 words_[3][4];
  u32 operands_[2][kSteps][4];
  typename Format::Scale scale_[2];
};

}  // namespace flexq::sm90

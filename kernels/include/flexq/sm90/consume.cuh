// Products of exact codes: integers, or 16-bit floats that hold integers. A segment of 128 columns
// is summed for one part of the tile's rows at a time, in accumulators of its own, then scaled
// into the f32 sums while the products of the next part run.
//
// Registers of a thread for a 64 x 256 tile in parts of 64: 128 sums, two parts of 32, and 16
// (int8) to 32 operands, of which int8 has room for a second set.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/formats.cuh"

namespace flexq::sm90 {

template <class T, class Format, int sets>
class Consume {
  static_assert(T::kJoint, "a stage is a K block");

 public:
  __device__ __forceinline__ Consume(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    Operands operands[sets];
    Part part[2];
    zero<T>(sum);
    block<0, true>(operands, part, sum);
    if constexpr (sets == 1 && T::kParts % 2 == 0) {
      while (--blocks) block<0, false>(operands, part, sum);
      last<0>(part, sum);
    } else {
      for (;;) {
        if (--blocks == 0) return last<0>(part, sum);
        block<1, false>(operands, part, sum);
        if (--blocks == 0) return last<1>(part, sum);
        block<0, false>(operands, part, sum);
      }
    }
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    if constexpr (T::kElement == 2 || T::kBlockScales) return;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < T::kM / 8; ++i) {
      const int row = row0 + 8 * i + 2 * t;
      const float x0 = __ldg(a_.x_scales + min(row, a_.m - 1));
      const float x1 = __ldg(a_.x_scales + min(row + 1, a_.m - 1));
      float* s = &sum[i / (T::kPart / 8)][4 * (i % (T::kPart / 8))];
      s[0] *= x0, s[1] *= x1, s[2] *= x0, s[3] *= x1;
    }
  }

 private:
  using Part = typename Format::Sum[T::kPart / 2];
  using Operands = u32[Format::kSteps][4];

  // One K block. On entry the products of the last part of the block before are running.
  template <int parity, bool first>
  __device__ __forceinline__ void block(Operands (&operands)[sets], Part (&part)[2],
                                        Sums<T>& sum) {
    constexpr int kFirst = parity * T::kParts % 2;
    Operands& now = operands[parity % sets];
    ptx::barrier_wait(ring_.full(at_.stage), at_.parity);
    const u32 weights = ring_.weights(at_.stage);
    if constexpr (sets == 1 && !first) ptx::wgmma_wait<0>();  // they read the operands
    unpack(weights, now);
    const u32 stage = ring_.x(at_.stage), x = ptx::wgmma_operand(stage);
    multiply(x, 0, now, part[kFirst]);
    if constexpr (!first) {
      ptx::wgmma_wait<1>();
      add(previous_, T::kParts - 1, part[kFirst ^ 1], sum);
      release();
    }
    scale_[0] = scale(weights + scales_), scale_[1] = scale(weights + scales_ + 16);
    at_.advance();
#pragma unroll
    for (int p = 1; p < T::kParts; ++p) {
      multiply(x, p, now, part[(kFirst + p) % 2]);
      ptx::wgmma_wait<1>();
      add(stage, p - 1, part[(kFirst + p - 1) % 2], sum);
    }
    previous_ = stage;
  }

  template <int parity>
  __device__ __forceinline__ void last(Part (&part)[2], Sums<T>& sum) {
    ptx::wgmma_wait<0>();
    add(previous_, T::kParts - 1, part[(parity * T::kParts + T::kParts - 1) % 2], sum);
    release();
  }

  __device__ __forceinline__ float scale(u32 from) const {
    return load16(ptx::load_shared_u16(from), a_.scale_type) * Format::kInverse;
  }

  __device__ __forceinline__ void unpack(u32 weights, Operands& operands) {
    u32 words[3][4];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words[c], weights + weights_ + c * layout::kChunkBytes);
    }
#pragma unroll
    for (int j = 0; j < layout::kQuads; ++j) {
      const auto word = [&](int i) { return words[(3 * j + i) / 4][(3 * j + i) % 4]; };
      const u32 w[3] = {word(0), word(1), word(2)};
      format_.unpack(w, &operands[j * (Format::kSteps / 4)]);
    }
#pragma unroll
    for (int s = 0; s < Format::kSteps; ++s) ptx::pin(operands[s]);
  }

  // Starts the products of a K block and part p.
  __device__ __forceinline__ void multiply(u32 x, int p, const Operands& operands, Part& part) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < Format::kSteps; ++s) {
      Format::wgmma(part, operands[s],
                    x + p * (T::kPart * 8) + s / 4 * (T::kBoxBytes / 16) + s % 4 * 2, s == 0);
    }
    ptx::wgmma_commit();
  }

  __device__ __forceinline__ void add(u32 stage, int p, Part& part, Sums<T>& sum) {
    ptx::pin(part);
    const u32 from = stage + T::kXScales + (p * T::kPart + threadIdx.x % 4 * 2) * 4;
#pragma unroll
    for (int i = 0; i < T::kPart / 8; ++i) {
      float v[4] = {float(part[4 * i]), float(part[4 * i + 1]), float(part[4 * i + 2]),
                    float(part[4 * i + 3])};
      if constexpr (T::kBlockScales) {
        const float2 x = ptx::load_shared_f32x2(from + i * 32);
        v[0] *= x.x, v[1] *= x.y, v[2] *= x.x, v[3] *= x.y;
      }
      float* s = &sum[p][4 * i];
      s[0] = fmaf(v[0], scale_[0], s[0]);
      s[1] = fmaf(v[1], scale_[0], s[1]);
      s[2] = fmaf(v[2], scale_[1], s[2]);
      s[3] = fmaf(v[3], scale_[1], s[3]);
    }
    ptx::pin(sum[p]);
  }

  // Gives back the stage whose last products are complete.
  __device__ __forceinline__ void release() {
    ring_.release(released_);
    released_ = released_ + 1 == T::kStages ? 0 : released_ + 1;
  }

  Ring<T> ring_;
  Format format_;
  const HopperArgs& a_;
  u32 weights_, scales_, previous_ = 0;
  Cursor<T::kStages> at_;
  i32 released_ = 0;
  float scale_[2];
};

}  // namespace flexq::sm90

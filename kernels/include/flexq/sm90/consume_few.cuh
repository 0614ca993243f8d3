// Products of exact codes where the tile's rows are one part: the operands of a quad (32 columns)
// are made while the products of the quad before run, and a K block's sums are scaled into the
// f32 sums at its end. Few registers, so that many groups fit.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/formats.cuh"

namespace flexq::sm90 {

template <class T, class Format>
class ConsumeFew {
  static_assert(T::kJoint, "a stage is a K block");

 public:
  __device__ __forceinline__ ConsumeFew(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  __device__ __forceinline__ void begin(const Piece&, int) const {}

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    zero<T>(sum);
    for (int block = 0; block < blocks; ++block) {
      ptx::barrier_wait(ring_.full(at_.stage()), at_.parity());
      const u32 weights = ring_.weights(at_.stage());
      u32 words[3][4];
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        ptx::load_shared(words[c], weights + weights_ + c * layout::kChunkBytes);
      }
      const float s0 = scale(weights + scales_), s1 = scale(weights + scales_ + 16);
      const u32 stage = ring_.x(at_.stage()), x = ptx::wgmma_operand(stage);
      Operands operands[2];
      Part part;
#pragma unroll
      for (int j = 0; j < layout::kQuads; ++j) {
        const auto word = [&](int i) { return words[(3 * j + i) / 4][(3 * j + i) % 4]; };
        const u32 w[3] = {word(0), word(1), word(2)};
        if (j >= 2) ptx::wgmma_wait<1>();
        format_.unpack(w, operands[j % 2]);
#pragma unroll
        for (int s = 0; s < kSteps; ++s) ptx::pin(operands[j % 2][s]);
        multiply(x, j, operands[j % 2], part);
      }
      add(stage, s0, s1, part, sum[0]);
      ring_.release(at_.stage());
      at_.advance();
    }
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    if constexpr (T::kElement == 1 && !T::kBlockScales) scale_rows<T>(a_.x_scales + row0, sum);
  }

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(at_); }
  __device__ __forceinline__ void end_stage(int stage) { ring_.release(stage); }

 private:
  static constexpr int kSteps = Format::kSteps / layout::kQuads;
  using Part = typename Format::Sum[T::kPart / 2];
  using Operands = u32[kSteps][4];

  __device__ __forceinline__ float scale(u32 from) const {
    return load16(ptx::load_shared_u16(from), a_.scale_type) * Format::kInverse;
  }

  // Starts the products of quad j.
  __device__ __forceinline__ void multiply(u32 x, int j, const Operands& operands, Part& part) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int step = j * kSteps + s;
      Format::wgmma(part, operands[s], x + step / 4 * (T::kBoxBytes / 16) + step % 4 * 2,
                    step == 0);
    }
    ptx::wgmma_commit();
  }

  // Waits for the products and adds them, scaled.
  __device__ __forceinline__ void add(u32 stage, float s0, float s1, Part& part,
                                      float (&sum)[T::kPart / 2]) {
    constexpr int kPairs = T::kPart / 8;
    const u32 from = stage + T::kXScales + threadIdx.x % 4 * 8;
    float2 x[2] = {{1, 1}, {1, 1}};  // scales are loaded while those before are used
    if constexpr (T::kBlockScales) x[0] = ptx::load_shared_f32x2(from);
    ptx::wgmma_wait<0>();
    ptx::pin(part);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      float v[4] = {float(part[4 * i]), float(part[4 * i + 1]), float(part[4 * i + 2]),
                    float(part[4 * i + 3])};
      if constexpr (T::kBlockScales) {
        if (i + 1 < kPairs) x[(i + 1) % 2] = ptx::load_shared_f32x2(from + (i + 1) * 32);
        v[0] *= x[i % 2].x, v[1] *= x[i % 2].y, v[2] *= x[i % 2].x, v[3] *= x[i % 2].y;
      }
      float* s = &sum[4 * i];
      s[0] = fmaf(v[0], s0, s[0]), s[1] = fmaf(v[1], s0, s[1]);
      s[2] = fmaf(v[2], s1, s[2]), s[3] = fmaf(v[3], s1, s[3]);
    }
  }

  Ring<T> ring_;
  Format format_;
  const HopperArgs& a_;
  u32 weights_, scales_;
  Cursor<T::kStages> at_;
};

}  // namespace flexq::sm90

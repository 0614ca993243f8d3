// Products of exact codes with activation scales per (row, 128): every sum is converted and multiplied
// twice, which takes as long as the products. So the tile's rows are cut into parts of which one is
// multiplied or added at a time, and the two groups take turns: the tensor cores work for one while the
// other adds.
//
// Registers of a thread for a 64 x 256 tile in parts of 128: 128 sums, 64 of a part, 16 operands. Words of
// the next K block do not fit.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/formats.cuh"

namespace flexq::sm90 {

template <class T, class Format>
class ConsumeTurns {
  static_assert(T::kJoint && T::kBlockScales && T::kGroups == 2);

 public:
  __device__ __forceinline__ ConsumeTurns(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a), turn_(kTurns + group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
    if (group == 1) ptx::named_arrive(kTurns, 256);  // the other begins
  }

  __device__ __forceinline__ void begin(const Piece&, int) const {}

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    zero<T>(sum);
    for (; blocks > 0; --blocks) {
      const int stage = at_.stage();
      Operands operands;
      unpack(operands);
      const u32 x = ptx::wgmma_operand(ring_.x(stage)), weights = ring_.weights(stage);
      const float s0 = scale(weights + scales_), s1 = scale(weights + scales_ + 16);
      at_.advance();
      Part part;
#pragma unroll
      for (int p = 0; p < T::kParts; ++p) {
        ptx::named_barrier(turn_, 256);
        multiply(x, p, operands, part);
        ptx::named_arrive(turn_ ^ 1, 256);
        add(ring_.x(stage), p, s0, s1, part, sum[p]);
      }
      ring_.release(stage);
    }
  }

  __device__ __forceinline__ void finish(int, Sums<T>&) const {}

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(at_); }
  __device__ __forceinline__ void end_stage(int stage) { ring_.release(stage); }

 private:
  using Part = typename Format::Sum[T::kPart / 2];
  using Operands = u32[Format::kSteps][4];
  // Named barriers 8 and 9: whose turn it is.
  static constexpr int kTurns = 8;

  // The next K block's weights.
  __device__ __forceinline__ void unpack(Operands& operands) const {
    ptx::barrier_wait(ring_.full(at_.stage()), at_.parity());
    u32 words[3][4];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words[c], ring_.weights(at_.stage()) + weights_ + c * layout::kChunkBytes);
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

  __device__ __forceinline__ float scale(u32 from) const {
    return load16(ptx::load_shared_u16(from), a_.scale_type) * Format::kInverse;
  }

  // Starts the products of part p.
  __device__ __forceinline__ void multiply(u32 x, int p, const Operands& operands, Part& part) {
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < Format::kSteps; ++s) {
      Format::wgmma(part, operands[s],
                    x + p * (T::kPart * 8) + s / 4 * (T::kBoxBytes / 16) + s % 4 * 2, s == 0);
    }
    ptx::wgmma_commit();
  }

  // Waits for them and adds them, scaled.
  __device__ __forceinline__ void add(u32 stage, int p, float s0, float s1, Part& part,
                                      float (&sum)[T::kPart / 2]) const {
    constexpr int kPairs = T::kPart / 8;
    const u32 from = stage + T::kXScales + (p * T::kPart + threadIdx.x % 4 * 2) * 4;
    float2 x[2];  // scales are loaded while those before are used
    x[0] = ptx::load_shared_f32x2(from);
    ptx::wgmma_wait<0>();
    ptx::pin(part);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (i + 1 < kPairs) x[(i + 1) % 2] = ptx::load_shared_f32x2(from + (i + 1) * 32);
      const float x0 = x[i % 2].x, x1 = x[i % 2].y;
      float* s = &sum[4 * i];
      s[0] = fmaf(float(part[4 * i]) * x0, s0, s[0]);
      s[1] = fmaf(float(part[4 * i + 1]) * x1, s0, s[1]);
      s[2] = fmaf(float(part[4 * i + 2]) * x0, s1, s[2]);
      s[3] = fmaf(float(part[4 * i + 3]) * x1, s1, s[3]);
    }
    ptx::pin(sum);
  }

  Ring<T> ring_;
  Format format_;
  const HopperArgs& a_;
  i32 turn_;
  u32 weights_, scales_;
  Cursor<T::kStages> at_;
};

}  // namespace flexq::sm90

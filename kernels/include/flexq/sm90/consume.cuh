// Products of exact codes, one scale an activation row. A segment of 128 columns is summed for one part
// of the tile's rows at a time, in accumulators of its own, then scaled into the f32 sums while the
// products of the next part run.
//
// Registers of a thread for a 64 x 256 tile in parts of 64: 128 sums, two parts of 32, 16 operands.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/formats.cuh"

namespace flexq::sm90 {

template <class T, class Format>
class Consume {
  static_assert(T::kJoint && T::kParts % 2 == 0 && T::kElement == 1 && !T::kBlockScales);

 public:
  __device__ __forceinline__ Consume(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    Operands operands;
    Part part[2];
    zero<T>(sum);
    block<true>(operands, part, sum);
    while (--blocks) block<false>(operands, part, sum);
    ptx::wgmma_wait<0>();
    add(T::kParts - 1, part[1], sum);
    release();
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    scale_rows<T>(a_.x_scales + row0, sum);
  }

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(at_); }
  __device__ __forceinline__ void end_stage(int) { release(); }

 private:
  using Part = typename Format::Sum[T::kPart / 2];
  using Operands = u32[Format::kSteps][4];

  // One K block. On entry the products of the last part of the block before are running.
  template <bool first>
  __device__ __forceinline__ void block(Operands& operands, Part (&part)[2], Sums<T>& sum) {
    ptx::barrier_wait(ring_.full(at_.stage), at_.parity);
    const u32 weights = ring_.weights(at_.stage);
    if constexpr (!first) ptx::wgmma_wait<0>();  // they read the operands
    unpack(weights, operands);
    const u32 x = ptx::wgmma_operand(ring_.x(at_.stage));
    multiply(x, 0, operands, part[0]);
    if constexpr (!first) {
      add(T::kParts - 1, part[1], sum);
      release();
    }
    scale_[0] = scale(weights + scales_), scale_[1] = scale(weights + scales_ + 16);
    at_.advance();
#pragma unroll
    for (int p = 1; p < T::kParts; ++p) {
      multiply(x, p, operands, part[p % 2]);
      ptx::wgmma_wait<1>();
      add(p - 1, part[(p - 1) % 2], sum);
    }
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

  __device__ __forceinline__ void add(int p, Part& part, Sums<T>& sum) const {
    ptx::pin(part);
#pragma unroll
    for (int i = 0; i < T::kPart / 2; ++i) {
      sum[p][i] = fmaf(float(part[i]), scale_[i / 2 % 2], sum[p][i]);
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
  u32 weights_, scales_;
  Cursor<T::kStages> at_;
  i32 released_ = 0;
  float scale_[2];
};

}  // namespace flexq::sm90

// Products of exact codes, one scale an activation row. A segment of 128 columns is summed for one part
// of the tile's rows at a time, in accumulators of its own, then scaled into the f32 sums while the
// products of the next part run. A warp that issues products with operands in registers stands still until
// the tensor cores take them, so it adds after the first of the next part's steps, before the others.
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

  __device__ __forceinline__ void begin(const Piece&, int) const {}

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    Operands operands;
    Part part[2];
    zero<T>(sum);
    block<true>(operands, part, sum);
    while (--blocks) block<false>(operands, part, sum);
    ptx::wgmma_wait<0>();
    add(T::kParts - 1, part[1], sum);
    ring_.release(at_.before());
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    scale_rows<T>(a_.x_scales + row0, sum);
  }

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(at_); }
  __device__ __forceinline__ void end_stage(int stage) { ring_.release(stage); }

 private:
  using Part = typename Format::Sum[T::kPart / 2];
  using Operands = u32[Format::kSteps][4];

  // One K block. On entry the products of the last part of the block before are running.
  template <bool first>
  __device__ __forceinline__ void block(Operands& operands, Part (&part)[2], Sums<T>& sum) {
    ptx::barrier_wait(ring_.full(at_.stage()), at_.parity());
    const u32 weights = ring_.weights(at_.stage());
    if constexpr (!first) ptx::wgmma_wait<0>();  // they read the operands
    unpack(weights, operands);
    u64 x = ptx::wgmma_operand(ring_.x(at_.stage())) | u64(high_) << 32;
#pragma unroll
    for (int p = 0; p < T::kParts; ++p) {
      ptx::wgmma_fence();
      multiply<0, 1>(x, operands, part[p % 2]);
      if (p > 0) ptx::wgmma_wait<1>();
      if (p > 0 || !first) add((p + T::kParts - 1) % T::kParts, part[(p + 1) % 2], sum);
      multiply<1, Format::kSteps>(x, operands, part[p % 2]);
      if (p > 0) continue;
      if constexpr (!first) ring_.release(at_.before());  // its last products are complete
      at_.advance();
      scale_[0] = scale(weights + scales_), scale_[1] = scale(weights + scales_ + 16);
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

  // Starts steps [from, to) of a K block and a part, of which the first is at x.
  template <int from, int to>
  __device__ __forceinline__ void multiply(u64& x, const Operands& operands, Part& part) {
    static_assert(Format::kSteps == 4, "a row of 128 bytes");
#pragma unroll
    for (int s = from; s < to; ++s) {
      Format::wgmma(part, operands[s], x, s == 0);
      ptx::wgmma_advance(x, s < 3 ? 2 : T::kPart * 8 - 6);
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

  Ring<T> ring_;
  Format format_;
  const HopperArgs& a_;
  u32 weights_, scales_;
  // The grid is flat: wgmma_operand_high(). A constant that the compiler knew would be set anew for every
  // product.
  u32 high_ = ptx::wgmma_operand_high() - 1 + gridDim.z;
  Cursor<T::kStages> at_;
  float scale_[2];
};

}  // namespace flexq::sm90

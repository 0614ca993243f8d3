// Products of exact codes, one scale an activation row. The tile's rows are one part, or two one after the
// other in the same registers, and two groups take turns: the tensor cores work for one while the other adds. Words
// of the next K block are asked for while the last products of this one run.
//
// Registers of a thread for a 64 x 256 tile in parts of 128: 128 sums, 64 of a part, 16 operands, 12 words.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/formats.cuh"
#include "flexq/sm90/row_sums.cuh"

namespace flexq::sm90 {

template <class T, class Format, class RowSums>
class ConsumeRows {
  static_assert(T::kJoint && T::kParts <= 2 && T::kElement == 1 && !T::kBlockScales && T::kGroups == 2);

 public:
  __device__ __forceinline__ ConsumeRows(const HopperArgs& a, const Ring<T>& ring, int group)
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
    Words words;
    load(words);
    for (; blocks > 0; --blocks) {
      const int stage = at_.stage();
      at_.advance();
      Operands operands;
      unpack(words, operands);
      u64 x = ptx::wgmma_operand(ring_.x(stage)) | u64(high_) << 32;
      const u32 scales = ring_.weights(stage) + scales_;
      float s0, s1;
      Part part;
      sums_.start(part);
#pragma unroll
      for (int p = 0; p < T::kParts; ++p) {
        ptx::named_barrier(turn_, 256);
        multiply(x, operands, part);
        ptx::named_arrive(turn_ ^ 1, 256);
        if (p == 0) {
          s0 = scale(scales), s1 = scale(scales + 16);
          sums_.begin(s0, s1, blocks, sum);
        }
        if (p == T::kParts - 1 && blocks > 1) load(words);
        ptx::wgmma_wait<0>();
        ptx::pin(part);
        sums_.add(s0, s1, part, sum[p]);
        ptx::pin(sum[p]);
      }
      ring_.release(stage);
    }
    sums_.end(sum);
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    scale_rows<T>(a_.x_scales + row0, sum);
  }

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() { return ring_.next_x(at_); }
  __device__ __forceinline__ void end_stage(int stage) { ring_.release(stage); }

 private:
  using Part = typename RowSums::Part;
  using Operands = u32[Format::kSteps][4];
  using Words = u32[3][4];
  // Named barriers 8 and 9: whose turn it is.
  static constexpr int kTurns = 8;

  // The next K block's weights.
  __device__ __forceinline__ void load(Words& words) const {
    ptx::barrier_wait(ring_.full(at_.stage()), at_.parity());
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words[c], ring_.weights(at_.stage()) + weights_ + c * layout::kChunkBytes);
    }
  }

  __device__ __forceinline__ void unpack(const Words& words, Operands& operands) const {
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
    constexpr float kScale = Format::kInverse * RowSums::kScale;
    return load16(ptx::load_shared_u16(from), a_.scale_type) * kScale;
  }

  // Starts the products of the part that is at x, and moves x to the next.
  __device__ __forceinline__ void multiply(u64& x, const Operands& operands, Part& part) {
    static_assert(Format::kSteps == 4, "a row of 128 bytes");
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < Format::kSteps; ++s) {
      Format::wgmma(part, operands[s], x, RowSums::kFromZero && s == 0);
      ptx::wgmma_advance(x, s < 3 ? 2 : T::kPart * 8 - 6);
    }
    ptx::wgmma_commit();
  }

  Ring<T> ring_;
  Format format_;
  const HopperArgs& a_;
  i32 turn_;
  u32 weights_, scales_;
  u32 high_ = ptx::wgmma_operand_high() - 1 + gridDim.z;  // as in Consume
  RowSums sums_;
  Cursor<T::kStages> at_;
};

}  // namespace flexq::sm90

// A warp's private ring of weights where it has the same strips of many K blocks: a stage holds two strips, or one,
// and their scales. One lane asks for them, with addresses that all lanes count, as in ring.cuh.
#pragma once

#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/small/ring.cuh"

namespace flexq::small {

// Of `own` strips: one or two.
template <int own>
class StripRing {
  static constexpr int kStripScales = layout::kBlockRows * 2;
  static constexpr int kScales = own * layout::kBlockBytes;
  static constexpr int kStageBytes = kScales + own * kStripScales;

 public:
  // Bytes of all warps' rings; a multiple of 16.
  static __device__ __forceinline__ int bytes(const SmallArgs& a, int warps) {
    return warps * a.stages * kStageBytes + round_up(warps * a.stages * 8, 16);
  }

  // `strips` strips from `strip` on of `blocks` K blocks: `block`, `block` + step, ...
  __device__ __forceinline__ StripRing(const SmallArgs& a, u32 shared, int warp, int warps, int strip,
                                       int strips, int block, int step, int blocks)
      : stages_(a.stages),
        base_(shared + warp * stages_ * kStageBytes),
        barriers_(shared + warps * stages_ * kStageBytes + warp * stages_ * 8),
        strips_(strips),
        left_(blocks) {
    const int k_blocks = ceil_div(a.k, layout::kTileCols), n_pad = round_up(a.n, layout::kTileRows);
    weights_ = a.weights + layout::block_offset(strip, block, k_blocks);
    scales_ = a.scales + u64(block) * n_pad + strip * layout::kBlockRows;
    weight_step_ = step * layout::kTileBytes, scale_step_ = step * n_pad;
    const bool last_of_tile = strip % layout::kBlocksPerTile == layout::kBlocksPerTile - 1;
    second_ = layout::kBlockBytes + (last_of_tile ? (k_blocks - 1) * layout::kTileBytes : 0);
    if (threadIdx.x % 32 == 0) {
#pragma unroll 1
      for (int s = 0; s < stages_; ++s) ptx::barrier_init(barriers_ + s * 8, 1);
      ptx::barrier_init_fence();
    }
    __syncwarp();
#pragma unroll 1
    for (int s = 0; s < stages_; ++s) fetch(s);
  }

  // Waits for the next stage.
  __device__ __forceinline__ void wait() const { ptx::barrier_wait(barriers_ + stage_ * 8, parity_); }

  // Strip `s` of it; the first one where there is no second.
  __device__ __forceinline__ Unit<1> unit(int s) const {
    const u32 from = base_ + stage_ * kStageBytes;
    const int at = s < strips_ ? s : 0;
    return Unit<1>(from + at * layout::kBlockBytes, from + kScales + at * kStripScales);
  }

  // Asks for another stage in the place of this one, whose words have been used; see ring.cuh.
  __device__ __forceinline__ void advance() {
    __syncwarp();
    fetch(stage_);
    if (++stage_ == stages_) stage_ = 0, parity_ ^= 1;
  }

 private:
  const int stages_;
  const u32 base_, barriers_;
  const int strips_;
  int left_, weight_step_, scale_step_, second_;
  const u8* weights_;
  const u16* scales_;
  int stage_ = 0;
  u32 parity_ = 0;

  __device__ __forceinline__ void fetch(int s) {
    if (left_ <= 0) return;
    const u32 to = base_ + s * kStageBytes, done = barriers_ + s * 8;
    if (ptx::elect()) {
      ptx::barrier_arrive_expect(done, strips_ * (layout::kBlockBytes + kStripScales));
      ptx::copy_bulk(to, weights_, layout::kBlockBytes, done);
      if (own == 2 && strips_ == 2) {
        ptx::copy_bulk(to + layout::kBlockBytes, weights_ + second_, layout::kBlockBytes, done);
      }
      ptx::copy_bulk(to + kScales, scales_, strips_ * kStripScales, done);
    }
    --left_, weights_ += weight_step_, scales_ += scale_step_;
  }
};

}  // namespace flexq::small

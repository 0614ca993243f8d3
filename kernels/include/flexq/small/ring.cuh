// A warp's private ring of weight blocks in shared memory, filled ahead of use.
//
// The units of a warp are (strip, K block) pairs, K fastest. Hopper's copy engine brings each
// with two or more bulk copies that one lane asks for, with addresses that all lanes count, so that
// they stay in uniform registers; a barrier per stage says when they have
// landed, so the depth is chosen at run time to fill the shared memory there is. Elsewhere all
// lanes copy 16 bytes at a time and the depth is fixed.
#pragma once

#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/small/args.cuh"

namespace flexq::small {

#if __CUDA_ARCH__ >= 900
constexpr bool kBulkCopies = true;
#else
constexpr bool kBulkCopies = false;
#endif

// Depth without bulk copies; mirrored in crates/flexq-cuda/src/config/small.rs.
constexpr int kFixedStages = 5;

// Where the units of a warp lie in global memory.
template <int segments>
struct Units {
  static constexpr int kSegments = segments;

  const SmallArgs& a;
  int strip, block, left;
  const int block0, blocks, k_blocks, n_pad;
  const u8* weights;
  const u16* scales;

  // `count` of them, the first of which is (strip, block), of `blocks` blocks from block0 on.
  __device__ __forceinline__ Units(const SmallArgs& args, int strip, int block, int count,
                                   int block0, int blocks, int k_blocks, int n_pad)
      : a(args),
        strip(strip),
        block(block),
        left(count),
        block0(block0),
        blocks(blocks),
        k_blocks(k_blocks),
        n_pad(n_pad) {
    seek();
  }

  __device__ __forceinline__ void seek() {
    weights = a.weights + layout::block_offset(strip, block0 + block, k_blocks);
    scales = a.scales + u64(block0 + block) * segments * n_pad + strip * layout::kBlockRows;
  }

  __device__ __forceinline__ void next() {
    --left;
    weights += layout::kTileBytes;
    scales += u64(segments) * n_pad;
    if (++block == blocks) {
      block = 0, ++strip;
      seek();
    }
  }
};

// A unit that has landed at `from`, in registers. Scales first: loads come back in order, so who has
// used the last words has them, too.
template <int segments>
struct Unit {
  u16 scale[segments][2];
  u32 w[3][4];

  __device__ __forceinline__ explicit Unit(u32 from) : Unit(from, from + layout::kBlockBytes) {}

  // Whose scales are elsewhere.
  __device__ __forceinline__ Unit(u32 from, u32 scales) {
    const int lane = threadIdx.x % 32, g = lane / 4;
#pragma unroll
    for (int s = 0; s < segments; ++s) {
      scale[s][0] = ptx::load_shared_u16(scales + s * 32 + g * 2);
      scale[s][1] = ptx::load_shared_u16(scales + s * 32 + g * 2 + 16);
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(w[c], from + c * layout::kChunkBytes + lane * 16);
    }
  }
};

template <class Units, int warps>
class Ring {
  static constexpr int segments = Units::kSegments;
  static constexpr int kScaleBytes = layout::kBlockRows * 2;
  static constexpr int kStageBytes = layout::kBlockBytes + kScaleBytes * segments;

 public:
  // Bytes of all warps' rings, which start `shared`; a multiple of 16.
  static __device__ __forceinline__ int bytes(const SmallArgs& a) {
    return kBulkCopies ? warps * a.stages * (kStageBytes + 8) : warps * kFixedStages * kStageBytes;
  }

  __device__ __forceinline__ Ring(const SmallArgs& a, const u8* shared, int warp,
                                  const Units& units)
      : units_(units), lane_(threadIdx.x % 32), stages_(kBulkCopies ? a.stages : kFixedStages) {
    base_ = ptx::shared_address(shared) + warp * stages_ * kStageBytes;
    barrier_ = ptx::shared_address(shared) + warps * stages_ * kStageBytes + warp * stages_ * 8;
    if constexpr (kBulkCopies) {
      if (lane_ == 0) {
#pragma unroll 1
        for (int s = 0; s < stages_; ++s) ptx::barrier_init(barrier_ + s * 8, 1);
        ptx::barrier_init_fence();
      }
      __syncwarp();
#pragma unroll 1
      for (int s = 0; s < stages_; ++s) fetch(s);
    } else {
#pragma unroll
      for (int s = 0; s < kFixedStages - 1; ++s) fetch(s);
    }
  }

  // Waits for the next unit; its address. A block-wide barrier lies between the constructor and
  // the first call.
  __device__ __forceinline__ u32 wait() const {
    if constexpr (kBulkCopies) {
      ptx::barrier_wait(barrier_ + stage_ * 8, parity_);
    } else {
      ptx::copy_wait<kFixedStages - 2>();
      __syncwarp();
    }
    return base_ + stage_ * kStageBytes;
  }

  // Asks for another unit in a free stage. What was loaded from the last one must have been used, not
  // merely asked for: behind misses of the L1 cache such loads wait longer than a copy takes.
  __device__ __forceinline__ void advance() {
    if constexpr (kBulkCopies) {
      __syncwarp();
      fetch(stage_);
    } else {
      fetch(stage_ == 0 ? kFixedStages - 1 : stage_ - 1);
    }
    if (++stage_ == stages_) stage_ = 0, parity_ ^= 1;
  }

 private:
  Units units_;
  const int lane_;
  const int stages_;
  u32 base_, barrier_;
  int stage_ = 0;
  u32 parity_ = 0;

  __device__ __forceinline__ void fetch(int s) {
    const u32 to = base_ + s * kStageBytes;
    if constexpr (kBulkCopies) {
      if (units_.left <= 0) return;
      const u32 barrier = barrier_ + s * 8;
      if (ptx::elect()) {
        ptx::barrier_arrive_expect(barrier, kStageBytes);
        ptx::copy_bulk(to, units_.weights, layout::kBlockBytes, barrier);
#pragma unroll
        for (int i = 0; i < segments; ++i) {
          ptx::copy_bulk(to + layout::kBlockBytes + i * kScaleBytes, units_.scales + u64(i) * units_.n_pad,
                         kScaleBytes, barrier);
        }
      }
      units_.next();
    } else {
      // Lane l copies what lane l will read; scales come through the first lanes.
      if (units_.left > 0) {
#pragma unroll
        for (int c = 0; c < 3; ++c) {
          ptx::copy_async(to + c * layout::kChunkBytes + lane_ * 16,
                          units_.weights + c * layout::kChunkBytes + lane_ * 16);
        }
        if (lane_ < 2 * segments) {
          ptx::copy_async(to + layout::kBlockBytes + lane_ * 16,
                          units_.scales + u64(lane_ / 2) * units_.n_pad + lane_ % 2 * 8);
        }
        units_.next();
      }
      ptx::copy_commit();
    }
  }
};

}  // namespace flexq::small

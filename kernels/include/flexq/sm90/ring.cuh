// Shared memory of a block: a ring of stages, each the activations, weights and scales of one
// K block of 128 columns, that a producer thread fills and consumer warps empty.
#pragma once

#include "flexq/layout.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/sm90/args.cuh"
#include "flexq/sm90/schedule.cuh"

namespace flexq::sm90 {

// row_blocks: blocks of 64 weight rows a consumer group owns. m_tile: activation rows.
// segments: scales per 128 columns. element: bytes of an activation. block_scales: activation
// scales per (row, 128).
// cluster: blocks that share the activations, neighbours along N.
template <int row_blocks, int m_tile, int groups, int cluster, int segments, int stages,
          int element, bool block_scales = false>
struct Tile {
  static constexpr int kRowBlocks = row_blocks;
  static constexpr int kM = m_tile;
  static constexpr int kGroups = groups;
  static constexpr int kCluster = cluster;
  static constexpr int kSegments = segments;
  static constexpr int kStages = stages;
  static constexpr int kElement = element;
  static constexpr bool kBlockScales = block_scales;

  static constexpr int kStrips = row_blocks * groups;
  static constexpr int kN = kStrips * layout::kTileRows;
  static constexpr int kThreads = 128 * (groups + 1);

  // Each product instruction covers kPart activation rows, kParts of them a tile.
  static constexpr int kPart = m_tile < 128 ? m_tile : 128;
  static constexpr int kParts = m_tile / kPart;

  // A box is 128 bytes of m_tile rows; a stage has one box for int8, two for 16 bits.
  static constexpr int kBoxBytes = m_tile * 128;
  static constexpr int kWeights = kBoxBytes * element;
  static constexpr int kScales = kWeights + kStrips * layout::kTileBytes;
  static constexpr int kXScales = kScales + segments * kN * 2;
  static constexpr int kStageBytes =
      round_up(kXScales + (block_scales ? m_tile * 4 : 0), 1024);

  // The output goes through `kSlice` rows of 64 columns a group, padded against conflicts.
  static constexpr int kSlice = m_tile < 64 ? m_tile : 64;
  static constexpr int kSliceRow = 64 * 2 + 16;
  static constexpr int kOutput = stages * kStageBytes;
  static constexpr int kBarriers = kOutput + groups * kSlice * kSliceRow;
  static constexpr int kFlags = kBarriers + 2 * stages * 8;
  // The base of dynamic memory is aligned to 1024 in the kernel.
  static constexpr int kSharedBytes = kFlags + groups * 4 + 1024;

  static_assert(m_tile % kPart == 0 && m_tile / cluster % 8 == 0 && m_tile / cluster <= 256,
                "a tensor map box has at most 256 rows, swizzled in groups of eight");
  static_assert(kSharedBytes <= 232448, "shared memory of a Hopper multiprocessor");
};

// Position in the ring and the phase parity that goes with it.
template <int stages>
struct Cursor {
  i32 stage = 0;
  u32 parity = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

template <class T>
struct Ring {
  u32 base;

  __device__ __forceinline__ u32 stage(int s) const { return base + s * T::kStageBytes; }
  __device__ __forceinline__ u32 full(int s) const { return base + T::kBarriers + s * 8; }
  __device__ __forceinline__ u32 empty(int s) const {
    return base + T::kBarriers + (T::kStages + s) * 8;
  }
  __device__ __forceinline__ u32 output(int group) const {
    return base + T::kOutput + group * (T::kSlice * T::kSliceRow);
  }
  __device__ __forceinline__ u32 flag(int group) const { return base + T::kFlags + group * 4; }

  // By one thread, before the block's first barrier.
  __device__ __forceinline__ void init() const {
    for (int s = 0; s < T::kStages; ++s) {
      ptx::barrier_init(full(s), 1);
      ptx::barrier_init(empty(s), T::kGroups * T::kCluster * 4);
    }
    ptx::barrier_init_fence();
  }

  // By one warp that is done with a stage.
  __device__ __forceinline__ void release(int s) const {
    __syncwarp();
    const u32 lane = threadIdx.x % 32;
    if (lane < T::kCluster) ptx::barrier_arrive(empty(s), lane);
  }

  // By one thread: copies every stage of every piece of this block. Weights do not depend on
  // earlier kernels, so the first stages' are on their way before those have finished.
  __device__ __forceinline__ void produce(const HopperArgs& a, Schedule work, int tiles_m,
                                          int tiles_n, int k_blocks, u32 rank) const {
    const int n_pad = round_up(a.n, layout::kTileRows);
    const int x_stride = layout::activation_scale_stride(a.m);
    constexpr int kBoxRows = T::kM / T::kCluster;
    Cursor<T::kStages> at;
    int early = -1;
    for (Piece p; work.next(p);) {
      const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
      const int row = place.m * T::kM, strip = (place.n * T::kCluster + rank) * T::kStrips;
      const int strips = max(0, min(T::kStrips, n_pad / layout::kTileRows - strip));
      const u32 scale_bytes = strips * layout::kTileRows * 2;
      const u32 x_scale_bytes = T::kBlockScales ? min(T::kM, x_stride - row) * 4 : 0;
      const u32 bytes = T::kBoxBytes * T::kElement + strips * layout::kTileBytes +
                        T::kSegments * scale_bytes + x_scale_bytes;
      const u8* const weights = a.weights + u64(strip) * k_blocks * layout::kTileBytes;

      const auto fetch_weights = [&](int kb, int s) {
        ptx::barrier_arrive_expect(full(s), bytes);
        u32 to = stage(s) + T::kWeights;
        const u8* from = weights + u64(kb) * layout::kTileBytes;
#pragma unroll 1
        for (int i = 0; i < strips; ++i) {
          ptx::copy_bulk(to, from, layout::kTileBytes, full(s));
          to += layout::kTileBytes, from += u64(k_blocks) * layout::kTileBytes;
        }
        if (strips == 0) return;
#pragma unroll
        for (int i = 0; i < T::kSegments; ++i) {
          ptx::copy_bulk(stage(s) + T::kScales + i * (T::kN * 2),
                         a.scales + u64(kb * T::kSegments + i) * n_pad + strip * layout::kTileRows,
                         scale_bytes, full(s));
        }
      };
      if (early < 0) {
        early = min(T::kStages, p.end - p.begin);
        for (int s = 0; s < early; ++s) fetch_weights(p.begin + s, s);
        ptx::wait_for_previous();
      }
      for (int kb = p.begin; kb < p.end; ++kb) {
        ptx::barrier_wait(empty(at.stage), at.parity ^ 1);
        if (--early < 0) fetch_weights(kb, at.stage), early = 0;
        const u32 to = stage(at.stage), done = full(at.stage);
        if constexpr (T::kBlockScales) {
          ptx::copy_bulk(to + T::kXScales, a.x_scales + u64(kb) * x_stride + row, x_scale_bytes,
                         done);
        }
#pragma unroll
        for (int box = 0; box < T::kElement; ++box) {
          const int column = kb * layout::kTileCols + box * (128 / T::kElement);
          if constexpr (T::kCluster == 1) {
            ptx::copy_box(to + box * T::kBoxBytes, &a.x, column, row, done);
          } else {
            ptx::copy_box_to(to + box * T::kBoxBytes + rank * (kBoxRows * 128), &a.x, column,
                             row + rank * kBoxRows, done, (1 << T::kCluster) - 1);
          }
        }
        at.advance();
      }
    }
  }
};

}  // namespace flexq::sm90

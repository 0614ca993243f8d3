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
template <int row_blocks, int m_tile, int groups, int segments, int stages, int element,
          bool block_scales = false>
struct Tile {
  static constexpr int kRowBlocks = row_blocks;
  static constexpr int kM = m_tile;
  static constexpr int kGroups = groups;
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

  static_assert(m_tile % kPart == 0 && m_tile <= 256, "a tensor map box has at most 256 rows");
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
      ptx::barrier_init(empty(s), T::kGroups * 4);
    }
    ptx::barrier_init_fence();
  }

  // By one thread: copies every stage of every piece of this block.
  __device__ __forceinline__ void produce(const HopperArgs& a, Schedule work, int tiles_m,
                                          int tiles_n, int k_blocks) const {
    const int n_pad = round_up(a.n, layout::kTileRows);
    const int x_stride = layout::activation_scale_stride(a.m);
    Cursor<T::kStages> at;
    for (Piece p; work.next(p);) {
      const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
      const int row = place.m * T::kM, strip = place.n * T::kStrips;
      const int strips = min(T::kStrips, n_pad / layout::kTileRows - strip);
      const int scale_bytes = strips * layout::kTileRows * 2;
      const int x_scale_bytes = T::kBlockScales ? min(T::kM, x_stride - row) * 4 : 0;
      const u8* weights = a.weights + u64(strip) * k_blocks * layout::kTileBytes;
      for (int kb = p.begin; kb < p.end; ++kb) {
        ptx::barrier_wait(empty(at.stage), at.parity ^ 1);
        const u32 to = stage(at.stage), done = full(at.stage);
        ptx::barrier_arrive_expect(done, T::kBoxBytes * T::kElement + strips * layout::kTileBytes +
                                             T::kSegments * scale_bytes + x_scale_bytes);
#pragma unroll 1
        for (int s = 0; s < strips; ++s) {
          ptx::copy_bulk(to + T::kWeights + s * layout::kTileBytes,
                         weights + (u64(s) * k_blocks + kb) * layout::kTileBytes,
                         layout::kTileBytes, done);
        }
#pragma unroll
        for (int s = 0; s < T::kSegments; ++s) {
          ptx::copy_bulk(to + T::kScales + s * (T::kN * 2),
                         a.scales + u64(kb * T::kSegments + s) * n_pad + strip * layout::kTileRows,
                         scale_bytes, done);
        }
        if constexpr (T::kBlockScales) {
          ptx::copy_bulk(to + T::kXScales, a.x_scales + u64(kb) * x_stride + row, x_scale_bytes,
                         done);
        }
#pragma unroll
        for (int box = 0; box < T::kElement; ++box) {
          ptx::copy_box(to + box * T::kBoxBytes, &a.x,
                        kb * layout::kTileCols + box * (128 / T::kElement), row, done);
        }
        at.advance();
      }
    }
  }
};

}  // namespace flexq::sm90

// The kernel: two producer threads, consumer groups, and the walk over this block's work.
#pragma once

#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/ring.cuh"
#include "flexq/sm90/schedule.cuh"

namespace flexq::sm90 {

// Barrier of the block, or of the cluster if it has more than one.
template <int cluster>
__device__ __forceinline__ void sync() {
  if constexpr (cluster == 1) {
    __syncthreads();
  } else {
    ptx::cluster_sync();
  }
}

// `Consumer` computes one piece: sums of a group over some K blocks, emptying the ring.
// `blocks` of it fit on a multiprocessor.
template <class T, class Consumer, int blocks = 1>
__device__ __forceinline__ void product(const HopperArgs& a) {
  // The registers of the block at launch, per 128 threads, change hands.
  constexpr int kRegisters = 65536 / blocks / T::kThreads / 8 * 8 * (T::kGroups + 1);
  constexpr int kProducerRegisters = T::kM * T::kElement > 256 || T::kM <= 128 ? 40 : 24;
  constexpr int kShare = (kRegisters - kProducerRegisters) / T::kGroups / 8 * 8;
  constexpr int kConsumerRegisters = kShare < 240 ? kShare : 240;

  extern __shared__ u8 shared[];
  Ring<T> ring{round_up(ptx::shared_address(shared), 1024u)};
  ptx::pin(ring.base);  // or it is computed again for every use
  const int group = threadIdx.x / 128;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int tiles_m = ceil_div(a.m, T::kM), tiles_n = ceil_div(a.n, T::kN * T::kCluster);
  const u32 rank = T::kCluster == 1 ? 0 : ptx::cluster_rank();
  const int worker = blockIdx.x / T::kCluster;
  const Schedule work(tiles_m * tiles_n, a.split_tiles, k_blocks, worker, gridDim.x / T::kCluster);

  if (threadIdx.x == 0) ring.init();
  sync<T::kCluster>();
  ptx::launch_dependents();

  if (group == T::kGroups) {
    ptx::registers_shrink<kProducerRegisters>();
    if (threadIdx.x % 128 == 0) ring.produce_weights(a, work, tiles_m, tiles_n, k_blocks, rank);
    if (threadIdx.x % 128 == 32) ring.produce_x(a, work, tiles_m, tiles_n, k_blocks, rank);
    __syncwarp();
  } else {
    ptx::registers_grow<kConsumerRegisters>();
    Consumer consumer(a, ring, group);
    Sums<T> sum;
    Piece p;
    for (int i = 0; work.piece(i, p); ++i) {
      consumer.run(p.end - p.begin, sum);
      const bool whole = p.end - p.begin == k_blocks;
      if (whole ||
          combine<T>(a, work, p.tile, worker, rank, group, ring.flag(group), sum)) {
        const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
        const int row = place.m * T::kM;
        const int col = ((place.n * T::kCluster + rank) * T::kGroups + group) * layout::kTileRows;
        consumer.finish(row, sum);
        store_tile<T>(a, row, col, group, ring.output(group), sum);
      }
    }
  }
  // Others of the cluster may still write into this block's shared memory.
  if constexpr (T::kCluster > 1) sync<T::kCluster>();
}

}  // namespace flexq::sm90

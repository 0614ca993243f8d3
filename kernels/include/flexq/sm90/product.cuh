// The kernel: producer threads, consumer groups, and the walk over this block's work.
#pragma once

#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/ring.cuh"
#include "flexq/sm90/schedule.cuh"
#include "flexq/sm90/share.cuh"

namespace flexq::sm90 {

// `Consumer` computes one piece: sums of a group over some K blocks, emptying the ring.
template <class T, class Consumer>
__device__ __forceinline__ void product(const HopperArgs& a) {
  // The registers of the block at launch, per 128 threads, change hands where sums need more.
  constexpr bool kChange = T::kM > 64;
  constexpr int kRegisters = 65536 / T::kThreads / 8 * 8 * (T::kGroups + 1);
  constexpr bool kInt8 = T::kElement == 1;
  constexpr int kProducerRegisters = T::kGroups > 2          ? (kInt8 ? 32 : 48)
                                     : kInt8 && T::kM == 256 ? 24
                                                             : 56;
  constexpr int kShare = (kRegisters - kProducerRegisters) / T::kGroups / 8 * 8;
  constexpr int kConsumerRegisters = kShare < 240 ? kShare : 240;

  extern __shared__ u8 shared[];
  Ring<T> ring{round_up(ptx::shared_address(shared), 1024u)};
  ptx::pin(ring.base);  // or it is computed again for every use
  const int group = threadIdx.x / 128;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int tiles_m = ceil_div(a.m, T::kM), tiles_n = ceil_div(a.n, T::kN * T::kCluster);
  // One block or two, which share activations or the K of a tile.
  static_assert(T::kCluster <= 2);
  const int splits = T::kCluster == 1 ? a.splits : 1;
  const int blocks = T::kCluster == 1 ? splits : T::kCluster;
  const int workers = gridDim.x >> (blocks - 1), rank = blockIdx.x & (blocks - 1);
  const int neighbour = T::kCluster == 1 ? 0 : rank, split = T::kCluster == 1 ? rank : 0;

  if (threadIdx.x == 0) ring.init();
  // Workers wait for those of lower numbers, which have started: numbers are drawn.
  if (a.split_tiles > 0 && threadIdx.x == 32 && rank == 0) {
    ptx::store_shared(ring.ticket(), ptx::fetch_increment_wrap(a.ticket, workers - 1));
  }
  if (T::kCluster == 1) __syncthreads();
  else ptx::cluster_sync();  // before one fills another's stages
  if (!a.late) ptx::launch_dependents();
  // Made anew where it is used: consumers keep nothing of it in registers while they multiply.
  const auto schedule = [&] {
    const int worker =
        a.split_tiles == 0 ? blockIdx.x >> (blocks - 1)
        : T::kCluster == 1 ? ptx::load_shared_u32(ring.ticket())
                           : ptx::load_cluster_u32(ptx::map_cluster(ring.ticket(), 0));
    return Schedule(a, tiles_m * tiles_n, k_blocks, worker, workers, split, splits);
  };

  if (group == T::kGroups) {
    if constexpr (kChange) ptx::registers_shrink<kProducerRegisters>();
    // One thread of each warp: activations, then the weights of each group.
    static_assert(T::kGroups < 4, "a warp each");
    const int warp = threadIdx.x / 32 % 4;
    if (kClerk<T> && warp == 3) tell<T>(a, schedule(), neighbour);
    if (threadIdx.x % 32 == 0) {
      if (warp == 0) {
        ring.produce_x(a, schedule, tiles_m, tiles_n, neighbour);
      } else if (warp <= T::kGroups) {
        ring.produce_weights(a, schedule, tiles_m, tiles_n, k_blocks, neighbour, warp - 1);
      }
    }
    __syncwarp();
    if (splits > 1) ptx::cluster_sync(), ptx::cluster_arrive();  // as in exchange
  } else {
    if constexpr (kChange) ptx::registers_grow<kConsumerRegisters>();
    Consumer consumer(a, ring, group);
    Sums<T> sum;
    Piece p;
    // The first row of weights of a piece's tile: made anew, too.
    const auto weight_row = [&](const Place& place) {
      return ((place.n * T::kCluster + neighbour) * T::kGroups + group) * layout::kTileRows;
    };
    for (int i = 0; schedule().piece(i, p); ++i) {
      consumer.begin(p, weight_row(place_of(p.tile, tiles_m, tiles_n, a.raster)));
      consumer.run(p.end - p.begin, sum);
      const Schedule work = schedule();
      if (work.gives(p)) {
        give<T>(ring.sums(a, work.worker(), neighbour, group),
                ring.given(a, work.taker(p), neighbour), group, sum);
        continue;
      }
      if (splits == 1) take<T>(ring, consumer, work.worker() - work.first_giver(p), group, sum);
      else if (rank == 0) exchange<T, 0>(ring, group, sum);
      else exchange<T, 1>(ring, group, sum);
      const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
      const int row = place.m * T::kM;
      consumer.finish(row, sum);
      store_tile<T>(a, row, weight_row(place), group, ring.output(group), split, splits,
                    sum);
    }
  }
  // Others of the cluster may still use this block's shared memory; after an exchange all have arrived.
  if (T::kCluster > 1) ptx::cluster_sync();
  else if (splits > 1) ptx::cluster_wait();
}

}  // namespace flexq::sm90

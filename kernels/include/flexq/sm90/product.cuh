// The kernel: one producer thread, consumer groups, and the walk over this block's work.
#pragma once

#include "flexq/sm90/epilogue.cuh"
#include "flexq/sm90/ring.cuh"
#include "flexq/sm90/schedule.cuh"

namespace flexq::sm90 {

// `Consumer<T>` computes one piece: sums of a group over K blocks [begin, end), emptying the ring.
template <class T, template <class> class Consumer>
__device__ __forceinline__ void product(const HopperArgs& a) {
  // The registers of the block at launch, per 128 threads, change hands.
  constexpr int kRegisters = 65536 / T::kThreads / 8 * 8 * (T::kGroups + 1);
  constexpr int kProducerRegisters = 56;
  constexpr int kConsumerRegisters = (kRegisters - kProducerRegisters) / T::kGroups / 8 * 8;

  extern __shared__ u8 shared[];
  const Ring<T> ring{round_up(ptx::shared_address(shared), 1024u)};
  const int group = threadIdx.x / 128;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int tiles_m = ceil_div(a.m, T::kM), tiles_n = ceil_div(a.n, T::kN);
  Schedule work(tiles_m * tiles_n, a.split_tiles, k_blocks);

  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  ptx::launch_dependents();

  if (group == T::kGroups) {
    ptx::registers_shrink<kProducerRegisters>();
    if (threadIdx.x % 128 == 0) {
      ptx::prefetch_map(&a.x);
      ptx::wait_for_previous();
      ring.produce(a, work, tiles_m, tiles_n, k_blocks);
    }
  } else {
    ptx::registers_grow<kConsumerRegisters>();
    Consumer<T> consumer(a, ring, group);
    Sums<T> sum;
    for (Piece p; work.next(p);) {
      const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
      const int row = place.m * T::kM;
      const int col = place.n * T::kN + group * T::kRowBlocks * layout::kTileRows;
      consumer.run(p.end - p.begin, sum);
      const bool whole = p.end - p.begin == k_blocks;
      if (whole || combine<T>(a, work, p.tile, group, ring.flag(group), sum)) {
        consumer.finish(row, sum);
        store_tile<T>(a, row, col, group, ring.output(group), sum);
      }
    }
  }
}

}  // namespace flexq::sm90

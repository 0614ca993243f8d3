// Products of few rows by expert: rows of x are sorted by expert, and `ends` on the device says
// where each one's rows end, so the host need not know any count.
//
// An item is an expert and up to eight of its rows. The grid has room for the most items there
// can be; each item is a small product of its own, and blocks past the last item leave at once.
#pragma once

#include "flexq/small.cuh"

namespace flexq {

// Mirrored by crates/flexq-cuda/src/launch/small_grouped.rs.
struct SmallGroupedArgs {
  SmallArgs product;    // of expert 0 and of all rows
  const i32* ends;      // [experts]: rows of expert e are ends[e - 1] .. ends[e]
  u64 weights_stride;   // from one expert to the next, in bytes
  u64 scales_stride;    // and in scales
  i32 experts;
  i32 blocks;           // of an item
};

namespace small {

constexpr int kItemRows = 8;

struct Item {
  int expert, row, rows;
};

// Item number `index`, in order of experts; no rows past the last. All lanes of a warp get it.
__device__ __forceinline__ Item find_item(const i32* ends, int experts, int m, int index) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int first = 0; first < experts; first += 32) {
    const int e = first + lane;
    const int begin = e == 0 || e >= experts ? 0 : min(max(ends[e - 1], 0), m);
    const int end = e < experts ? min(ends[e], m) : 0;
    const int items = max(ceil_div(end - begin, kItemRows), 0);
    int through = items;  // of this lane and those before it
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, through, step);
      if (lane >= step) through += other;
    }
    const u32 reached = __ballot_sync(~0u, before + through > index);
    if (reached != 0) {
      const int owner = __ffs(reached) - 1;
      const int in_expert = index - before - (through - items);
      const int row = begin + in_expert * kItemRows;
      return {first + owner, __shfl_sync(~0u, row, owner),
              __shfl_sync(~0u, min(end - row, kItemRows), owner)};
    }
    before += __shfl_sync(~0u, through, 31);
  }
  return {0, 0, 0};
}

}  // namespace small

template <class Policy, int warps>
__device__ __forceinline__ void small_grouped_product(const SmallGroupedArgs& g) {
  using namespace small;
  const int index = blockIdx.x / g.blocks;
  if (!g.product.late) ptx::launch_dependents();
  ptx::wait_for_previous();  // which may have written `ends`
  const Item item = find_item(g.ends, g.experts, g.product.m, index);
  if (item.rows == 0) return;  // dependents start without this block, too

  SmallArgs a = g.product;
  const int element = a.x_scales == nullptr ? 2 : 1;
  a.weights += item.expert * g.weights_stride;
  a.scales += item.expert * g.scales_stride;
  a.x = static_cast<const u8*>(a.x) + u64(item.row) * a.x_stride * element;
  if (a.x_scales != nullptr) a.x_scales += item.row;
  a.y = static_cast<u8*>(a.y) + u64(item.row) * a.n * (a.y_type == Dtype::F32 ? 4 : 2);
  if (a.partial != nullptr) {
    a.partial += u64(index) * a.splits * kItemRows * round_up(a.n, layout::kTileRows);
  }
  a.arrivals += index * (g.blocks / a.splits);
  a.m = item.rows;
  small_product<Policy, warps>(a, blockIdx.x - index * g.blocks);
}

}  // namespace flexq

#define FLEXQ_SMALL_GROUPED(name, ...)                                                          \
  extern "C" __global__ void __launch_bounds__(flexq::small::kWarps * 32, 2)                    \
      flexq_small_grouped_##name(const __grid_constant__ flexq::SmallGroupedArgs a) {           \
    flexq::small_grouped_product<flexq::small::__VA_ARGS__, flexq::small::kWarps>(a);           \
  }

// Product for few rows of activations (M up to 32): reads the packed weights once,
// at memory speed, and everything else stays on chip.
//
// A block of threads owns some strips of 16 weight rows and a range of K blocks
// of 128 columns (a split). Its slice of x stays in shared memory. The (strip, K block)
// units of the block, K fastest, are cut into equal consecutive ranges, one a warp.
// A warp streams its units through a private ring in shared memory, so the
// main loop has no barrier among warps. Where a range leaves a strip, the warp stores its
// partial sums in a slot; slot `strip + warp` is unique, because each step along the
// ranges advances at least one of the two. At the end the slots of a strip are added in warp
// order. Several splits are added in split order, through the shared memory of a cluster on
// Hopper, elsewhere through global memory by the block that arrives last. So results do not
// depend on timing.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/small/args.cuh"
#include "flexq/small/ring.cuh"
#include "flexq/types.cuh"

namespace flexq {
namespace small {

// Hopper can add splits in a cluster of `splits` blocks, which needs no memory: partial is null.
#if __CUDA_ARCH__ >= 900
constexpr bool kClusters = true;
#else
constexpr bool kClusters = false;
#endif

// Warp that owns unit `u` when `units` are cut into `workers` ranges [w U / W, (w + 1) U / W).
__device__ __forceinline__ int owner(int u, int units, int workers) {
  return quotient((u + 1) * workers - 1, units);
}

__device__ __forceinline__ void add(float4& a, const float4& b) {
  a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w;
}

// Eight rows of a strip, and the warps that have parts of it.
struct Sum {
  int strip, octet, first, last;

  __device__ __forceinline__ Sum(int item, int octets, int blocks, int units, int workers)
      : strip(quotient(item, octets)),
        octet(item - strip * octets),
        first(owner(strip * blocks, units, workers)),
        last(owner((strip + 1) * blocks - 1, units, workers)) {}
};

// Adds the bias and writes four neighbouring outputs of a row.
__device__ __forceinline__ void finish(const SmallArgs& a, int row, int col, const float4& v) {
  float f[4] = {v.x, v.y, v.z, v.w};
  if (a.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (col + i < a.n) f[i] += load_float(a.bias, col + i, a.bias_type);
    }
  }
  store_float4(a.y, u64(row) * a.n, col, a.n, f, a.y_type);
}

// Sums of a block's share of a cluster's items, eight rows of a strip each, which are dealt out to
// the blocks in turn: [items][splits][32 lanes][4], filled by all while this block may still multiply.
struct ClusterSums {
  float* sums;
  int splits, split;

  // Gives a lane's part of this block's sum of `item` to the block that finishes it.
  __device__ __forceinline__ void push(int item, const float4& v) const {
    const int theirs = quotient(item, splits), rank = item - theirs * splits;
    float* const to = sums + ((theirs * splits + split) * 32 + threadIdx.x % 32) * 4;
    ptx::store_cluster(ptx::shared_address(to), rank, v);
  }

  // After all have pushed: adds in the order of splits, and writes the results of this block's items.
  __device__ __forceinline__ void finish(const SmallArgs& a, int items, int octets, int strip0,
                                         int warps) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncwarp();
    ptx::cluster_sync();
    for (int mine = warp; mine * splits + split < items; mine += warps) {
      const int item = mine * splits + split;
      const int s = quotient(item, octets), row = (item - s * octets) * 8 + lane / 4;
      if (row >= a.m) continue;
      const float* from = sums + (mine * splits * 32 + lane) * 4;
      float4 v = {};
      for (int rank = 0; rank < splits; ++rank) {
        add(v, *reinterpret_cast<const float4*>(from + rank * 128));
      }
      small::finish(a, row, (strip0 + s) * layout::kBlockRows + lane % 4 * 4, v);
    }
  }
};

}  // namespace small

// `Policy` multiplies one K block and keeps a warp's sums: Float16, Int8 or Bits in small/.
// This block of threads is number `index` of those that share the product.
template <class Policy, int warps>
__device__ __forceinline__ void small_product(const SmallArgs& a, int index) {
  using namespace small;
  constexpr int segments = Policy::kSegments;

  // the shuffle tells the compiler that it is the same in all lanes
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const int group = quotient(index, a.splits), split = index - group * a.splits;
  const int strip0 = group * (a.strips - 1) + min(group, a.longer);
  const int strips = group < a.longer ? a.strips : a.strips - 1;
  const int block0 = split * a.split_blocks;
  const int blocks = min(a.split_blocks, k_blocks - block0);
  const int units = strips * blocks;
  const int workers = min(warps, units);

  extern __shared__ __align__(16) u8 shared[];
  using WeightRing = Ring<Units<segments>, warps>;
  u8* const x = shared + WeightRing::bytes(a);
  float* const x_scales =
      reinterpret_cast<float*>(x + a.m * x_row_bytes<Policy::kElement>(a.split_blocks));
  float* const slots = x_scales + Policy::scale_floats(a.m, a.split_blocks);
  const int slot_floats = a.m * kSlotStride;
  const bool in_cluster = kClusters && a.splits > 1 && a.partial == nullptr;

  const int begin = units < warps ? min(warp, units) : warp * units / warps;
  const int end = units < warps ? min(warp + 1, units) : (warp + 1) * units / warps;
  int strip = quotient(begin, blocks), block = begin - strip * blocks;

  if (!a.late) ptx::launch_dependents();
  if (in_cluster) ptx::cluster_arrive();
  WeightRing ring(
      a, shared, warp, {a, strip0 + strip, block, end - begin, block0, blocks, k_blocks, n_pad});

  Policy::template stage<warps>(a, x, x_scales, block0, blocks);  // waits for it to be written
  __syncthreads();

  Policy policy(a, x, x_scales);
  for (int left = end - begin; left > 0; ++strip, block = 0) {
    const int run = min(blocks - block, left);
    left -= run;
    policy.seek(a, block);
    for (int i = 0; i < run; ++i) {
      const Unit<segments> unit(ring.wait());
      policy.multiply(a, unit.w, unit.scale);
      ring.advance();
    }
    policy.flush(a, slots + (strip + warp) * slot_floats);
  }

  // A warp finishes a strip for eight rows at a time, four columns a lane. Where those of the first
  // lie is counted while others still multiply.
  const int octets = ceil_div(a.m, 8);
  const int items = strips * octets;
  const int quad = lane % 4 * 4;
  const ClusterSums cluster{slots + (a.strips + warps) * slot_floats, a.splits, split};
  Sum at(warp, octets, blocks, units, workers);
  __syncthreads();
  if (in_cluster) ptx::cluster_wait();  // all have started
  for (int item = warp; item < items; item += warps) {
    if (item != warp) at = Sum(item, octets, blocks, units, workers);
    const int s = at.strip, row = at.octet * 8 + g;
    if (row >= a.m) continue;
    const float* slot = slots + row * kSlotStride + quad;
    float4 v = {};
#pragma unroll 4
    for (int w = at.first; w <= at.last; ++w) {
      add(v, *reinterpret_cast<const float4*>(slot + (s + w) * slot_floats));
    }
    const int col = (strip0 + s) * layout::kBlockRows + quad;
    if (a.splits == 1) {
      finish(a, row, col, v);
    } else if (in_cluster) {
      cluster.push(item, v);
    } else {
      *reinterpret_cast<float4*>(a.partial + (u64(split) * a.m + row) * n_pad + col) = v;
    }
  }
  if (a.splits == 1) return;

  if (in_cluster) {
    cluster.finish(a, items, octets, strip0, warps);
  } else {
    __shared__ bool is_last;
    __syncthreads();
    if (threadIdx.x == 0) is_last = ptx::fetch_increment(a.arrivals + group) == a.splits - 1;
    __syncthreads();
    if (!is_last) return;
    for (int item = warp; item < items; item += warps) {
      const int s = quotient(item, octets), row = (item - s * octets) * 8 + g;
      if (row >= a.m) continue;
      const int col = (strip0 + s) * layout::kBlockRows + quad;
      float4 v = {};
#pragma unroll 4
      for (int i = 0; i < a.splits; ++i) {
        add(v, ptx::load_l2(a.partial + (u64(i) * a.m + row) * n_pad + col));
      }
      finish(a, row, col, v);
    }
    if (threadIdx.x == 0) a.arrivals[group] = 0;
  }
}

}  // namespace flexq

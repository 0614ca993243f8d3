// Product for up to eight rows of activations on Hopper: as in small.cuh, but x is not staged
// beforehand. The (strip, K block) units of a block of threads are taken strip by strip, K slowest, so
// a warp needs few K blocks of x, one after the other. It loads each into registers while it
// multiplies with the one before, and puts it into a place of its own in shared memory, from where all
// strips get it as fragments. So a warp starts as soon as its first 128 columns are there, the rest of
// x comes while weights do, and no barrier lies before the last.
//
// Every block reads its columns of x from the L2 cache. Where that takes longer than weights do, blocks
// of a cluster share K, and each reads a part.
//
// Sums of all strips stay in shared memory, [warp][strip][tile][lane], and are added in warp order,
// then in that of the splits.
#pragma once

#include "flexq/small.cuh"
#include "flexq/small/strip_sums.cuh"
#include "flexq/small/x_block.cuh"

namespace flexq {
namespace small {

// Where the units of a warp lie in global memory, the strips of a K block one after the other.
template <int segments>
struct StripUnits {
  static constexpr int kSegments = segments;

  int strip, left;
  const int strip0, strips, k_blocks, n_pad;
  const u8 *weights, *first_weights;  // of this unit, and of strip 0 of its K block
  const u16 *scales, *first_scales;

  // `count` of them, the first of which is (strip, block), of `strips` strips from strip0 on.
  __device__ __forceinline__ StripUnits(const SmallArgs& a, int strip, int block, int count,
                                        int strip0, int strips, int k_blocks, int n_pad)
      : strip(strip),
        left(count),
        strip0(strip0),
        strips(strips),
        k_blocks(k_blocks),
        n_pad(n_pad),
        weights(a.weights + layout::block_offset(strip0 + strip, block, k_blocks)),
        first_weights(a.weights + layout::block_offset(strip0, block, k_blocks)),
        first_scales(a.scales + u64(block) * segments * n_pad + strip0 * layout::kBlockRows) {
    scales = first_scales + strip * layout::kBlockRows;
  }

  __device__ __forceinline__ void next() {
    --left;
    if (++strip == strips) {
      strip = 0;
      weights = first_weights += layout::kTileBytes;
      scales = first_scales += u64(segments) * n_pad;
    } else {
      weights += layout::kBlockBytes;
      scales += layout::kBlockRows;
      if ((strip0 + strip) % layout::kBlocksPerTile == 0) {
        weights += u64(k_blocks - 1) * layout::kTileBytes;
      }
    }
  }
};

}  // namespace small

// `XBlock` brings 128 columns of x for its `Policy`: 16-bit numbers or codes made of them.
template <class XBlock, int warps>
__device__ __forceinline__ void streamed_product(const SmallArgs& a) {
  using namespace small;
  using Policy = typename XBlock::Policy;
  constexpr int tiles = Policy::kTiles, segments = Policy::kSegments;
  using WeightRing = Ring<StripUnits<segments>, warps>;

  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int group = quotient(blockIdx.x, a.splits), split = blockIdx.x - group * a.splits;
  const int strip0 = group * (a.strips - 1) + min(group, a.longer);
  const int strips = group < a.longer ? a.strips : a.strips - 1;
  const int block0 = split * a.split_blocks;
  const int units = strips * min(a.split_blocks, k_blocks - block0);

  extern __shared__ __align__(16) u8 shared[];
  u8* const places = shared + WeightRing::bytes(a);
  u8* const x = places + warp * XBlock::place_bytes(a.m);
  float4* const all_sums = reinterpret_cast<float4*>(places + warps * XBlock::place_bytes(a.m));
  const int warp_sums = strips * tiles * 32;
  float4* const sums = all_sums + warp * warp_sums + lane;
  const ClusterSums cluster{reinterpret_cast<float*>(all_sums + warps * a.strips * tiles * 32), a.splits,
                            split};

  const int begin = warp * units / warps, end = (warp + 1) * units / warps;
  int block = quotient(begin, strips), strip = begin - block * strips;
  block += block0;

  if (!a.late) ptx::launch_dependents();
  if (a.splits > 1) ptx::cluster_arrive();
  WeightRing ring(a, shared, warp,
                  {a, strip, block, end - begin, strip0, strips, k_blocks,
                   round_up(a.n, layout::kTileRows)});
  for (int i = 0; i < strips * tiles; ++i) sums[i * 32] = float4{};

  Policy policy = XBlock::policy(a, x);
  XBlock next;
  wait_for_x(a);
  if (begin < end) next.load(a, block);
  for (int left = end - begin; left > 0; strip = 0) {
    __syncwarp();  // all lanes have their fragments of the block before
    next.store(a, x);
    __syncwarp();
    typename Policy::Fragments here;
    policy.load(a, here);
    const int last = min(strips, strip + left);
    left -= last - strip;
    if (left > 0) next.load(a, ++block);
#pragma unroll 1
    for (; strip < last; ++strip) {
      float4* const sum = sums + strip * tiles * 32;
      const Unit<segments> unit(ring.wait());
#pragma unroll
      for (int i = 0; i < tiles; ++i) policy.set(i, sum[i * 32]);
      policy.multiply(a, unit.w, unit.scale, here);
#pragma unroll
      for (int i = 0; i < tiles; ++i) sum[i * 32] = policy.get(i);
      ring.advance();
    }
  }
  __syncthreads();
  if (a.splits > 1) ptx::cluster_wait();  // all have started

  finish_strips<Policy>(a, all_sums, warps, strip0, strips, cluster, warps);
}

}  // namespace flexq

// Another block lies beside.
#define FLEXQ_SMALL_STREAMED(name, ...)                                                 \
  extern "C" __global__ void __launch_bounds__(flexq::small::kWarps * 32, 2)            \
      flexq_small_streamed_##name(const __grid_constant__ flexq::SmallArgs a) {         \
    flexq::streamed_product<flexq::small::__VA_ARGS__, flexq::small::kWarps>(a);        \
  }

// Sums of a block's strips that several warps have parts of, in shared memory: added in a fixed order
// and written.
#pragma once

#include "flexq/small.cuh"

namespace flexq::small {

// `sums` is [parts][strips][X::kTiles][32 lanes]; in a cluster, parts of K are added by the block
// that finishes them. All of the block have written theirs. A warp finishes a strip for eight rows at a
// time, four columns a lane.
template <class X>
__device__ __forceinline__ void finish_strips(const SmallArgs& a, const float4* sums, int parts,
                                              int strip0, int strips, const ClusterSums& cluster,
                                              int warps) {
  constexpr int tiles = X::kTiles;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int octets = ceil_div(a.m, 8), part_sums = strips * tiles * 32;
  const int g = lane / 4, quad = lane % 4 * 4;
  const int items = strips * octets;
  for (int item = warp; item < items; item += warps) {
    const int s = quotient(item, octets), octet = item - s * octets, row = octet * 8 + g;
    if (row >= a.m) continue;
    // column c and row r of a tile are number c / 8 * 2 + r % 2 of lane c % 8 * 4 + r / 2
    const float* from =
        reinterpret_cast<const float*>(sums + (s * tiles + octet) * 32 + quad % 8 * 4 + g / 2) +
        quad / 8 * 2 + g % 2;
    float4 v = {};
#pragma unroll 4
    for (int p = 0; p < parts; ++p) {
      const float* const at = from + p * part_sums * 4;
      add(v, make_float4(at[0], at[16], at[32], at[48]));
    }
    const float f = X::kInverse;
    v = make_float4(v.x * f, v.y * f, v.z * f, v.w * f);
    if (a.splits == 1) {
      finish(a, row, (strip0 + s) * layout::kBlockRows + quad, v);
    } else {
      cluster.push(item, v);
    }
  }
  if (a.splits > 1) cluster.finish(a, items, octets, strip0, warps);
}

}  // namespace flexq::small

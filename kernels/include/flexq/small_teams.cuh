// Product for up to 32 rows of activations on Hopper, 16-bit numbers or codes. The warps of a block form
// teams. The members of a team have one or two strips of 16 weight rows each, and multiply the same
// K blocks, every `teams`-th of the block's, so sums stay in registers. A warp streams its weights through
// a private ring; a team has a ring of activations, 128 columns a stage, which the copy engine fills:
// every column is read once for all strips of the block, and takes no registers on its way. Who is last of
// its team to use a stage asks for what comes into it next, so nobody waits for others.
//
// So few registers are needed that the next launch's blocks lie beside this one's and fill their
// rings while it finishes.
#pragma once

#include "flexq/ptx/sm90.cuh"
#include "flexq/sm90/args.cuh"
#include "flexq/small.cuh"
#include "flexq/small/strip_ring.cuh"
#include "flexq/small/strip_sums.cuh"
#include "flexq/small/team_x.cuh"

namespace flexq {

// `own` strips a warp, one or two; `X` is one of TeamFloats and TeamCodes. Two strips take turns, so that
// each has time to add its products, and use the same fragments of x.
template <class X, int own>
__device__ __forceinline__ void team_product(const TeamArgs& args) {
  using namespace small;
  using WeightRing = StripRing<own>;
  using XRing = TeamRing<X>;
  constexpr int tiles = X::kTiles;
  const SmallArgs& a = args.a;

  const int warps = blockDim.x / 32;
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int group = quotient(blockIdx.x, a.splits), split = blockIdx.x - group * a.splits;
  const int strip0 = group * (a.strips - 1) + min(group, a.longer);
  const int strips = group < a.longer ? a.strips : a.strips - 1;
  const int block0 = split * a.split_blocks;
  const int blocks = min(a.split_blocks, k_blocks - block0);

  const int members = ceil_div(strips, own);
  const int teams = min(quotient(warps, members), args.x_stages / 2);
  const int team = quotient(warp, members), member = warp - team * members;
  const int mine = min(own, strips - member * own);
  // Warps that make no whole team have nothing to do.
  const int steps = team < teams ? quotient(blocks - team + teams - 1, teams) : 0;

  extern __shared__ __align__(1024) u8 aligned[];
  u8* const rings = aligned + args.x_stages * XRing::kStageBytes;
  u8* const words = rings + WeightRing::bytes(a, warps);
  const ClusterSums cluster{reinterpret_cast<float*>(words + args.x_stages * XRing::kWordBytes), a.splits,
                            split};

  // Between products of codes lies a launch that quantizes, which had better come behind the first of x.
  const bool late = X::kScales || a.late;
  if (!late) ptx::launch_dependents();
  if (a.splits > 1) ptx::cluster_arrive();
  WeightRing ring(a, ptx::shared_address(rings), warp, warps, strip0 + member * own, mine, block0 + team, teams,
                  steps);
  const int x_stages = quotient(args.x_stages, teams);
  XRing x(args, ptx::shared_address(aligned), ptx::shared_address(words), team * x_stages, x_stages,
          members, block0 + team, teams, steps);
  if (team < teams && member == 0 && lane == 0) {
    x.init();
    ptx::prefetch_map(&args.x);
  }
  __syncthreads();
  ptx::wait_for_previous();
  if (team < teams && member == 0) x.start();
  if (late) ptx::launch_dependents();  // whose weights come behind the first of x

  // Row l % 8, 16 bytes l / 8 of a box, of the first rows and columns.
  const u32 place = lane % 8 * 128 + ((lane / 8) ^ (lane % 8)) * 16;
  float sum[own][tiles][4] = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    x.wait();
    ring.wait();
    const u32 even = x.stage() + place;
    if constexpr (own == 1) {
      const Unit<1> units[] = {ring.unit(0)};
      X::multiply(a, sum, units, even, even ^ 64, x.scales());
    } else {
      const Unit<1> units[] = {ring.unit(0), ring.unit(1)};
      X::multiply(a, sum, units, even, even ^ 64, x.scales());
    }
    ring.advance();
    x.advance();
  }

  // Sums take the place of rings that all have used.
  float4* const sums = reinterpret_cast<float4*>(aligned);
  __syncthreads();
  if (team < teams) {
#pragma unroll
    for (int s = 0; s < own; ++s) {
      if (s >= mine) break;
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        const float(&v)[4] = sum[s][i];
        sums[((team * strips + member * own + s) * tiles + i) * 32 + lane] =
            make_float4(v[0], v[1], v[2], v[3]);
      }
    }
  }
  __syncthreads();
  if (a.splits > 1) ptx::cluster_wait();  // all have started
  finish_strips<X>(a, sums, teams, strip0, strips, cluster, warps);
}

}  // namespace flexq

// `own` strips a warp. Another block lies beside.
#define FLEXQ_SMALL_TEAMS(name, own, ...)                                                     \
  extern "C" __global__ void __launch_bounds__(flexq::small::kWarps * 32, 2)                  \
      flexq_small_teams_##name(const __grid_constant__ flexq::TeamArgs args) {                \
    flexq::team_product<flexq::small::__VA_ARGS__, own>(args);                                \
  }

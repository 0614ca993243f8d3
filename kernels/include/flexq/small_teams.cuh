// Product for up to 32 rows of activations on Hopper, 16-bit numbers or codes. The warps of a block form teams. The members
// of a team have a strip of 16 weight rows each, or two, and multiply the same K blocks, every
// `teams`-th of the block's, so sums stay in registers. A warp streams its weights through a private
// ring, as in small.cuh; a team has a ring of activations, 128 columns a stage, which the copy engine
// fills: every column is read once for all strips of the block, and takes no registers on its way.
// Who is last of its team to use a stage asks for what comes into it next, so nobody waits for others.
//
// So few registers are needed that the next launch's blocks lie beside this one's and fill their
// rings while it finishes.
#pragma once

#include "flexq/ptx/sm90.cuh"
#include "flexq/sm90/args.cuh"
#include "flexq/small.cuh"
#include "flexq/small/float16.cuh"
#include "flexq/small/int8.cuh"
#include "flexq/small/strip_sums.cuh"

namespace flexq {

// Mirrored by crates/flexq-cuda/src/launch/small.rs.
struct TeamArgs {
  // of the activations, 128-byte swizzle, zero fill: 16-bit elements {k, m}, box {64, rows of the
  // kernel}, or codes {Kpad, m} of the order in layout.cuh, box {128, rows}; with codes, a.x_scales
  // holds three floats more than its last scale
  TensorMap x;
  SmallArgs a;
  i32 x_stages;  // of all teams
};

namespace small {

// Where the units of a warp lie in global memory: its strips of every `teams`-th K block.
struct TeamUnits {
  static constexpr int kSegments = 1;

  int left, strip;
  const int strip0, strips, k_blocks, teams, n_pad;
  const u8 *weights, *first_weights;  // of this unit, and of the first strip of its K block
  const u16 *scales, *first_scales;

  __device__ __forceinline__ TeamUnits(const SmallArgs& a, int strip0, int strips, int block, int count,
                                       int teams, int k_blocks, int n_pad)
      : left(count),
        strip(0),
        strip0(strip0),
        strips(strips),
        k_blocks(k_blocks),
        teams(teams),
        n_pad(n_pad),
        weights(a.weights + layout::block_offset(strip0, block, k_blocks)),
        first_weights(weights),
        scales(a.scales + u64(block) * n_pad + strip0 * layout::kBlockRows),
        first_scales(scales) {}

  __device__ __forceinline__ void next() {
    --left;
    if (++strip == strips) {
      strip = 0;
      weights = first_weights += teams * layout::kTileBytes;
      scales = first_scales += teams * n_pad;
    } else {
      weights += layout::kBlockBytes;
      scales += layout::kBlockRows;
      if ((strip0 + strip) % layout::kBlocksPerTile == 0) {
        weights += u64(k_blocks - 1) * layout::kTileBytes;
      }
    }
  }
};

// Activations of a team: numbers as they are, or codes with a scale per row or per (row, 128). Lane l
// finds row l % 8, 16 bytes l / 8 of a stage at `even`, 16 bytes l / 8 + 4 at `odd`.
template <class Format, int tiles>
struct TeamFloats {
  using Policy = Float16<Format, tiles, 1>;
  static constexpr int kTiles = tiles;
  static constexpr int kBoxes = 2;
  static constexpr bool kScales = false;

  static __device__ __forceinline__ void multiply(const SmallArgs& a, Policy& policy, const Unit<1>& unit,
                                                  u32 even, u32 odd, u32) {
    policy.add_product(a, unit.w, unit.scale, [&](int i, int j, u32(&b)[4]) {
      ptx::ldmatrix_x4(b, (j % 2 ? odd : even) + (j / 2 * tiles + i) * 1024);
    });
  }
};

template <int tiles>
struct TeamCodes {
  using Policy = Int8<tiles, 1>;
  static constexpr int kTiles = tiles;
  static constexpr int kBoxes = 1;
  static constexpr bool kScales = true;

  static __device__ __forceinline__ void multiply(const SmallArgs& a, Policy& policy, const Unit<1>& unit,
                                                  u32 even, u32 odd, u32 scales) {
    policy.add_product(
        a, unit.w, unit.scale,
        [&](int i, int j, u32(&b)[4]) { ptx::ldmatrix_x4(b, (j ? odd : even) + i * 1024); },
        [&](int i, float(&s)[2]) {
          const float2 v = ptx::load_shared_f32x2(scales + i * 32 + threadIdx.x % 4 * 8);
          s[0] = v.x, s[1] = v.y;
        });
  }
};

// A team's ring of activations. A stage is one or two boxes of `rows` rows by 128 bytes; 16 bytes
// number c of row r of a box are at number c ^ r % 8. Words of a stage: its barrier, a count of those
// who have used it, and scales.
template <class X>
class TeamRing {
  static constexpr int kRows = X::kTiles * 8;
  static constexpr int kBoxBytes = kRows * 128;

 public:
  static constexpr int kStageBytes = X::kBoxes * kBoxBytes;
  static constexpr int kScales = 16;  // where they are
  static constexpr int kWordBytes = kScales + (X::kScales ? kRows * 4 : 0);

  // Stages [first, first + stages) of the block, of a team of `members`, for K blocks `block`,
  // block + step, ..., `left` of them.
  __device__ __forceinline__ TeamRing(const TeamArgs& args, u32 x, u32 words, int first, int stages,
                                      int members, int block, int step, int left)
      : args_(args),
        x_(x + first * kStageBytes),
        words_(words + first * kWordBytes),
        stages_(stages),
        members_(members),
        block_(block),
        step_(step),
        left_(left) {}

  // By one thread of the team; a barrier of the block follows.
  __device__ __forceinline__ void init() const {
#pragma unroll 1
    for (int s = 0; s < stages_; ++s) {
      ptx::barrier_init(words_ + s * kWordBytes, 1);
      ptx::store_shared(words_ + s * kWordBytes + 8, 0);
    }
    ptx::barrier_init_fence();
  }

  // Asks for the first stages, in one warp of the team.
  __device__ __forceinline__ void start() const {
    const int count = min(stages_, left_);
#pragma unroll 1
    for (int s = 0; s < count; ++s) {
      if (ptx::elect()) fetch(s, block_ + s * step_);
    }
  }

  // Waits for the next stage.
  __device__ __forceinline__ void wait() const { ptx::barrier_wait(words(), parity_); }

  __device__ __forceinline__ u32 stage() const { return x_ + stage_ * kStageBytes; }
  __device__ __forceinline__ u32 scales() const { return words() + kScales; }

  // After what was loaded from the stage has been used: the last of the team has it filled again.
  __device__ __forceinline__ void advance() {
    const u32 last = members_ - 1;
    const int block = block_ + stages_ * step_;
    __syncwarp();
    if (left_ > stages_ && ptx::elect()) {
      if (ptx::fetch_increment_shared(words() + 8, last) == last) {
        fetch(stage_, block);
      }
    }
    block_ += step_, --left_;
    if (++stage_ == stages_) stage_ = 0, parity_ ^= 1;
  }

 private:
  const TeamArgs& args_;
  const u32 x_, words_;
  const int stages_, members_;
  int block_;
  const int step_;
  int left_, stage_ = 0;
  u32 parity_ = 0;

  __device__ __forceinline__ u32 words() const { return words_ + stage_ * kWordBytes; }

  __device__ __forceinline__ void fetch(int s, int block) const {
    const SmallArgs& a = args_.a;
    const u32 to = x_ + s * kStageBytes, done = words_ + s * kWordBytes;
    const u32 scale_bytes = X::kScales ? round_up(a.m, 4) * 4 : 0;
    ptx::barrier_arrive_expect(done, kStageBytes + scale_bytes);
#pragma unroll
    for (int b = 0; b < X::kBoxes; ++b) {
      const int column = block * layout::kTileCols + b * (layout::kTileCols / X::kBoxes);
      ptx::copy_box(to + b * kBoxBytes, &args_.x, column, 0, done);
    }
    if constexpr (X::kScales) {
      ptx::copy_bulk(done + kScales, a.x_scales + u64(block) * a.x_scale_stride, scale_bytes, done);
    }
  }
};

}  // namespace small

// `own` strips a warp; `X` is one of TeamFloats and TeamCodes.
template <class X, int own, int warps>
__device__ __forceinline__ void team_product(const TeamArgs& args) {
  using namespace small;
  using Policy = typename X::Policy;
  using WeightRing = Ring<TeamUnits, warps>;
  using XRing = TeamRing<X>;
  constexpr int tiles = X::kTiles;
  const SmallArgs& a = args.a;

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
  u8* const words = rings + WeightRing::bytes(a);
  const ClusterSums cluster{reinterpret_cast<float*>(words + args.x_stages * XRing::kWordBytes), a.splits,
                            split};

  // Between products of codes lies a launch that quantizes, which had better come behind the first of x.
  const bool late = X::kScales || a.late;
  if (!late) ptx::launch_dependents();
  if (a.splits > 1) ptx::cluster_arrive();
  WeightRing ring(a, rings, warp,
                  {a, strip0 + member * own, mine, block0 + team, steps * mine, teams, k_blocks,
                   round_up(a.n, layout::kTileRows)});
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
  Policy policy[own];
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    x.wait();
    const u32 even = x.stage() + place, odd = even ^ 64;
#pragma unroll
    for (int s = 0; s < own; ++s) {
      if (s >= mine) break;
      const Unit<1> unit(ring.wait());
      X::multiply(a, policy[s], unit, even, odd, x.scales());
      ring.advance();
    }
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
        sums[((team * strips + member * own + s) * tiles + i) * 32 + lane] = policy[s].get(i);
      }
    }
  }
  __syncthreads();
  if (a.splits > 1) ptx::cluster_wait();  // all have started
  finish_strips<Policy, warps>(a, sums, teams, strip0, strips, cluster);
}

}  // namespace flexq

// `own` strips a warp. Another block lies beside; of kernels with registers as for blocks of `threads`
// threads, more of them than there are, also one of a launch between the two.
#define FLEXQ_SMALL_TEAMS(name, own, threads, ...)                                        \
  extern "C" __global__ void __launch_bounds__(threads, 2)                                \
      flexq_small_teams_##name(const __grid_constant__ flexq::TeamArgs args) {            \
    flexq::team_product<flexq::small::__VA_ARGS__, own, flexq::small::kWarps>(args);      \
  }

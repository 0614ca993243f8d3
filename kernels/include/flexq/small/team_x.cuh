// Activations of teams of warps: numbers as they are, or codes with a scale per row or per (row, 128); the products
// with them, and the ring that they come through.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/ptx/mma.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/sm90/args.cuh"
#include "flexq/small/ring.cuh"
#include "flexq/unpack.cuh"

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

// Adds the product of a K block to the sums of a warp's strips. Lane l finds row l % 8, 16 bytes l / 8 of a stage of
// activations at `even`, 16 bytes l / 8 + 4 at `odd`.
template <class Format, int tiles>
struct TeamFloats {
  static constexpr int kTiles = tiles;
  static constexpr int kBoxes = 2;
  static constexpr bool kScales = false;
  static constexpr float kInverse = Format::kInverse;

  template <int strips>
  static __device__ __forceinline__ void multiply(const SmallArgs& a, float (*sum)[tiles][4],
                                                  const Unit<1> (&unit)[strips], u32 even, u32 odd, u32) {
    float c[strips][tiles][4] = {};
#pragma unroll
    for (int j = 0; j < layout::kQuads; ++j) {
      u32 b[tiles][4];
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        ptx::ldmatrix_x4(b[i], (j % 2 ? odd : even) + (j / 2 * tiles + i) * 1024);
      }
#pragma unroll
      for (int s = 0; s < strips; ++s) {
        const u32 quad[3] = FLEXQ_QUAD(unit[s].w, j);
        u32 frag[2][4];
        fragments<Format>(quad, frag);
#pragma unroll
        for (int i = 0; i < tiles; ++i) Format::mma(c[s][i], frag[0], b[i][0], b[i][1]);
#pragma unroll
        for (int i = 0; i < tiles; ++i) Format::mma(c[s][i], frag[1], b[i][2], b[i][3]);
      }
    }
#pragma unroll
    for (int s = 0; s < strips; ++s) {
      const float s0 = load16(unit[s].scale[0][0], a.scale_type), s1 = load16(unit[s].scale[0][1], a.scale_type);
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[s][i][j] = fmaf(c[s][i][j], j < 2 ? s0 : s1, sum[s][i][j]);
      }
    }
  }
};

template <int tiles>
struct TeamCodes {
  static constexpr int kTiles = tiles;
  static constexpr int kBoxes = 1;
  static constexpr bool kScales = true;
  static constexpr float kInverse = 0.25f;  // codes are multiplied as 4 q

  template <int strips>
  static __device__ __forceinline__ void multiply(const SmallArgs& a, float (*sum)[tiles][4],
                                                  const Unit<1> (&unit)[strips], u32 even, u32 odd,
                                                  u32 scales) {
    i32 c[strips][tiles][4] = {};
#pragma unroll
    for (int j = 0; j < layout::kQuads / 2; ++j) {
      u32 b[tiles][4];
#pragma unroll
      for (int i = 0; i < tiles; ++i) ptx::ldmatrix_x4(b[i], (j ? odd : even) + i * 1024);
#pragma unroll
      for (int s = 0; s < strips; ++s) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const u32 quad[3] = FLEXQ_QUAD(unit[s].w, 2 * j + h);
          u32 frag[4];
          fragment_s8(quad, frag);
#pragma unroll
          for (int i = 0; i < tiles; ++i) ptx::mma_s8(c[s][i], frag, b[i][2 * h], b[i][2 * h + 1]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
      const float2 x_scale = ptx::load_shared_f32x2(scales + i * 32 + threadIdx.x % 4 * 8);
#pragma unroll
      for (int s = 0; s < strips; ++s) {
        const float s0 = load16(unit[s].scale[0][0], a.scale_type), s1 = load16(unit[s].scale[0][1], a.scale_type);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float scale = (j < 2 ? s0 : s1) * (j % 2 ? x_scale.y : x_scale.x);
          sum[s][i][j] = fmaf(float(c[s][i][j]), scale, sum[s][i][j]);
        }
      }
    }
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
}  // namespace flexq

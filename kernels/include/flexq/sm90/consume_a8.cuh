// int8 activations: exact integer sums over a segment of K, then scaled into f32.
//
// A thread cannot hold integer sums of a whole 64 x 256 tile beside its f32 sums (128 + 128
// registers), so the products of a segment run for one part of 128 activation rows at a time:
// 64 + 128. While one group scales a part, the other group's products run.
// Per part (64 x 128 x 128): 256 tensor cycles; 64 conversions and 64 multiply-adds a warp,
// and with activation scales per (row, 128) 64 multiplications more.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/unpack.cuh"

namespace flexq::sm90 {

template <class T>
class Consume8 {
 public:
  __device__ __forceinline__ Consume8(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    weights_ = T::kWeights + group * T::kRowBlocks * layout::kTileBytes +
               warp * layout::kBlockBytes + lane * 16;
    scales_ = T::kScales + (group * T::kRowBlocks * layout::kTileRows + warp * 16 + lane / 4) * 2;
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    zero<T>(sum);
    for (int block = 0; block < blocks; ++block) {
      ptx::barrier_wait(ring_.full(at_.stage), at_.parity);
      const u32 stage = ring_.stage(at_.stage);
#pragma unroll
      for (int r = 0; r < T::kRowBlocks; ++r) {
        u32 fragment[layout::kQuads][4];
        unpack(stage, r, fragment);
#pragma unroll
        for (int s = 0; s < T::kSegments; ++s) {
          const u32 from = stage + scales_ + s * (T::kN * 2) + r * layout::kTileRows * 2;
          const float s0 = load16(ptx::load_shared_u16(from), a_.scale_type) * kInverse;
          const float s1 = load16(ptx::load_shared_u16(from + 16), a_.scale_type) * kInverse;
#pragma unroll
          for (int p = 0; p < T::kParts; ++p) {
            i32 part[T::kPart / 2];
            multiply(stage, s, p, fragment, part);
            add_scaled(stage, p, s0, s1, part, sum[r][p]);
          }
        }
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ring_.empty(at_.stage));
      at_.advance();
    }
  }

  // One scale per activation row is applied at the end.
  __device__ __forceinline__ void finish(int row0, Sums<T>& sum) const {
    if constexpr (T::kBlockScales) return;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int p = 0; p < T::kParts; ++p) {
#pragma unroll
      for (int i = 0; i < T::kPart / 8; ++i) {
        const int row = row0 + p * T::kPart + 8 * i + 2 * t;
        const float x0 = __ldg(a_.x_scales + min(row, a_.m - 1));
        const float x1 = __ldg(a_.x_scales + min(row + 1, a_.m - 1));
#pragma unroll
        for (int r = 0; r < T::kRowBlocks; ++r) {
          float* s = &sum[r][p][4 * i];
          s[0] *= x0, s[1] *= x1, s[2] *= x0, s[3] *= x1;
        }
      }
    }
  }

 private:
  static constexpr float kInverse = 0.25f;  // fragments hold 4 q

  __device__ __forceinline__ void unpack(u32 stage, int r, u32 (&fragment)[layout::kQuads][4]) {
    u32 words[3][4];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(words[c],
                       stage + weights_ + r * layout::kTileBytes + c * layout::kChunkBytes);
    }
#pragma unroll
    for (int j = 0; j < layout::kQuads; ++j) {
      const auto word = [&](int i) { return words[(3 * j + i) / 4][(3 * j + i) % 4]; };
      const u32 w[3] = {word(0), word(1), word(2)};
      fragment_s8(w, fragment[j]);
      ptx::pin(fragment[j]);
    }
  }

  // Integer sums of segment s over part p.
  __device__ __forceinline__ void multiply(u32 stage, int s, int p,
                                           const u32 (&fragment)[layout::kQuads][4],
                                           i32 (&part)[T::kPart / 2]) {
    constexpr int kQuads = layout::kQuads / T::kSegments;
    const u64 x = ptx::wgmma_operand(stage) + p * (T::kPart * 8);
    ptx::wgmma_fence();
#pragma unroll
    for (int j = 0; j < kQuads; ++j) {
      ptx::wgmma_s8(part, fragment[s * kQuads + j], x + (s * kQuads + j) * 2, j == 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::pin(part);
  }

  __device__ __forceinline__ void add_scaled(u32 stage, int p, float s0, float s1,
                                             const i32 (&part)[T::kPart / 2],
                                             float (&sum)[T::kPart / 2]) {
    const u32 from = stage + T::kXScales + (p * T::kPart + threadIdx.x % 4 * 2) * 4;
#pragma unroll
    for (int i = 0; i < T::kPart / 8; ++i) {
      float v[4] = {float(part[4 * i]), float(part[4 * i + 1]), float(part[4 * i + 2]),
                    float(part[4 * i + 3])};
      if constexpr (T::kBlockScales) {
        const float2 x = ptx::load_shared_f32x2(from + i * 32);
        v[0] *= x.x, v[1] *= x.y, v[2] *= x.x, v[3] *= x.y;
      }
      sum[4 * i] = fmaf(v[0], s0, sum[4 * i]);
      sum[4 * i + 1] = fmaf(v[1], s0, sum[4 * i + 1]);
      sum[4 * i + 2] = fmaf(v[2], s1, sum[4 * i + 2]);
      sum[4 * i + 3] = fmaf(v[3], s1, sum[4 * i + 3]);
    }
  }

  Ring<T> ring_;
  const HopperArgs& a_;
  u32 weights_, scales_;
  Cursor<T::kStages> at_;
};

}  // namespace flexq::sm90

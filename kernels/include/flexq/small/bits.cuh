// Small M on the binary tensor cores, the FlexQ paper's way: weights and activations are
// taken apart into bit planes, planes are multiplied as AND + population count, and the counts
// are added with powers of two; the sign plane counts negative.
//
// The eight columns of one m16n8k128 instruction are the eight planes of one activation row, so one
// instruction multiplies a weight plane with all of them, and the planes of the weights are
// combined by doubling between instructions (Horner). What remains, weighting column p by
// 2^p, is linear and waits until the end. A6 values are int8 too: their upper planes repeat the sign.
#pragma once

#include "flexq/small/int8.cuh"

namespace flexq::small {

// Transposes 8x8 bits in each byte: bit p of word r goes to bit r of word p.
__device__ __forceinline__ void transpose_bits(u32 (&w)[8]) {
  constexpr u32 kMask[3] = {0x0F0F0F0Fu, 0x33333333u, 0x55555555u};
#pragma unroll
  for (int stage = 0; stage < 3; ++stage) {
    const int d = 4 >> stage;
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      if (r & d) continue;
      const u32 low = select_bits(w[r], w[r + d] << d, kMask[stage]);
      const u32 high = select_bits(w[r] >> d, w[r + d], kMask[stage]);
      w[r] = low, w[r + d] = high;
    }
  }
}

// Up to `rows` activation rows; scale segments of 128 columns.
template <int rows>
struct Bits {
  static constexpr int kElement = 1;
  static constexpr int kSegments = 1;
  static constexpr int kWeightPlanes = 6;

  const u32* x;
  const u32* planes;
  const float* x_scales;
  const float* x_scale;
  int row_words;
  float sum[rows][2] = {};

  static __device__ __forceinline__ int scale_floats(int m, int blocks) {
    return round_up(m * blocks, 4);
  }

  // Splits each (row, block) of the slice into planes: word
  // 4 p + t holds plane p of the 32 columns that lanes with l % 4 = t multiply.
  template <int warps>
  static __device__ __forceinline__ void stage(const SmallArgs& a, u8* x, float* scales, int block0,
                                               int blocks) {
    stage_int8<warps>(a, x, scales, block0, blocks);
    __syncthreads();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = warp; i < a.m * blocks; i += warps) {
      u32* block = reinterpret_cast<u32*>(x + i / blocks * x_row_bytes<1>(a.split_blocks)) +
                   i % blocks * 32;
      u32 plane = 0;
#pragma unroll
      for (int r = 0; r < 8; ++r) plane |= (block[4 * r + lane % 4] >> (lane / 4) & 0x01010101u) << r;
      __syncwarp();
      block[lane] = plane;
    }
  }

  __device__ __forceinline__ Bits(const SmallArgs& a, const u8* slice, const float* scales)
      : x(reinterpret_cast<const u32*>(slice) + threadIdx.x % 32),
        x_scales(scales),
        row_words(x_row_bytes<1>(a.split_blocks) / 4) {}

  __device__ __forceinline__ void seek(const SmallArgs& a, int block) {
    planes = x + block * 32;
    x_scale = x_scales + block * a.m;
  }

  __device__ __forceinline__ void multiply(const SmallArgs& a, const u32 (&w)[3][4],
                                           const u16 (&scale)[1][2]) {
    // Byte-words of rows g and g + 8; codes are the top six bits, two's complement.
    u32 row[2][8];
#pragma unroll
    for (int j = 0; j < layout::kQuads; ++j) {
      const u32 quad[3] = FLEXQ_QUAD(w, j);
      u32 b[4];
      byte_words<0x80808080u>(quad, b);
#pragma unroll
      for (int v = 0; v < 4; ++v) row[v % 2][2 * j + v / 2] = b[v];
    }
    transpose_bits(row[0]);
    transpose_bits(row[1]);

    // Columns 2 t and 2 t + 1 are planes with these weights.
    const int t = threadIdx.x % 4;
    const int weight0 = 1 << 2 * t, weight1 = t == 3 ? -128 : 2 << 2 * t;
    const float s0 = load16(scale[0][0], a.scale_type), s1 = load16(scale[0][1], a.scale_type);
#pragma unroll
    for (int m = 0; m < rows; ++m) {
      if (m >= a.m) break;
      const u32 b = planes[m * row_words];
      i32 c[4] = {};
      ptx::mma_and_popc(c, row[0][7], row[1][7], b);
#pragma unroll
      for (int i = 0; i < 4; ++i) c[i] = -c[i];
#pragma unroll
      for (int p = 6; p > 7 - kWeightPlanes; --p) {
#pragma unroll
        for (int i = 0; i < 4; ++i) c[i] *= 2;
        ptx::mma_and_popc(c, row[0][p], row[1][p], b);
      }
      const float x_s = x_scale[m];
      sum[m][0] = fmaf(float(c[0] * weight0 + c[1] * weight1), s0 * x_s, sum[m][0]);
      sum[m][1] = fmaf(float(c[2] * weight0 + c[3] * weight1), s1 * x_s, sum[m][1]);
    }
    planes += 32;
    x_scale += a.m;
  }

  // Adds the four lanes that hold different planes of the same output.
  __device__ __forceinline__ void flush(const SmallArgs& a, float* slot) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < rows; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float v = sum[m][h];
        v += __shfl_xor_sync(~0u, v, 1);
        v += __shfl_xor_sync(~0u, v, 2);
        if (t == 0 && m < a.m) slot[m * kSlotStride + g + 8 * h] = v;
        sum[m][h] = 0.0f;
      }
    }
  }
};

}  // namespace flexq::small

// Dynamic symmetric quantization of activations to int8, in fragment order:
// s = max|x| / q_max, q = rint(x / s), per (row, 128 columns) or per row.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/types.cuh"

namespace flexq {

struct QuantizeArgs {
  const u16* x;     // [m][x_stride]
  i8* q;            // [m][Kpad]
  float* scales;    // [Kpad / 128][round_up(m, 4)], or [m] with per_row
  i32 m, k;
  i32 x_stride;
  i32 per_row;
  float q_max;      // 127 or 31
  Dtype x_type;
};

namespace activations {

constexpr int kWarps = 8;
constexpr int kBatch = 4;  // (row, 128 columns) blocks a warp

// Four consecutive values from column `col`, zeros past the end of the row.
__device__ __forceinline__ void load4(const u16* row, int col, int k, Dtype type, float (&v)[4]) {
  const u16* p = row + col;
  if (col + 4 <= k && (reinterpret_cast<u64>(p) & 7) == 0) {
    const uint2 w = __ldg(reinterpret_cast<const uint2*>(p));
    v[0] = load16(u16(w.x), type), v[1] = load16(u16(w.x >> 16), type);
    v[2] = load16(u16(w.y), type), v[3] = load16(u16(w.y >> 16), type);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = col + i < k ? load16(p[i], type) : 0.0f;
  }
}

__device__ __forceinline__ float max_abs(const float (&v)[4]) {
  return fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3])));
}

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// Scale of a warp's values, each lane giving its largest magnitude.
__device__ __forceinline__ float scale_of(float lane_max, float q_max) {
  return __fdiv_rn(warp_max(lane_max), q_max);
}

__device__ __forceinline__ u32 quantize(float v, float scale, float q_max) {
  const float r = scale > 0.0f ? __fdiv_rn(v, scale) : 0.0f;
  return u32(__float2int_rn(fminf(fmaxf(r, -q_max), q_max))) & 0xFF;
}

// Stores four quantized columns, 4 (lane) .. of a block of 128 at `out`, in fragment
// order: columns c, c+1 of a 16 go to position 4 t + 2 (c / 8) with t = (c / 2) % 4.
__device__ __forceinline__ void store4(u8* out, int lane, const float (&v)[4], float scale,
                                       float q_max) {
  const int pair = (lane % 4) * 2;
  u8* const at = out + (lane / 4) * 16 + 2 * (pair / 4);
  *reinterpret_cast<u16*>(at + 4 * (pair % 4)) =
      u16(quantize(v[0], scale, q_max) | quantize(v[1], scale, q_max) << 8);
  *reinterpret_cast<u16*>(at + 4 * (pair % 4 + 1)) =
      u16(quantize(v[2], scale, q_max) | quantize(v[3], scale, q_max) << 8);
}

// A warp per (row, 128 columns), kBatch of them at a time so that their loads overlap.
__device__ __forceinline__ void by_block(const QuantizeArgs& a) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int blocks = ceil_div(a.k, layout::kTileCols);
  const u64 items = u64(a.m) * blocks, first = (u64(blockIdx.x) * kWarps + warp) * kBatch;
  float v[kBatch][4];
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (first + j >= items) break;
    const int row = (first + j) / blocks, block = (first + j) % blocks;
    load4(a.x + u64(row) * a.x_stride, block * layout::kTileCols + lane * 4, a.k, a.x_type, v[j]);
  }
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    if (first + j >= items) break;
    const int row = (first + j) / blocks, block = (first + j) % blocks;
    const float scale = scale_of(max_abs(v[j]), a.q_max);
    if (lane == 0) a.scales[u64(block) * layout::activation_scale_stride(a.m) + row] = scale;
    u8* out = reinterpret_cast<u8*>(a.q) + (first + j) * layout::kTileCols;
    store4(out, lane, v[j], scale, a.q_max);
  }
}

// A block of threads per row, in two passes; the second finds the row in cache.
__device__ __forceinline__ void by_row(const QuantizeArgs& a) {
  __shared__ float most[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x;
  const int blocks = ceil_div(a.k, layout::kTileCols);
  const u16* x = a.x + u64(row) * a.x_stride;
  float v[4], m = 0.0f;
  for (int block = warp; block < blocks; block += kWarps) {
    load4(x, block * layout::kTileCols + lane * 4, a.k, a.x_type, v);
    m = fmaxf(m, max_abs(v));
  }
  m = warp_max(m);
  if (lane == 0) most[warp] = m;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) m = fmaxf(m, most[w]);
  const float scale = __fdiv_rn(m, a.q_max);
  if (threadIdx.x == 0) a.scales[row] = scale;
  for (int block = warp; block < blocks; block += kWarps) {
    load4(x, block * layout::kTileCols + lane * 4, a.k, a.x_type, v);
    u8* out = reinterpret_cast<u8*>(a.q) + (u64(row) * blocks + block) * layout::kTileCols;
    store4(out, lane, v, scale, a.q_max);
  }
}

}  // namespace activations
}  // namespace flexq

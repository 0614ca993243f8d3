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
  i32 late;         // the next kernel starts after this one's wait; see ptx/copy.cuh
  float q_max;      // 127 or 31
  Dtype x_type;
};

namespace activations {

constexpr int kWarps = 8;
// A lane quantizes 16 neighbouring columns, eight lanes a block of 128.
constexpr int kColumns = 16;
constexpr int kLanes = layout::kTileCols / kColumns;

// Columns col .. col + 15 as they are stored, zeros past the end of the row.
__device__ __forceinline__ void load(const u16* row, int col, int k, u32 (&w)[8]) {
  const u16* p = row + col;
  if (col + kColumns <= k && (reinterpret_cast<u64>(p) & 15) == 0) {
    const uint4* q = reinterpret_cast<const uint4*>(p);
    const uint4 a = __ldg(q), b = __ldg(q + 1);
    w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w;
    w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const u32 low = col + 2 * i < k ? p[2 * i] : 0, high = col + 2 * i + 1 < k ? p[2 * i + 1] : 0;
      w[i] = low | high << 16;
    }
  }
}

__device__ __forceinline__ void widen(const u32 (&w)[8], Dtype type, float (&v)[kColumns]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[2 * i] = load16(u16(w[i]), type), v[2 * i + 1] = load16(u16(w[i] >> 16), type);
  }
}

__device__ __forceinline__ float max_abs(const float (&v)[kColumns]) {
  float m = 0.0f;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) m = fmaxf(m, fabsf(v[i]));
  return m;
}

// The largest of the numbers of `lanes` neighbouring lanes.
template <int lanes>
__device__ __forceinline__ float lane_max(float v) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
  return v;
}

// Codes of values that share a scale: rint(v / scale) within +-q_max, as bytes.
//
// v times the inverse of the scale differs from the rounded quotient by less than 2.3e-5 (three
// roundings of a number up to 127), so only near half-way points is the division needed.
class Quantizer {
 public:
  __device__ __forceinline__ Quantizer(float most, float q_max)
      : scale_(__fdiv_rn(most, q_max)), q_max_(q_max) {
    // NaN, which sends every value to the division, where the inverse would lose precision
    const bool usable = scale_ > 1e-30f && scale_ < 1e30f;
    inverse_ = usable ? __frcp_rn(scale_) : __int_as_float(0x7FFFFFFF);
  }

  __device__ __forceinline__ float scale() const { return scale_; }

  // Sixteen columns in fragment order: word t holds columns 2t, 2t + 1, 2t + 8, 2t + 9.
  __device__ __forceinline__ uint4 operator()(const float (&v)[kColumns]) const {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    u32 code[kColumns];
    bool close = true;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float r = v[i] * inverse_, rounded = r + kMagic;
      close = close && fabsf(r - (rounded - kMagic)) < 0.49997f;
      code[i] = __float_as_uint(rounded);
    }
    if (!close) {
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const float exact = scale_ > 0.0f ? __fdiv_rn(v[i], scale_) : 0.0f;
        code[i] = u32(__float2int_rn(fminf(fmaxf(exact, -q_max_), q_max_)));
      }
    }
    u32 w[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const u32 low = __byte_perm(code[2 * t], code[2 * t + 1], 0x0040);
      const u32 high = __byte_perm(code[2 * t + 8], code[2 * t + 9], 0x0040);
      w[t] = __byte_perm(low, high, 0x5410);
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
  }

 private:
  float scale_, q_max_, inverse_;
};

// Eight lanes per (row, 128 columns), kBatch of them at a time so that their loads overlap.
constexpr int kBatch = 2;

__device__ __forceinline__ void by_block(const QuantizeArgs& a) {
  constexpr int kAtOnce = kWarps * 32 / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int blocks = ceil_div(a.k, layout::kTileCols);
  const u64 items = u64(a.m) * blocks;
  const u64 first = u64(blockIdx.x) * (kBatch * kAtOnce) + threadIdx.x / kLanes;
  u32 w[kBatch][8] = {};
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const u64 item = first + j * kAtOnce;
    if (item >= items) break;
    load(a.x + item / blocks * a.x_stride, int(item % blocks) * layout::kTileCols + lane * kColumns,
         a.k, w[j]);
  }
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const u64 item = first + j * kAtOnce;
    float v[kColumns];
    widen(w[j], a.x_type, v);
    const Quantizer code(lane_max<kLanes>(max_abs(v)), a.q_max);
    if (item >= items) continue;
    if (lane == 0) {
      a.scales[item % blocks * layout::activation_scale_stride(a.m) + item / blocks] = code.scale();
    }
    reinterpret_cast<uint4*>(a.q)[item * kLanes + lane] = code(v);
  }
}

// A block of threads per row, in two passes; the second finds the row in cache.
__device__ __forceinline__ void by_row(const QuantizeArgs& a) {
  __shared__ float most[kWarps];
  const int warp = threadIdx.x / 32, row = blockIdx.x;
  const int k_pad = round_up(a.k, layout::kTileCols);
  const u16* x = a.x + u64(row) * a.x_stride;
  u32 w[8];
  float v[kColumns], m = 0.0f;
  for (int col = threadIdx.x * kColumns; col < k_pad; col += kWarps * 32 * kColumns) {
    load(x, col, a.k, w);
    widen(w, a.x_type, v);
    m = fmaxf(m, max_abs(v));
  }
  m = lane_max<32>(m);
  if (threadIdx.x % 32 == 0) most[warp] = m;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarps; ++i) m = fmaxf(m, most[i]);
  const Quantizer code(m, a.q_max);
  if (threadIdx.x == 0) a.scales[row] = code.scale();
  for (int col = threadIdx.x * kColumns; col < k_pad; col += kWarps * 32 * kColumns) {
    load(x, col, a.k, w);
    widen(w, a.x_type, v);
    reinterpret_cast<uint4*>(a.q + u64(row) * k_pad)[col / kColumns] = code(v);
  }
}

}  // namespace activations
}  // namespace flexq

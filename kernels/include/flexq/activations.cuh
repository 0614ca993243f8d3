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

// The same of rows that are aligned to 16 bytes and a multiple of 16 columns long, read once: the
// cache shall rather keep the codes.
__device__ __forceinline__ void load_once(const u16* row, int col, int k, u32 (&w)[8]) {
  const uint4* q = reinterpret_cast<const uint4*>(row + col);
  const bool inside = col < k;
  const uint4 a = inside ? __ldcs(q) : uint4{}, b = inside ? __ldcs(q + 1) : uint4{};
  w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w;
  w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
}

template <Dtype type>
__device__ __forceinline__ void widen(const u32 (&w)[8], float (&v)[kColumns]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    v[2 * i] = load16(u16(w[i]), type), v[2 * i + 1] = load16(u16(w[i] >> 16), type);
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

// The largest magnitude of sixteen numbers as they are stored.
template <Dtype type>
__device__ __forceinline__ float max_abs(const u32 (&w)[8]) {
  constexpr u32 kMagnitude = 0x7FFF7FFFu;
  u32 m = w[0] & kMagnitude;
#pragma unroll
  for (int i = 1; i < 8; ++i) {
    if constexpr (type == Dtype::BF16) {
      asm("max.bf16x2 %0, %0, %1;" : "+r"(m) : "r"(w[i] & kMagnitude));
    } else {
      asm("max.f16x2 %0, %0, %1;" : "+r"(m) : "r"(w[i] & kMagnitude));
    }
  }
  return fmaxf(load16(u16(m), type), load16(u16(m >> 16), type));
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

  // Codes of sixteen columns in fragment order: word t holds columns 2t, 2t + 1, 2t + 8, 2t + 9.
  __device__ __forceinline__ uint4 operator()(const float (&v)[kColumns]) const {
    uint4 codes;
    return fast(v, codes) ? codes : exact(v);
  }

  // The same from the inverse; false where a number is too near half-way for that.
  __device__ __forceinline__ bool fast(const float (&v)[kColumns], uint4& codes) const {
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    u32 code[kColumns];
    bool close = true;
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float r = v[i] * inverse_, rounded = r + kMagic;
      close = close && fabsf(r - (rounded - kMagic)) < 0.49997f;
      code[i] = __float_as_uint(rounded);
    }
    codes = in_order(code);
    return close;
  }

  // The same by division.
  __device__ __forceinline__ uint4 exact(const float (&v)[kColumns]) const {
    u32 code[kColumns];
#pragma unroll
    for (int i = 0; i < kColumns; ++i) {
      const float quotient = scale_ > 0.0f ? __fdiv_rn(v[i], scale_) : 0.0f;
      code[i] = u32(__float2int_rn(fminf(fmaxf(quotient, -q_max_), q_max_)));
    }
    return in_order(code);
  }

 private:
  static __device__ __forceinline__ uint4 in_order(const u32 (&code)[kColumns]) {
    u32 w[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const u32 low = __byte_perm(code[2 * t], code[2 * t + 1], 0x0040);
      const u32 high = __byte_perm(code[2 * t + 8], code[2 * t + 9], 0x0040);
      w[t] = __byte_perm(low, high, 0x5410);
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
  }

  float scale_, q_max_, inverse_;
};

// Eight lanes per (row, 128 columns), kBatch of them at a time so that their loads overlap.
constexpr int kBatch = 2;

template <Dtype type, bool aligned>
__device__ __forceinline__ void by_block(const QuantizeArgs& a) {
  constexpr int kAtOnce = kWarps * 32 / kLanes;
  const int lane = threadIdx.x % kLanes;
  const u32 blocks = ceil_div(a.k, layout::kTileCols);
  const u32 items = a.m * blocks;  // a terabyte of activations would be 2^32
  const u32 first = blockIdx.x * (kBatch * kAtOnce) + threadIdx.x / kLanes;
  u32 row[kBatch], block[kBatch], w[kBatch][8] = {};
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const u32 item = first + j * kAtOnce;
    if (item >= items) break;
    row[j] = item / blocks, block[j] = item % blocks;
    const u16* x = a.x + u64(row[j]) * a.x_stride;
    const int col = block[j] * layout::kTileCols + lane * kColumns;
    if constexpr (aligned) load_once(x, col, a.k, w[j]);
    else load(x, col, a.k, w[j]);
  }
#pragma unroll
  for (int j = 0; j < kBatch; ++j) {
    const u32 item = first + j * kAtOnce;
    const Quantizer code(lane_max<kLanes>(max_abs<type>(w[j])), a.q_max);
    if (item >= items) continue;
    if (lane == 0) {
      a.scales[u64(block[j]) * layout::activation_scale_stride(a.m) + row[j]] = code.scale();
    }
    float v[kColumns];
    widen<type>(w[j], v);
    reinterpret_cast<uint4*>(a.q)[u64(item) * kLanes + lane] = code(v);
  }
}

// A block of threads per row.
constexpr int kStep = kWarps * 32 * kColumns;

// What the threads of a block agree is the largest of their numbers.
__device__ __forceinline__ float block_max(float m) {
  __shared__ float most[kWarps];
  m = lane_max<32>(m);
  if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = m;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarps; ++i) m = fmaxf(m, most[i]);
  return m;
}

// Rows of up to `steps` kStep aligned columns, which stay in registers.
template <Dtype type, int steps>
__device__ __forceinline__ void by_short_row(const QuantizeArgs& a) {
  const int row = blockIdx.x, col0 = threadIdx.x * kColumns;
  const int k_pad = round_up(a.k, layout::kTileCols);
  const u16* x = a.x + u64(row) * a.x_stride;
  u32 w[steps][8];
#pragma unroll
  for (int s = 0; s < steps; ++s) load_once(x, s * kStep + col0, a.k, w[s]);
  float m = 0.0f;
#pragma unroll
  for (int s = 0; s < steps; ++s) m = fmaxf(m, max_abs<type>(w[s]));
  const Quantizer code(block_max(m), a.q_max);
  if (threadIdx.x == 0) a.scales[row] = code.scale();
  i8* const q = a.q + u64(row) * k_pad;
  u32 again = 0;
  float v[kColumns];
#pragma unroll
  for (int s = 0; s < steps; ++s) {
    const int col = s * kStep + col0;
    if (col >= k_pad) break;
    widen<type>(w[s], v);
    uint4 codes;
    if (!code.fast(v, codes)) again |= 1 << s;
    *reinterpret_cast<uint4*>(q + col) = codes;
  }
  // Few; the division is long.
#pragma unroll 1
  for (; again != 0; again &= again - 1) {
    const int col = (__ffs(again) - 1) * kStep + col0;
    load_once(x, col, a.k, w[0]);
    widen<type>(w[0], v);
    *reinterpret_cast<uint4*>(q + col) = code.exact(v);
  }
}

// Any rows, in two passes; the second finds the row in cache.
template <Dtype type>
__device__ __forceinline__ void by_row(const QuantizeArgs& a) {
  const int row = blockIdx.x;
  const int k_pad = round_up(a.k, layout::kTileCols);
  const u16* x = a.x + u64(row) * a.x_stride;
  u32 w[8];
  float m = 0.0f;
  for (int col = threadIdx.x * kColumns; col < k_pad; col += kStep) {
    load(x, col, a.k, w);
    m = fmaxf(m, max_abs<type>(w));
  }
  const Quantizer code(block_max(m), a.q_max);
  if (threadIdx.x == 0) a.scales[row] = code.scale();
  for (int col = threadIdx.x * kColumns; col < k_pad; col += kStep) {
    load(x, col, a.k, w);
    float v[kColumns];
    widen<type>(w, v);
    *reinterpret_cast<uint4*>(a.q + u64(row) * k_pad + col) = code(v);
  }
}

}  // namespace activations
}  // namespace flexq

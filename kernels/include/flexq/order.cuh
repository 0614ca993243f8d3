// Canonical bytes to device order, and back to numbers. Run at load, or for rows.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/types.cuh"
#include "flexq/unpack.cuh"

namespace flexq {

// Mirrored, like every *Args, by crates/flexq-cuda/src/launch/.
struct RepackArgs {
  const u8* packed;   // [n][row_bytes], canonical: code c of a row at bit 6 c
  u32* weights;       // device order, Npad x Kpad codes
  u64 row_bytes;
  i32 n, k;
};

struct RestoreArgs {
  const u32* weights;  // device order
  const u16* scales;   // [Kpad / segment][Npad]
  u8* packed;          // [n][row_bytes], canonical
  u16* out_scales;     // [n][groups]
  u64 row_bytes;
  i32 n, k;
  i32 groups, group;   // columns per group
  i32 segment;
};

struct RepackScalesArgs {
  const u16* scales;  // [n][groups]
  u16* out;           // [Kpad / segment][Npad]
  i32 n, k;
  i32 groups, group;  // columns per group
  i32 segment;
};

struct DequantizeArgs {
  const u32* weights;
  const u16* scales;
  void* y;            // [n][k]
  i32 n, k, segment;
  Dtype scale_type, y_type;
};

struct GatherArgs {
  const u32* weights;
  const u16* scales;
  const i64* rows;    // [count]; a row outside [0, n) gives NaN
  void* y;            // [count][k]
  i32 n, k, segment, count;
  Dtype scale_type, y_type;
};

namespace order {

// Canonical code at (row, col); 32, the code of zero, in the padding.
__device__ __forceinline__ u32 canonical_code(const RepackArgs& a, int row, int col) {
  if (row >= a.n || col >= a.k) return 32;
  const u64 bit = u64(col) * 6;
  const u8* p = a.packed + u64(row) * a.row_bytes + bit / 8;
  const int shift = bit % 8;
  const u32 two = shift > 2 ? p[0] | u32(p[1]) << 8 : p[0];
  return (two >> shift) & 63;
}

// One thread per quad of a lane: gathers 16 codes, writes three words.
__device__ __forceinline__ void repack(const RepackArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int strips = round_up(a.n, layout::kTileRows) / layout::kBlockRows;
  const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int quad = index % layout::kQuads, lane = index / layout::kQuads % 32;
  const u64 unit = index / (layout::kQuads * 32);
  if (unit >= u64(strips) * k_blocks) return;
  const int strip = unit / k_blocks, kb = unit % k_blocks;
  const int g = lane / 4, t = lane % 4;

  u32 b[4] = {};
#pragma unroll
  for (int v = 0; v < 4; ++v) {
    const int row = strip * layout::kBlockRows + g + 8 * (v % 2);
    const int col = kb * layout::kTileCols + quad * 32 + 16 * (v / 2);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      b[v] |= canonical_code(a, row, col + layout::fragment_column(t, i)) << (8 * i);
    }
  }
  u32* out = a.weights + layout::block_offset(strip, kb, k_blocks) / 4;
  const u32 spread[3] = {(b[3] >> 4) & 0x03030303u, (b[3] >> 2) & 0x03030303u, b[3] & 0x03030303u};
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    out[layout::word_offset(lane, 3 * quad + i) / 4] = b[i] << 2 | spread[i];
  }
}

__device__ __forceinline__ void repack_scales(const RepackScalesArgs& a) {
  const int n_pad = round_up(a.n, layout::kTileRows);
  const int segments = round_up(a.k, layout::kTileCols) / a.segment;
  const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= u64(segments) * n_pad) return;
  const int row = index % n_pad, col = int(index / n_pad) * a.segment;
  const bool inside = row < a.n && col < a.k;
  a.out[index] = inside ? a.scales[u64(row) * a.groups + col / a.group] : u16(0);
}

// Code q of (row, col) out of device order.
__device__ __forceinline__ int code_at(const u32* weights, int k_blocks, int row, int col) {
  const int strip = row / layout::kBlockRows, r = row % layout::kBlockRows;
  const int kb = col / layout::kTileCols, c = col % layout::kTileCols;
  const int in16 = c % 16, t = in16 % 8 / 2, byte = in16 % 2 + in16 / 8 * 2;
  const int lane = (r % 8) * 4 + t, quad = c / 32, v = (c % 32) / 16 * 2 + r / 8;
  const u32* p = weights + layout::block_offset(strip, kb, k_blocks) / 4;
  const u32 w[3] = {p[layout::word_offset(lane, 3 * quad) / 4],
                    p[layout::word_offset(lane, 3 * quad + 1) / 4],
                    p[layout::word_offset(lane, 3 * quad + 2) / 4]};
  u32 b[4];
  byte_words<0>(w, b);
  const u32 word = v == 0 ? b[0] : v == 1 ? b[1] : v == 2 ? b[2] : b[3];
  return int(word >> (8 * byte + 2) & 63) - 32;
}

// The canonical bytes again: one thread per four codes of a row, or per scale after those.
__device__ __forceinline__ void restore(const RestoreArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const int fours = ceil_div(a.k, 4);
  const u64 codes = u64(a.n) * fours;
  const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < codes) {
    const int row = index / fours, col = int(index % fours) * 4;
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (col + i < a.k) word |= u32(code_at(a.weights, k_blocks, row, col + i) + 32) << (6 * i);
    }
    u8* out = a.packed + row * a.row_bytes;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const u64 byte = u64(col) / 4 * 3 + i;
      if (byte < a.row_bytes) out[byte] = u8(word >> (8 * i));
    }
  } else if (index - codes < u64(a.n) * a.groups) {
    const int row = (index - codes) / a.groups, group = (index - codes) % a.groups;
    a.out_scales[index - codes] = a.scales[u64(group) * a.group / a.segment * n_pad + row];
  }
}

// Four threads have the codes of 32 columns of a row: thread t columns 2 t, 2 t + 1, 2 t + 8 and
// 2 t + 9 of either 16, a word each. They trade, and thread t has columns 8 t to 8 t + 7 in order.
__device__ __forceinline__ void trade(const u32 (&pairs)[2], int t, u32 (&eight)[2]) {
  constexpr u32 kAll = 0xFFFFFFFFu;
  const bool second = t & 2, odd = t & 1;
  // Of the 16 to which its columns belong, then of their half.
  const u32 got = __shfl_xor_sync(kAll, second ? pairs[0] : pairs[1], 2);
  const u32 low = second ? got : pairs[0], high = second ? pairs[1] : got;
  const u32 halves[2] = {__byte_perm(low, high, 0x5410), __byte_perm(low, high, 0x7632)};
  const u32 other = __shfl_xor_sync(kAll, odd ? halves[0] : halves[1], 1);
  const u32 from_even = odd ? other : halves[0], from_odd = odd ? halves[1] : other;
  eight[0] = __byte_perm(from_even, from_odd, 0x5410);
  eight[1] = __byte_perm(from_even, from_odd, 0x7632);
}

// Writes eight columns from `col` on as numbers, in the row that starts at element `row`.
__device__ __forceinline__ void store_eight(void* y, u64 row, int col, int k, const u32 (&eight)[2],
                                            float scale, Dtype type) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float v[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) v[c] = float(int(eight[h] >> (8 * c + 2) & 63) - 32) * scale;
    store_float4(y, row, col + 4 * h, k, v, type);
  }
}

// One thread per eight columns of two rows, whose codes lie in the same three words.
__device__ __forceinline__ void dequantize(const DequantizeArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int t = index % 4, quad = index / 4 % 4, g = index / 16 % 8;
  const u64 unit = index / 128;  // the same for a warp
  if (unit >= u64(n_pad / layout::kBlockRows) * k_blocks) return;
  const int strip = unit / k_blocks, kb = unit % k_blocks;
  const int col = kb * layout::kTileCols + quad * 32 + t * 8;
  const u32* p = a.weights + layout::block_offset(strip, kb, k_blocks) / 4;
  u32 w[3], b[4];
#pragma unroll
  for (int c = 0; c < 3; ++c) w[c] = p[layout::word_offset(g * 4 + t, 3 * quad + c) / 4];
  const u16* scales = a.scales + u64(col / a.segment) * n_pad;
  byte_words<0>(w, b);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = strip * layout::kBlockRows + g + 8 * h;
    const u32 pairs[2] = {b[h], b[2 + h]};
    u32 eight[2];
    trade(pairs, t, eight);
    const float scale = load16(scales[row], a.scale_type);
    if (row < a.n) store_eight(a.y, u64(row) * a.k, col, a.k, eight, scale, a.y_type);
  }
}

// One thread per eight columns of a gathered row. A single row, as a decoding step reads it, is a
// matter of latency, so nothing waits in line.
__device__ __forceinline__ void gather(const GatherArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const u32 threads = k_blocks * (layout::kTileCols / 8);  // for a row
  const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 i = index / threads, part = index % threads;
  const int kb = part / 16, quad = part / 4 % 4, t = part % 4;

  const i64 row = i < u32(a.count) ? a.rows[i] : -1;
  float scale = __uint_as_float(0x7FC00000u);
  u32 pairs[2] = {};
  if (row >= 0 && row < a.n) {
    const int strip = row / layout::kBlockRows, r = row % layout::kBlockRows;
    const u32* p = a.weights + layout::block_offset(strip, kb, k_blocks) / 4;
    u32 w[3], b[4];
#pragma unroll
    for (int c = 0; c < 3; ++c) w[c] = p[layout::word_offset(r % 8 * 4 + t, 3 * quad + c) / 4];
    scale = load16(a.scales[u64(part * 8 / a.segment) * n_pad + row], a.scale_type);
    byte_words<0>(w, b);
#pragma unroll
    for (int s = 0; s < 2; ++s) pairs[s] = r < 8 ? b[2 * s] : b[2 * s + 1];
  }
  u32 eight[2];
  trade(pairs, t, eight);
  if (i < u32(a.count)) {
    store_eight(a.y, u64(i) * a.k, part * 8, a.k, eight, scale, a.y_type);
  }
}

}  // namespace order
}  // namespace flexq

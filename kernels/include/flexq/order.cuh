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
  i32 n, k, segment;
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

// One thread per lane of a block: 64 codes, two columns a store.
__device__ __forceinline__ void dequantize(const DequantizeArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const u64 index = u64(blockIdx.x) * blockDim.x + threadIdx.x;
  const int lane = index % 32, g = lane / 4, t = lane % 4;
  const u64 unit = index / 32;
  if (unit >= u64(n_pad / layout::kBlockRows) * k_blocks) return;
  const int strip = unit / k_blocks, kb = unit % k_blocks;
  const u32* p = a.weights + layout::block_offset(strip, kb, k_blocks) / 4;
#pragma unroll
  for (int quad = 0; quad < layout::kQuads; ++quad) {
    const u32 w[3] = {p[layout::word_offset(lane, 3 * quad) / 4],
                      p[layout::word_offset(lane, 3 * quad + 1) / 4],
                      p[layout::word_offset(lane, 3 * quad + 2) / 4]};
    u32 b[4];
    byte_words<0>(w, b);
    const int col0 = kb * layout::kTileCols + quad * 32;
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      const int row = strip * layout::kBlockRows + g + 8 * (v % 2);
      if (row >= a.n) continue;
      const float scale = load16(a.scales[u64(col0 / a.segment) * n_pad + row], a.scale_type);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int col = col0 + 16 * (v / 2) + layout::fragment_column(t, i);
        const int q = int(b[v] >> (8 * i + 2) & 63) - 32;
        if (col < a.k) store_float(a.y, u64(row) * a.k + col, float(q) * scale, a.y_type);
      }
    }
  }
}

// One thread per element of a gathered row: a single row, as a decoding step reads it, is a matter
// of latency, so nothing waits in line.
__device__ __forceinline__ void gather(const GatherArgs& a) {
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const int row_blocks = ceil_div(a.k, int(blockDim.x));
  const int i = blockIdx.x / row_blocks;
  const int col = blockIdx.x % row_blocks * blockDim.x + threadIdx.x;
  if (col >= a.k) return;
  const i64 row = a.rows[i];
  float v = __uint_as_float(0x7FC00000u);
  if (row >= 0 && row < a.n) {
    const u16 scale = a.scales[u64(col / a.segment) * n_pad + row];
    v = float(code_at(a.weights, k_blocks, int(row), col)) * load16(scale, a.scale_type);
  }
  store_float(a.y, u64(i) * a.k + col, v, a.y_type);
}

}  // namespace order
}  // namespace flexq

// Device order of packed weights, scales and quantized activations.
//
// Weights are the A operand of every matrix instruction (rows are N), activations
// the B operand (columns are M). The m16n8k16 A fragment of mma.sync and each
// warp's quarter of a wgmma A fragment are the same, so one order serves both.
//
//   tile   64 rows x 128 columns = 4 blocks, 6144 bytes; tiles ordered [N/64][K/128]
//   block  16 rows x 128 columns = 2048 codes = 1536 bytes = 3 chunks of 512 bytes;
//          lane l owns bytes 16 l .. 16 l + 15 of each chunk: 12 words w[0..11]
//   quad   words w[3j..3j+2] = 16 codes of columns 32 j .. 32 j + 31, as four
//          "byte-words" of four codes, each code in the top six bits of a byte:
//            B0 = w0 & FC..   B1 = w1 & FC..   B2 = w2 & FC..
//            B3 = w0<<6 & C0.. | w1<<4 & 30.. | w2<<2 & 0C..
//   lane 4 g + t, byte i of byte-word B(2 s + h):
//            row g + 8 h, column 32 j + 16 s + {2t, 2t+1, 2t+8, 2t+9}[i]
//
// Codes are offset binary (q + 32). N is padded to 64 rows and K to 128 columns
// with q = 0. Scales are [K/segment][Npad] in their stored type, segment being
// min(group, 128); longer groups are repeated, padding is zero.
//
// Quantized activations are int8 [M][Kpad]: inside each 16 columns, position
// 4 t + i holds column {2t, 2t+1, 2t+8, 2t+9}[i], which is the order in which the
// byte-words enter an int8 A fragment. Their scales are f32: [Kpad/128][Mpad]
// with Mpad = M rounded up to 4, or [M] for one scale per row.
#pragma once

#include "flexq/types.cuh"

namespace flexq::layout {

constexpr int kTileRows = 64;
constexpr int kTileCols = 128;
constexpr int kBlockRows = 16;
constexpr int kBlocksPerTile = kTileRows / kBlockRows;
constexpr int kBlockBytes = kBlockRows * kTileCols * 6 / 8;
constexpr int kTileBytes = kBlocksPerTile * kBlockBytes;
constexpr int kChunkBytes = 512;
constexpr int kLaneWords = 12;
constexpr int kQuads = 4;

static_assert(kBlockBytes == 3 * kChunkBytes && kBlockBytes == 32 * 4 * kLaneWords);

// Byte offset of block `strip` (16 rows), `kb` (128 columns).
__host__ __device__ constexpr u64 block_offset(int strip, int kb, int k_blocks) {
  return (u64(strip / kBlocksPerTile) * k_blocks + kb) * kTileBytes +
         (strip % kBlocksPerTile) * kBlockBytes;
}

// Byte offset of word `w` (0..11) of a lane inside its block.
__host__ __device__ constexpr int word_offset(int lane, int w) {
  return (w / 4) * kChunkBytes + lane * 16 + (w % 4) * 4;
}

// Column, inside its 16, of byte `i` of a byte-word in a lane with `t` = lane % 4.
__host__ __device__ constexpr int fragment_column(int t, int i) {
  return 2 * t + (i & 1) + 8 * (i >> 1);
}

// Row stride, in scales, of per-(row, 128) activation scales.
__host__ __device__ constexpr int activation_scale_stride(int m) {
  return round_up(m, 4);
}

}  // namespace flexq::layout

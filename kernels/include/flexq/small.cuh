// Product for few rows of activations (M up to 32): reads the packed weights once,
// at memory speed, and everything else stays on chip.
//
// A block of threads owns `strips` strips of 16 weight rows and a range of K blocks
// of 128 columns (a split). Its slice of x stays in shared memory. The (strip, K block)
// units of the block, K fastest, are cut into equal consecutive ranges, one a warp.
// A warp streams its units through a private ring in shared memory, so the
// main loop has no barrier among warps. Where a range leaves a strip, the warp stores its
// partial sums in a slot; slot `strip + warp` is unique, because each step along the
// ranges advances at least one of the two. At the end the slots of a strip are added in warp
// order. With several splits, the block that arrives last adds their
// f32 partial sums in split order. So results do not depend on timing.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/layout.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/ptx/mma.cuh"
#include "flexq/types.cuh"
#include "flexq/unpack.cuh"

namespace flexq {

// Mirrored by crates/flexq-cuda/src/launch/small.rs.
struct SmallArgs {
  const u8* weights;   // device order
  const u16* scales;   // [Kpad / segment][Npad]
  const u16* x;        // [m][x_stride]
  const void* bias;    // [n], type bias_type, or null
  void* y;             // [m][n], type y_type
  float* partial;      // [splits][m][Npad], when splits > 1
  u32* arrivals;       // [row groups], zero before and after
  i32 m, n, k;
  i32 x_stride;
  i32 strips;          // per row group
  i32 splits;
  i32 split_blocks;    // K blocks per split
  float q_max;         // 127 or 31 for int8 activations
  Dtype scale_type, bias_type, y_type;
};

namespace small {

constexpr int kSlotStride = 20;  // floats per activation row of a slot: 16, padded against conflicts

// Shared memory in bytes, in this order: ring, x slice, activation scales, slots.
template <int warps, int stages, int segments>
__device__ constexpr int ring_bytes() {
  return warps * stages * (layout::kBlockBytes + 32 * segments);
}

// Bytes of one row of the x slice: padded so that eight rows fall into different banks.
template <int element>
__device__ constexpr int x_row_bytes(int blocks) {
  return blocks * layout::kTileCols * element + 16;
}

struct F16 {
  using Sum = float;
  static constexpr int kElement = 2;
  using Format = Half;
  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_f16(d, a, b0, b1);
  }
};

struct BF16 {
  using Sum = float;
  static constexpr int kElement = 2;
  using Format = Bfloat;
  static __device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    ptx::mma_bf16(d, a, b0, b1);
  }
};

// int8 activations, quantized here from `Source`, one scale per (row, 128 columns).
template <class Source>
struct S8 {
  using Sum = i32;
  static constexpr int kElement = 1;
  using Format = Source;
};

template <class Act>
constexpr bool kIsInt = Act::kElement == 1;

template <class Format>
__device__ __forceinline__ float source_to_float(u16 bits);
template <>
__device__ __forceinline__ float source_to_float<Half>(u16 bits) {
  return half_to_float(bits);
}
template <>
__device__ __forceinline__ float source_to_float<Bfloat>(u16 bits) {
  return bfloat_to_float(bits);
}

// Four consecutive x values from column `col`, zeros past the end of the row.
__device__ __forceinline__ void load_x4(const SmallArgs& a, int row, int col, u16 (&v)[4]) {
  const u16* p = a.x + u64(row) * a.x_stride + col;
  if (col + 4 <= a.k && (reinterpret_cast<u64>(p) & 7) == 0) {
    const uint2 w = __ldg(reinterpret_cast<const uint2*>(p));
    v[0] = u16(w.x), v[1] = u16(w.x >> 16), v[2] = u16(w.y), v[3] = u16(w.y >> 16);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = col + i < a.k ? p[i] : u16(0);
  }
}

// The x slice as it is: four values a thread and step.
template <class Act, int threads>
__device__ __forceinline__ void stage_x(const SmallArgs& a, u8* x, int block0, int blocks) {
  const int quads = blocks * (layout::kTileCols / 4);
  const int row_bytes = x_row_bytes<Act::kElement>(blocks);
  for (int i = threadIdx.x; i < a.m * quads; i += threads) {
    const int row = i / quads, quad = i % quads;
    u16 v[4];
    load_x4(a, row, block0 * layout::kTileCols + quad * 4, v);
    *reinterpret_cast<uint2*>(x + row * row_bytes + quad * 8) =
        make_uint2(v[0] | u32(v[1]) << 16, v[2] | u32(v[3]) << 16);
  }
}

// The x slice quantized to int8 in fragment order; a warp takes one (row, block) at a
// time. Division and rounding follow the definition: q = rint(x / s), s = max|x| / q_max.
template <class Act, int warps>
__device__ __forceinline__ void stage_x_s8(const SmallArgs& a, u8* x, float* scales, int block0,
                                           int blocks) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row_bytes = x_row_bytes<1>(blocks);
  for (int i = warp; i < a.m * blocks; i += warps) {
    const int row = i / blocks, block = i % blocks;
    u16 bits[4];
    load_x4(a, row, (block0 + block) * layout::kTileCols + lane * 4, bits);
    float v[4], most = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      v[j] = source_to_float<typename Act::Format>(bits[j]);
      most = fmaxf(most, fabsf(v[j]));
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    }
    const float scale = __fdiv_rn(most, a.q_max);
    if (lane == 0) scales[block * a.m + row] = scale;
    u32 q[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float r = scale > 0.0f ? __fdiv_rn(v[j], scale) : 0.0f;
      q[j] = u32(__float2int_rn(fminf(fmaxf(r, -a.q_max), a.q_max))) & 0xFF;
    }
    // Columns c, c+1 of a 16 go to position 4 t + 2 (c / 8) with t = (c / 2) % 4.
    const int pair = (lane % 4) * 2;
    u8* out = x + row * row_bytes + block * layout::kTileCols + (lane / 4) * 16;
    *reinterpret_cast<u16*>(out + 4 * (pair % 4) + 2 * (pair / 4)) = u16(q[0] | q[1] << 8);
    *reinterpret_cast<u16*>(out + 4 * ((pair + 1) % 4) + 2 * (pair / 4)) = u16(q[2] | q[3] << 8);
  }
}

// Warp that owns unit `u` when `units` are cut into `workers` ranges [w U / W, (w + 1) U / W).
__device__ __forceinline__ int owner(int u, int units, int workers) {
  return ((u + 1) * workers - 1) / units;
}

}  // namespace small

template <class Act, int tiles, int segments, int warps, int stages>
__device__ __forceinline__ void small_product(const SmallArgs& a) {
  using namespace small;
  using Sum = typename Act::Sum;
  constexpr int threads = warps * 32;
  constexpr int stage_bytes = layout::kBlockBytes + 32 * segments;
  constexpr int quads_per_segment = layout::kQuads / segments;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int g = lane / 4, t = lane % 4;
  const int k_blocks = ceil_div(a.k, layout::kTileCols);
  const int n_pad = round_up(a.n, layout::kTileRows);
  const int group = blockIdx.x / a.splits, split = blockIdx.x % a.splits;
  const int strip0 = group * a.strips;
  const int strips = min(a.strips, n_pad / layout::kBlockRows - strip0);
  const int block0 = split * a.split_blocks;
  const int blocks = min(a.split_blocks, k_blocks - block0);
  const int units = strips * blocks;
  const int workers = min(warps, units);

  extern __shared__ __align__(16) u8 shared[];
  u8* const x = shared + ring_bytes<warps, stages, segments>();
  const int x_row = x_row_bytes<Act::kElement>(a.split_blocks);
  float* const x_scales = reinterpret_cast<float*>(x + a.m * x_row);
  float* const slots = x_scales + (kIsInt<Act> ? round_up(a.split_blocks * a.m, 4) : 0);
  const int slot_floats = a.m * kSlotStride;

  const int begin = warp < workers ? warp * units / workers : 0;
  const int end = warp < workers ? (warp + 1) * units / workers : 0;

  // Producer: the place of the next unit to fetch. Lane l copies what lane l will read,
  // except for scales, which lanes 0 .. 2 segments - 1 copy for the warp.
  int fetch_strip = begin / blocks, fetch_block = begin % blocks, fetched = begin;
  const u32 ring = ptx::shared_address(shared) + warp * stages * stage_bytes;
  auto fetch = [&](int stage) {
    if (fetched < end) {
      const u32 to = ring + stage * stage_bytes;
      const int strip = strip0 + fetch_strip, kb = block0 + fetch_block;
      const u8* from = a.weights + layout::block_offset(strip, kb, k_blocks) + lane * 16;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        ptx::copy_async(to + c * layout::kChunkBytes + lane * 16, from + c * layout::kChunkBytes);
      }
      if (lane < 2 * segments) {
        const u16* s = a.scales + u64(kb * segments + lane / 2) * n_pad +
                       strip * layout::kBlockRows + (lane % 2) * 8;
        ptx::copy_async(to + layout::kBlockBytes + lane * 16, s);
      }
      ++fetched;
      if (++fetch_block == blocks) fetch_block = 0, ++fetch_strip;
    }
    ptx::copy_commit();
  };

#pragma unroll
  for (int stage = 0; stage < stages - 1; ++stage) fetch(stage);

  ptx::wait_for_previous();
  if constexpr (kIsInt<Act>) {
    stage_x_s8<Act, warps>(a, x, x_scales, block0, blocks);
  } else {
    stage_x<Act, threads>(a, x, block0, blocks);
  }
  __syncthreads();
  ptx::launch_dependents();

  // B fragments: lane l addresses row l % 8, 16 bytes l / 8; rows past the last repeat it.
  u32 x_address[tiles];
#pragma unroll
  for (int i = 0; i < tiles; ++i) {
    const int row = min(i * 8 + lane % 8, a.m - 1);
    x_address[i] = ptx::shared_address(x) + row * x_row + (lane / 8) * 16;
  }

  float sum[tiles][4] = {};
  int strip = begin / blocks, block = begin % blocks;
  int stage = 0;
  for (int unit = begin; unit < end; ++unit) {
    ptx::copy_wait<stages - 2>();
    __syncwarp();
    const u32 from = ring + stage * stage_bytes;
    u32 w[3][4];
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(w[c], from + c * layout::kChunkBytes + lane * 16);
    }
    u16 scale_bits[segments][2];
#pragma unroll
    for (int s = 0; s < segments; ++s) {
      scale_bits[s][0] = ptx::load_shared_u16(from + layout::kBlockBytes + s * 32 + g * 2);
      scale_bits[s][1] = ptx::load_shared_u16(from + layout::kBlockBytes + s * 32 + g * 2 + 16);
    }
    fetch(stage == 0 ? stages - 1 : stage - 1);
    stage = stage == stages - 1 ? 0 : stage + 1;

    const u32 x_block = block * (layout::kTileCols * Act::kElement);
#pragma unroll
    for (int s = 0; s < segments; ++s) {
      Sum c[tiles][4] = {};
      u32 b[tiles][4];
#pragma unroll
      for (int j = s * quads_per_segment; j < (s + 1) * quads_per_segment; ++j) {
        const u32 quad[3] = {w[3 * j / 4][3 * j % 4], w[(3 * j + 1) / 4][(3 * j + 1) % 4],
                             w[(3 * j + 2) / 4][(3 * j + 2) % 4]};
        if constexpr (kIsInt<Act>) {
          u32 frag[4];
          fragment_s8(quad, frag);
#pragma unroll
          for (int i = 0; i < tiles; ++i) {
            if (j % 2 == 0 || j == s * quads_per_segment) {
              ptx::ldmatrix_x4(b[i], x_address[i] + x_block + (j / 2) * 64);
            }
            ptx::mma_s8(c[i], frag, b[i][2 * (j % 2)], b[i][2 * (j % 2) + 1]);
          }
        } else {
          u32 frag[2][4];
          fragments<typename Act::Format>(quad, frag);
#pragma unroll
          for (int i = 0; i < tiles; ++i) {
            ptx::ldmatrix_x4(b[i], x_address[i] + x_block + j * 64);
            Act::mma(c[i], frag[0], b[i][0], b[i][1]);
            Act::mma(c[i], frag[1], b[i][2], b[i][3]);
          }
        }
      }
      const float inverse = kIsInt<Act> ? 0.25f : Act::Format::kInverse;
      const float s0 = load16(scale_bits[s][0], a.scale_type) * inverse;
      const float s1 = load16(scale_bits[s][1], a.scale_type) * inverse;
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
        float x0 = 1.0f, x1 = 1.0f;
        if constexpr (kIsInt<Act>) {
          x0 = x_scales[block * a.m + min(i * 8 + 2 * t, a.m - 1)];
          x1 = x_scales[block * a.m + min(i * 8 + 2 * t + 1, a.m - 1)];
        }
        sum[i][0] = fmaf(float(c[i][0]), s0 * x0, sum[i][0]);
        sum[i][1] = fmaf(float(c[i][1]), s0 * x1, sum[i][1]);
        sum[i][2] = fmaf(float(c[i][2]), s1 * x0, sum[i][2]);
        sum[i][3] = fmaf(float(c[i][3]), s1 * x1, sum[i][3]);
      }
    }

    if (++block == blocks || unit + 1 == end) {
      float* slot = slots + (strip + warp) * slot_floats;
#pragma unroll
      for (int i = 0; i < tiles; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int row = i * 8 + 2 * t + j % 2;
          if (row < a.m) slot[row * kSlotStride + g + 8 * (j / 2)] = sum[i][j];
          sum[i][j] = 0.0f;
        }
      }
      if (block == blocks) block = 0, ++strip;
    }
  }
  __syncthreads();

  // Sum over warps; then the output, or this split's partial sums.
  auto finish = [&](int row, int col, float v) {
    if (col >= a.n) return;
    if (a.bias != nullptr) v += load_float(a.bias, col, a.bias_type);
    store_float(a.y, u64(row) * a.n + col, v, a.y_type);
  };
  const int width = strips * layout::kBlockRows;
  for (int i = threadIdx.x; i < a.m * width; i += threads) {
    const int row = i / width, col = i % width, s = col / layout::kBlockRows;
    const int first = owner(s * blocks, units, workers);
    const int last = owner((s + 1) * blocks - 1, units, workers);
    const float* slot = slots + row * kSlotStride + col % layout::kBlockRows;
    float v = 0.0f;
    for (int w = first; w <= last; ++w) v += slot[(s + w) * slot_floats];
    const int out = strip0 * layout::kBlockRows + col;
    if (a.splits == 1) {
      finish(row, out, v);
    } else {
      a.partial[(u64(split) * a.m + row) * n_pad + out] = v;
    }
  }
  if (a.splits == 1) return;

  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = ptx::fetch_increment(a.arrivals + group) == a.splits - 1;
  __syncthreads();
  if (!is_last) return;
  for (int i = threadIdx.x; i < a.m * width; i += threads) {
    const int row = i / width, out = strip0 * layout::kBlockRows + i % width;
    float v = 0.0f;
#pragma unroll 4
    for (int s = 0; s < a.splits; ++s) {
      v += ptx::load_l2(a.partial + (u64(s) * a.m + row) * n_pad + out);
    }
    finish(row, out, v);
  }
  if (threadIdx.x == 0) a.arrivals[group] = 0;
}

}  // namespace flexq

// Products on Hopper's warp-group instructions: what a launch must give.
//
//   grid    a multiple of the cluster size, at most one block a multiprocessor; any such number
//           is right, with split_tiles > 0 up to one cluster for each of their K blocks
//   cluster Tile::kCluster blocks; or, where that is 1, `splits` blocks that share the K of one
//           tile and add their sums through shared memory: then grid = splits * tiles
//   block   128 (groups + 1) threads: `groups` consumer warp groups and the producers
//   shared  Tile::kSharedBytes of dynamic memory
//   x       a two-dimensional tensor map of the activations, 128-byte swizzle, zero fill:
//             16-bit: elements {k, m}, row stride x_stride * 2 bytes (a multiple of 16),
//                     address a multiple of 16, box {64, rows / cluster}
//             int8:   elements {Kpad, m} of the order in layout.cuh, box {128, rows / cluster}
//   tiles   ceil(m / rows) * ceil(Npad / n), n = 64 groups cluster; the K blocks of the first
//           `split_tiles` are dealt out to all clusters, `share` each and one more to the first
//           `extra`; or, where `sharers` is not 0, that many have each tile, `share` K blocks each
//           and the last, who adds the sums, what is left. The rest of the tiles is dealt out
//           whole; fewer than twice as many are split as there are clusters. There are fewer than
//           2^21 tiles, and K blocks of split tiles
//   memory  with split_tiles > 0: `partial` of grid / cluster * n * rows floats (any content),
//           `arrivals` of grid words and `ticket` of one, zero before and after; launches on a
//           stream may share them, kernels of other kinds must leave `ticket` alone
//
// The blocks of a cluster are neighbours along N: each fetches a part of the activations and sends
// it to all, which saves traffic from the L2 cache, and power.
//
// Results do not depend on timing: partial sums are f32 and added in a fixed order, those of a tile's
// last columns first, then from its first columns on.
#pragma once

#include "flexq/types.cuh"

namespace flexq {

struct alignas(64) TensorMap {
  u64 opaque[16];
};

// Mirrored by crates/flexq-cuda/src/launch/hopper.rs.
struct HopperArgs {
  TensorMap x;
  const u8* weights;      // device order
  const u16* scales;      // [Kpad / segment][Npad]
  const float* x_scales;  // int8 only: [m] and 256 that may hold anything, or
                          // [Kpad / 128][round_up(m, 4)]
  const void* bias;       // [n], type bias_type, or null
  void* y;                // [m][n], type y_type
  float* partial;
  u32* arrivals;
  u32* ticket;
  i32 m, n, k;
  i32 split_tiles, sharers, share, extra;
  i32 splits;             // 1 for none, or 2
  i32 raster;             // tiles along M that are neighbours in the order of tiles, at least 1
  i32 late;               // the next kernel starts after this one's wait; see ptx/copy.cuh
  Dtype scale_type, bias_type, y_type;
};

}  // namespace flexq

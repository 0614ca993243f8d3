// Which tiles, and which part of K, a block works on; producer and consumers walk the same list.
#pragma once

#include "flexq/types.cuh"

namespace flexq::sm90 {

// K blocks [begin, end) of a tile.
struct Piece {
  i32 tile, begin, end;
};

class Schedule {
 public:
  __device__ __forceinline__ Schedule(int tiles, int split_tiles, int k_blocks)
      : tiles_(tiles),
        k_blocks_(k_blocks),
        split_units_(split_tiles * k_blocks),
        unit_(first_unit(blockIdx.x)),
        unit_end_(first_unit(blockIdx.x + 1)),
        tile_(split_tiles + blockIdx.x) {}

  __device__ __forceinline__ bool next(Piece& p) {
    if (unit_ < unit_end_) {
      p.tile = unit_ / k_blocks_;
      p.begin = unit_ % k_blocks_;
      p.end = min(k_blocks_, p.begin + unit_end_ - unit_);
      unit_ += p.end - p.begin;
      return true;
    }
    p = {tile_, 0, k_blocks_};
    tile_ += gridDim.x;
    return p.tile < tiles_;
  }

  // First and last block that has a part of a split tile.
  __device__ __forceinline__ int first_block(int tile) const { return owner(tile * k_blocks_); }
  __device__ __forceinline__ int last_block(int tile) const {
    return owner((tile + 1) * k_blocks_ - 1);
  }

 private:
  // Block b has units [b U / B, (b + 1) U / B).
  __device__ __forceinline__ int first_unit(int block) const {
    return int(i64(block) * split_units_ / gridDim.x);
  }
  __device__ __forceinline__ int owner(int unit) const {
    return int((i64(unit + 1) * gridDim.x - 1) / split_units_);
  }

  i32 tiles_, k_blocks_, split_units_, unit_, unit_end_, tile_;
};

// Place of tile `tile` when `raster` tiles along M are neighbours: blocks that run at the same
// time then share rows of both operands in the L2 cache.
struct Place {
  i32 m, n;
};

__device__ __forceinline__ Place place_of(int tile, int tiles_m, int tiles_n, int raster) {
  const int band = tile / (raster * tiles_n), in_band = tile % (raster * tiles_n);
  const int rows = min(raster, tiles_m - band * raster);
  return {band * raster + in_band % rows, in_band / rows};
}

}  // namespace flexq::sm90

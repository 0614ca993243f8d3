// Which tiles, and which part of K, a worker (a cluster of blocks) takes; its producers and
// consumers walk the same list.
#pragma once

#include "flexq/types.cuh"

namespace flexq::sm90 {

// K blocks [begin, end) of a tile.
struct Piece {
  i32 tile, begin, end;
};

// A function of a piece's number: what a loop keeps across a piece, it keeps in registers that
// sums need.
class Schedule {
 public:
  // `split` of `splits` is the share of K where a cluster shares that of its one tile.
  __device__ __forceinline__ Schedule(int tiles, int split_tiles, int k_blocks, int worker,
                                      int workers, int split, int splits)
      : tiles_(tiles),
        split_tiles_(split_tiles),
        k_blocks_(k_blocks),
        worker_(worker),
        workers_(workers),
        split_(split),
        splits_(splits) {}

  // Piece `i` of this worker; false after the last.
  __device__ __forceinline__ bool piece(int i, Piece& p) const {
    if (splits_ > 1) {
      p = {worker_, split_ * k_blocks_ / splits_, (split_ + 1) * k_blocks_ / splits_};
      return i == 0;
    }
    const int begin = first_unit(worker_), end = first_unit(worker_ + 1);
    const int first = begin / k_blocks_, parts = begin < end ? (end - 1) / k_blocks_ - first + 1 : 0;
    if (i < parts) {
      // The last tile first: its sums are another's, and shall be there when that one needs them.
      const int tile = first + parts - 1 - i, from = tile * k_blocks_;
      p = {tile, max(begin - from, 0), min(end - from, k_blocks_)};
      return true;
    }
    p = {split_tiles_ + worker_ + (i - parts) * workers_, 0, k_blocks_};
    return p.tile < tiles_;
  }

  // The worker that has the last columns of a split tile adds the sums of all. Every other gives it
  // those of one piece, its first: so nobody waits for a block that waits.
  __device__ __forceinline__ bool gives(const Piece& p) const {
    return splits_ == 1 && p.end < k_blocks_;
  }
  // It adds those of the workers from this one to itself.
  __device__ __forceinline__ int first_giver(const Piece& p) const {
    if (splits_ > 1 || p.begin == 0 || p.end < k_blocks_) return worker_;
    return owner(p.tile * k_blocks_);
  }
  // The worker that adds those of a piece that is given away.
  __device__ __forceinline__ int taker(const Piece& p) const {
    return owner((p.tile + 1) * k_blocks_ - 1);
  }
  __device__ __forceinline__ int worker() const { return worker_; }

 private:
  // Worker w of W has units [w U / W, (w + 1) U / W). At most twice as many tiles are split as there
  // are workers, a few hundred: 32 bits hold W U up to a million columns.
  __device__ __forceinline__ int first_unit(int worker) const {
    return u32(worker * split_tiles_ * k_blocks_) / u32(workers_);
  }
  __device__ __forceinline__ int owner(int unit) const {
    return u32((unit + 1) * workers_ - 1) / u32(split_tiles_ * k_blocks_);
  }

  i32 tiles_, split_tiles_, k_blocks_, worker_, workers_, split_, splits_;
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

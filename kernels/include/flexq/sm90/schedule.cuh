// Which tiles, and which part of K, a worker (a cluster of blocks) takes; its producers and
// consumers walk the same list.
#pragma once

#include "flexq/sm90/args.cuh"
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
  __device__ __forceinline__ Schedule(const HopperArgs& a, int tiles, int k_blocks, int worker,
                                      int workers, int split, int splits)
      : a_(a),
        tiles_(tiles),
        k_blocks_(k_blocks),
        worker_(worker),
        workers_(workers),
        split_(split),
        splits_(splits) {}

  // Piece `i` of this worker; false after the last.
  __device__ __forceinline__ bool piece(int i, Piece& p) const {
    if (splits_ > 1) {
      p = {worker_, split_ * k_blocks_ / 2, (split_ + 1) * k_blocks_ / 2};
      return i == 0;
    }
    int parts = 0;
    if (a_.sharers > 0) {
      parts = 1;
      if (i == 0) {
        const int tile = quotient(worker_, a_.sharers), rank = worker_ - tile * a_.sharers;
        const int begin = rank * a_.share;
        p = {tile, begin, rank == a_.sharers - 1 ? k_blocks_ : begin + a_.share};
        return true;
      }
    } else if (a_.split_tiles > 0) {
      const int begin = first_unit(worker_), end = first_unit(worker_ + 1);
      const int first = quotient(begin, k_blocks_);
      parts = quotient(end - 1, k_blocks_) - first + 1;
      if (i < parts) {
        // The last tile first: its sums are another's, and shall be there when that one needs them.
        const int tile = first + parts - 1 - i, from = tile * k_blocks_;
        p = {tile, max(begin - from, 0), min(end - from, k_blocks_)};
        return true;
      }
    }
    p = {a_.split_tiles + worker_ + (i - parts) * workers_, 0, k_blocks_};
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
    return a_.sharers > 0 ? p.tile * a_.sharers : owner(p.tile * k_blocks_);
  }
  // The worker that adds those of a piece that is given away.
  __device__ __forceinline__ int taker(const Piece& p) const {
    return a_.sharers > 0 ? (p.tile + 1) * a_.sharers - 1 : owner((p.tile + 1) * k_blocks_ - 1);
  }
  __device__ __forceinline__ int worker() const { return worker_; }

 private:
  // Where ranges cross tiles: the first K block of a worker in the order of split tiles, and the worker
  // that has one. A division takes as long as a fifth of a K block, and these stand before the first
  // copy and behind the last.
  __device__ __forceinline__ int first_unit(int worker) const {
    return worker * a_.share + min(worker, a_.extra);
  }
  __device__ __forceinline__ int owner(int unit) const {
    const int more = a_.extra * (a_.share + 1);
    return unit < more ? quotient(unit, a_.share + 1) : a_.extra + quotient(unit - more, a_.share);
  }

  const HopperArgs& a_;
  i32 tiles_, k_blocks_, worker_, workers_, split_, splits_;
};

// Place of tile `tile` when `raster` tiles along M are neighbours: blocks that run at the same
// time then share rows of both operands in the L2 cache.
struct Place {
  i32 m, n;
};

__device__ __forceinline__ Place place_of(int tile, int tiles_m, int tiles_n, int raster) {
  if (tiles_m == 1) return {0, tile};
  const int band = quotient(tile, raster * tiles_n), in_band = tile - band * (raster * tiles_n);
  const int rows = min(raster, tiles_m - band * raster), n = quotient(in_band, rows);
  return {band * raster + in_band - n * rows, n};
}

}  // namespace flexq::sm90

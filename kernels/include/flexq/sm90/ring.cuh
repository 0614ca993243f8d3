// Shared memory of a block: two rings, one of activations and one of weights with their scales,
// that producer threads fill and consumer warps empty.
#pragma once

#include "flexq/layout.cuh"
#include "flexq/ptx/sm90.cuh"
#include "flexq/sm90/args.cuh"
#include "flexq/sm90/schedule.cuh"

namespace flexq::sm90 {

// groups: consumer warp groups, each of 64 weight rows. rows: activation rows of a tile. part:
// activation rows of one product instruction. stages: of weights, each a K block of 128 columns.
// x_stages: of activations, each `boxes` boxes of 128 bytes along K. element: bytes of an
// activation. block_scales: activation scales per (row, 128), which come with a stage. cluster:
// blocks that share the activations, neighbours along N.
template <int groups, int rows, int part, int stages, int x_stages, int boxes, int element,
          bool block_scales = false, int cluster = 1>
struct Tile {
  static constexpr int kGroups = groups;
  static constexpr int kM = rows;
  static constexpr int kPart = part;
  static constexpr int kParts = rows / part;
  static constexpr int kStages = stages;
  static constexpr int kXStages = x_stages;
  static constexpr int kBoxes = boxes;
  static constexpr int kElement = element;
  static constexpr bool kBlockScales = block_scales;
  static constexpr int kCluster = cluster;
  // Where both rings move together, one pair of barriers serves a stage of both.
  static constexpr bool kJoint = boxes == element && stages == x_stages && cluster == 1;

  static constexpr int kN = groups * layout::kTileRows;
  static constexpr int kThreads = 128 * (groups + 1);

  // Boxes are aligned to 1024 bytes, the size of a swizzle pattern.
  static constexpr int kBoxBytes = rows * 128;
  static constexpr int kXScales = boxes * kBoxBytes;
  static constexpr int kXStageBytes = round_up(kXScales + (block_scales ? rows * 4 : 0), 1024);
  static constexpr int kScales = groups * layout::kTileBytes;
  static constexpr int kStageBytes = kScales + kN * 2;

  // Stages of activations that hold the sums of one group.
  static constexpr int kSumStages = kN / groups * 4 / (boxes * 128);

  // The output goes through `kSlice` rows of 64 columns a group, padded against conflicts.
  static constexpr int kSlice = rows < 64 || rows % 64 != 0 ? 16 : rows == 64 ? 32 : 64;
  static constexpr int kSliceRow = 64 * 2 + 16;

  static constexpr int kWeights = x_stages * kXStageBytes;
  static constexpr int kOutput = kWeights + stages * kStageBytes;
  static constexpr int kBarriers = kOutput + groups * kSlice * kSliceRow;
  static constexpr int kTicket = kBarriers + 2 * (stages + x_stages) * 8;
  // The base of dynamic memory is aligned to 1024 in the kernel.
  static constexpr int kSharedBytes = kTicket + 8 + 1024;

  static_assert(rows % part == 0 && rows / cluster % 8 == 0 && rows / cluster <= 256,
                "a tensor map box has at most 256 rows, swizzled in groups of eight");
  static_assert(element % boxes == 0, "a K block is a whole number of stages");
  static_assert(kSharedBytes <= 232448, "shared memory of a Hopper multiprocessor");
};

// Position in a ring and the phase parity that goes with it: one number where both are bits of it, if that
// is wanted.
template <int stages, bool bits = true>
class Cursor {
  static constexpr bool kBits = bits && (stages & (stages - 1)) == 0;

 public:
  __device__ __forceinline__ int stage() const { return kBits ? at_ % stages : at_; }
  __device__ __forceinline__ u32 parity() const { return kBits ? at_ / stages % 2 : parity_; }
  __device__ __forceinline__ void advance() {
    if (++at_ == stages && !kBits) at_ = 0, parity_ ^= 1;
  }
  // The stage before.
  __device__ __forceinline__ int before() const {
    return kBits ? (at_ - 1) % stages : at_ == 0 ? stages - 1 : at_ - 1;
  }

 private:
  u32 at_ = 0, parity_ = 0;
};

template <class T>
struct Ring {
  u32 base;

  // A stage of activations, and one of weights.
  __device__ __forceinline__ u32 x(int s) const { return base + s * T::kXStageBytes; }
  __device__ __forceinline__ u32 weights(int s) const {
    return base + T::kWeights + s * T::kStageBytes;
  }
  // Barriers: of filled and of emptied stages.
  __device__ __forceinline__ u32 full(int s) const { return base + T::kBarriers + s * 8; }
  __device__ __forceinline__ u32 empty(int s) const { return full(T::kStages + s); }
  __device__ __forceinline__ u32 x_full(int s) const {
    return full(T::kJoint ? s : 2 * T::kStages + s);
  }
  __device__ __forceinline__ u32 x_empty(int s) const {
    return full((T::kJoint ? T::kStages : 2 * T::kStages + T::kXStages) + s);
  }

  __device__ __forceinline__ u32 output(int group) const {
    return base + T::kOutput + group * (T::kSlice * T::kSliceRow);
  }
  __device__ __forceinline__ u32 ticket() const { return base + T::kTicket; }

  // By one thread, before the block's first barrier.
  __device__ __forceinline__ void init() const {
    for (int s = 0; s < T::kStages; ++s) {
      ptx::barrier_init(full(s), T::kGroups + (T::kJoint ? 1 : 0));
      ptx::barrier_init(empty(s), T::kGroups * 128);
    }
    for (int s = 0; !T::kJoint && s < T::kXStages; ++s) {
      ptx::barrier_init(x_full(s), 1);
      ptx::barrier_init(x_empty(s), T::kGroups * T::kCluster * 128);
    }
    ptx::barrier_init_fence();
  }

  // By a warp that is done with a stage of weights. Every lane arrives: one lane for all after
  // __syncwarp() would do, and takes as long, but racecheck would not see the others' reads end.
  __device__ __forceinline__ void release(int s) const {
    ptx::barrier_arrive(empty(s));
  }

  // By one warp whose products are done with a stage of activations: every block that fills it is told.
  // One lane arrives for all, since none of them has read.
  __device__ __forceinline__ void release_x(int s) const {
    __syncwarp();
    const u32 lane = threadIdx.x % 32;
    if constexpr (T::kCluster == 1) {
      if (lane == 0) ptx::barrier_arrive(x_empty(s), 32);
    } else {
      if (lane < T::kCluster) ptx::barrier_arrive_at(x_empty(s), lane, 32);
    }
  }

  // By one warp that has read sums from a stage of activations.
  __device__ __forceinline__ void release_sums(int s) const {
#pragma unroll
    for (u32 block = 0; block < T::kCluster; ++block) {
      if constexpr (T::kCluster == 1) ptx::barrier_arrive(x_empty(s));
      else ptx::barrier_arrive_at(x_empty(s), block, 1);
    }
  }

  // Copies activations of rows from `row` on, box `box` of 128 bytes along K and those that follow
  // it, into stage `s`.
  __device__ __forceinline__ void copy_x(const HopperArgs& a, int row, int box, u32 rank,
                                         int s) const {
    constexpr int kBoxRows = T::kM / T::kCluster;
    const int x_stride = layout::activation_scale_stride(a.m);
    const u32 scale_bytes = T::kBlockScales ? min(T::kM, x_stride - row) * 4 : 0;
    const u32 to = x(s), done = x_full(s);
    ptx::barrier_arrive_expect(done, T::kBoxes * T::kBoxBytes + scale_bytes);
#pragma unroll
    for (int b = 0; b < T::kBoxes; ++b) {
      const int column = (box + b) * (128 / T::kElement);
      if constexpr (T::kCluster == 1) {
        ptx::copy_box(to + b * T::kBoxBytes, &a.x, column, row, done);
      } else {
        ptx::copy_box_to(to + b * T::kBoxBytes + rank * (kBoxRows * 128), &a.x, column,
                         row + rank * kBoxRows, done, (1 << T::kCluster) - 1);
      }
    }
    if constexpr (T::kBlockScales) {
      ptx::copy_bulk(to + T::kXScales, a.x_scales + u64(box) * x_stride + row, scale_bytes, done);
    }
  }

  // Waits for the next stage of activations and returns its number.
  template <bool bits>
  __device__ __forceinline__ int next_x(Cursor<T::kXStages, bits>& at) const {
    const int stage = at.stage();
    ptx::barrier_wait(x_full(stage), at.parity());
    at.advance();
    return stage;
  }

  // A group's sums that worker `w` gives away, and the word that counts those that it is given.
  __device__ __forceinline__ static float* sums(const HopperArgs& a, int w, u32 rank, int group) {
    return a.partial + u64((w * T::kCluster + rank) * T::kGroups + group) * (64 * T::kM);
  }
  __device__ __forceinline__ static u32* given(const HopperArgs& a, int w, u32 rank) {
    return a.arrivals + w * T::kCluster + rank;
  }

  // Copies the sums of workers from `first` to before `worker` into the stages that follow. They are
  // often written at the same time, and each look at a word takes half a microsecond: one word for all.
  __device__ __forceinline__ void copy_sums(const HopperArgs& a, int first, int worker, u32 rank,
                                            Cursor<T::kXStages>& at) const {
    constexpr u32 kBytes = T::kBoxes * T::kBoxBytes;
    u32* const word = given(a, worker, rank);
    while (ptx::load_acquire(word) != u32(worker - first) * T::kGroups) {
    }
    ptx::copy_fence();
#pragma unroll 1
    for (int w = first; w < worker; ++w) {
      const float* from = sums(a, w, rank, 0);
#pragma unroll 1
      for (int s = 0; s < T::kGroups * T::kSumStages; ++s, from += kBytes / 4) {
        ptx::barrier_wait(x_empty(at.stage()), at.parity() ^ 1);
        ptx::barrier_arrive_expect(x_full(at.stage()), kBytes);
        ptx::copy_bulk(x(at.stage()), from, kBytes, x_full(at.stage()));
        at.advance();
      }
    }
    *word = 0;  // late: the fence would wait for it
  }

  // The producers fill every stage of every piece of this block: one thread for activations, one
  // for each group's weights. They have the time of one K block for a stage, beside busy consumers,
  // so there are several and nothing is computed twice. Weights do not depend on earlier kernels:
  // the first are on their way before those have finished.

  template <class Work>
  __device__ __forceinline__ void produce_weights(const HopperArgs& a, const Work& schedule,
                                                  int tiles_m, int tiles_n, int k_blocks, u32 rank,
                                                  int group) const {
    const int n_pad = round_up(a.n, layout::kTileRows);
    Cursor<T::kStages> at;
    Piece p;
    for (int i = 0; schedule().piece(i, p); ++i) {
      const Place place = place_of(p.tile, tiles_m, tiles_n, a.raster);
      const int first = (place.n * T::kCluster + rank) * T::kGroups, strip = first + group;
      const bool exists = strip * layout::kTileRows < n_pad;
      // The first thread fetches the scales of all.
      const u32 code_bytes = exists ? layout::kTileBytes : 0;
      const u32 scale_bytes =
          exists && group == 0 ? min(T::kN, n_pad - first * layout::kTileRows) * 2 : 0;
      const u8* codes = a.weights + (u64(strip) * k_blocks + p.begin) * layout::kTileBytes;
      const u16* scales = a.scales + u64(p.begin) * n_pad + first * layout::kTileRows;
#pragma unroll 1
      for (int left = p.end - p.begin; left > 0; --left) {
        const u32 to = weights(at.stage()), done = full(at.stage());
        ptx::barrier_wait(empty(at.stage()), at.parity() ^ 1);
        ptx::barrier_arrive_expect(done, code_bytes + scale_bytes);
        if (exists) {
          ptx::copy_bulk(to + group * layout::kTileBytes, codes, layout::kTileBytes, done);
          if (group == 0) ptx::copy_bulk(to + T::kScales, scales, scale_bytes, done);
        }
        codes += layout::kTileBytes;
        scales += n_pad;
        at.advance();
      }
      if constexpr (T::kJoint) {  // stages of sums have no weights
        const Schedule work = schedule();
        int left = (work.worker() - work.first_giver(p)) * (T::kGroups * T::kSumStages);
#pragma unroll 1
        for (; left > 0; --left) {
          ptx::barrier_wait(empty(at.stage()), at.parity() ^ 1);
          ptx::barrier_arrive(full(at.stage()));
          at.advance();
        }
      }
    }
  }

  template <class Work>
  __device__ __forceinline__ void produce_x(const HopperArgs& a, const Work& schedule, int tiles_m,
                                            int tiles_n, u32 rank) const {
    ptx::prefetch_map(&a.x);
    Cursor<T::kXStages> at;
    Piece p;
    const auto row_of = [&] { return place_of(p.tile, tiles_m, tiles_n, a.raster).m * T::kM; };
    // Where the first piece is takes as long to find as its first copy: before the wait.
    bool more = schedule().piece(0, p);
    int row = row_of();
    ptx::pin(row);
    ptx::wait_for_previous();
    if (a.late) ptx::launch_dependents();
    for (int i = 1; more; ++i) {
#pragma unroll 1
      for (int box = p.begin * T::kElement; box < p.end * T::kElement; box += T::kBoxes) {
        ptx::barrier_wait(x_empty(at.stage()), at.parity() ^ 1);
        copy_x(a, row, box, rank, at.stage());
        at.advance();
      }
      const Schedule work = schedule();
      const int giver = work.first_giver(p);
      if (giver < work.worker()) copy_sums(a, giver, work.worker(), rank, at);
      more = work.piece(i, p);
      row = row_of();
    }
  }
};

}  // namespace flexq::sm90

// How workers that share the K of a tile add their sums.
//
// Through the workspace: a worker gives its sums away, and goes on to its next piece; the worker with
// the last columns gets them in stages of its ring, behind the operands of its own piece, so that they
// have arrived by the time that piece is multiplied. Through shared memory: the two blocks of a cluster
// exchange halves.
#pragma once

#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"

namespace flexq::sm90 {

template <class T>
__device__ __forceinline__ float* vector_of(Sums<T>& sum, int i) {
  return &sum[i / (T::kPart / 8)][4 * (i % (T::kPart / 8))];
}

// Where groups are few, a warp of the producers tells the one that waits: that takes as long as the
// sums need to get to where all can see them. With 16 bits, whose K blocks are limited by power, nothing
// is gained, and the compiler makes the loop over them 3 % longer.
template <class T>
constexpr bool kClerk = T::kGroups < 3 && T::kElement == 1;
constexpr int kGiven = 4;  // named barriers of each group with that warp

// Writes a group's sums to `to` [vectors of four sums][128 threads] and counts them in `given`.
template <class T>
__device__ __forceinline__ void give(float* to, u32* given, int group, Sums<T>& sum) {
  const int thread = threadIdx.x % 128;
#pragma unroll
  for (int i = 0; i < T::kM / 8; ++i) {
    const float* s = vector_of<T>(sum, i);
    *reinterpret_cast<float4*>(to + i * 512 + thread * 4) = make_float4(s[0], s[1], s[2], s[3]);
  }
  if constexpr (kClerk<T>) {
    ptx::named_arrive(kGiven + group, 128 + 32);
  } else {
    ptx::named_barrier(1 + group, 128);
    if (thread == 0) ptx::add_release(given);
  }
}

// By the warp that tells.
template <class T>
__device__ __forceinline__ void tell(const HopperArgs& a, const Schedule& work, u32 rank) {
  Piece p;
  if (!work.piece(0, p) || !work.gives(p)) return;
  u32* const given = Ring<T>::given(a, work.taker(p), rank);
  for (int group = 0; group < T::kGroups; ++group) {
    ptx::named_barrier(kGiven + group, 128 + 32);
    if (threadIdx.x % 32 == 0) ptx::add_release(given);
    __syncwarp();
  }
}

// Adds the sums of `givers` workers, in their order, from the stages that follow a piece: those of
// every group, of which each takes its own.
template <class T, class Consumer>
__device__ __forceinline__ void take(const Ring<T>& ring, Consumer& consumer, int givers,
                                     int group, Sums<T>& sum) {
  constexpr int kStageVectors = T::kM / 8 / T::kSumStages;
#pragma unroll 1
  for (int stages = givers * T::kGroups; stages > 0; --stages) {
    const bool mine = (givers * T::kGroups - stages) % T::kGroups == group;
#pragma unroll
    for (int s = 0; s < T::kSumStages; ++s) {
      const int stage = consumer.next_stage();
      if (mine) {
        const u32 from = ring.x(stage) + threadIdx.x % 128 * 16;
        constexpr int kBatch = 4;  // on their way at a time
#pragma unroll
        for (int first = 0; first < kStageVectors; first += kBatch) {
          u32 v[kBatch][4];
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (first + i < kStageVectors) ptx::load_shared(v[i], from + (first + i) * 2048);
          }
#pragma unroll
          for (int i = 0; i < kBatch; ++i) {
            if (first + i >= kStageVectors) continue;
            float* t = vector_of<T>(sum, s * kStageVectors + first + i);
#pragma unroll
            for (int j = 0; j < 4; ++j) t[j] += __uint_as_float(v[i][j]);
          }
        }
        ptx::named_barrier(1 + group, 128);  // all have used what they read before any says so
      }
      consumer.end_stage(stage);
    }
  }
}

// Block `rank` of two that share a tile gets the sums of every other slice of rows, and writes those of
// the rest for its neighbour, in a ring that is empty.
template <class T, int rank>
__device__ __forceinline__ void exchange(const Ring<T>& ring, int group, Sums<T>& sum) {
  constexpr int kVectors = T::kM / 8, kSliceVectors = T::kSlice / 8;
  static_assert(T::kGroups * kVectors * 2048 <= T::kOutput, "sums fit in the rings");
  const auto is_mine = [](int i) { return i / kSliceVectors % 2 == rank; };
  const u32 place = ring.base + (group * kVectors * 128 + threadIdx.x % 128) * 16;
  ptx::named_barrier(kAllConsumers, T::kGroups * 128);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const float* s = vector_of<T>(sum, i);
    if (!is_mine(i)) ptx::store_shared(place + i * 2048, make_float4(s[0], s[1], s[2], s[3]));
  }
  ptx::cluster_sync();
  // All are on their way before the first is used: another block's memory is far away.
  const u32 theirs = ptx::map_cluster(place, rank ^ 1);
  float4 v[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (is_mine(i)) v[i] = ptx::load_cluster(theirs + i * 2048);
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (!is_mine(i)) continue;
    float* s = vector_of<T>(sum, i);
    s[0] += v[i].x, s[1] += v[i].y, s[2] += v[i].z, s[3] += v[i].w;
  }
  ptx::cluster_arrive();  // the block may not end before its neighbour has read
}

}  // namespace flexq::sm90

// Data movement, one instruction per function.
#pragma once

#include "flexq/types.cuh"

namespace flexq::ptx {

__device__ __forceinline__ u32 shared_address(const void* p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, past L1.
__device__ __forceinline__ void copy_async(u32 shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global)
               : "memory");
}

// The same, or 16 zero bytes when `valid` is false.
__device__ __forceinline__ void copy_async_or_zero(u32 shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}

// Four bytes from global to shared memory.
__device__ __forceinline__ void copy_async_4(u32 shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(global) : "memory");
}

__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `pending` of this thread's latest groups are unfinished.
template <int pending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

__device__ __forceinline__ void load_shared(u32 (&r)[4], u32 shared) {
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
}

__device__ __forceinline__ u16 load_shared_u16(u32 shared) {
  u16 v;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(v) : "r"(shared) : "memory");
  return v;
}

// 16 bytes that an earlier kernel may still write when this one starts: not by way of the cache for
// constants, whose loads a compiler may move before the wait for that kernel.
__device__ __forceinline__ uint4 load_global(const void* p) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}

// Four floats that another block wrote: read at L2, where all blocks agree.
__device__ __forceinline__ float4 load_l2(const float* p) {
  float4 v;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(p)
               : "memory");
  return v;
}

__device__ __forceinline__ float load_l2_f32(const float* p) {
  float v;
  asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
  return v;
}

// Adds one and returns the old value; orders this thread's earlier writes before it
// and its later reads after it, for the whole device.
__device__ __forceinline__ u32 fetch_increment(u32* p) {
  u32 old;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;" : "=r"(old) : "l"(p) : "memory");
  return old;
}

// The same in shared memory, for the block: adds one, or starts again at zero after `last`.
__device__ __forceinline__ u32 fetch_increment_shared(u32 shared, u32 last) {
  u32 old;
  asm volatile("atom.acq_rel.cta.shared.inc.u32 %0, [%1], %2;" : "=r"(old) : "r"(shared), "r"(last) : "memory");
  return old;
}

// A word that other blocks write; orders this thread's later reads after it.
__device__ __forceinline__ u32 load_acquire(const u32* p) {
  u32 v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}

// Adds one to such a word; this thread's earlier writes, and those that it has seen, come before it.
__device__ __forceinline__ void add_release(u32* p) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p) : "memory");
}

// Adds one, or starts again at zero after `last`; returns the old value.
__device__ __forceinline__ u32 fetch_increment_wrap(u32* p, u32 last) {
  u32 old;
  asm volatile("atom.relaxed.gpu.global.inc.u32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(p), "r"(last)
               : "memory");
  return old;
}

// Barrier among the blocks of a cluster (Hopper), in two halves: memory written before a thread
// arrives, shared memory of others too, can be read after the wait.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// Where the shared memory of block `rank` of this cluster has what this block has at `address`.
__device__ __forceinline__ u32 map_cluster(u32 address, u32 rank) {
  u32 remote = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
#endif
  return remote;
}

// Reads there.
__device__ __forceinline__ float4 load_cluster(u32 remote) {
  float4 v = {};
#if __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(remote)
               : "memory");
#endif
  return v;
}

__device__ __forceinline__ u32 load_cluster_u32(u32 remote) {
  u32 v = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(v) : "r"(remote) : "memory");
#endif
  return v;
}

// Writes four floats to block `rank` of this cluster, where this block has `address`.
__device__ __forceinline__ void store_cluster(u32 address, u32 rank, const float4& v) {
#if __CUDA_ARCH__ >= 900
  const u32 remote = map_cluster(address, rank);
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(remote), "f"(v.x), "f"(v.y),
               "f"(v.z), "f"(v.w)
               : "memory");
#endif
}

// Programmatic dependent launch (Hopper): let the next kernel start; wait for the
// previous one's results. Elsewhere launches are ordered by the stream alone.
//
// A kernel that starts early and waits for this one, as ours do, has waited for all before it, so it
// may start at once. Inductor's kernels do not wait where they need results of an earlier
// kernel alone: they must start `late`, when this one has waited itself.
__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace flexq::ptx

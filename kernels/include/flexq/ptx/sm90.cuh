// Hopper's own instructions (sm_90a), one per function.
#pragma once

#include "flexq/types.cuh"

namespace flexq::ptx {

// ---- Barriers in shared memory: a phase ends when `count` threads have arrived and all
// announced bytes have landed. `parity` is that of the phase waited for.

__device__ __forceinline__ void barrier_init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// True in one lane of a warp whose lanes are all here.
__device__ __forceinline__ bool elect() {
  u32 chosen;
  asm volatile(
      "{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(chosen));
  return chosen != 0;
}

// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same for `count` threads.
__device__ __forceinline__ void barrier_arrive(u32 barrier, u32 count) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Arrives for `count` threads at the barrier that block `rank` of the cluster has at this block's address.
__device__ __forceinline__ void barrier_arrive_at(u32 barrier, u32 rank, u32 count) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote], %2;\n}" ::"r"(barrier),
      "r"(rank), "r"(count)
      : "memory");
}

__device__ __forceinline__ void barrier_arrive_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity) {
  constexpr u32 kSleep = 10000000;  // nanoseconds, at most: polling takes others' issue slots
  asm volatile(
      "{\n.reg .pred done;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1, %2;\n"
      "@done bra FINISHED;\n"
      "bra AGAIN;\n"
      "FINISHED:\n}" ::"r"(barrier),
      "r"(parity), "n"(kSleep)
      : "memory");
}

// Whether the phase has ended: a question whose answer may be used much later.
__device__ __forceinline__ bool barrier_test(u32 barrier, u32 parity) {
  u32 done;
  asm volatile(
      "{\n.reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

// ---- Copy engine: global to shared memory, completing on a barrier.

// Orders what this thread has seen written before the copies that it asks for.
__device__ __forceinline__ void copy_fence() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// `bytes` contiguous bytes; both addresses and the size are multiples of 16.
__device__ __forceinline__ void copy_bulk(u32 shared, const void* global, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}

// The box of a two-dimensional tensor map whose first element is (column, row).
__device__ __forceinline__ void copy_box(u32 shared, const void* map, i32 column, i32 row,
                                         u32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same, into this place of every block of the cluster in `blocks`, completing on the barrier
// that each has at this address.
__device__ __forceinline__ void copy_box_to(u32 shared, const void* map, i32 column, i32 row,
                                            u32 barrier, u16 blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

__device__ __forceinline__ void prefetch_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- Clusters and warp groups

__device__ __forceinline__ u32 cluster_rank() {
  u32 r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}

template <int registers>
__device__ __forceinline__ void registers_grow() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void registers_shrink() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

// Barrier `id` (1 to 15) among `threads` threads.
__device__ __forceinline__ void named_barrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// The same; whether `one` is true in any of them.
__device__ __forceinline__ bool named_any(int id, int threads, bool one) {
  u32 any;
  asm volatile(
      "{\n.reg .pred p, q;\nsetp.ne.u32 p, %3, 0;\nbar.red.or.pred q, %1, %2, p;\n"
      "selp.u32 %0, 1, 0, q;\n}"
      : "=r"(any)
      : "r"(id), "r"(threads), "r"(u32(one))
      : "memory");
  return any != 0;
}

// Arrives at it without waiting.
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Four 8x8 matrices of 16-bit elements, transposed on the way: a lane holds elements
// (l / 4; 2 (l % 4), + 1) of each and gives the address of column l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrix_transposed(u32 shared, const u32 (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(shared),
               "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}

__device__ __forceinline__ void store_shared(u32 shared, u32 v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(v) : "memory");
}

__device__ __forceinline__ void store_shared(u32 shared, float4 v) {
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(shared), "f"(v.x), "f"(v.y), "f"(v.z),
               "f"(v.w)
               : "memory");
}

__device__ __forceinline__ u32 load_shared_u32(u32 shared) {
  u32 v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(shared) : "memory");
  return v;
}

__device__ __forceinline__ float2 load_shared_f32x2(u32 shared) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(shared) : "memory");
  return v;
}

// ---- Warp-group matrix products. They run asynchronously: operands in registers must not
// change until `wgmma_wait` says so.

__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `pending` committed groups are unfinished.
template <int pending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Keeps the compiler from moving the computation of an operand across this point.
__device__ __forceinline__ void pin(float& r) { asm volatile("" : "+f"(r)::"memory"); }
__device__ __forceinline__ void pin(i32& r) { asm volatile("" : "+r"(r)::"memory"); }
__device__ __forceinline__ void pin(u32& r) { asm volatile("" : "+r"(r)::"memory"); }

template <class R, int n>
__device__ __forceinline__ void pin(R (&r)[n]) {
#pragma unroll
  for (int i = 0; i < n; ++i) pin(r[i]);
}

// The low half of the description of a B operand in shared memory: rows of 128 bytes along K in
// groups of eight, 128-byte swizzle, `shared` aligned to 1024. Adding (offset / 16) moves along K
// inside the row or to other rows. The high half is a constant: groups are 1024 bytes apart.
//
// The same in all lanes, which the exchange tells the compiler: it then counts in uniform registers.
__device__ constexpr u32 wgmma_operand_high() { return 0x40000040; }
__device__ __forceinline__ u32 wgmma_operand(u32 shared) {
  return __shfl_sync(0xffffffffu, shared >> 4 | 1 << 16, 0);
}

// Moves a whole description along its operand. Written as a sum, it would be computed from the first one
// for each product, and its high half, which does not change, copied to where it is then.
__device__ __forceinline__ void wgmma_advance(u64& description, u32 by) {
  asm volatile(
      "{\n.reg .b32 low, high;\nmov.b64 {low, high}, %0;\nadd.u32 low, low, %1;\n"
      "mov.b64 %0, {low, high};\n}"
      : "+l"(description)
      : "r"(by));
}

#define FLEXQ_TEN(t) \
  "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define FLEXQ_R16 FLEXQ_TEN() "%10,%11,%12,%13,%14,%15"
#define FLEXQ_R32 FLEXQ_TEN() FLEXQ_TEN(1) FLEXQ_TEN(2) "%30,%31"
#define FLEXQ_R64 \
  FLEXQ_TEN() FLEXQ_TEN(1) FLEXQ_TEN(2) FLEXQ_TEN(3) FLEXQ_TEN(4) FLEXQ_TEN(5) "%60,%61,%62,%63"
#define FLEXQ_R88                                                                             \
  FLEXQ_TEN() FLEXQ_TEN(1) FLEXQ_TEN(2) FLEXQ_TEN(3) FLEXQ_TEN(4) FLEXQ_TEN(5) FLEXQ_TEN(6) \
  FLEXQ_TEN(7) "%80,%81,%82,%83,%84,%85,%86,%87"
#define FLEXQ_R96                                                                             \
  FLEXQ_TEN() FLEXQ_TEN(1) FLEXQ_TEN(2) FLEXQ_TEN(3) FLEXQ_TEN(4) FLEXQ_TEN(5) FLEXQ_TEN(6) \
  FLEXQ_TEN(7) FLEXQ_TEN(8) "%90,%91,%92,%93,%94,%95"
#define FLEXQ_R128 \
  FLEXQ_TEN() FLEXQ_TEN(1) FLEXQ_TEN(2) FLEXQ_TEN(3) FLEXQ_TEN(4) FLEXQ_TEN(5) FLEXQ_TEN(6) \
  FLEXQ_TEN(7) FLEXQ_TEN(8) FLEXQ_TEN(9) FLEXQ_TEN(10) FLEXQ_TEN(11)                        \
  "%120,%121,%122,%123,%124,%125,%126,%127"
#define FLEXQ_C4(c, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3])
#define FLEXQ_C16(c, i) \
  FLEXQ_C4(c, i), FLEXQ_C4(c, i + 4), FLEXQ_C4(c, i + 8), FLEXQ_C4(c, i + 12)
#define FLEXQ_C32(c, i) FLEXQ_C16(c, i), FLEXQ_C16(c, i + 16)
#define FLEXQ_C64(c, i) FLEXQ_C32(c, i), FLEXQ_C32(c, i + 32)
#define FLEXQ_C88(c, i) FLEXQ_C64(c, i), FLEXQ_C16(c, i + 64), FLEXQ_C4(c, i + 80), FLEXQ_C4(c, i + 84)
#define FLEXQ_C96(c, i) FLEXQ_C64(c, i), FLEXQ_C32(c, i + 64)
#define FLEXQ_C128(c, i) FLEXQ_C64(c, i), FLEXQ_C64(c, i + 64)

// D [64 x n] = A B (+ D unless `clear`); n / 2 accumulators a thread. `operand` and `high` describe B.
#define FLEXQ_WGMMA(name, shape, types, scales, Sum, constraint, count, a0, a1, a2, a3, b, p, h)  \
  __device__ __forceinline__ void name(Sum(&d)[count], const u32(&a)[4], u32 operand, bool clear, \
                                       u32 high = wgmma_operand_high()) {                          \
    asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.eq.u32 p, %" #p ", 0;\n"                   \
                 "mov.b64 b, {%" #b ", %" #h "};\nwgmma.mma_async.sync.aligned."                  \
                 shape "." types " {" FLEXQ_R##count "}, {%" #a0 ",%" #a1 ",%" #a2 ",%" #a3       \
                 "}, b, p" scales ";\n}"                                                          \
                 : FLEXQ_C##count(constraint, 0)                                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(operand), "r"(u32(clear)),     \
                   "r"(high));                                                                    \
  }
#define FLEXQ_WGMMA_TYPES(shape_n, count, a0, a1, a2, a3, b, p, h)                                \
  FLEXQ_WGMMA(wgmma_f16, "m64" shape_n "k16", "f32.f16.f16", ", 1, 1, 0", float, "+f", count, a0, \
              a1, a2, a3, b, p, h)                                                                \
  FLEXQ_WGMMA(wgmma_bf16, "m64" shape_n "k16", "f32.bf16.bf16", ", 1, 1, 0", float, "+f", count,  \
              a0, a1, a2, a3, b, p, h)                                                            \
  FLEXQ_WGMMA(wgmma_s8, "m64" shape_n "k32", "s32.s8.s8", "", i32, "+r", count, a0, a1, a2, a3,   \
              b, p, h)

FLEXQ_WGMMA_TYPES("n32", 16, 16, 17, 18, 19, 20, 21, 22)
FLEXQ_WGMMA_TYPES("n64", 32, 32, 33, 34, 35, 36, 37, 38)
FLEXQ_WGMMA_TYPES("n128", 64, 64, 65, 66, 67, 68, 69, 70)
FLEXQ_WGMMA_TYPES("n176", 88, 88, 89, 90, 91, 92, 93, 94)
FLEXQ_WGMMA_TYPES("n192", 96, 96, 97, 98, 99, 100, 101, 102)
FLEXQ_WGMMA_TYPES("n256", 128, 128, 129, 130, 131, 132, 133, 134)

#undef FLEXQ_WGMMA_TYPES
#undef FLEXQ_WGMMA
#undef FLEXQ_C128
#undef FLEXQ_C96
#undef FLEXQ_C88
#undef FLEXQ_C64
#undef FLEXQ_C32
#undef FLEXQ_C16
#undef FLEXQ_C4
#undef FLEXQ_R96
#undef FLEXQ_R88
#undef FLEXQ_R64
#undef FLEXQ_R32
#undef FLEXQ_R16
#undef FLEXQ_TEN

}  // namespace flexq::ptx

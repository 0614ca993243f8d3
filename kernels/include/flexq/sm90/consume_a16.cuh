// 16-bit activations: weights become 16-bit operands in registers, scale included, while the
// products of the quad (32 columns) before run.
#pragma once

#include "flexq/convert.cuh"
#include "flexq/ptx/copy.cuh"
#include "flexq/sm90/epilogue.cuh"
#include "flexq/unpack.cuh"

namespace flexq::sm90 {

// Weights q s in fp16, rounded once: any scale. 0x6400 | byte is 1024 + 4 u; a quarter of it less 288
// is q, exactly.
struct SmallHalf16;
struct Half16 {
  using Small = SmallHalf16;
  struct Scale {
    u32 s;
  };
  static __device__ __forceinline__ Scale scale(u16 bits, Dtype type) {
    const u32 s = type == Dtype::F16 ? bits : float_to_half(load16(bits, type));
    return {s | s << 16};
  }
  static __device__ __forceinline__ u32 weights(u32 bytes, int selector, Scale k) {
    u32 v = __byte_perm(bytes, 0x64646464u, selector);
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(v) : "r"(0x34003400u), "r"(0xDC80DC80u));
    asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(v) : "r"(k.s));
    return v;
  }
  static __device__ __forceinline__ u32 prepare(u32 bytes) { return bytes; }
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b) {
    ptx::wgmma_f16(d, a, b, false);
  }
};

// The same numbers for scales below 2^-6, in one instruction less: a byte alone is the denormal number
// u 2^-22, and q s = u s - 32 s = (u 2^-22) (s 2^22) - 32 s, whose last two factors are exact.
struct SmallHalf16 : Half16 {
  static constexpr bool kSmall = true;
  struct Scale {
    u32 up, offset;
  };
  static __device__ __forceinline__ Scale scale(u16 bits, Dtype type) {
    const u32 s = Half16::scale(bits, type).s;
    Scale k;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(k.up) : "r"(s), "r"(0x68006800u));  // by 2^11
    asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(k.up) : "r"(0x68006800u));
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(k.offset) : "r"(s), "r"(0xD000D000u));
    return k;
  }
  static __device__ __forceinline__ u32 weights(u32 bytes, int selector, Scale k) {
    u32 v = __byte_perm(bytes, 0, selector);
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(v) : "r"(k.up), "r"(k.offset));
    return v;
  }
  // A scale of this type, without its sign, and all above it are too large.
  static __device__ __forceinline__ u32 limit(Dtype type) {
    return type == Dtype::F16 ? 0x2400 : 0x3C80;
  }
};

// Weights q s in bf16. 0x4300 | byte / 2 is 128 + 2 u; half of it less 96 is q, exactly. The
// scale is a sum of two bf16 numbers, since one would round it: s = high + low.
struct Bfloat16 {
  using Small = Bfloat16;
  static constexpr bool kSmall = false;
  struct Scale {
    u32 high, low;
  };
  static __device__ __forceinline__ Scale scale(u16 bits, Dtype type) {
    const float s = load16(bits, type);
    const u32 high = float_to_bfloat(s), low = float_to_bfloat(s - bfloat_to_float(high));
    return {high | high << 16, low | low << 16};
  }
  static __device__ __forceinline__ u32 weights(u32 bytes, int selector, Scale k) {
    u32 q = __byte_perm(bytes, 0x43434343u, selector), v;
    asm("fma.rn.bf16x2 %0, %0, %1, %2;" : "+r"(q) : "r"(0x3F003F00u), "r"(0xC2C0C2C0u));
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(v) : "r"(q), "r"(k.low));
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(v) : "r"(q), "r"(k.high));
    return v;
  }
  static __device__ __forceinline__ u32 prepare(u32 bytes) { return bytes >> 1; }
  template <int n>
  static __device__ __forceinline__ void wgmma(float (&d)[n], const u32 (&a)[4], u32 b) {
    ptx::wgmma_bf16(d, a, b, false);
  }
};

template <class T, class Format>
class Consume16 {
  static_assert(T::kParts == 1, "a product is a tile high");

 public:
  __device__ __forceinline__ Consume16(const HopperArgs& a, const Ring<T>& ring, int group)
      : ring_(ring), a_(a), group_(group) {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const u32 first = ring.weights(0);
    weights_ = first + group * layout::kTileBytes + warp * layout::kBlockBytes + lane * 16;
    scales_ = first + T::kScales + (group * layout::kTileRows + warp * 16 + lane / 4) * 2;
    ptx::pin(weights_), ptx::pin(scales_);  // or they are computed again for every K block
  }

  // Looks at the scales of a piece, of rows from `row` on, while its first operands are on their way.
  __device__ __forceinline__ void begin(const Piece& p, int row) {
    if constexpr (kLooks) {
      const int n_pad = round_up(a_.n, layout::kTileRows);
      const u32 add = (0x8000 - Small::limit(a_.scale_type)) * 0x10001;
      u32 large = 0;
      if (row < n_pad) {
        const u16* from = a_.scales + row + threadIdx.x % 8 * 8;
        // Those of 64 K blocks are on their way at a time.
        for (int first = p.begin + threadIdx.x % 128 / 8; first < p.end; first += 64) {
          uint4 s[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int block = first + 16 * i;
            s[i] = block < p.end ? __ldg(reinterpret_cast<const uint4*>(from + u64(block) * n_pad))
                                 : uint4{};
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            large |= (s[i].x & 0x7FFF7FFFu) + add | (s[i].y & 0x7FFF7FFFu) + add |
                     (s[i].z & 0x7FFF7FFFu) + add | (s[i].w & 0x7FFF7FFFu) + add;
          }
        }
      }
      small_ = !ptx::named_any(1 + group_, 128, (large & 0x80008000u) != 0);
    }
  }

  __device__ __forceinline__ void run(int blocks, Sums<T>& sum) {
    zero<T>(sum);
    left_ = blocks;
    ready_ = x_ready_ = false;
    // Two whole loops: of a loop that chose, the compiler's is longer.
    if (kLooks && small_) multiply<Small>(sum);
    else multiply<Format>(sum);
    if constexpr (T::kJoint) released_ = x_;
    release();
    ptx::pin(sum);
  }

  __device__ __forceinline__ void finish(int, Sums<T>&) const {}

  // The next stage and its end, where others' sums are in it.
  __device__ __forceinline__ int next_stage() {
    if constexpr (T::kJoint) return ring_.next_x(at_);
    else return ring_.next_x(x_at_);
  }
  __device__ __forceinline__ void end_stage(int stage) {
    if constexpr (T::kJoint) ring_.release(stage);
    else ring_.release_sums(stage), released_ = x_at_.stage();
  }

 private:
  using Small = typename Format::Small;
  // Tiles that are joint are limited by instructions, larger ones by power.
  static constexpr bool kLooks = T::kJoint && Small::kSmall;
  static constexpr int kSteps = layout::kTileCols / 16 / layout::kQuads;
  // Quads of a stage of activations.
  static constexpr int kStageQuads = layout::kQuads / T::kElement * T::kBoxes;

  // What a K block's weights are made of.
  template <class F>
  struct Block {
    u32 words[3][4];
    u32 operands[2][kSteps][4];
    typename F::Scale scale[2];
  };

  template <class F>
  __device__ __forceinline__ void multiply(Sums<T>& sum) {
    Block<F> b;
    open(b);
    unpack<0>(b);
    block<true>(b, sum);
    while (left_ > 0) block<false>(b, sum);
    ptx::wgmma_wait<0>();
  }

  // One K block; its first operands are ready, and at the end those of the next are.
  template <bool first, class F>
  __device__ __forceinline__ void block(Block<F>& b, Sums<T>& sum) {
    --left_;
    quad<0>(b, sum);
    if constexpr (!first) release();
    ready_ = ptx::barrier_test(ring_.full(at_.stage()), at_.parity());
    unpack<1>(b);
    quad<1>(b, sum);
    unpack<2>(b);
    quad<2>(b, sum);
    if constexpr (kStageQuads == 2) release();
    unpack<3>(b);
    if (left_ > 0) open(b);
    quad<3>(b, sum);
    unpack<0>(b);
  }

  // Waits for the next weights and takes their words and scales.
  template <class F>
  __device__ __forceinline__ void open(Block<F>& b) {
    const int stage = at_.stage();
    if (!ready_) ptx::barrier_wait(ring_.full(stage), at_.parity());
    const u32 from = stage * T::kStageBytes;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      ptx::load_shared(b.words[c], weights_ + from + c * layout::kChunkBytes);
    }
    b.scale[0] = F::scale(ptx::load_shared_u16(scales_ + from), a_.scale_type);
    b.scale[1] = F::scale(ptx::load_shared_u16(scales_ + from + 16), a_.scale_type);
    if constexpr (T::kJoint) released_ = x_, x_ = stage;  // and its activations, for the products
    else ring_.release(stage);
    at_.advance();
  }

  // Starts the products of quad j and waits for those of the quad before.
  template <int j, class F>
  __device__ __forceinline__ void quad(Block<F>& b, Sums<T>& sum) {
    if constexpr (j % kStageQuads == 0) {
      if constexpr (!T::kJoint) {
        x_ = x_at_.stage();
        if (!x_ready_) ptx::barrier_wait(ring_.x_full(x_), x_at_.parity());
        x_at_.advance();
      }
      operand_ = ptx::wgmma_operand(ring_.x(x_));
    }
    ptx::wgmma_fence();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int step = j % kStageQuads * kSteps + i;
      F::wgmma(sum[0], b.operands[j % 2][i],
               operand_ + step / 4 * (T::kBoxBytes / 16) + step % 4 * 2);
    }
    ptx::wgmma_commit();
    if constexpr (!T::kJoint && (j + 1) % kStageQuads == 0) {
      x_ready_ = ptx::barrier_test(ring_.x_full(x_at_.stage()), x_at_.parity());
    }
    ptx::wgmma_wait<1>();
  }

  // The operands of quad j: byte-words B(2 s) and B(2 s + 1) are those of step s.
  template <int j, class F>
  __device__ __forceinline__ void unpack(Block<F>& b) {
    const auto word = [&](int i) { return b.words[(3 * j + i) / 4][(3 * j + i) % 4]; };
    const u32 w[3] = {word(0), word(1), word(2)};
    u32 bytes[4];
    byte_words<0>(w, bytes);
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      u32(&operand)[4] = b.operands[j % 2][s];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const u32 v = F::prepare(bytes[2 * s + h]);
        operand[h] = F::weights(v, 0x4140, b.scale[h]);
        operand[h + 2] = F::weights(v, 0x4342, b.scale[h]);
      }
      ptx::pin(operand);
    }
  }

  // Gives back the activations whose last products are complete.
  __device__ __forceinline__ void release() {
    if constexpr (T::kJoint) {
      ring_.release(released_);
    } else {
      ring_.release_x(released_);
      released_ = released_ + 1 == T::kXStages ? 0 : released_ + 1;
    }
  }

  Ring<T> ring_;
  const HopperArgs& a_;
  int group_;
  u32 weights_, scales_, operand_ = 0;
  Cursor<T::kStages, false> at_;  // two numbers: the loop is faster
  Cursor<T::kXStages, false> x_at_;
  i32 x_ = 0, released_ = 0, left_ = 0;
  bool ready_ = false, x_ready_ = false, small_ = false;
};

}  // namespace flexq::sm90

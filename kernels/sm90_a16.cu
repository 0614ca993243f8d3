// Many rows on Hopper, 16-bit activations, one weight scale per 128 columns.
// Names: n<columns of N>_m<rows of M> of a tile; two consumer warp groups.
#include "flexq/sm90/consume_a16.cuh"
#include "flexq/sm90/product.cuh"

namespace flexq::sm90 {
template <class T>
using ConsumeHalf = Consume16<T, Half16>;
template <class T>
using ConsumeBfloat = Consume16<T, Bfloat16>;
}  // namespace flexq::sm90

#define FLEXQ_SM90(name, consumer, row_blocks, rows, stages)                                 \
  extern "C" __global__ void __launch_bounds__(384, 1)                                       \
      flexq_sm90_##name(const __grid_constant__ flexq::HopperArgs a) {                       \
    flexq::sm90::product<flexq::sm90::Tile<row_blocks, rows, 2, 1, stages, 2>,            \
                         flexq::sm90::consumer>(a);                                          \
  }

FLEXQ_SM90(f16_n128_m32, ConsumeHalf, 1, 32, 8)
FLEXQ_SM90(f16_n128_m64, ConsumeHalf, 1, 64, 6)
FLEXQ_SM90(f16_n128_m128, ConsumeHalf, 1, 128, 4)
FLEXQ_SM90(f16_n256_m128, ConsumeHalf, 2, 128, 3)
FLEXQ_SM90(bf16_n128_m32, ConsumeBfloat, 1, 32, 8)
FLEXQ_SM90(bf16_n128_m64, ConsumeBfloat, 1, 64, 6)
FLEXQ_SM90(bf16_n128_m128, ConsumeBfloat, 1, 128, 4)
FLEXQ_SM90(bf16_n256_m128, ConsumeBfloat, 2, 128, 3)

// Many rows on Hopper, int8 activations, one weight scale per 128 columns.
// Names: s8r one activation scale per row, s8b one per (row, 128 columns); n, m as in sm90_a16.cu.
#include "flexq/sm90/consume_a8.cuh"
#include "flexq/sm90/product.cuh"

#define FLEXQ_SM90(name, row_blocks, rows, stages, by_block)                                 \
  extern "C" __global__ void __launch_bounds__(384, 1)                                       \
      flexq_sm90_##name(const __grid_constant__ flexq::HopperArgs a) {                       \
    flexq::sm90::product<flexq::sm90::Tile<row_blocks, rows, 2, 1, stages, 1, by_block>,  \
                         flexq::sm90::Consume8>(a);                                          \
  }

FLEXQ_SM90(s8r_n128_m64, 1, 64, 8, false)
FLEXQ_SM90(s8r_n128_m256, 1, 256, 4, false)
FLEXQ_SM90(s8b_n128_m64, 1, 64, 8, true)
FLEXQ_SM90(s8b_n128_m256, 1, 256, 4, true)

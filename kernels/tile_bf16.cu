// Any M on every card from Ampere on, bf16 activations, dense and grouped by expert.
#include "flexq/tile.cuh"

#define FLEXQ_TILE(name, rows, segments, stages)                                              \
  extern "C" __global__ void __launch_bounds__(flexq::tile::kThreads, 1)                      \
      flexq_tile_bf16_##name(const __grid_constant__ flexq::TileArgs a) {                     \
    flexq::tile_product<flexq::tile::BF16, rows, segments, stages>(a);                          \
  }                                                                                           \
  extern "C" __global__ void __launch_bounds__(flexq::tile::kThreads, 1)                      \
      flexq_grouped_bf16_##name(const __grid_constant__ flexq::TileArgs a) {                  \
    flexq::tile_grouped_product<flexq::tile::BF16, rows, segments, stages>(a);                  \
  }

FLEXQ_TILE(g128_m64, 64, 1, 3)
FLEXQ_TILE(g64_m64, 64, 2, 3)
FLEXQ_TILE(g32_m64, 64, 4, 3)

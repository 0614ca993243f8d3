// Dynamic quantization of activations (A8, A6).
#include "flexq/activations.cuh"

// `way` quantizes activations of one type.
#define FLEXQ_QUANTIZE(name, blocks, way, ...)                                  \
  extern "C" __global__ void __launch_bounds__(256, blocks)                     \
      flexq_quantize_##name(const __grid_constant__ flexq::QuantizeArgs a) {    \
    using flexq::Dtype;                                                         \
    if (!a.late) flexq::ptx::launch_dependents();                               \
    flexq::ptx::wait_for_previous();                                            \
    if (a.late) flexq::ptx::launch_dependents();                                \
    if (a.x_type == Dtype::BF16) {                                              \
      flexq::activations::way<Dtype::BF16 __VA_ARGS__>(a);                      \
    } else {                                                                    \
      flexq::activations::way<Dtype::F16 __VA_ARGS__>(a);                       \
    }                                                                           \
  }

FLEXQ_QUANTIZE(blocks, 4, by_block, , true)
FLEXQ_QUANTIZE(blocks_unaligned, 4, by_block, , false)
FLEXQ_QUANTIZE(rows_4096, 5, by_short_row, , 1)
FLEXQ_QUANTIZE(rows_8192, 4, by_short_row, , 2)
FLEXQ_QUANTIZE(rows_32768, 2, by_short_row, , 8)
FLEXQ_QUANTIZE(rows, 4, by_row)

// A kernel of activations.cuh: `way` for either type of activations, `blocks` of threads a multiprocessor.
#pragma once

#include "flexq/activations.cuh"

#define FLEXQ_QUANTIZE(name, blocks, way, ...)                               \
  extern "C" __global__ void __launch_bounds__(256, blocks)                  \
      flexq_quantize_##name(const __grid_constant__ flexq::QuantizeArgs a) { \
    using flexq::Dtype;                                                      \
    if (!a.late) flexq::ptx::launch_dependents();                            \
    flexq::ptx::wait_for_previous();                                         \
    if (a.late) flexq::ptx::launch_dependents();                             \
    if (a.x_type == Dtype::BF16) {                                           \
      flexq::activations::way<Dtype::BF16 __VA_ARGS__>(a);                   \
    } else {                                                                 \
      flexq::activations::way<Dtype::F16 __VA_ARGS__>(a);                    \
    }                                                                        \
  }

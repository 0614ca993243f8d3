// Dynamic quantization of activations (A8, A6).
#include "flexq/activations.cuh"

extern "C" __global__ void __launch_bounds__(256)
    flexq_quantize_activations(const __grid_constant__ flexq::QuantizeArgs a) {
  if (!a.late) flexq::ptx::launch_dependents();
  flexq::ptx::wait_for_previous();
  if (a.late) flexq::ptx::launch_dependents();
  if (a.per_row) {
    flexq::activations::by_row(a);
  } else {
    flexq::activations::by_block(a);
  }
}

// Repacking at load, dequantization, and gathering of rows for embeddings.
#include "flexq/order.cuh"

extern "C" __global__ void __launch_bounds__(256)
    flexq_repack(const __grid_constant__ flexq::RepackArgs a) {
  flexq::order::repack(a);
}

extern "C" __global__ void __launch_bounds__(256)
    flexq_repack_scales(const __grid_constant__ flexq::RepackScalesArgs a) {
  flexq::order::repack_scales(a);
}

extern "C" __global__ void __launch_bounds__(256)
    flexq_restore(const __grid_constant__ flexq::RestoreArgs a) {
  flexq::order::restore(a);
}

extern "C" __global__ void __launch_bounds__(256)
    flexq_dequantize(const __grid_constant__ flexq::DequantizeArgs a) {
  flexq::order::dequantize(a);
}

extern "C" __global__ void __launch_bounds__(256)
    flexq_gather(const __grid_constant__ flexq::GatherArgs a) {
  flexq::order::gather(a);
}

// Dynamic quantization of activations (A8, A6), a scale for every (row, 128 columns).
#include "flexq/activations_kernel.cuh"

FLEXQ_QUANTIZE(blocks, 5, by_block, , true)
FLEXQ_QUANTIZE(blocks_unaligned, 4, by_block, , false)

// Dynamic quantization of activations (A8, A6), one scale a row: longer rows, and any.
#include "flexq/activations_kernel.cuh"

FLEXQ_QUANTIZE(rows_32768, 2, by_short_row, , 8)
FLEXQ_QUANTIZE(rows, 4, by_row)

// Dynamic quantization of activations (A8, A6), one scale a row: long rows that stay in registers.
#include "flexq/activations_kernel.cuh"

FLEXQ_QUANTIZE(rows_16384, 4, by_short_row, , 4)
FLEXQ_QUANTIZE(rows_28672, 3, by_short_row, , 7)

// Dynamic quantization of activations (A8, A6), one scale a row: rows that stay in registers.
#include "flexq/activations_kernel.cuh"

FLEXQ_QUANTIZE(rows_4096, 5, by_short_row, , 1)
FLEXQ_QUANTIZE(rows_8192, 4, by_short_row, , 2)

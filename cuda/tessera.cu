/* All kernels as one unit: one module to load. */
#include "attention.cu"
#include "conv_bf16.cu"
#include "conv_e4m3.cu"
#include "conv_f16.cu"
#include "conv_u8.cu"
#include "move.cu"
#include "norm.cu"

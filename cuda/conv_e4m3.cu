/* Convolutions with e4m3 activations and weights. Hopper would emulate this instruction, slower than
 * f16: there is no such kernel there. */
#include "conv.h"

#if defined(TSR_SHIM) || (__CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900)
#define X(...) TSR_CONV_KERNEL(e4m3, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
#undef X
#endif

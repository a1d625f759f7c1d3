/* Convolutions with e4m3 activations and weights. Hopper emulates mma of e4m3, slower than f16: there are only the
 * shapes that multiply by wgmma. */
#include "conv.h"

#if defined(TSR_SHIM) || (__CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900)
#define X(...) TSR_CONV_KERNEL(e4m3, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
#undef X
#endif

#ifdef TSR_CONV_HOPPER
#define X(...) TSR_CONV_KERNEL_H(e4m3, __VA_ARGS__)
TSR_CONV_SHAPES_8H(X)
#undef X
#endif

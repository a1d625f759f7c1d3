/* Convolutions with u8 activations and s8 weights. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(u8, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
#undef X

#ifdef TSR_CONV_HOPPER
#define X(...) TSR_CONV_KERNEL_H(u8, __VA_ARGS__)
TSR_CONV_SHAPES_8H(X)
#undef X
#endif

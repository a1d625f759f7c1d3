/* Convolutions with f16 operands. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(f16, __VA_ARGS__)
TSR_CONV_SHAPES(X)
#undef X

#ifdef TSR_CONV_HOPPER
#define X(...) TSR_CONV_KERNEL_H(f16, __VA_ARGS__)
TSR_CONV_SHAPES_H(X)
#undef X
#endif

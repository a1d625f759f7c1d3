/* Convolutions with u8 activations and s8 weights. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(u8, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
#undef X

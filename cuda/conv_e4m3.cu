/* Convolutions with e4m3 activations. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(e4m3, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
#undef X

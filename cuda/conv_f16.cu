/* Convolutions with f16 operands. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(f16, __VA_ARGS__)
TSR_CONV_SHAPES(X)
#undef X

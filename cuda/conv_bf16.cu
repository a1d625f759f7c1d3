/* Convolutions with bf16 operands. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(bf16, __VA_ARGS__)
TSR_CONV_SHAPES(X)
#undef X

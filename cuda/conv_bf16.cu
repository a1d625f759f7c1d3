/* Convolutions with bf16 operands: of what norms and attention give. */
#include "conv.h"

#define X(...) TSR_CONV_KERNEL(bf16, __VA_ARGS__)
TSR_CONV_SHAPES_8(X)
TSR_CONV_SHAPES_16(X)
#undef X

#ifdef TSR_CONV_HOPPER
#define X(...) TSR_CONV_KERNEL_H(bf16, __VA_ARGS__)
    TSR_CONV_SHAPES_8H(X)
#undef X
#endif

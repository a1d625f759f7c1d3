/* What kernelcheck and the check of a GPU run kernels on: one op each. */
#ifndef TSR_TESTS_KERNEL_SPEC_H
#define TSR_TESTS_KERNEL_SPEC_H

#include "model/program.h"

typedef struct spec {
    tsr_op_kind kind;
    int cin, cout, nt, h, w;       /* h, w of the input */
    int kt, k, st, s, top, bottom; /* CONV; kernels are square, left = top, right = bottom */
    int phases, out_dt;
    bool accumulate, silu, replicate;
    bool in_place; /* NORM: reads what lies in out */
    int y0, ny;    /* rows of the output; ny 0: all */
    tsr_dtype in, out;
    int shift;          /* NORM: IN holds x times 2^-shift */
    tsr_quant quant[2]; /* of in and out, where they are of 8 bits */
    int whole,
        band; /* band number `band` of a picture of so many rows, h of the input with its halo; whole 0: no band */
} spec;

#define CONV(cin, cout, nt, h, w, kt, k, ...)                                                                          \
    { TSR_OP_CONV, cin, cout, nt, h, w, kt, k, 1, 1, (k) / 2, (k) / 2, 1, 1, __VA_ARGS__ }
#define DOWN(cin, cout, nt, h, w, kt, st)                                                                              \
    { TSR_OP_CONV, cin, cout, nt, h, w, kt, 3, st, 2, 0, 1, 1, 1, .ny = 0 }
#define UP(cin, cout, nt, h, w, kt, ...)                                                                               \
    { TSR_OP_CONV, cin, cout, nt, h, w, kt, 2, 1, 1, 1, 1, 4, __VA_ARGS__ }
#define PLAIN(kind, c, nt, h, w, ...)                                                                                  \
    { kind, c, c, nt, h, w, 1, 1, 1, 1, 0, 0, 1, 1, __VA_ARGS__ }

extern const spec kernel_specs[];
extern const int kernel_spec_count;

#endif

/*
 * The table of ops a CPU tier fills, and what kernelcheck compares. Plain C first (the reference, every entry);
 * a faster tier overwrites what it does better.
 *
 * An op is bound once (primitives made, weights packed), then run many times without allocating.
 */
#ifndef TSR_OPS_H
#define TSR_OPS_H

#include "model/program.h"

/* Everything an op touches, resolved to pointers. Strides follow from the program's buffers. */
typedef struct tsr_op_io {
    const tsr_program *program;
    const tsr_op *op;
    const void *in;        /* the buffer `in`, its frame 0 (head frames lie before it) */
    void *out;             /* the buffer `out`, its frame 0 */
    const double *stats_in; /* NORM: [frames][groups][2] of the frames of the buffer */
    double *stats_out;     /* CONV with fused statistics; NULL otherwise */
    void *cache;           /* CACHE_* */
    const void *kernel;    /* packed by the same tier's pack() */
    const float *gamma, *beta; /* NORM: [c] */
    void *slot;            /* STORE */
    tsr_dtype slot_dtype;
    const float *input;    /* INPUT */
    void *scratch;         /* scratch_bytes() of it */
} tsr_op_io;

#endif

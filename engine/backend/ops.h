/*
 * The table of ops a CPU tier fills, and what kernelcheck compares. Plain C first (the reference,
 * every entry); a faster tier overrides what it does better.
 *
 * An op is bound once (primitives made) to kernels packed once, then run many times without
 * allocating.
 */
#ifndef TSR_OPS_H
#define TSR_OPS_H

#include "model/quantise.h"

#include <stdatomic.h>

/* A kernel as one tier keeps it. */
typedef struct tsr_packed {
    const tsr_kernel *kernel;
    const float *scale; /* u8 inputs, while packing: [cout], of the weights' codes */
    void *at;           /* kernel_bytes() bytes, 64-aligned; the caller's */
    void *layout;       /* the tier's own record of how it lies there; freed by unpack(). NULL: none */
} tsr_packed;

/* Everything an op touches, resolved to pointers. Strides follow from the program's buffers. */
typedef struct tsr_op_io {
    const tsr_program *program;
    const tsr_op *op;
    int band;                    /* of an op in a section: which */
    void *bound;                 /* from the tier's bind(); NULL where it has none */
    const void *in;              /* the buffer `in`, its frame 0 (head frames lie before it) */
    void *out;                   /* the buffer `out`, its frame 0 */
    const double *stats_in;      /* NORM: the statistics' buffer, of frames in.t0.. */
    tsr_code_range *range;       /* of the u8 codes that the op reads (CONV, CACHE_SAVE) or writes (NORM,
                                    CACHE_LOAD) */
    const float *gain;           /* NORM to u8: [c] */
    void *cache;                 /* CACHE_*, CONV with op->cache >= 0 */
    tsr_code_range *cache_range; /* of its u8 codes */
    const tsr_packed *kernel;    /* CONV: packed by the same tier */
    const float *gamma, *beta;   /* NORM: [c] */
    void *slot;                  /* STORE: [out_frames][out_c][out_h][out_w] */
    tsr_dtype slot_dtype;
    atomic_llong *not_finite; /* STORE: NaN and infinite numbers are counted here */
    const atomic_bool *stop;  /* raised: the result is not wanted, and long ops leave it unfinished. NULL: never */
    const float *input;       /* INPUT: [in_frames][in_h][in_w][in_c] */
    void *scratch;            /* scratch() bytes, 64-aligned; holds nothing between runs */
} tsr_op_io;

static inline bool tsr_io_stopped(const tsr_op_io *io) {
    return io->stop && atomic_load_explicit(io->stop, memory_order_relaxed);
}

/* Where frame t of a statistics' buffer begins, in doubles. */
static inline ptrdiff_t tsr_io_stats_at(const tsr_buffer *stats, int t) {
    return (ptrdiff_t)t * stats->w * 2;
}
/* The range that lies in a cache of u8 codes. */
static inline tsr_code_range *tsr_cache_range(const tsr_cache *c, void *at) {
    return (tsr_code_range *)((char *)at + c->bytes - TSR_CACHE_RANGE);
}
/* The rows of a view that are the picture's: not all where a band reaches past an end. */
static inline void tsr_io_rows(const tsr_op_io *io, tsr_view v, int *begin, int *end) {
    const tsr_buffer *b = &io->program->buffer[v.buf];
    int first = tsr_picture_begin(b, io->band), last = first + tsr_picture_rows(b);
    *begin = v.y0 > first ? v.y0 : first;
    *end = v.y0 + v.ny < last ? v.y0 + v.ny : last;
    if (*end < *begin)
        *end = *begin;
}
/* NORM to u8: *io->range from statistics and the cache. */
void tsr_io_choose_range(const tsr_op_io *io);

/* One way to run one kind of op. */
typedef struct tsr_op_impl {
    /* Which ops of the kind it runs. NULL: all. */
    bool (*can)(const tsr_program *p, const tsr_op *op);
    size_t (*scratch)(const tsr_program *p, const tsr_op *op); /* NULL: none */
    tsr_status (*bind)(
        void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel); /* NULL: nothing to do */
    void (*unbind)(void *bound);
    tsr_status (*run)(const tsr_op_io *io); /* NULL: the tier lacks the kind */
} tsr_op_impl;

/* y[m][n] = x[m][k] w[k][n], rows without gaps. */
typedef void (*tsr_codes_gemm_fn)(int m, int n, int k, const uint8_t *x, const int8_t *w, int32_t *y);

typedef struct tsr_tier {
    const char *name;
    bool (*here)(void); /* the machine has what it needs. NULL: always */
    tsr_op_impl op[TSR_OP_KINDS];

    tsr_sgemm_fn gemm;            /* its matrix product, NULL: none */
    tsr_codes_gemm_fn codes_gemm; /* of codes, NULL: none; bench holds their convolutions against it */
    /* Tiers with CONV. Bytes of a kernel however it is laid out, and the packing: weights and
     * biases as tsr_kernel_fold and tsr_quantise_kernel leave them, for the shapes of `op`, one of
     * those that will use it. */
    size_t (*kernel_bytes)(const tsr_kernel *k, tsr_dtype input);
    tsr_status (*pack)(
        tsr_packed *k, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases);
    void (*unpack)(tsr_packed *k);
    /* Whether pack() would lay it out for this op as it lies. NULL: always. */
    bool (*packed_for)(const tsr_packed *k, const tsr_program *p, const tsr_op *op);
    bool (*beats_f32)(void); /* with codes, the fastest of f32 here. NULL: wherever it has them */
} tsr_tier;

/* The tiers this machine can run: 0 is the reference, faster ones follow. NULL past the last. */
const tsr_tier *tsr_tier_at(int i);
/* Of the first `tiers`: the fastest that runs the op, and the fastest matrix products. */
const tsr_tier *tsr_tier_for(int tiers, const tsr_program *p, const tsr_op *op);
tsr_sgemm_fn tsr_tier_gemm(int tiers);
tsr_codes_gemm_fn tsr_tier_codes_gemm(int tiers); /* NULL: none has one */

#endif

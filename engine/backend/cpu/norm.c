/*
 * Group statistics and norm of f32 buffers, at memory bandwidth: the loops of simd.h over pieces of
 * frames. Sums are gathered in double, per channel and piece, and added up in a fixed order
 * whatever the number of threads.
 */
#include "backend/cpu/simd.h"

#include <math.h>
#include <string.h>

enum { PIECES = 16 }; /* of a frame */

static bool plain_f32(const tsr_buffer *b) {
    return b->dtype == TSR_F32 && b->quant < 0;
}

/* ---------------------------------------------------------------- STATS */

static bool stats_can(const tsr_program *p, const tsr_op *op) {
    return plain_f32(&p->buffer[op->in.buf]);
}

/* Scratch: [nt][PIECES][sum, squares][c], double. */
static size_t stats_scratch(const tsr_program *p, const tsr_op *op) {
    return (size_t)op->in.nt * PIECES * 2 * (size_t)p->buffer[op->in.buf].c * sizeof(double);
}

static void stats_pieces(void *ctx, size_t begin, size_t end) { /* of [nt][PIECES] */
    const tsr_op_io *io = ctx;
    const tsr_simd *simd = io->bound;
    const tsr_buffer *in = &io->program->buffer[io->op->in.buf];
    size_t c = (size_t)in->c, pixels = (size_t)in->h * (size_t)in->w;
    for (size_t i = begin; i < end; i++) {
        size_t t = i / PIECES, first = pixels * (i % PIECES) / PIECES,
               last = pixels * (i % PIECES + 1) / PIECES;
        const float *x = (const float *)io->in +
                         ((ptrdiff_t)io->op->in.t0 + (ptrdiff_t)t) * (ptrdiff_t)(pixels * c);
        double *sum = (double *)io->scratch + i * 2 * c;
        memset(sum, 0, 2 * c * sizeof *sum);
        simd->sums(x + first * c, last - first, in->c, sum, sum + c);
    }
}

static tsr_status stats_run(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    size_t c = (size_t)io->program->buffer[op->in.buf].c, size = c / TSR_GROUPS;
    tsr_parallel_for((size_t)op->in.nt * PIECES, 1, stats_pieces, (void *)io);
    for (size_t t = 0; t < (size_t)op->in.nt; t++)
        for (size_t g = 0; g < TSR_GROUPS; g++) {
            const double *piece = (const double *)io->scratch + t * PIECES * 2 * c;
            double sum = 0, squares = 0;
            for (size_t i = 0; i < PIECES; i++, piece += 2 * c)
                for (size_t j = g * size; j < (g + 1) * size; j++) {
                    sum += piece[j];
                    squares += piece[c + j];
                }
            double *out = (double *)io->out + (((size_t)op->out.t0 + t) * TSR_GROUPS + g) * 2;
            out[0] = sum;
            out[1] = squares;
        }
    return TSR_OK;
}

/* ---------------------------------------------------------------- NORM */

static bool norm_can(const tsr_program *p, const tsr_op *op) {
    return plain_f32(&p->buffer[op->in.buf]) && plain_f32(&p->buffer[op->out.buf]);
}

/* Scratch: [nt][scale, shift][c], float. */
static size_t norm_scratch(const tsr_program *p, const tsr_op *op) {
    return (size_t)op->in.nt * 2 * (size_t)p->buffer[op->in.buf].c * sizeof(float);
}

/* Norm and affine of a frame as one scale and shift a channel. */
static void fold_affine(const tsr_op_io *io, const double *stats, float *scale, float *shift) {
    const tsr_buffer *in = &io->program->buffer[io->op->in.buf];
    int size = in->c / TSR_GROUPS;
    double count = (double)size * in->h * in->w;
    for (int g = 0; g < TSR_GROUPS; g++) {
        double mean = stats[g * 2] / count, variance = stats[g * 2 + 1] / count - mean * mean;
        if (variance < 0) /* by rounding; NaN stays */
            variance = 0;
        double factor = 1 / sqrt(variance + TSR_NORM_EPS);
        for (int c = g * size; c < (g + 1) * size; c++) {
            scale[c] = (float)(factor * (double)io->gamma[c]);
            shift[c] = (float)((double)io->beta[c] - mean * factor * (double)io->gamma[c]);
        }
    }
}

static void norm_rows(void *ctx, size_t begin, size_t end) { /* of [nt][rows] */
    const tsr_op_io *io = ctx;
    const tsr_op *op = io->op;
    const tsr_simd *simd = io->bound;
    const tsr_buffer *in = &io->program->buffer[op->in.buf];
    size_t rows = (size_t)op->in.ny, row = (size_t)in->w * (size_t)in->c;
    while (begin < end) { /* all rows of one frame at once */
        size_t t = begin / rows, y = begin % rows,
               n = rows - y < end - begin ? rows - y : end - begin;
        ptrdiff_t from = ((ptrdiff_t)op->in.t0 + (ptrdiff_t)t) * in->h + op->in.y0 + (ptrdiff_t)y;
        ptrdiff_t to = ((ptrdiff_t)op->out.t0 + (ptrdiff_t)t) * in->h + op->out.y0 + (ptrdiff_t)y;
        const float *scale = (const float *)io->scratch + t * 2 * (size_t)in->c;
        simd->affine((const float *)io->in + from * (ptrdiff_t)row,
            (float *)io->out + to * (ptrdiff_t)row, n * (size_t)in->w, in->c, scale, scale + in->c,
            op->silu);
        begin += n;
    }
}

static tsr_status norm_run(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    size_t c = (size_t)io->program->buffer[op->in.buf].c;
    for (size_t t = 0; t < (size_t)op->in.nt; t++) {
        float *scale = (float *)io->scratch + t * 2 * c;
        fold_affine(io, io->stats_in + t * TSR_GROUPS * 2, scale, scale + c);
    }
    tsr_parallel_for((size_t)op->in.nt * (size_t)op->in.ny, 4, norm_rows, (void *)io);
    return TSR_OK;
}

/* ---------------------------------------------------------------- tiers */

static void unbind(void *bound) {
    (void)bound;
}

/* A tier for each instruction set: what an op is bound to is the table of loops. */
#define TIER(suffix, title, check)                                                                 \
    static tsr_status bind_##suffix(                                                               \
        void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel) {          \
        (void)p, (void)op, (void)kernel;                                                           \
        *bound = (void *)&tsr_simd_##suffix;                                                       \
        return TSR_OK;                                                                             \
    }                                                                                              \
    const tsr_tier tsr_tier_##suffix = {                                                           \
        .name = title,                                                                             \
        .here = check,                                                                             \
        .op =                                                                                      \
            {                                                                                      \
                [TSR_OP_STATS] = {stats_can, stats_scratch, bind_##suffix, unbind, stats_run},     \
                [TSR_OP_NORM] = {norm_can, norm_scratch, bind_##suffix, unbind, norm_run},         \
            },                                                                                     \
    };

TIER(baseline, "vectors", NULL)

#ifdef __x86_64__
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

TIER(avx2, "AVX2", has_avx2)
TIER(avx512, "AVX-512", has_avx512)
#endif

const tsr_simd *tsr_simd_best(void) {
#ifdef __x86_64__
    if (has_avx512())
        return &tsr_simd_avx512;
    if (has_avx2())
        return &tsr_simd_avx2;
#endif
    return &tsr_simd_baseline;
}

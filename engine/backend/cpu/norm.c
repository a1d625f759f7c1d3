/*
 * Group statistics and norm of f32 buffers, to f32 or u8 codes, at memory bandwidth: the loops of
 * simd.h over pieces of frames. Sums are gathered in double, per channel and piece, and added up in
 * a fixed order whatever the number of threads.
 */
#include "backend/cpu/simd.h"

#include <math.h>
#include <string.h>

enum { PIECES = 16 }; /* of a frame */

/* Codes whose range is chosen from statistics with the channels' extremes. */
static bool is_u8(const tsr_buffer *b) {
    return b->dtype == TSR_U8 && b->quant >= 0;
}

static bool plain_f32(const tsr_buffer *b) {
    return b->dtype == TSR_F32 && b->quant < 0;
}

/* ---------------------------------------------------------------- STATS */

static bool stats_can(const tsr_program *p, const tsr_op *op) {
    return plain_f32(&p->buffer[op->in.buf]);
}

static bool wants_extremes(const tsr_program *p, const tsr_op *op) {
    return p->buffer[op->out.buf].w > TSR_GROUPS;
}

/* Doubles of a piece's scratch: sum [c], squares [c]; with extremes, least [c] and most [c] in
 * float. */
static size_t piece_of(const tsr_program *p, const tsr_op *op) {
    return (wants_extremes(p, op) ? 3 : 2) * (size_t)p->buffer[op->in.buf].c;
}

static size_t stats_scratch(const tsr_program *p, const tsr_op *op) {
    return (size_t)op->in.nt * PIECES * piece_of(p, op) * sizeof(double);
}

static void stats_pieces(void *ctx, size_t begin, size_t end) { /* of [nt][PIECES] */
    const tsr_op_io *io = ctx;
    const tsr_simd *simd = io->bound;
    const tsr_buffer *in = &io->program->buffer[io->op->in.buf];
    int y0, y1;
    tsr_io_rows(io, io->op->in, &y0, &y1);
    size_t c = (size_t)in->c, pixels = (size_t)(y1 - y0) * (size_t)in->w, piece = piece_of(io->program, io->op);
    for (size_t i = begin; i < end; i++) {
        size_t t = i / PIECES, first = pixels * (i % PIECES) / PIECES, last = pixels * (i % PIECES + 1) / PIECES;
        const float *x =
            (const float *)io->in + (((ptrdiff_t)io->op->in.t0 + (ptrdiff_t)t) * in->h + y0) * in->w * in->c;
        double *sum = (double *)io->scratch + i * piece;
        memset(sum, 0, 2 * c * sizeof *sum);
        if (piece == 2 * c) {
            simd->sums(x + first * c, last - first, in->c, sum, sum + c);
            continue;
        }
        float *least = (float *)(sum + 2 * c), *most = least + c;
        for (size_t j = 0; j < c; j++) {
            least[j] = INFINITY;
            most[j] = -INFINITY;
        }
        simd->extremes(x + first * c, last - first, in->c, sum, sum + c, least, most);
    }
}

static void join_extremes(const tsr_op_io *io, size_t t, double *out) {
    size_t c = (size_t)io->program->buffer[io->op->in.buf].c;
    for (size_t j = 0; j < c; j++) {
        float least = io->band ? (float)out[2 * j] : INFINITY, most = io->band ? (float)out[2 * j + 1] : -INFINITY;
        for (size_t i = 0; i < PIECES; i++) {
            const float *piece = (const float *)((const double *)io->scratch + (t * PIECES + i) * 3 * c + 2 * c);
            least = piece[j] < least ? piece[j] : least;
            most = piece[c + j] > most ? piece[c + j] : most;
        }
        out[2 * j] = (double)least;
        out[2 * j + 1] = (double)most;
    }
}

static tsr_status stats_run(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    const tsr_buffer *to = &io->program->buffer[op->out.buf];
    size_t c = (size_t)io->program->buffer[op->in.buf].c, size = c / TSR_GROUPS, length = piece_of(io->program, op);
    tsr_parallel_for((size_t)op->in.nt * PIECES, 1, stats_pieces, (void *)io);
    for (size_t t = 0; t < (size_t)op->in.nt; t++) {
        double *frame = (double *)io->out + tsr_io_stats_at(to, op->out.t0 + (int)t);
        for (size_t g = 0; g < TSR_GROUPS; g++) {
            const double *piece = (const double *)io->scratch + t * PIECES * length;
            double sum = io->band ? frame[2 * g] : 0, squares = io->band ? frame[2 * g + 1] : 0;
            for (size_t i = 0; i < PIECES; i++, piece += length)
                for (size_t j = g * size; j < (g + 1) * size; j++) {
                    sum += piece[j];
                    squares += piece[c + j];
                }
            frame[2 * g] = sum;
            frame[2 * g + 1] = squares;
        }
        if (wants_extremes(io->program, op))
            join_extremes(io, t, frame + 2 * TSR_GROUPS);
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- NORM */

static bool norm_can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *out = &p->buffer[op->out.buf];
    return plain_f32(&p->buffer[op->in.buf]) && (plain_f32(out) || (is_u8(out) && p->quant[out->quant].scale == 0));
}

/* Scratch: [nt][scale, shift][c], then for codes gain [c], float. */
static size_t norm_scratch(const tsr_program *p, const tsr_op *op) {
    return (size_t)(2 * op->in.nt + 1) * (size_t)p->buffer[op->in.buf].c * sizeof(float);
}

static void norm_rows(void *ctx, size_t begin, size_t end) { /* of [nt][rows] */
    const tsr_op_io *io = ctx;
    const tsr_op *op = io->op;
    const tsr_simd *simd = io->bound;
    const tsr_buffer *in = &io->program->buffer[op->in.buf];
    const tsr_buffer *out = &io->program->buffer[op->out.buf];
    size_t rows = (size_t)op->in.ny, row = (size_t)in->w * (size_t)in->c, out_row = (size_t)out->w * (size_t)out->c;
    while (begin < end) { /* all rows of one frame at once */
        size_t t = begin / rows, y = begin % rows, n = rows - y < end - begin ? rows - y : end - begin;
        ptrdiff_t from = ((ptrdiff_t)op->in.t0 + (ptrdiff_t)t) * in->h + op->in.y0 + (ptrdiff_t)y;
        ptrdiff_t to = ((ptrdiff_t)op->out.t0 + (ptrdiff_t)t) * in->h + op->out.y0 + (ptrdiff_t)y;
        const float *scale = (const float *)io->scratch + t * 2 * (size_t)in->c;
        const float *x = (const float *)io->in + from * (ptrdiff_t)row;
        if (is_u8(out))
            simd->codes(x, (uint8_t *)io->out + to * (ptrdiff_t)out_row, n * (size_t)in->w, in->c,
                tsr_planes(io->program, op), scale, scale + in->c,
                (const float *)io->scratch + 2 * (size_t)op->in.nt * (size_t)in->c, io->range->zero, op->silu);
        else
            simd->affine(x, (float *)io->out + to * (ptrdiff_t)out_row, n * (size_t)in->w, in->c, scale, scale + in->c,
                op->silu);
        begin += n;
    }
}

static tsr_status norm_run(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    const tsr_buffer *in = &io->program->buffer[op->in.buf], *stats = &io->program->buffer[op->stats];
    size_t c = (size_t)in->c;
    for (size_t t = 0; t < (size_t)op->in.nt; t++) {
        float *scale = (float *)io->scratch + t * 2 * c;
        tsr_norm_affine(io->stats_in + tsr_io_stats_at(stats, (int)t),
            (double)in->c / TSR_GROUPS * tsr_picture_rows(in) * in->w, in->c, io->gamma, io->beta, tsr_norm_eps(in),
            scale, scale + c);
    }
    if (is_u8(&io->program->buffer[op->out.buf])) {
        tsr_io_choose_range(io);
        float *gain = (float *)io->scratch + 2 * (size_t)op->in.nt * c;
        for (size_t i = 0; i < c; i++)
            gain[i] = io->gain[i] / io->range->scale;
    }
    tsr_parallel_for((size_t)op->in.nt * (size_t)op->in.ny, 4, norm_rows, (void *)io);
    return TSR_OK;
}

/* ---------------------------------------------------------------- tiers */

static void unbind(void *bound) {
    (void)bound;
}

/* A tier for each instruction set: what an op is bound to is the table of loops. */
#define TIER(suffix, title, check)                                                                                     \
    static tsr_status bind_##suffix(void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel) {  \
        (void)p, (void)op, (void)kernel;                                                                               \
        *bound = (void *)&tsr_simd_##suffix;                                                                           \
        return TSR_OK;                                                                                                 \
    }                                                                                                                  \
    const tsr_tier tsr_tier_##suffix = {                                                                               \
        .name = title,                                                                                                 \
        .here = check,                                                                                                 \
        .op =                                                                                                          \
            {                                                                                                          \
                [TSR_OP_STATS] = {stats_can, stats_scratch, bind_##suffix, unbind, stats_run},                         \
                [TSR_OP_NORM] = {norm_can, norm_scratch, bind_##suffix, unbind, norm_run},                             \
            },                                                                                                         \
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

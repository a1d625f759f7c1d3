/* Group statistics, group norm, quantising: per frame, in double where numbers add up. */
#include "backend/cpu/ref.h"

#include <math.h>

/* ---------------------------------------------------------------- STATS */

static void stats_groups(void *ctx, size_t begin, size_t end) { /* of [nt][groups] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io);
    const tsr_view *v = &io->op->in;
    int size = in->c / TSR_GROUPS, y0, y1;
    float x[TSR_REF_CHUNK];
    tsr_io_rows(io, *v, &y0, &y1);
    for (size_t i = begin; i < end; i++) {
        int t = (int)(i / TSR_GROUPS), group = (int)(i % TSR_GROUPS);
        double *out = (double *)io->out + tsr_io_stats_at(tsr_io_out(io), io->op->out.t0 + t) + 2 * group;
        double sum = io->band ? out[0] : 0, squares = io->band ? out[1] : 0;
        for (int p = y0 * in->w; p < y1 * in->w; p++)
            for (int c = 0; c < size; c += TSR_REF_CHUNK) {
                int n = size - c < TSR_REF_CHUNK ? size - c : TSR_REF_CHUNK;
                tsr_ref_get(io->program, in, tsr_pixel(in, io->in, v->t0 + t, 0, p), group * size + c, n, x);
                for (int j = 0; j < n; j++) {
                    sum += (double)x[j];
                    squares += (double)x[j] * (double)x[j];
                }
            }
        out[0] = sum;
        out[1] = squares;
    }
}

static void channel_extremes(void *ctx, size_t begin, size_t end) { /* of [nt][c] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io);
    int y0, y1;
    tsr_io_rows(io, io->op->in, &y0, &y1);
    for (size_t i = begin; i < end; i++) {
        int t = (int)(i / (size_t)in->c), c = (int)(i % (size_t)in->c);
        double *out = (double *)io->out + tsr_io_stats_at(tsr_io_out(io), io->op->out.t0 + t) + 2 * (TSR_GROUPS + c);
        float x, least = io->band ? (float)out[0] : INFINITY, most = io->band ? (float)out[1] : -INFINITY;
        for (int p = y0 * in->w; p < y1 * in->w; p++) {
            tsr_ref_get(io->program, in, tsr_pixel(in, io->in, io->op->in.t0 + t, 0, p), c, 1, &x);
            least = x < least ? x : least; /* NaN is the sums' to tell */
            most = x > most ? x : most;
        }
        out[0] = (double)least;
        out[1] = (double)most;
    }
}

tsr_status tsr_ref_stats(const tsr_op_io *io) {
    tsr_parallel_for((size_t)io->op->in.nt * TSR_GROUPS, 1, stats_groups, (void *)io);
    if (tsr_io_out(io)->w > TSR_GROUPS)
        tsr_parallel_for((size_t)io->op->in.nt * (size_t)tsr_io_in(io)->c, 1, channel_extremes, (void *)io);
    return TSR_OK;
}

/* ---------------------------------------------------------------- NORM */

static float normalise(
    double x, const double stats[2], double count, double eps, double gamma, double beta, bool silu) {
    double mean = stats[0] / count, variance = stats[1] / count - mean * mean;
    if (variance < 0) /* by rounding; NaN stays */
        variance = 0;
    double y = (x - mean) / sqrt(variance + eps) * gamma + beta;
    return (float)(silu ? y / (1 + exp(-y)) : y);
}

static void norm_rows(void *ctx, size_t begin, size_t end) { /* of [nt][h] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io), *out = tsr_io_out(io);
    const tsr_view *from = &io->op->in, *to = &io->op->out;
    int size = in->c / TSR_GROUPS;
    double count = (double)size * tsr_picture_rows(in) * in->w;
    float v[TSR_REF_CHUNK];
    for (size_t r = begin; r < end; r++) {
        int t = (int)(r / (size_t)from->ny), y = (int)(r % (size_t)from->ny);
        const double *stats = io->stats_in + tsr_io_stats_at(&io->program->buffer[io->op->stats], t);
        for (int x = 0; x < in->w; x++)
            for (int c = 0; c < in->c; c += TSR_REF_CHUNK) {
                int n = in->c - c < TSR_REF_CHUNK ? in->c - c : TSR_REF_CHUNK;
                tsr_ref_get(io->program, in, tsr_pixel(in, io->in, from->t0 + t, from->y0 + y, x), c, n, v);
                for (int i = 0; i < n; i++)
                    v[i] = normalise((double)v[i], stats + (c + i) / size * 2, count, tsr_norm_eps(in),
                        (double)io->gamma[c + i], (double)io->beta[c + i], io->op->silu);
                tsr_ref_put(io->program, out, tsr_pixel(out, io->out, to->t0 + t, to->y0 + y, x), c, n, v);
            }
    }
}

/* The same to u8 codes, whose range is chosen first. Two planes are half the code each, rounded down and up. */
static void code_rows(void *ctx, size_t begin, size_t end) { /* of [nt][h] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io), *out = tsr_io_out(io), *stats = &io->program->buffer[io->op->stats];
    const tsr_view *from = &io->op->in, *to = &io->op->out;
    int size = in->c / TSR_GROUPS, planes = tsr_planes(io->program, io->op);
    double count = (double)size * tsr_picture_rows(in) * in->w;
    for (size_t r = begin; r < end; r++) {
        int t = (int)(r / (size_t)from->ny), y = (int)(r % (size_t)from->ny);
        const double *sums = io->stats_in + tsr_io_stats_at(stats, t);
        for (int x = 0; x < in->w; x++) {
            uint8_t *code = tsr_pixel(out, io->out, to->t0 + t, to->y0 + y, x);
            for (int c = 0; c < in->c; c++) {
                float v;
                tsr_ref_get(io->program, in, tsr_pixel(in, io->in, from->t0 + t, from->y0 + y, x), c, 1, &v);
                v = normalise((double)v, sums + c / size * 2, count, tsr_norm_eps(in), (double)io->gamma[c],
                    (double)io->beta[c], io->op->silu);
                v = rintf(v * (io->gain[c] / io->range->scale)) + (float)(planes * io->range->zero);
                for (int p = 0; p < planes; p++) /* 0 for NaN: the range says that */
                    code[p * in->c + c] = (uint8_t)fminf(255, fmaxf(0, floorf((v + (float)p) / (float)planes)));
            }
        }
    }
}

tsr_status tsr_ref_norm(const tsr_op_io *io) {
    if (tsr_ref_is_u8(io->program, io->op->out.buf)) {
        tsr_io_choose_range(io);
        tsr_parallel_for((size_t)io->op->in.nt * (size_t)io->op->in.ny, 1, code_rows, (void *)io);
        return TSR_OK;
    }
    tsr_parallel_for((size_t)io->op->in.nt * (size_t)io->op->in.ny, 1, norm_rows, (void *)io);
    return TSR_OK;
}

/* ---------------------------------------------------------------- QUANTISE */

static void quantise_rows(void *ctx, size_t begin, size_t end) { /* of [nt][h] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io), *out = tsr_io_out(io);
    const tsr_view *from = &io->op->in, *to = &io->op->out;
    float v[TSR_REF_CHUNK];
    for (size_t r = begin; r < end; r++) {
        int t = (int)(r / (size_t)from->ny), y = (int)(r % (size_t)from->ny);
        for (int x = 0; x < in->w; x++)
            for (int c = 0; c < in->c; c += TSR_REF_CHUNK) {
                int n = in->c - c < TSR_REF_CHUNK ? in->c - c : TSR_REF_CHUNK;
                tsr_ref_get(io->program, in, tsr_pixel(in, io->in, from->t0 + t, from->y0 + y, x), c, n, v);
                tsr_ref_put(io->program, out, tsr_pixel(out, io->out, to->t0 + t, to->y0 + y, x), c, n, v);
            }
    }
}

tsr_status tsr_ref_quantise(const tsr_op_io *io) {
    tsr_parallel_for((size_t)io->op->in.nt * (size_t)io->op->in.ny, 1, quantise_rows, (void *)io);
    return TSR_OK;
}

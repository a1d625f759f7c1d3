/*
 * Convolution as its definition says: for every output pixel, the sum over taps and input channels.
 * Blocked only so far that a weight that was loaded serves several pixels, and that the innermost
 * loop runs over output channels.
 *
 * Packed kernel: weights [phases][kt][kh][kw][cin][cout], then biases [phases][classes][cout], f32.
 */
#include "backend/cpu/ref.h"

#include <string.h>

enum { PIXELS = 8, CHANNELS = TSR_REF_CHUNK };

size_t tsr_ref_kernel_bytes(const tsr_kernel *k, tsr_dtype input) {
    if (input == TSR_U8)
        return tsr_ref_kernel_bytes8(k);
    return (tsr_kernel_weights(k) + tsr_kernel_biases(k)) * sizeof(float);
}

typedef struct packing {
    const float *from; /* [phases][cout][taps][cin] */
    float *to;
    size_t taps, cin, cout;
} packing;

static void pack_taps(void *ctx, size_t begin, size_t end) { /* of [phases][taps] */
    const packing *p = ctx;
    for (size_t i = begin; i < end; i++) {
        size_t phase = i / p->taps, tap = i % p->taps;
        float *to = p->to + i * p->cin * p->cout;
        for (size_t o = 0; o < p->cout; o++) {
            const float *from = p->from + ((phase * p->cout + o) * p->taps + tap) * p->cin;
            for (size_t c = 0; c < p->cin; c++)
                to[c * p->cout + o] = from[c];
        }
    }
}

tsr_status tsr_ref_pack(
    tsr_packed *packed, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases) {
    if (tsr_ref_is_u8(p, op->in.buf)) {
        tsr_ref_pack8(packed, weights, biases);
        return TSR_OK;
    }
    const tsr_kernel *k = packed->kernel;
    packing job = {weights, packed->at, (size_t)k->kt * (size_t)k->kh * (size_t)k->kw, (size_t)k->cin, (size_t)k->cout};
    tsr_parallel_for((size_t)k->phases * job.taps, 1, pack_taps, &job);
    memcpy(job.to + tsr_kernel_weights(k), biases, tsr_kernel_biases(k) * sizeof *biases);
    return TSR_OK;
}

/* A run of output pixels of one row and phase, and output channels [o0, o0 + no). */
typedef struct run {
    const tsr_op_io *io;
    const tsr_kernel *k;
    int frame, row; /* which output of the op; row: before phases spread them */
    int p, r;       /* phase; 0 where there is one */
    int x, nx;      /* columns, likewise */
    int o0, no;
} run;

static const float *biases_at(const run *u, int x) {
    const tsr_kernel *k = u->k;
    const tsr_buffer *in = tsr_io_in(u->io);
    int top = tsr_picture_begin(in, u->io->band), row = u->row + u->io->op->in.y0;
    int ey = row == (u->p ? top + tsr_picture_rows(in) - 1 : top), ex = x == (u->r ? in->w - 1 : 0);
    int class = k->classes == 4 ? ey * 2 + ex : 0, phase = u->p * 2 + u->r;
    return (const float *)u->io->kernel->at + tsr_kernel_weights(k) + (phase * k->classes + class) * k->cout + u->o0;
}

/* Input frame t, which may lie in the head or, where heads are not joined, in the cache. */
static const void *input_pixel(const tsr_op_io *io, int t, int y, int x) {
    const tsr_buffer *in = tsr_io_in(io);
    if (t >= -in->head)
        return tsr_pixel(in, io->in, t, y, x);
    return tsr_pixel(in, io->cache, io->program->cache[io->op->cache].frames + t, y, x);
}

static inline void multiply_add(
    float acc[PIXELS][CHANNELS], float x[PIXELS][CHANNELS], int nc, const float *w, int ldw, int no) {
    for (int c = 0; c < nc; c++, w += ldw)
        for (int j = 0; j < PIXELS; j++)
            for (int o = 0; o < no; o++)
                acc[j][o] += x[j][c] * w[o];
}

static void add_tap(const run *u, int a, int b, int c, float acc[PIXELS][CHANNELS]) {
    const tsr_kernel *k = u->k;
    const tsr_buffer *in = tsr_io_in(u->io);
    bool spread = k->phases == 4;
    int t = u->io->op->in.t0 + u->frame * k->st - (k->kt - 1) + a;
    int y = u->io->op->in.y0 + u->row * k->sy + b - (spread ? 1 - u->p : k->pad_top), tap = (a * k->kh + b) * k->kw + c;
    if (y < 0 || y >= in->h)
        return;
    const float *w =
        (const float *)u->io->kernel->at + u->o0 +
        ((size_t)(u->p * 2 + u->r) * (size_t)(k->kt * k->kh * k->kw) + (size_t)tap) * (size_t)k->cin * (size_t)k->cout;
    for (int c0 = 0; c0 < k->cin; c0 += CHANNELS) {
        int nc = k->cin - c0 < CHANNELS ? k->cin - c0 : CHANNELS;
        float v[PIXELS][CHANNELS] = {0};
        for (int j = 0; j < u->nx; j++) {
            int x = (u->x + j) * k->sx + c - (spread ? 1 - u->r : k->pad_left);
            if (x >= 0 && x < in->w)
                tsr_ref_get(u->io->program, in, input_pixel(u->io, t, y, x), c0, nc, v[j]);
        }
        if (u->no == CHANNELS) /* the same with a bound that the compiler knows */
            multiply_add(acc, v, nc, w + (size_t)c0 * (size_t)k->cout, k->cout, CHANNELS);
        else
            multiply_add(acc, v, nc, w + (size_t)c0 * (size_t)k->cout, k->cout, u->no);
    }
}

static void conv_run(const run *u) {
    const tsr_op *op = u->io->op;
    const tsr_buffer *out = tsr_io_out(u->io);
    int spread = u->k->phases == 4 ? 2 : 1;
    float acc[PIXELS][CHANNELS] = {0}, old[CHANNELS];
    for (int j = 0; j < u->nx; j++)
        memcpy(acc[j], biases_at(u, u->x + j), (size_t)u->no * sizeof(float));
    for (int a = 0; a < u->k->kt; a++)
        for (int b = 0; b < u->k->kh; b++)
            for (int c = 0; c < u->k->kw; c++)
                add_tap(u, a, b, c, acc);
    for (int j = 0; j < u->nx; j++) {
        void *to = tsr_pixel(
            out, u->io->out, op->out.t0 + u->frame * op->out_dt, u->row * spread + u->p, (u->x + j) * spread + u->r);
        if (op->accumulate) {
            tsr_ref_get(u->io->program, out, to, u->o0, u->no, old);
            for (int o = 0; o < u->no; o++)
                acc[j][o] += old[o];
        }
        tsr_ref_put(u->io->program, out, to, u->o0, u->no, acc[j]);
    }
}

static void conv_rows(void *ctx, size_t begin, size_t end) { /* of [frames][rows][phases] */
    const tsr_op_io *io = ctx;
    const tsr_op *op = io->op;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *out = tsr_io_out(io);
    int spread = k->phases == 4 ? 2 : 1, rows = op->out.ny / spread, width = out->w / spread;
    for (size_t i = begin; i < end; i++) {
        int phase = (int)(i % (size_t)k->phases), row = (int)(i / (size_t)k->phases);
        run u = {.io = io,
            .k = k,
            .frame = row / rows,
            .row = op->out.y0 / spread + row % rows,
            .p = phase / 2,
            .r = phase % 2};
        for (u.o0 = 0; u.o0 < k->cout; u.o0 += CHANNELS)
            for (u.x = 0; u.x < width; u.x += PIXELS) {
                u.no = k->cout - u.o0 < CHANNELS ? k->cout - u.o0 : CHANNELS;
                u.nx = width - u.x < PIXELS ? width - u.x : PIXELS;
                conv_run(&u);
            }
    }
}

tsr_status tsr_ref_conv(const tsr_op_io *io) {
    const tsr_kernel *k = io->kernel->kernel;
    if (tsr_ref_is_u8(io->program, io->op->in.buf))
        return tsr_ref_conv8(io);
    size_t rows = (size_t)io->op->in.nt * (size_t)io->op->out.ny / (k->phases == 4 ? 2 : 1);
    tsr_parallel_for(rows * (size_t)k->phases, 1, conv_rows, (void *)io);
    return TSR_OK;
}

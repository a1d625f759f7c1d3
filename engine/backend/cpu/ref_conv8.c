/*
 * Convolution of u8 codes with s8 codes, by its definition: sums of products in 32 bits, exact;
 * padding is the code of zero.
 *
 * Packed kernel: scale, bias f32 and sum of the codes s32, [cout] each; then the codes s8,
 * [kt][kh][kw][cin][cout].
 */
#include "backend/cpu/ref.h"

#include <string.h>

enum { PIXELS = 8, CHANNELS = TSR_REF_CHUNK };

size_t tsr_ref_kernel_bytes8(const tsr_kernel *k) {
    return (size_t)k->cout * 3 * sizeof(float) + tsr_kernel_weights(k);
}

void tsr_ref_pack8(tsr_packed *k, const float *weights, const float *biases) {
    size_t cin = (size_t)k->kernel->cin, cout = (size_t)k->kernel->cout, n = tsr_kernel_weights(k->kernel),
           filter = n / cout;
    float *scale = k->at;
    int32_t *sum = (int32_t *)(scale + 2 * cout);
    int8_t *to = (int8_t *)(sum + cout);
    memcpy(scale, k->scale, cout * sizeof *scale);
    memcpy(scale + cout, biases, cout * sizeof *scale);
    memset(sum, 0, cout * sizeof *sum);
    for (size_t i = 0; i < n; i++) { /* from [o][tap][c] */
        size_t c = i % cin, tap = i / cin % (filter / cin), o = i / filter;
        to[(tap * cin + c) * cout + o] = (int8_t)weights[i];
        sum[o] += (int32_t)weights[i];
    }
}

/* A run of output pixels of one row, and output channels [o0, o0 + no). */
typedef struct run {
    const tsr_op_io *io;
    int frame, row;
    int x, nx;
    int o0, no;
} run;

static void add_tap(const run *u, int a, int b, int c, int32_t acc[PIXELS][CHANNELS]) {
    const tsr_op_io *io = u->io;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *in = tsr_io_in(io);
    int t = io->op->in.t0 + u->frame * k->st - (k->kt - 1) + a, y = io->op->in.y0 + u->row * k->sy + b - k->pad_top;
    size_t tap = (size_t)((a * k->kh + b) * k->kw + c), cout = (size_t)k->cout;
    const int8_t *w = (const int8_t *)io->kernel->at + 12 * cout + tap * (size_t)k->cin * cout + u->o0;
    for (int j = 0; j < u->nx; j++) {
        int x = (u->x + j) * k->sx + c - k->pad_left;
        bool inside = y >= 0 && y < in->h && x >= 0 && x < in->w;
        const uint8_t *code = inside ? tsr_pixel(in, io->in, t, y, x) : NULL;
        for (int i = 0; i < k->cin; i++) {
            int32_t v = inside ? code[i] : io->range->zero;
            for (int o = 0; o < u->no; o++)
                acc[j][o] += v * w[(size_t)i * cout + (size_t)o];
        }
    }
}

static void conv_run(const run *u) {
    const tsr_op_io *io = u->io;
    const tsr_op *op = io->op;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *out = tsr_io_out(io);
    const float *scale = (const float *)io->kernel->at + u->o0, *bias = scale + k->cout;
    const int32_t *sum = (const int32_t *)(bias + k->cout);
    int32_t acc[PIXELS][CHANNELS] = {0};
    float y[CHANNELS], old[CHANNELS];
    for (int a = 0; a < k->kt; a++)
        for (int b = 0; b < k->kh; b++)
            for (int c = 0; c < k->kw; c++)
                add_tap(u, a, b, c, acc);
    for (int j = 0; j < u->nx; j++) {
        void *to = tsr_pixel(out, io->out, op->out.t0 + u->frame * op->out_dt, u->row, u->x + j);
        if (op->accumulate)
            tsr_ref_get(io->program, out, to, u->o0, u->no, old);
        for (int o = 0; o < u->no; o++) {
            y[o] = io->range->scale * scale[o] * (float)(acc[j][o] - io->range->zero * sum[o]) + bias[o];
            y[o] += op->accumulate ? old[o] : 0;
        }
        tsr_ref_put(io->program, out, to, u->o0, u->no, y);
    }
}

static void conv_rows(void *ctx, size_t begin, size_t end) { /* of [frames][rows] */
    const tsr_op_io *io = ctx;
    const tsr_op *op = io->op;
    int cout = io->kernel->kernel->cout, width = tsr_io_out(io)->w;
    for (size_t i = begin; i < end; i++) {
        run u = {.io = io, .frame = (int)i / op->out.ny, .row = op->out.y0 + (int)i % op->out.ny};
        for (u.o0 = 0; u.o0 < cout; u.o0 += CHANNELS)
            for (u.x = 0; u.x < width; u.x += PIXELS) {
                u.no = cout - u.o0 < CHANNELS ? cout - u.o0 : CHANNELS;
                u.nx = width - u.x < PIXELS ? width - u.x : PIXELS;
                conv_run(&u);
            }
    }
}

tsr_status tsr_ref_conv8(const tsr_op_io *io) {
    tsr_parallel_for((size_t)io->op->in.nt * (size_t)io->op->out.ny, 1, conv_rows, (void *)io);
    return TSR_OK;
}

/*
 * f32 convolutions on CPUs with AVX2 and without AVX-512, where oneDNN's leave half of the
 * multiply-adds unused, most of all in the 2x2 taps of the merged upsampler.
 *
 * For 128 input channels at a time, a tile's input with the zeros around it is gathered into the
 * second-level cache; for 16 output channels and a row of taps, every six pixels take the weights
 * in turn, which stay in the first-level cache. Between runs of channels sums lie in the output.
 * The upsampler's four phases read the same gathered input, and write their pixels where they
 * belong.
 *
 * Packed kernel: weights [phases][blocks][kt][kh][kw][cin][16], blocks of 16 output channels, the
 * last filled up with zeros; then biases [phases][classes][cout], f32.
 */
#include "backend/cpu/avx2_tile.h"
#include "backend/cpu/simd.h"

#include <immintrin.h>
#include <string.h>

enum {
    CHUNK = 128, /* input channels gathered at a time */
    PANEL = 64,  /* of them, at a time with the weights of a row of taps */
};

typedef struct part {                        /* the scratch of one */
    float patch[TILE_PATCH / sizeof(float)]; /* [kt][rows][columns][channels] */
    float sum[TILE_MOST_PIXELS][TILE_BLOCK];
    int32_t at[TILE_MOST_PIXELS]; /* as tile_pixels() says */
} part;

static int blocks_of(const tsr_kernel *k) {
    return tile_pieces(k->cout, TILE_BLOCK);
}

static size_t block_weights(const tsr_kernel *k) {
    return (size_t)(k->kt * k->kh * k->kw) * (size_t)k->cin * TILE_BLOCK;
}

/* Input pixels around a tile. The phases of an upsampler reach one to either side, each with two
 * taps. */
static int halo_of(const tsr_kernel *k) {
    return k->phases == 4 ? 2 : k->kh - 1;
}

/* Rows of `in` that are the middle of a filter: not a band's halo. */
static int rows_of(const tsr_buffer *in, const tsr_op *op) {
    return in->h - 2 * op->in.y0;
}

static tile_cut cut_of(const tsr_kernel *k, const tsr_buffer *in, const tsr_op *op) {
    int chunk = k->cin < CHUNK ? k->cin : CHUNK, frames = op->in.nt;
    return tile_cut_of(
        rows_of(in, op), in->w, halo_of(k), TILE_PATCH / (int)sizeof(float) / (k->kt * chunk), frames, blocks_of(k));
}

static bool can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    const tsr_kernel *k = &p->kernel[op->kernel];
    bool plain = in->dtype == TSR_F32 && in->quant < 0 && out->dtype == TSR_F32 && out->quant < 0;
    bool whole = op->out.y0 == 0 && op->out.ny == out->h && op->cache < 0;
    bool same = k->phases == 4 ? !op->accumulate
                               : k->kh == k->kw && k->kh % 2 && k->pad_top == k->kh / 2 && k->pad_left == k->kh / 2 &&
                                     k->pad_bottom == k->kh / 2 && k->pad_right == k->kh / 2;
    bool small = k->cin > 256 &&
                 tsr_picture_rows(in) * in->w < 32 * 32; /* weights outweigh pixels: oneDNN's order suits those */
    return plain && whole && same && !small && k->sy == 1 && k->sx == 1 && k->kt * k->kh > 1 && k->cin % 4 == 0 &&
           cut_of(k, in, op).w > 0;
}

static size_t scratch(const tsr_program *p, const tsr_op *op) {
    tile_cut c = cut_of(&p->kernel[op->kernel], &p->buffer[op->in.buf], op);
    return (size_t)tile_parts(&c, op->in.nt) * sizeof(part);
}

/* ---------------------------------------------------------------- packing */

static size_t kernel_bytes(const tsr_kernel *k, tsr_dtype input) {
    size_t weights = (size_t)k->phases * (size_t)blocks_of(k) * block_weights(k);
    return input == TSR_F32 ? (weights + tsr_kernel_biases(k)) * sizeof(float) : 0;
}

static float *biases_of(const tsr_packed *k) {
    return (float *)k->at + (size_t)k->kernel->phases * (size_t)blocks_of(k->kernel) * block_weights(k->kernel);
}

/* From the folded order, [phases][cout][kt][kh][kw][cin]. */
static tsr_status pack(
    tsr_packed *packed, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases) {
    const tsr_kernel *k = packed->kernel;
    size_t filter = block_weights(k) / TILE_BLOCK, blocks = (size_t)blocks_of(k);
    (void)p, (void)op;
    memset(packed->at, 0, kernel_bytes(k, TSR_F32));
    for (size_t phase = 0; phase < (size_t)k->phases; phase++)
        for (size_t o = 0; o < (size_t)k->cout; o++) {
            const float *from = weights + (phase * (size_t)k->cout + o) * filter;
            float *to = (float *)packed->at + (phase * blocks + o / TILE_BLOCK) * block_weights(k) + o % TILE_BLOCK;
            for (size_t i = 0; i < filter; i++)
                to[i * TILE_BLOCK] = from[i];
        }
    memcpy(biases_of(packed), biases, tsr_kernel_biases(k) * sizeof(float));
    return TSR_OK;
}

static void unpack(tsr_packed *k) {
    (void)k;
}

/* ---------------------------------------------------------------- running */

typedef struct job {
    const tsr_op_io *io;
    tile_cut c;
    atomic_int next; /* of the tiles not begun yet */
} job;

typedef struct work { /* a tile, with channels [c0, c0 + n) of its input gathered */
    const tsr_op_io *io;
    const tsr_kernel *k;
    part *s;
    tile u;
    int c0, n;
} work;

/* The patch's row of frame t, picture row y. */
static void gather_row(const work *w, int t, int y, float *to) {
    const tsr_buffer *in = tsr_io_in(w->io);
    int x = w->u.x - halo_of(w->k) / 2;
    size_t n = (size_t)w->n;
    for (int i = 0; i < w->u.columns; i++, x++, to += n) {
        if (y < 0 || y >= in->h || x < 0 || x >= in->w)
            memset(to, 0, n * sizeof *to);
        else
            memcpy(to, (const float *)tsr_pixel(in, w->io->in, t, y, x) + w->c0, n * sizeof *to);
    }
}

static void gather(const work *w) {
    size_t row = (size_t)w->u.columns * (size_t)w->n;
    int t0 = w->io->op->in.t0 + w->u.frame * w->k->st - (w->k->kt - 1),
        y0 = w->io->op->in.y0 + w->u.y - halo_of(w->k) / 2;
    for (int t = 0; t < w->k->kt; t++)
        for (int y = 0; y < w->u.rows; y++)
            gather_row(w, t0 + t, y0 + y, w->s->patch + (size_t)(t * w->u.rows + y) * row);
}

/* sum[TILE_PIXELS][TILE_BLOCK] += n inputs of each pixel and tap times weights
 * [taps][cin][TILE_BLOCK]. A pixel's taps lie `stride` numbers apart. */
__attribute__((target("avx2,fma"))) static void multiply(const float *const pixel[TILE_PIXELS], const float *weight,
    int taps, size_t stride, size_t cin, size_t n, float (*sum)[TILE_BLOCK]) {
    __m256 s[TILE_PIXELS][2];
#pragma GCC unroll 6
    for (int i = 0; i < TILE_PIXELS; i++) {
        s[i][0] = _mm256_loadu_ps(sum[i]);
        s[i][1] = _mm256_loadu_ps(sum[i] + 8);
    }
    for (int tap = 0; tap < taps; tap++, weight += cin * TILE_BLOCK) {
        size_t at = (size_t)tap * stride;
        const float *a = pixel[0] + at, *b = pixel[1] + at, *c = pixel[2] + at, *d = pixel[3] + at, *e = pixel[4] + at,
                    *f = pixel[5] + at, *w = weight;
        for (size_t j = 0; j < n; j++, w += TILE_BLOCK) {
            const float *of[TILE_PIXELS] = {a + j, b + j, c + j, d + j, e + j, f + j};
            __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
#pragma GCC unroll 6
            for (int i = 0; i < TILE_PIXELS; i++) {
                __m256 v = _mm256_broadcast_ss(of[i]);
                s[i][0] = _mm256_fmadd_ps(v, w0, s[i][0]);
                s[i][1] = _mm256_fmadd_ps(v, w1, s[i][1]);
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < TILE_PIXELS; i++) {
        _mm256_storeu_ps(sum[i], s[i][0]);
        _mm256_storeu_ps(sum[i] + 8, s[i][1]);
    }
}

/* All pixels of the tile, for the taps of one row and n channels: `base` is the first pixel's first
 * tap in the patch, `weight` those of the first tap. */
static void sweep(const work *w, const float *base, const float *weight, int n) {
    size_t stride = (size_t)w->n;
    for (int p = 0; p < w->u.h * w->u.w; p += TILE_PIXELS) {
        const float *pixel[TILE_PIXELS];
        for (int i = 0; i < TILE_PIXELS; i++)
            pixel[i] = base + (size_t)w->s->at[p + i] * stride;
        multiply(pixel, weight, w->k->kw, stride, (size_t)w->k->cin, (size_t)n, w->s->sum + p);
    }
}

/* Where the tile's pixel i goes. */
static float *output_of(const work *w, int i, int phase) {
    const tsr_op *op = w->io->op;
    int y = w->u.y + i / w->u.w, x = w->u.x + i % w->u.w;
    if (w->k->phases == 4) {
        y = 2 * y + phase / 2;
        x = 2 * x + phase % 2;
    }
    return tsr_pixel(tsr_io_out(w->io), w->io->out, op->out.t0 + w->u.frame * op->out_dt, y, x);
}

/* Biases of a phase differ where its filter reaches over the picture's edge. */
static const float *bias_of(const work *w, int i, int phase) {
    const tsr_buffer *in = tsr_io_in(w->io);
    int y = w->io->op->in.y0 + w->u.y + i / w->u.w, x = w->u.x + i % w->u.w, class = 0;
    int top = tsr_picture_begin(in, w->io->band), bottom = top + tsr_picture_rows(in) - 1;
    if (w->k->classes == 4)
        class = (y == (phase / 2 ? bottom : top)) * 2 + (x == (phase % 2 ? in->w - 1 : 0));
    return biases_of(w->io->kernel) + (size_t)((phase * w->k->classes + class) * w->k->cout);
}

static void run_block(const work *w, int phase, int block) {
    const tsr_kernel *k = w->k;
    int o = block * TILE_BLOCK, n = k->cout - o < TILE_BLOCK ? k->cout - o : TILE_BLOCK, pixels = w->u.h * w->u.w;
    size_t tap = (size_t)k->cin * TILE_BLOCK;
    const float *weight = (const float *)w->io->kernel->at + (size_t)(phase * blocks_of(k) + block) * block_weights(k);
    bool begun = w->c0 > 0 || w->io->op->accumulate;
    memset(w->s->sum, 0, (size_t)tile_pieces(pixels, TILE_PIXELS) * TILE_PIXELS * sizeof *w->s->sum);
    for (int row = 0; row < k->kt * k->kh; row++) {
        int t = row / k->kh, y = row % k->kh + (k->phases == 4 ? phase / 2 : 0), x = k->phases == 4 ? phase % 2 : 0;
        const float *base = w->s->patch + (size_t)((t * w->u.rows + y) * w->u.columns + x) * (size_t)w->n;
        for (int c = 0; c < w->n; c += PANEL)
            sweep(w, base + c, weight + (size_t)(row * k->kw) * tap + (size_t)(w->c0 + c) * TILE_BLOCK,
                w->n - c < PANEL ? w->n - c : PANEL);
    }
    for (int i = 0; i < pixels; i++) {
        float *to = output_of(w, i, phase) + o;
        const float *bias = bias_of(w, i, phase) + o, *sum = w->s->sum[i];
        for (int j = 0; j < n; j++)
            to[j] = (begun ? to[j] : 0) + (w->c0 ? sum[j] : sum[j] + bias[j]);
    }
}

static void run_tile(work *w) {
    tile_pixels(&w->u, w->s->at);
    for (w->c0 = 0; w->c0 < w->k->cin; w->c0 += CHUNK) {
        w->n = w->k->cin - w->c0 < CHUNK ? w->k->cin - w->c0 : CHUNK;
        gather(w);
        for (int phase = 0; phase < w->k->phases; phase++)
            for (int block = w->u.b0; block < w->u.b1; block++)
                run_block(w, phase, block);
    }
}

static void run_parts(void *ctx, size_t begin, size_t end) {
    job *j = ctx;
    const tsr_buffer *in = tsr_io_in(j->io);
    const tsr_kernel *k = j->io->kernel->kernel;
    int tiles = tile_count(&j->c, j->io->op->in.nt);
    for (size_t i = begin; i < end; i++)
        for (int at; !tsr_io_stopped(j->io) && (at = atomic_fetch_add(&j->next, 1)) < tiles;) {
            work w = {.io = j->io, .k = k, .s = (part *)j->io->scratch + i};
            w.u = tile_at(&j->c, at, rows_of(in, j->io->op), in->w, halo_of(k), blocks_of(k));
            if (w.u.h > 0 && w.u.w > 0)
                run_tile(&w);
        }
}

static tsr_status run(const tsr_op_io *io) {
    job j = {.io = io, .c = cut_of(io->kernel->kernel, tsr_io_in(io), io->op)};
    tsr_parallel_for((size_t)tile_parts(&j.c, io->op->in.nt), 1, run_parts, &j);
    return TSR_OK;
}

static bool here(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !__builtin_cpu_supports("avx512f");
}

const tsr_tier tsr_tier_avx2_f32 = {
    .name = "AVX2 f32",
    .here = here,
    .kernel_bytes = kernel_bytes,
    .pack = pack,
    .unpack = unpack,
    .op = {[TSR_OP_CONV] = {can, scratch, NULL, NULL, run}},
};

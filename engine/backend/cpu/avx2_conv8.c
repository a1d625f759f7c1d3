/*
 * Convolutions of u8 with s8 codes on CPUs with AVX2 and without VNNI, exact: codes are widened to
 * 16 bits, whose products vpmaddwd adds in pairs to 32. (vpmaddubsw takes the codes as they are,
 * but saturates.) Two such instructions a cycle are twice the multiply-adds of f32, of which
 * vpaddd, which shares no port with them, takes nothing.
 *
 * The picture is cut into tiles whose input, all taps and channels of it widened, stays in the
 * second-level cache; where it reaches over the edge it holds the zero point, so that borders are
 * no special case. For 16 output channels at a time, a row of taps and up to 128 input channels,
 * weights are widened to a panel that stays in the first-level cache; then every six pixels take
 * them in turn.
 *
 * Packed kernel: scale, bias f32 and sum of the codes s32, [blocks * 16] each; then the codes s8,
 * [blocks][kt][kh][kw][cin / 2][16][2], blocks of 16 output channels, the last filled up with
 * zeros.
 */
#include "backend/cpu/avx2_tile.h"
#include "backend/cpu/simd.h"

#include <immintrin.h>
#include <string.h>

enum {
    BLOCK = TILE_BLOCK,
    PIXELS = TILE_PIXELS,
    CHUNK = 128,   /* input channels at a time */
    MOST_TAPS = 3, /* in a row */
};

typedef struct part {                            /* the scratch of one */
    int16_t patch[TILE_PATCH / sizeof(int16_t)]; /* [kt][rows][columns][cin] */
    int16_t panel[MOST_TAPS * CHUNK * BLOCK];    /* [taps][channels / 2][BLOCK][2] */
    int32_t sum[TILE_MOST_PIXELS][BLOCK];
    int32_t at[TILE_MOST_PIXELS]; /* as tile_pixels() says */
} part;

static size_t blocks_of(const tsr_kernel *k) {
    return ((size_t)k->cout + BLOCK - 1) / BLOCK;
}

static size_t block_codes(const tsr_kernel *k) {
    return (size_t)(k->kt * k->kh * k->kw) * (size_t)k->cin * BLOCK;
}

static tile_cut cut_of(const tsr_kernel *k, const tsr_buffer *out, int frames) {
    int room = TILE_PATCH / (int)sizeof(int16_t) / (k->kt * k->cin);
    return tile_cut_of(out->h, out->w, k->kh - 1, room, frames, (int)blocks_of(k));
}

static bool can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *out = &p->buffer[op->out.buf];
    const tsr_kernel *k = &p->kernel[op->kernel];
    bool whole = op->out.y0 == 0 && op->out.ny == out->h && op->cache < 0;
    return tsr_ref_is_u8(p, op->in.buf) && whole && out->dtype == TSR_F32 && out->quant < 0 && k->phases == 1 &&
           k->sy == 1 && k->sx == 1 && k->kw <= MOST_TAPS && k->kw == k->kh && k->cin % 32 == 0 &&
           cut_of(k, out, op->in.nt).w > 0;
}

static size_t scratch(const tsr_program *p, const tsr_op *op) {
    tile_cut c = cut_of(&p->kernel[op->kernel], &p->buffer[op->out.buf], op->in.nt);
    return (size_t)tile_parts(&c, op->in.nt) * sizeof(part);
}

/* ---------------------------------------------------------------- packing */

static size_t kernel_bytes(const tsr_kernel *k, tsr_dtype input) {
    return input == TSR_U8 ? blocks_of(k) * (3 * BLOCK * sizeof(float) + block_codes(k)) : 0;
}

static float *scales_of(const tsr_packed *k) {
    return k->at;
}

static float *biases_of(const tsr_packed *k) {
    return scales_of(k) + blocks_of(k->kernel) * BLOCK;
}

static int32_t *sums_of(const tsr_packed *k) {
    return (int32_t *)(biases_of(k) + blocks_of(k->kernel) * BLOCK);
}

static int8_t *codes_of(const tsr_packed *k) {
    return (int8_t *)(sums_of(k) + blocks_of(k->kernel) * BLOCK);
}

/* From the folded order, [cout][kt][kh][kw][cin]. */
static tsr_status pack(
    tsr_packed *packed, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases) {
    const tsr_kernel *k = packed->kernel;
    size_t cout = (size_t)k->cout, filter = block_codes(k) / BLOCK;
    int8_t *codes = codes_of(packed);
    (void)p, (void)op;
    memset(packed->at, 0, kernel_bytes(k, TSR_U8));
    memcpy(scales_of(packed), packed->scale, cout * sizeof(float));
    memcpy(biases_of(packed), biases, cout * sizeof(float));
    for (size_t o = 0; o < cout; o++) {
        int8_t *block = codes + o / BLOCK * block_codes(k);
        int32_t sum = 0;
        for (size_t i = 0; i < filter; i++) { /* of [taps][cin] */
            int8_t code = (int8_t)weights[o * filter + i];
            block[(i / 2 * BLOCK + o % BLOCK) * 2 + i % 2] = code;
            sum += code;
        }
        sums_of(packed)[o] = sum;
    }
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

typedef struct work {
    const tsr_op_io *io;
    part *s;
    tile u;
} work;

/* n codes, a multiple of 16. */
__attribute__((target("avx2"))) static void widen(const uint8_t *from, int16_t *to, size_t n) {
    for (size_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from + i))));
}

__attribute__((target("avx2"))) static void widen_signed(const int8_t *from, int16_t *to, size_t n) {
    for (size_t i = 0; i < n; i += 16)
        _mm256_store_si256((__m256i *)(to + i), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(from + i))));
}

static void fill(int16_t *to, size_t n, int zero) {
    for (size_t i = 0; i < n; i++)
        to[i] = (int16_t)zero;
}

/* The patch's row y, of the picture, in frame t. */
static void gather_row(const work *w, int t, int y, int16_t *to) {
    const tsr_buffer *in = tsr_io_in(w->io);
    size_t c = (size_t)in->c;
    int first = w->u.x - w->io->kernel->kernel->pad_left, zero = w->io->range->zero;
    int left = first < 0 ? -first : 0, right = first + w->u.columns > in->w ? first + w->u.columns - in->w : 0;
    if (y < 0 || y >= in->h) {
        fill(to, (size_t)w->u.columns * c, zero);
        return;
    }
    size_t inside = (size_t)(w->u.columns - left - right);
    fill(to, (size_t)left * c, zero);
    widen(tsr_pixel(in, w->io->in, t, y, first + left), to + (size_t)left * c, inside * c);
    fill(to + ((size_t)left + inside) * c, (size_t)right * c, zero);
}

static void gather(const work *w) {
    const tsr_kernel *k = w->io->kernel->kernel;
    size_t row = (size_t)w->u.columns * (size_t)k->cin;
    int t0 = w->io->op->in.t0 + w->u.frame * k->st - (k->kt - 1);
    for (int t = 0; t < k->kt; t++)
        for (int y = 0; y < w->u.rows; y++)
            gather_row(
                w, t0 + t, w->io->op->in.y0 + w->u.y - k->pad_top + y, w->s->patch + (size_t)(t * w->u.rows + y) * row);
}

/* sum[PIXELS][BLOCK] += codes of each pixel, [taps][n], times the panel, [taps][n / 2][BLOCK][2]. A
 * pixel's taps lie cin numbers apart. */
__attribute__((target("avx2"))) static void multiply(
    const int16_t *const pixel[PIXELS], const int16_t *panel, int taps, size_t cin, size_t n, int32_t (*sum)[BLOCK]) {
    __m256i s[PIXELS][2];
#pragma GCC unroll 6
    for (int i = 0; i < PIXELS; i++) {
        s[i][0] = _mm256_load_si256((const __m256i *)sum[i]);
        s[i][1] = _mm256_load_si256((const __m256i *)sum[i] + 1);
    }
    for (int tap = 0; tap < taps; tap++) {
        size_t at = (size_t)tap * cin;
        const int16_t *a = pixel[0] + at, *b = pixel[1] + at, *c = pixel[2] + at, *d = pixel[3] + at,
                      *e = pixel[4] + at, *f = pixel[5] + at;
        for (size_t j = 0; j < n; j += 2, panel += 2 * BLOCK) {
            const int16_t *of[PIXELS] = {a + j, b + j, c + j, d + j, e + j, f + j};
            __m256i w0 = _mm256_load_si256((const __m256i *)panel), w1 = _mm256_load_si256((const __m256i *)panel + 1);
#pragma GCC unroll 6
            for (int i = 0; i < PIXELS; i++) {
                int32_t pair;
                memcpy(&pair, of[i], sizeof pair);
                __m256i v = _mm256_set1_epi32(pair);
                s[i][0] = _mm256_add_epi32(s[i][0], _mm256_madd_epi16(v, w0));
                s[i][1] = _mm256_add_epi32(s[i][1], _mm256_madd_epi16(v, w1));
            }
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < PIXELS; i++) {
        _mm256_store_si256((__m256i *)sum[i], s[i][0]);
        _mm256_store_si256((__m256i *)sum[i] + 1, s[i][1]);
    }
}

/* All pixels of the tile with the panel, whose taps begin at frame a and row b of the patch,
 * channel c. */
static void sweep(const work *w, int a, int b, int c, int n) {
    const tsr_kernel *k = w->io->kernel->kernel;
    size_t cin = (size_t)k->cin;
    const int16_t *base = w->s->patch + (size_t)((a * w->u.rows + b) * w->u.columns) * cin + c;
    for (int p = 0; p < w->u.h * w->u.w; p += PIXELS) {
        const int16_t *pixel[PIXELS];
        for (int i = 0; i < PIXELS; i++)
            pixel[i] = base + (size_t)w->s->at[p + i] * cin;
        multiply(pixel, w->s->panel, k->kw, cin, (size_t)n, w->s->sum + p);
    }
}

static void finish(const work *w, size_t block) {
    const tsr_op_io *io = w->io;
    const tsr_op *op = io->op;
    const tsr_kernel *k = io->kernel->kernel;
    const tsr_buffer *out = tsr_io_out(io);
    size_t o = block * BLOCK, n = (size_t)k->cout - o < BLOCK ? (size_t)k->cout - o : BLOCK;
    float scale[BLOCK], bias[BLOCK];
    for (size_t i = 0; i < n; i++) {
        scale[i] = io->range->scale * scales_of(io->kernel)[o + i];
        bias[i] = biases_of(io->kernel)[o + i];
    }
    const int32_t *codes = sums_of(io->kernel) + o;
    int zero = io->range->zero;
    for (int p = 0; p < w->u.h * w->u.w; p++) {
        float *to = (float *)tsr_pixel(
                        out, io->out, op->out.t0 + w->u.frame * op->out_dt, w->u.y + p / w->u.w, w->u.x + p % w->u.w) +
                    o;
        const int32_t *sum = w->s->sum[p];
        for (size_t i = 0; i < n; i++) {
            float y = scale[i] * (float)(sum[i] - zero * codes[i]) + bias[i];
            to[i] = op->accumulate ? y + to[i] : y;
        }
    }
}

static void run_tile(const work *w) {
    const tsr_kernel *k = w->io->kernel->kernel;
    size_t tap = (size_t)k->cin * BLOCK; /* codes of one */
    int pixels = tile_pieces(w->u.h * w->u.w, PIXELS) * PIXELS;
    tile_pixels(&w->u, w->s->at);
    gather(w);
    for (size_t block = (size_t)w->u.b0; block < (size_t)w->u.b1; block++) {
        const int8_t *codes = codes_of(w->io->kernel) + block * block_codes(k);
        memset(w->s->sum, 0, (size_t)pixels * sizeof *w->s->sum);
        for (int row = 0; row < k->kt * k->kh; row++)
            for (int c = 0; c < k->cin; c += CHUNK) {
                int n = k->cin - c < CHUNK ? k->cin - c : CHUNK;
                size_t length = (size_t)n * BLOCK;
                for (int x = 0; x < k->kw; x++)
                    widen_signed(codes + (size_t)(row * k->kw + x) * tap + (size_t)c * BLOCK,
                        w->s->panel + (size_t)x * length, length);
                sweep(w, row / k->kh, row % k->kh, c, n);
            }
        finish(w, block);
    }
}

static void run_parts(void *ctx, size_t begin, size_t end) {
    job *j = ctx;
    const tsr_kernel *k = j->io->kernel->kernel;
    const tsr_buffer *out = tsr_io_out(j->io);
    int tiles = tile_count(&j->c, j->io->op->in.nt);
    for (size_t i = begin; i < end; i++)
        for (int at; !tsr_io_stopped(j->io) && (at = atomic_fetch_add(&j->next, 1)) < tiles;) {
            work w = {.io = j->io, .s = (part *)j->io->scratch + i};
            w.u = tile_at(&j->c, at, out->h, out->w, k->kh - 1, (int)blocks_of(k));
            if (w.u.h > 0 && w.u.w > 0)
                run_tile(&w);
        }
}

static tsr_status run(const tsr_op_io *io) {
    job j = {.io = io, .c = cut_of(io->kernel->kernel, tsr_io_out(io), io->op->in.nt)};
    tsr_parallel_for((size_t)tile_parts(&j.c, io->op->in.nt), 1, run_parts, &j);
    return TSR_OK;
}

static bool here(void) {
    return __builtin_cpu_supports("avx2");
}

/* 32 multiply-adds a cycle are what oneDNN's f32 has with AVX-512, and widening comes on top: a decode of the published
 * model takes 1.24 times as long as f32. */
static bool beats_f32(void) {
#ifdef TSR_ONEDNN
    return !__builtin_cpu_supports("avx512f");
#else
    return true;
#endif
}

const tsr_tier tsr_tier_avx2_u8 = {
    .name = "AVX2 u8",
    .here = here,
    .beats_f32 = beats_f32,
    .kernel_bytes = kernel_bytes,
    .pack = pack,
    .unpack = unpack,
    .op = {[TSR_OP_CONV] = {can, scratch, NULL, NULL, run}},
};

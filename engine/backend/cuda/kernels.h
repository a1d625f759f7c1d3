/*
 * What host code and CUDA kernels agree on: parameter structs, the shapes of the convolution kernels, the layout of
 * packed weights. Plain C; the .cu files, the backend, the tests and the fake driver all include it.
 *
 * Tensors are NDHWC: [frames][rows][columns][channels], channels fastest. All pointers are device addresses.
 * A kernel is found by its symbol. Conv kernels: tsr_conv_ELEMENT_SHAPE; the others are listed at their structs.
 *
 * All have 256 threads a block. TSR_*_BLOCKS is how many blocks an SM must be able to hold at once: registers at most
 * 65536 / (256 * blocks) a thread and shared memory at most 99 KiB / blocks (Hopper's own: 227), without spilling. It
 * is the kernel's launch bound, and tests/cuda/check_fatbin.py holds the compiled code to it.
 */
#ifndef TSR_CUDA_KERNELS_H
#define TSR_CUDA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Element types as kernels know them. */
typedef enum tsr_elem { TSR_ELEM_F16, TSR_ELEM_BF16, TSR_ELEM_F32, TSR_ELEM_E4M3, TSR_ELEM_U8 } tsr_elem;

/* ---------------------------------------------------------------- convolution
 *
 * Implicit GEMM on tensor cores. A block computes tile_h x 16 output pixels (of one frame and one phase) times
 * `couts` output channels. Per time tap and chunk of input channels it brings the pixels it needs once, with their
 * border (the halo), to shared memory, and runs all spatial taps from there while weights stream through.
 *
 *   out(i, y, x, n) (+)= scale[n] * (sum over taps and channels of code * weight) + bias[n]
 *
 * Output i reads frames t0 + i*st - (kt-1) .. t0 + i*st; rows sy*y - pad_top + 0..kh-1, columns alike, sy = sx.
 * Frames f >= 0 are frames of `in`, frames f < 0 lie before `past` (so where a buffer has its head before frame 0,
 * past == in). Pixels outside the picture read as code 0.
 *
 * U8 activations stand for (code - zero) * s, times s8 weights that stand for weight * scale[n]; s and zero are in
 * device memory, for they follow the data. Pixels outside the picture read as code `zero`, which stands for the real
 * number 0. So every output, border or not, has the same correction, subtracted in s32 before anything is rounded:
 *
 *   out(i, y, x, n) (+)= s * scale[n] * (sum of code * weight - zero * weight_sum[n]) + bias[n]
 *
 * Phases (shape K22): four kernels, phase (p, r) of index p*2 + r reads with pad_top = 1-p, pad_left = 1-r and writes
 * pixel (2y+p, 2x+r) of a picture twice as high and wide. With 4 classes, bias is chosen by the pixel's place:
 * class ey*2 + ex, ey = 1 where the phase's taps leave the picture above or below, ex = 1 left or right.
 *
 * Rounding: the f32 value is rounded once to the output's type, after the residual was added. Partial statistics are
 * of the rounded values. Where a rounded value is Inf or NaN, *flag = flag_value (a plain store of one value).
 *
 * Grid: x = n_blocks * tiles_x, y = tiles_y, z = frames * phases; 256 threads; TSR_CONV_SHARED bytes.
 * The number of tiles a frame has in `partial` is phases * tiles_y * tiles_x, phases slowest. */

/* How u8 codes of a layer's input stand for real numbers: (code - zero) * scale. tsr_set_range writes it. */
typedef struct tsr_range {
    float scale;
    int32_t zero;
    float old_scale; /* before the last tsr_set_range: what cached codes still mean */
    int32_t old_zero;
} tsr_range;

typedef struct tsr_conv_args {
    const void *in;            /* [frames][h][w][cin], 16-byte aligned */
    const void *past;          /* end of the frames before frame 0 */
    const void *weights;       /* packed, see below */
    const float *scale;        /* [phases][n_padded]; 8-bit elements only */
    const float *bias;         /* [phases][classes][n_padded] */
    const int32_t *weight_sum; /* [phases][n_padded]; U8 only */
    const tsr_range *range;    /* U8 only */
    void *out;                 /* frame of output 0, [..][out_h][out_w][cout] of out_type */
    float *partial;            /* [frames][tiles][cout][2]: sum, sum of squares; or NULL */
    uint32_t
        *extremes; /* [frames][tiles][cout]: smallest (low half) and largest value, as out_type; or NULL. Not F32 */
    int32_t *flag;
    int32_t flag_value;
    int32_t frames; /* outputs */
    int32_t t0, st, kt;
    int32_t h, w, cin;          /* of the input */
    int32_t rows, cols;         /* outputs a phase computes: rows y0 .. y0+rows-1 */
    int32_t y0;                 /* first output row */
    int32_t out_h, out_w, cout; /* of the buffer written */
    int32_t out_dt;             /* frames from one output to the next */
    int32_t pad_top, pad_left;  /* of phase 0 */
    int32_t classes;            /* 1 or 4 */
    int32_t accumulate;         /* add to out */
    int32_t out_type;           /* tsr_elem: F16, BF16; F32 for shape K33O */
    int32_t n_blocks;           /* ceil(cout / couts); n_padded = n_blocks * couts */
    int32_t tiles_x;
} tsr_conv_args;

/*
 * Shapes: X(name, tile_h, chunk, couts, kh, kw, stride, taps a weight step brings, halo stages, weight stages)
 * chunk: bytes of input channels a stage holds, a multiple of 32.
 *
 *   K33   3x3, the workhorse, the one for 8 bits: 4.5 bytes from global to shared memory per kFLOP
 *   K33T  the same with 16x16 pixels: 2.5 bytes per kFLOP, fewer and larger blocks
 *   K22   merged upsampler phases
 *   K11   1x1: shortcuts, q k v and output projections
 *   K33S  3x3 with stride 2 (encoder). Columns lie by parity in shared memory, so that taps read neighbours.
 *   K33H  Hopper's own: 16x16 pixels of 128 bytes, 2.3 bytes per kFLOP; a warpgroup multiplies, weights from shared
 *         memory
 *   K33J  the same with 8x16 pixels: more blocks, for small pictures
 *   K22H  merged upsampler phases likewise
 *   K33N  few input channels (latents, pictures); takes any cin, element by element where pixels are not 16-byte rows
 *   K33O  few output channels (pictures, moments); the only one with F32 output
 *
 * K22, K22H and K33S read the raw residual stream, which is fp16 in every precision: they exist for F16 alone.
 *
 * All but K33N need cin * element size to be a multiple of 16; all but K33O need cout to be a multiple of 8.
 */
#define TSR_CONV_SHAPES_8(X)                                                                                           \
    X(K33, 8, 128, 128, 3, 3, 1, 1, 2, 3)                                                                              \
    X(K33T, 16, 64, 128, 3, 3, 1, 1, 2, 3)
#define TSR_CONV_SHAPES_16(X)                                                                                          \
    X(K11, 8, 128, 128, 1, 1, 1, 1, 3, 3)                                                                              \
    X(K33N, 8, 32, 128, 3, 3, 1, 9, 2, 2)                                                                              \
    X(K33O, 16, 64, 8, 3, 3, 1, 9, 2, 2)
#define TSR_CONV_SHAPES_F16(X)                                                                                         \
    X(K22, 8, 128, 128, 2, 2, 1, 1, 2, 3)                                                                              \
    X(K33S, 8, 64, 128, 3, 3, 2, 1, 2, 3)
/* sm_90a only, where they multiply by wgmma. There is no other e4m3 on Hopper: its mma is emulated. */
#define TSR_CONV_SHAPES_8H(X)                                                                                          \
    X(K33H, 16, 128, 128, 3, 3, 1, 1, 2, 3)                                                                            \
    X(K33J, 8, 128, 128, 3, 3, 1, 1, 2, 3)
#define TSR_CONV_SHAPES_F16H(X) X(K22H, 16, 128, 128, 2, 2, 1, 1, 2, 3)
#define TSR_CONV_SHAPES_H(X) TSR_CONV_SHAPES_8H(X) TSR_CONV_SHAPES_F16H(X)
#define TSR_CONV_SHAPES(X) TSR_CONV_SHAPES_8(X) TSR_CONV_SHAPES_16(X) TSR_CONV_SHAPES_F16(X)

typedef enum tsr_conv_shape {
#define X(name, th, chunk, couts, kh, kw, s, step, hs, ws) TSR_CONV_##name,
    TSR_CONV_SHAPES(X) TSR_CONV_SHAPES_H(X)
#undef X
        TSR_CONV_SHAPE_COUNT
} tsr_conv_shape;

#define TSR_CONV_TILE_W 16
#define TSR_CONV_THREADS 256
#define TSR_CONV_BLOCKS 1
#define TSR_CONV_HALO_BYTES(th, chunk, kh, kw, s)                                                                      \
    ((((th)-1) * (s) + (kh)) * ((TSR_CONV_TILE_W - 1) * (s) + (kw)) * (chunk))
#define TSR_CONV_SHARED(th, chunk, couts, kh, kw, s, step, hs, ws)                                                     \
    (((TSR_CONV_HALO_BYTES(th, chunk, kh, kw, s) + 127) / 128 * 128) * (hs) + (step) * (couts) * (chunk) * (ws))

/*
 * Packed weights: [phases][n_blocks][kt][chunks][kh*kw][couts rows of `chunk` bytes], in the order in which a block
 * reads them, so that its stream is contiguous. Channels beyond cin and rows beyond cout are 0.
 *
 *   row      output channel c of a block lies at row tsr_conv_row(c): the rows a thread's accumulators belong to are
 *            then 8 neighbouring channels, which it writes with one store (not for couts < 32)
 *   16-byte pieces of row r lie at piece ^ TSR_CONV_SWIZZLE(r, chunk), so that the 8 rows ldmatrix reads at once fall
 *            into different banks. Halo columns are swizzled alike.
 */
#define TSR_CONV_SWIZZLE(row, chunk) ((row) / (128 / (chunk)) % ((chunk) / 16))
static inline int tsr_conv_row(int c) {
    return (c & ~31) | (c >> 1 & 3) << 3 | (c >> 3 & 3) << 1 | (c & 1);
}

/* ---------------------------------------------------------------- statistics, norm, quantise
 *
 * docs/precision.md defines the arithmetic. c is a multiple of 8 and at most 2048, groups divide it, at most 64. */

/* tsr_stats: partial sums of a stored buffer, as the conv epilogue makes them; a tile is pixels_per_tile pixels.
 * Grid: x = tiles, y = frames; 256 threads; TSR_STATS_SHARED bytes. */
typedef struct tsr_stats_args {
    const void *in;     /* [frames][pixels][c] of type F16 or BF16 */
    float *partial;     /* [frames][tiles][c][2] */
    uint32_t *extremes; /* [frames][tiles][c] or NULL */
    int32_t type, pixels, c, pixels_per_tile;
} tsr_stats_args;
#define TSR_STATS_BLOCKS 3
#define TSR_STATS_SHARED (2048 * 16)

/* tsr_reduce: brings the tiles' partial statistics together, in f64 and a fixed order, as TSR_OP_STATS keeps them: per
 * frame `pairs` pairs, of which each group's (sum, sum of squares) come first and, where there are extremes, each
 * channel's (smallest, largest) follow. The fields' order is that of tsr_set_range and tsr_norm, which read them.
 * Grid: x = groups, y = frames; 256 threads; TSR_REDUCE_SHARED bytes. At most 256 channels a group. */
typedef struct tsr_reduce_args {
    const float *partial;     /* [frames][tiles][c][2] */
    const uint32_t *extremes; /* [frames][tiles][c] of `type`, or NULL */
    double *sums;             /* [frames][pairs][2] */
    int32_t tiles, c, groups, type;
    int32_t pairs; /* groups; with extremes groups + c */
} tsr_reduce_args;
#define TSR_REDUCE_BLOCKS 4
#define TSR_REDUCE_SHARED (256 * 16)

/* tsr_set_range: the scale and zero point (of each plane) of a u8 conv input, from the statistics of what will be
 * normalised. The scale is never smaller than that of the codes in the layer's cache, and NaN where a number is not
 * finite.
 * Grid: 1; 256 threads; TSR_SET_RANGE_SHARED bytes. */
typedef struct tsr_set_range_args {
    const double *sums;        /* [frames][groups + c][2] */
    const float *gamma, *beta; /* [c] */
    const float *gain;         /* [c] */
    const tsr_range *before;   /* of the cached codes; NULL: there are none */
    tsr_range *state;
    int32_t frames, pixels, c, groups, planes;
    float eps;
} tsr_set_range_args;
#define TSR_SET_RANGE_BLOCKS 1
#define TSR_SET_RANGE_SHARED (8 * 8)

/* tsr_requantise: cached codes from the old range to the new one, in place; nothing where the range stayed.
 * Grid: x = any (each block walks); 256 threads; no shared memory. */
typedef struct tsr_requantise_args {
    uint8_t *codes; /* 16-byte aligned */
    int64_t n;      /* a multiple of 16 */
    const tsr_range *state;
} tsr_requantise_args;
#define TSR_REQUANTISE_BLOCKS 4

/* tsr_norm: out = quantise(silu?(groupnorm(in))), and without sums: out = quantise(in).
 *   E4M3: code = round(v * factor), saturated to 448
 *   U8: code = clamp(round(v * gain[c] / range->scale) + planes * range->zero, 0, planes * 255); of two planes the
 *       first holds half of it rounded down, the second half of it rounded up
 *   F16, BF16: v rounded
 * all to nearest even. Grid: x = ceil(pixels / pixels_per_block), y = frames; 256 threads; TSR_NORM_SHARED bytes. */
typedef struct tsr_norm_args {
    const void *in;            /* [frames][pixels][c] of in_type: F16, BF16 */
    void *out;                 /* [frames][pixels][planes][c] of out_type: E4M3 (sm_89 and newer), U8, F16, BF16 */
    const double *sums;        /* [frames][pairs][2], groups first; or NULL */
    const float *gamma, *beta; /* [c]; with sums */
    const float *gain;         /* [c]; U8 */
    const tsr_range *range;    /* U8 */
    int32_t in_type, out_type;
    int32_t pixels, c, groups, pairs, pixels_per_block;
    int32_t planes; /* 1; U8: 1 or 2 */
    int32_t silu;
    float factor; /* E4M3: 1 / the activations' scale */
    float eps;
} tsr_norm_args;
#define TSR_NORM_BLOCKS 4
#define TSR_NORM_SHARED (64 * 8) /* mean and 1/deviation of each group */

/* ---------------------------------------------------------------- attention
 *
 * tsr_attention_f16, tsr_attention_bf16: out = softmax(q k^T * scale) v per frame, one head of c <= 512 channels (a
 * multiple of 8). Scores stay on chip: 64 queries a block against 64 keys at a time, softmax carried along in f32.
 * The weights P are rounded to the operands' type before they multiply v.
 * Grid: x = ceil(tokens / 64), y = frames; 256 threads; TSR_ATTENTION_SHARED bytes. */
typedef struct tsr_attention_args {
    const void *qkv; /* [frames][tokens][3c]: q, k, v */
    void *out;       /* [frames][tokens][c] */
    int32_t tokens, c;
    float scale; /* 1/sqrt(c) */
} tsr_attention_args;
#define TSR_ATTENTION_TOKENS 64
#define TSR_ATTENTION_STAGES 3
/* Q of 64 x 512, stages of 64 x 64, P of 64 x 64, all 16 bits; [2][64] maxima or sums, [64] factors, f32 */
#define TSR_ATTENTION_BLOCKS 1
#define TSR_ATTENTION_SHARED (64 * 1024 + TSR_ATTENTION_STAGES * 8192 + 8192 + 3 * 64 * 4)

/* ---------------------------------------------------------------- moving */

/* tsr_input: f32 to out_type (F16, BF16). Grid: x = ceil(n / 1024); 256 threads; no shared memory. */
typedef struct tsr_input_args {
    const float *in;
    void *out;
    int64_t n;
    int32_t out_type;
} tsr_input_args;
#define TSR_INPUT_BLOCKS 4

/* tsr_store: NDHWC to the slot's planes. Grid: x = ceil(pixels / 256), y = frames; 256 threads; no shared memory. */
typedef struct tsr_store_args {
    const void *in; /* [frames][pixels][c] of in_type: F16, BF16, F32 */
    void *out;      /* [frames][c][pixels] of out_type: F16, F32 */
    int32_t in_type, out_type;
    int32_t pixels, c;
} tsr_store_args;
#define TSR_STORE_BLOCKS 4

#endif

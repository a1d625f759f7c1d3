/*
 * Kernels: the weights a conv op multiplies by, made from a layer's stored tensors by exact algebra ("folding").
 *
 *   NONE   as stored
 *   TIME   time taps summed: on the very first frame every tap sees the same frame (spec 5.4), so 3x3x3 is 1x3x3
 *   UP_*   upscale_conv, pixel shuffle and 3x3x3 conv as one conv per output phase (spec 9): 4 spatial phases
 *          (p, r), index p*2 + r, of 2x2 taps; in time, for upsamplers that double it (zt 2), the five kinds of frames
 *          of spec 9.3; for those that do not, S (three time taps) and S1 (first frame, summed)
 */
#ifndef TSR_KERNELS_H
#define TSR_KERNELS_H

#include "model/vae.h"

typedef enum tsr_fold {
    TSR_FOLD_NONE,
    TSR_FOLD_TIME,
    TSR_FOLD_UP_S,  /* taps 3x2x2 */
    TSR_FOLD_UP_S1, /* taps 1x2x2 */
    TSR_FOLD_UP_Q0, /* taps 2x2x2 */
    TSR_FOLD_UP_Q1, /* taps 2x2x2 */
    TSR_FOLD_UP_N1, /* taps 1x2x2 */
    TSR_FOLD_UP_N2, /* taps 2x2x2 */
    TSR_FOLD_UP_N3, /* taps 2x2x2 */
} tsr_fold;

typedef struct tsr_kernel {
    int layer; /* of the half */
    tsr_fold fold;
    int cin, cout;             /* cin: the layer's, as often as its input has planes (tsr_planes) */
    int kt, kh, kw;            /* taps after folding */
    int st, sy, sx;            /* strides */
    int pad_top, pad_left;     /* zero rows and columns; 1 with four phases, of which (p, r) pads 1-p above and */
    int pad_bottom, pad_right; /* 1-r at the left, p below and r at the right */
    int phases;                /* 1, or 4: outputs land at (2h+p, 2w+r) */
    int classes;               /* bias vectors a phase: 1, or 4 at the picture's edge (spec 9.5): index ey*2 + ex */
    int weight_shift; /* weights and biases are folded times 2^-shift: the buffers that a conv reads and writes */
    int bias_shift;   /* may hold numbers times a power of two */
} tsr_kernel;

/* The kernel of a conv layer under a fold that fits it. */
void tsr_kernel_describe(tsr_kernel *out, const tsr_half *half, int layer, tsr_fold fold);
const char *tsr_fold_name(tsr_fold f); /* "", "time", "s", "s1", "q0", ... */

/* Elements of the folded weights [phases][cout][kt][kh][kw][cin] and biases [phases][classes][cout]. */
size_t tsr_kernel_weights(const tsr_kernel *k);
size_t tsr_kernel_biases(const tsr_kernel *k);

/* c[m][n] (+)= a[m][k] * b[k][n], row-major, leading dimensions lda, ldb, ldc; beta is 0 or 1. */
typedef void (*tsr_sgemm_fn)(
    int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
void tsr_sgemm_plain(
    int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

/* Folds in f32, from the stored tensors, for one plane: tsr_quantise_kernel adds the other. Temporary memory comes from
 * malloc: at most tsr_kernel_fold_bytes(). */
tsr_status tsr_kernel_fold(const tsr_half *half, const tsr_kernel *k, tsr_sgemm_fn gemm, float *weights, float *biases);
size_t tsr_kernel_fold_bytes(const tsr_half *half, const tsr_kernel *k);

#endif

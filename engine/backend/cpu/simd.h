/*
 * The loops that must run at memory bandwidth, from one source compiled for several instruction
 * sets (simd.c), and the tiers made of them.
 */
#ifndef TSR_SIMD_H
#define TSR_SIMD_H

#include "backend/ops.h"

/* y = x * scale[c] + shift[c], then SiLU, then the u8 code: rounded y * gain[c] + zero, within 0..255, 0 for NaN; of
 * two planes, [pixels][2][c], the sum of which is rounded y * gain[c] + 2 * zero. x is [pixels][c]. */
typedef void tsr_codes_fn(const float *x, uint8_t *y, size_t pixels, int c, int planes, const float *scale,
    const float *shift, const float *gain, int zero, bool silu);

typedef struct tsr_simd {
    /* Adds to sum[c] and squares[c] those of x, [pixels][c]. */
    void (*sums)(const float *x, size_t pixels, int c, double *sum, double *squares);
    /* y = x * scale[c] + shift[c], then SiLU; [pixels][c]. x == y is allowed. */
    void (*affine)(const float *x, float *y, size_t pixels, int c, const float *scale, const float *shift, bool silu);
    /* As sums, and the smallest and largest of each channel. */
    void (*extremes)(const float *x, size_t pixels, int c, double *sum, double *squares, float *least, float *most);
    tsr_codes_fn *codes;
    /* As tsr_requantise, to the bit, of ranges whose scales have this ratio; from == to is allowed. */
    void (*recode)(const uint8_t *from, uint8_t *to, size_t n, float by, int old_zero, int zero);
    float (*largest)(const float *x, int n, float so_far);
    float (*exponentials)(float *x, int n, float largest); /* x = exp(x - largest), 0 below e^-87; returns their sum */
    void (*scale)(float *x, int n, float by);
} tsr_simd;

extern const tsr_simd tsr_simd_baseline;
#ifdef __x86_64__
extern const tsr_simd tsr_simd_avx2, tsr_simd_avx512;
#endif
const tsr_simd *tsr_simd_best(void); /* for this machine */

extern const tsr_tier tsr_tier_baseline;
#ifdef __x86_64__
extern const tsr_tier tsr_tier_avx2, tsr_tier_avx512;
extern const tsr_tier tsr_tier_avx2_u8;  /* convolutions of 8-bit codes */
extern const tsr_tier tsr_tier_avx2_f32; /* convolutions, where there is no AVX-512 */
#endif

#endif

/*
 * Loops over channels that compilers turn into vector code, plain C otherwise. Compiled once for
 * every instruction set, into the table TSR_SIMD; the build adds the flags.
 */
#include "backend/cpu/simd.h"

#include <math.h>

static inline float from_bits(int32_t i) {
    union {
        int32_t i;
        float f;
    } u = {i};
    return u.f;
}

static inline int32_t to_bits(float f) {
    union {
        float f;
        int32_t i;
    } u = {f};
    return u.i;
}

/*
 * e^x for x in [-87, 87], nothing of use elsewhere; NaN stays. x is n + f over log2 e: 2^f is a polynomial (degree 5,
 * minimax: relative error 1e-7), to whose exponent n is added. Adding 1.5 * 2^23 rounds to an integer, which then
 * stands in the low bits.
 */
static inline float exponential(float x) {
    const float magic = 12582912.0f, per_unit = 1.44269504088896341f;
    float shifted = x * per_unit + magic, f = x * per_unit - (shifted - magic);
    float p = 1.32647273e-3f;
    p = p * f + 9.67151299e-3f;
    p = p * f + 5.55073358e-2f;
    p = p * f + 2.40222424e-1f;
    p = p * f + 6.93147004e-1f;
    p = p * f + 1;
    return from_bits((int32_t)((uint32_t)to_bits(p) + ((uint32_t)to_bits(shifted) << 23)));
}

/*
 * v / (1 + e^-v), NaN for NaN. The exponent is cut at +-87, where the sum is 1 or huge: as signed integers positive
 * numbers have their order, as unsigned ones negative numbers have it upside down. Of comparisons of floats, which NaN
 * forbids to be a minimum, compilers make a path for each end, with a division in each, and vectors take all of them.
 */
static inline float silu_of(float v) {
    const int32_t most = 0x42ae0000;   /* 87 */
    const uint32_t least = 0xc2ae0000; /* -87 */
    int32_t cut = to_bits(v) < most ? to_bits(v) : most;
    uint32_t both = (uint32_t)cut < least ? (uint32_t)cut : least;
    return v / (1 + exponential(-from_bits((int32_t)both)));
}

/* Asks for the pixels that come a page later: a CPU's own look ahead ends with the page, and sums alone do not keep
 * enough reads under way. */
static inline void fetch_ahead(const float *x, size_t n) {
    enum { PAGE = 4096, LINE = 64 / sizeof(float) };
    for (size_t j = 0; j < n; j += LINE)
        __builtin_prefetch((const void *)((uintptr_t)(x + j) + PAGE));
}

static void sums(const float *restrict x, size_t pixels, int c, double *restrict sum, double *restrict squares) {
    size_t n = (size_t)c, i = 0;
    for (; i + 4 <= pixels; i += 4, x += 4 * n) {
        fetch_ahead(x, 4 * n);
        for (size_t j = 0; j < n; j++) {
            double a = (double)x[j], b = (double)x[j + n], d = (double)x[j + 2 * n], e = (double)x[j + 3 * n];
            sum[j] += (a + b) + (d + e);
            squares[j] += (a * a + b * b) + (d * d + e * e);
        }
    }
    for (; i < pixels; i++, x += n)
        for (size_t j = 0; j < n; j++) {
            double a = (double)x[j];
            sum[j] += a;
            squares[j] += a * a;
        }
}

/* x and y may be the same, but then no element is read after it was written: vectors are safe. */
static void affine(const float *x, float *y, size_t pixels, int c, const float *restrict scale,
    const float *restrict shift, bool silu) {
    for (size_t i = 0; i < pixels; i++, x += c, y += c) {
        fetch_ahead(x, (size_t)c);
        if (silu) {
#pragma GCC ivdep
            for (int j = 0; j < c; j++) {
                float v = x[j] * scale[j] + shift[j];
                y[j] = silu_of(v);
            }
        } else {
#pragma GCC ivdep
            for (int j = 0; j < c; j++)
                y[j] = x[j] * scale[j] + shift[j];
        }
    }
}

static void extremes(const float *restrict x, size_t pixels, int c, double *restrict sum, double *restrict squares,
    float *restrict least, float *restrict most) {
    size_t n = (size_t)c, i = 0;
    for (; i + 4 <= pixels; i += 4, x += 4 * n) {
        fetch_ahead(x, 4 * n);
        for (size_t j = 0; j < n; j++) {
            float p = x[j], q = x[j + n], r = x[j + 2 * n], t = x[j + 3 * n];
            double a = (double)p, b = (double)q, d = (double)r, e = (double)t;
            float low = p < q ? p : q, low2 = r < t ? r : t, high = p > q ? p : q, high2 = r > t ? r : t;
            low = low < low2 ? low : low2;
            high = high > high2 ? high : high2;
            sum[j] += (a + b) + (d + e);
            squares[j] += (a * a + b * b) + (d * d + e * e);
            least[j] = low < least[j] ? low : least[j];
            most[j] = high > most[j] ? high : most[j];
        }
    }
    for (; i < pixels; i++, x += n)
        for (size_t j = 0; j < n; j++) {
            double a = (double)x[j];
            sum[j] += a;
            squares[j] += a * a;
            least[j] = x[j] < least[j] ? x[j] : least[j];
            most[j] = x[j] > most[j] ? x[j] : most[j];
        }
}

#ifndef TSR_CODES /* else simd_codes.c has them */
#define TSR_CODES codes

/* Rounds to an integer by the addition of 1.5 * 2^23, then in the low bits, and cuts it as an integer to 0..top; NaN
 * becomes 0. */
static inline int32_t code_of(float v, int32_t zero, int32_t top) {
    const int32_t magic = 0x4b400000;
    float r = v + 12582912.0f;
    int32_t i = r == r ? to_bits(r) : 0, least = magic - zero, most = least + top;
    i = i > least ? i : least;
    i = i < most ? i : most;
    return i - least;
}

static inline int32_t code_at(const float *x, int j, const float *scale, const float *shift, const float *gain,
    int32_t zero, int32_t top, bool silu) {
    float v = x[j] * scale[j] + shift[j];
    return code_of((silu ? silu_of(v) : v) * gain[j], zero, top);
}

/* Inlined where planes and silu are constants: with a choice in the loop no compiler makes vectors of it. */
static inline __attribute__((always_inline)) void pixel_codes(const float *restrict x, uint8_t *restrict y, int c,
    int planes, const float *restrict scale, const float *restrict shift, const float *restrict gain, int zero,
    bool silu) {
#pragma GCC ivdep
    for (int j = 0; j < c; j++) {
        int32_t code = code_at(x, j, scale, shift, gain, planes * zero, planes * 255, silu);
        y[j] = (uint8_t)(planes == 2 ? code >> 1 : code);
        if (planes == 2)
            y[c + j] = (uint8_t)((code + 1) >> 1);
    }
}

static void codes(const float *x, uint8_t *y, size_t pixels, int c, int planes, const float *scale, const float *shift,
    const float *gain, int zero, bool silu) {
    for (size_t i = 0; i < pixels; i++, x += c, y += planes * c)
        if (planes == 2 && silu)
            pixel_codes(x, y, c, 2, scale, shift, gain, zero, true);
        else if (planes == 2)
            pixel_codes(x, y, c, 2, scale, shift, gain, zero, false);
        else if (silu)
            pixel_codes(x, y, c, 1, scale, shift, gain, zero, true);
        else
            pixel_codes(x, y, c, 1, scale, shift, gain, zero, false);
}
#else
tsr_codes_fn TSR_CODES;
#endif

static inline void recode_some(const uint8_t *from, uint8_t *to, size_t n, float by, int old_zero, int zero) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
        float v = rintf((float)(from[i] - old_zero) * by) + (float)zero;
        v = v > 0 ? v : 0;
        to[i] = (uint8_t)(v < 255 ? v : 255);
    }
}

static void recode(const uint8_t *from, uint8_t *to, size_t n, float by, int old_zero, int zero) {
    enum { PAGE = 4096, LINE = 64 };
    for (; n >= LINE; from += LINE, to += LINE, n -= LINE) { /* both ends have long been out of the cache */
        __builtin_prefetch((const void *)((uintptr_t)from + PAGE));
        __builtin_prefetch((const void *)((uintptr_t)to + PAGE), 1);
        recode_some(from, to, LINE, by, old_zero, zero);
    }
    recode_some(from, to, n, by, old_zero, zero);
}

enum { LANES = 32 }; /* partial results side by side */

static float largest(const float *x, int n, float so_far) {
    float most[LANES];
    int i = 0;
    for (int j = 0; j < LANES; j++)
        most[j] = so_far;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            most[j] = x[i + j] <= most[j] ? most[j] : x[i + j];
    for (; i < n; i++)
        so_far = x[i] <= so_far ? so_far : x[i];
    for (int j = 0; j < LANES; j++)
        so_far = most[j] <= so_far ? so_far : most[j];
    return so_far;
}

/* -inf weighs nothing. */
static inline float weight(float x) {
    float e = exponential(x);
    return x < -87.0f ? 0 : e;
}

static float exponentials(float *x, int n, float largest_of_all) {
    float part[LANES] = {0}, total = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            x[i + j] = weight(x[i + j] - largest_of_all);
            part[j] += x[i + j];
        }
    for (; i < n; i++) {
        x[i] = weight(x[i] - largest_of_all);
        total += x[i];
    }
    for (int j = 0; j < LANES; j++)
        total += part[j];
    return total;
}

static void scale_by(float *x, int n, float by) {
    for (int i = 0; i < n; i++)
        x[i] *= by;
}

const tsr_simd TSR_SIMD = {sums, affine, extremes, TSR_CODES, recode, largest, exponentials, scale_by};

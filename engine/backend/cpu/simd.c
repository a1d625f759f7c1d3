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
 * e^x for x in [-87, 88], else that of the nearer end; NaN stays. x = n ln 2 + r: a polynomial in r
 * (degree 6, from Cephes' expf: relative error 2e-7), n into the exponent. Adding 1.5 * 2^23 rounds
 * to an integer, which then stands in the low bits.
 */
static inline float exponential(float x) {
    const float magic = 12582912.0f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    return p * from_bits((int32_t)((uint32_t)to_bits(shifted) << 23) + 0x3f800000);
}

static void sums(const float *restrict x, size_t pixels, int c, double *restrict sum, double *restrict squares) {
    size_t n = (size_t)c, i = 0;
    for (; i + 4 <= pixels; i += 4, x += 4 * n)
        for (size_t j = 0; j < n; j++) {
            double a = (double)x[j], b = (double)x[j + n], d = (double)x[j + 2 * n], e = (double)x[j + 3 * n];
            sum[j] += (a + b) + (d + e);
            squares[j] += (a * a + b * b) + (d * d + e * e);
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
        if (silu) {
#pragma GCC ivdep
            for (int j = 0; j < c; j++) {
                float v = x[j] * scale[j] + shift[j];
                y[j] = v / (1 + exponential(-v));
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
    for (; i + 2 <= pixels; i += 2, x += 2 * n)
        for (size_t j = 0; j < n; j++) {
            double a = (double)x[j], b = (double)x[j + n];
            float low = x[j] < x[j + n] ? x[j] : x[j + n], high = x[j] > x[j + n] ? x[j] : x[j + n];
            sum[j] += a + b;
            squares[j] += a * a + b * b;
            least[j] = low < least[j] ? low : least[j];
            most[j] = high > most[j] ? high : most[j];
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

/* Rounds to an integer by the addition of 1.5 * 2^23; NaN becomes 0. */
static inline uint8_t code_of(float v, float zero) {
    float r = (v + 12582912.0f) - 12582912.0f + zero;
    r = r > 0 ? r : 0;
    r = r < 255 ? r : 255;
    return (uint8_t)(int32_t)r;
}

static void codes(const float *restrict x, uint8_t *restrict y, size_t pixels, int c, const float *restrict scale,
    const float *restrict shift, const float *restrict gain, int zero, bool silu) {
    float z = (float)zero;
    for (size_t i = 0; i < pixels; i++, x += c, y += c) {
        if (silu) {
            for (int j = 0; j < c; j++) {
                float v = x[j] * scale[j] + shift[j];
                y[j] = code_of(v / (1 + exponential(-v)) * gain[j], z);
            }
        } else {
            for (int j = 0; j < c; j++)
                y[j] = code_of((x[j] * scale[j] + shift[j]) * gain[j], z);
        }
    }
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

const tsr_simd TSR_SIMD = {sums, affine, extremes, codes, largest, exponentials, scale_by};

/*
 * Norm, SiLU and u8 codes with AVX2 or AVX-512: an exponent and a division would take longer than
 * the numbers take to come from memory. So
 *
 *     silu(v) = max(v, 0) + bend(|v|),  bend(a) = -a / (1 + e^a)
 *
 * and bend, which is soon 0, is a polynomial for each piece of a, whose coefficients a permutation
 * picks out of registers. Compiled once for each of the two, into the function TSR_CODES.
 */
#include "backend/cpu/simd.h"

#include <immintrin.h>

/* The coefficients are of a itself, lowest power first, through the Chebyshev nodes of each piece. */
#ifdef __AVX512DQ__
#define V(op) _mm512_##op
typedef __m512 floats;
typedef __m512i ints;

/* Pieces of 1/2, the first and the last half as long, to 15.5, where bend is -3e-6. silu is off by 7.3e-6 at most. */
static const float BEND[4][32] = {
    {
        6.249440934e-07f, 7.572925315e-04f, 5.547076638e-03f, -1.255611737e-02f,
        -1.012770405e-01f, -2.610622472e-01f, -4.412717365e-01f, -5.876612244e-01f,
        -6.723020507e-01f, -6.936705779e-01f, -6.649615535e-01f, -6.036287698e-01f,
        -5.255122682e-01f, -4.426134191e-01f, -3.628961426e-01f, -2.909503686e-01f,
        -2.288804333e-01f, -1.771286058e-01f, -1.351316971e-01f, -1.017979550e-01f,
        -7.582807417e-02f, -5.591494202e-02f, -4.085583238e-02f, -2.960530774e-02f,
        -2.129054082e-02f, -1.520469740e-02f, -1.078902377e-02f, -7.610468150e-03f,
        -5.338921597e-03f, -3.726290456e-03f, -2.588401552e-03f, -1.790005017e-03f,
    },
    {
        -5.000800243e-01f, -5.071677934e-01f, -5.276668234e-01f, -4.869317637e-01f,
        -3.361831036e-01f, -1.227802387e-01f, 7.489291329e-02f, 2.110515773e-01f,
        2.794702239e-01f, 2.949483401e-01f, 2.769952479e-01f, 2.420015347e-01f,
        2.012355306e-01f, 1.614082489e-01f, 1.259358852e-01f, 9.612540970e-02f,
        7.206476406e-02f, 5.321927879e-02f, 3.880003028e-02f, 2.797403813e-02f,
        1.997239006e-02f, 1.413637041e-02f, 9.928349573e-03f, 6.924397807e-03f,
        4.798851606e-03f, 3.306645364e-03f, 2.266444737e-03f, 1.545949957e-03f,
        1.049788672e-03f, 7.099196260e-04f, 4.782403081e-04f, 3.210170860e-04f,
    },
    {
        2.516038219e-01f, 2.745030522e-01f, 3.042010979e-01f, 2.735991818e-01f,
        1.879412415e-01f, 9.274223062e-02f, 2.036740065e-02f, -2.188697471e-02f,
        -4.033435710e-02f, -4.407146365e-02f, -4.032790128e-02f, -3.367015876e-02f,
        -2.657652922e-02f, -2.019672932e-02f, -1.493406751e-02f, -1.081596751e-02f,
        -7.706494133e-03f, -5.418611903e-03f, -3.768150961e-03f, -2.596002950e-03f,
        -1.774110910e-03f, -1.203926630e-03f, -8.119376149e-04f, -5.445586853e-04f,
        -3.634237978e-04f, -2.414559343e-04f, -1.597707220e-04f, -1.053284795e-04f,
        -6.920193486e-05f, -4.532443397e-05f, -2.960004107e-05f, -1.927925842e-05f,
    },
    {
        -1.031163308e-02f, -3.650194847e-02f, -5.102238567e-02f, -4.334406226e-02f,
        -2.706644457e-02f, -1.288155985e-02f, -4.036769246e-03f, 3.382546677e-04f,
        1.997278650e-03f, 2.298040744e-03f, 2.037749484e-03f, 1.615368774e-03f,
        1.203789308e-03f, 8.630459851e-04f, 6.027316332e-04f, 4.130658778e-04f,
        2.790921317e-04f, 1.864935238e-04f, 1.235131876e-04f, 8.120463999e-05f,
        5.306129143e-05f, 3.449030780e-05f, 2.231759971e-05f, 1.438390778e-05f,
        9.238205635e-06f, 5.914899322e-06f, 3.776563682e-06f, 2.405223379e-06f,
        1.528359402e-06f, 9.691599300e-07f, 6.133978389e-07f, 3.875549544e-07f,
    },
};

static inline floats silu_of(floats v) {
    enum { LEAST_MAGNITUDE = 2, NO_SIGN = 8 };
    floats a = _mm512_range_ps(v, _mm512_set1_ps(15.5f), LEAST_MAGNITUDE | NO_SIGN);
    /* 1.5 * 2^23 rounds to an integer, which then stands in the low bits */
    ints piece = _mm512_castps_si512(_mm512_fmadd_ps(a, _mm512_set1_ps(2), _mm512_set1_ps(12582912.0f)));
    floats bend = _mm512_setzero_ps();
    for (int i = 3; i >= 0; i--)
        bend = _mm512_fmadd_ps(bend, a,
            _mm512_permutex2var_ps(_mm512_loadu_ps(BEND[i]), piece, _mm512_loadu_ps(BEND[i] + 16)));
    return _mm512_add_ps(bend, _mm512_max_ps(_mm512_setzero_ps(), v)); /* NaN stays: it is the second one */
}

static inline void store(uint8_t *y, ints codes, bool half) {
    const ints order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    codes = _mm512_permutexvar_epi32(order, codes);
    if (half)
        _mm256_storeu_si256((__m256i *)y, _mm512_castsi512_si256(codes));
    else
        _mm512_storeu_si512(y, codes);
}
#else
#define V(op) _mm256_##op
typedef __m256 floats;
typedef __m256i ints;

/*
 * Pieces from 0, 0.5, 1, 2, 3, 5, 7 and 11 to 15, where bend is -5e-6: the exponent of a + 1 and the digit after it, of
 * which three bits count, are the place in the table. silu is off by 2.2e-5 at most.
 */
static const float BEND[5][8] = {
    {
        2.044901215e-02f, -3.308365488e-02f, -5.289447368e-01f, -7.726055763e-01f,
        -3.351189725e-01f, -4.001578657e-02f, 1.504494303e-07f, 1.069672505e-03f,
    },
    {
        -5.770679358e-01f, -4.876606989e-01f, 1.406498733e-01f, 3.655095858e-01f,
        1.261137683e-01f, 1.113104836e-02f, -5.000149303e-01f, -5.074185304e-01f,
    },
    {
        3.654975238e-01f, 3.113550491e-01f, 9.910763134e-03f, -6.751785391e-02f,
        -1.804746783e-02f, -1.167451918e-03f, 2.502292426e-01f, 2.699341464e-01f,
    },
    {
        -8.479264475e-02f, -7.099440165e-02f, -6.061635698e-03f, 5.737314037e-03f,
        1.160442943e-03f, 5.466161248e-05f, -1.163135567e-03f, -2.529611454e-02f,
    },
    {
        6.976859925e-03f, 5.783255567e-03f, 4.834878056e-04f, -1.881981239e-04f,
        -2.821726938e-05f, -9.631810810e-07f, -1.880225619e-02f, -7.230923428e-03f,
    },
};

static inline floats silu_of(floats v) {
    floats a = _mm256_min_ps(_mm256_set1_ps(14.999f), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v));
    ints piece = _mm256_srli_epi32(_mm256_castps_si256(_mm256_add_ps(a, _mm256_set1_ps(1))), 22);
    floats bend = _mm256_setzero_ps();
    for (int i = 4; i >= 0; i--)
        bend = _mm256_fmadd_ps(bend, a, _mm256_permutevar8x32_ps(_mm256_loadu_ps(BEND[i]), piece));
    return _mm256_add_ps(bend, _mm256_max_ps(_mm256_setzero_ps(), v)); /* NaN stays: it is the second one */
}

static inline void store(uint8_t *y, ints codes, bool half) {
    codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if (half)
        _mm_storeu_si128((__m128i *)y, _mm256_castsi256_si128(codes));
    else
        _mm256_storeu_si256((__m256i *)y, codes);
}
#endif

enum { LANES = sizeof(floats) / sizeof(float), BLOCK = 4 * LANES, PAGE = 4096 };

typedef struct norm {
    const float *scale, *shift, *gain; /* [c] */
    ints zero;                         /* 16 bits; of all planes */
} norm;

/* Codes of LANES channels in 32 bits, the zero point not yet in them; -2^31 for NaN, which stays below 0. */
static inline ints code_of(const float *x, const norm *n, int j, bool silu) {
    const floats much = V(set1_ps)(65536);
    floats v = V(fmadd_ps)(V(loadu_ps)(x + j), V(loadu_ps)(n->scale + j), V(loadu_ps)(n->shift + j));
    v = V(mul_ps)(silu ? silu_of(v) : v, V(loadu_ps)(n->gain + j));
    return V(cvtps_epi32)(V(min_ps)(much, v));
}

/* Channels from j on, BLOCK of them or half as many. Packing saturates, first to 16 signed bits, then to 8 unsigned. */
static inline void block_codes(const float *x, uint8_t *y, int c, int planes, const norm *n, int j, bool half,
    bool silu) {
    for (int i = 0; i < (half ? 2 : 4); i++)
        __builtin_prefetch((const void *)((uintptr_t)(x + j + i * LANES) + PAGE));
    ints low = V(packs_epi32)(code_of(x, n, j, silu), code_of(x, n, j + LANES, silu)), high = low;
    if (!half)
        high = V(packs_epi32)(code_of(x, n, j + 2 * LANES, silu), code_of(x, n, j + 3 * LANES, silu));
    low = V(adds_epi16)(low, n->zero);
    high = V(adds_epi16)(high, n->zero);
    if (planes == 1) {
        store(y + j, V(packus_epi16)(low, high), half);
        return;
    }
    const ints none = V(set1_epi16)(0), most = V(set1_epi16)(510);
    low = V(min_epi16)(V(max_epi16)(low, none), most);
    high = V(min_epi16)(V(max_epi16)(high, none), most);
    store(y + j, V(packus_epi16)(V(srli_epi16)(low, 1), V(srli_epi16)(high, 1)), half);
    store(y + c + j, V(packus_epi16)(V(avg_epu16)(low, none), V(avg_epu16)(high, none)), half);
}

/* Inlined where planes and silu are constants. c is a multiple of a norm's groups, 32, so of half a block. */
static inline __attribute__((always_inline)) void all_codes(const float *x, uint8_t *y, size_t pixels, int c,
    int planes, const norm *n, bool silu) {
    for (size_t i = 0; i < pixels; i++, x += c, y += planes * c) {
        int j = 0;
        for (; j + BLOCK <= c; j += BLOCK)
            block_codes(x, y, c, planes, n, j, false, silu);
        if (j < c)
            block_codes(x, y, c, planes, n, j, true, silu);
    }
}

tsr_codes_fn TSR_CODES;

void TSR_CODES(const float *x, uint8_t *y, size_t pixels, int c, int planes, const float *scale, const float *shift,
    const float *gain, int zero, bool silu) {
    const norm n = {scale, shift, gain, V(set1_epi16)((short)(planes * zero))};
    if (planes == 2 && silu)
        all_codes(x, y, pixels, c, 2, &n, true);
    else if (planes == 2)
        all_codes(x, y, pixels, c, 2, &n, false);
    else if (silu)
        all_codes(x, y, pixels, c, 1, &n, true);
    else
        all_codes(x, y, pixels, c, 1, &n, false);
}

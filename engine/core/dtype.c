#include "core/core.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[TSR_DTYPE_COUNT] = {
    [TSR_F32] = {"F32", 4},
    [TSR_F16] = {"F16", 2},
    [TSR_BF16] = {"BF16", 2},
    [TSR_F64] = {"F64", 8},
    [TSR_E4M3] = {"F8_E4M3", 1},
    [TSR_E5M2] = {"F8_E5M2", 1},
    [TSR_U8] = {"U8", 1},
    [TSR_I8] = {"I8", 1},
    [TSR_I16] = {"I16", 2},
    [TSR_I32] = {"I32", 4},
    [TSR_I64] = {"I64", 8},
    [TSR_BOOL] = {"BOOL", 1},
    [TSR_Q8_0] = {"Q8_0", 0},
    [TSR_Q4_0] = {"Q4_0", 0},
    [TSR_Q4_1] = {"Q4_1", 0},
    [TSR_Q5_0] = {"Q5_0", 0},
    [TSR_Q5_1] = {"Q5_1", 0},
    [TSR_Q2_K] = {"Q2_K", 0},
    [TSR_Q3_K] = {"Q3_K", 0},
    [TSR_Q4_K] = {"Q4_K", 0},
    [TSR_Q5_K] = {"Q5_K", 0},
    [TSR_Q6_K] = {"Q6_K", 0},
};

const char *tsr_dtype_name(tsr_dtype t) {
    return (unsigned)t < TSR_DTYPE_COUNT ? dtypes[t].name : "?";
}

size_t tsr_dtype_size(tsr_dtype t) {
    return (unsigned)t < TSR_DTYPE_COUNT ? dtypes[t].size : 0;
}

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float tsr_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    if (mag >= 0x7c00) /* infinity, NaN */
        return from_bits(sign | 0x7f800000 | (mag & 0x3ff) << 13);
    if (mag < 0x400) /* zero, subnormal: mag * 2^-24 */
        return from_bits(sign | bits((float)mag * 0x1p-24f));
    return from_bits(sign | ((mag << 13) + (112u << 23)));
}

uint16_t tsr_f32_to_f16(float f) {
    uint32_t u = bits(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (mag >= 0x477ff000) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000) /* subnormal: adding 0.5 lines the last kept bit up with the float's own rounding */
        return (uint16_t)(sign | (bits(from_bits(mag) + 0.5f) - 0x3f000000));
    mag += 0xfff + (mag >> 13 & 1);
    return (uint16_t)(sign | (mag - (112u << 23)) >> 13);
}

uint16_t tsr_f32_to_bf16(float f) {
    uint32_t u = bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

float tsr_e4m3_to_f32(uint8_t v) {
    int e = v >> 3 & 15, m = v & 7;
    float f = (v & 0x7f) == 0x7f ? NAN : e ? ldexpf(1 + (float)m / 8, e - 7) : ldexpf((float)m, -9);
    return v & 0x80 ? -f : f;
}

uint8_t tsr_f32_to_e4m3(float f) {
    uint32_t u = bits(f), sign = u >> 24 & 0x80, mag = u & 0x7fffffff;
    if (mag > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    if (mag >= 0x43e00000) /* 448 and more saturate */
        return (uint8_t)(sign | 0x7e);
    if (mag < 0x3c800000) /* below 2^-6: subnormal, steps of 2^-9 */
        return (uint8_t)(sign | (bits(from_bits(mag) + 0x1p14f) - bits(0x1p14f)));
    mag += 0x7ffff + (mag >> 20 & 1);
    uint32_t r = (mag - (120u << 23)) >> 20;
    return (uint8_t)(sign | (r > 0x7e ? 0x7e : r));
}

float tsr_e5m2_to_f32(uint8_t v) {
    return tsr_f16_to_f32((uint16_t)(v << 8));
}

#define EACH(type, expr)                                                                                               \
    do {                                                                                                               \
        const type *s = src;                                                                                           \
        for (size_t i = 0; i < n; i++)                                                                                 \
            dst[i] = (float)(expr);                                                                                    \
    } while (0)

void tsr_to_f32(tsr_dtype t, const void *src, float *dst, size_t n) {
    switch (t) {
    case TSR_F32:
        memcpy(dst, src, n * 4);
        break;
    case TSR_F16:
        EACH(uint16_t, tsr_f16_to_f32(s[i]));
        break;
    case TSR_BF16:
        EACH(uint16_t, tsr_bf16_to_f32(s[i]));
        break;
    case TSR_F64:
        EACH(double, s[i]);
        break;
    case TSR_E4M3:
        EACH(uint8_t, tsr_e4m3_to_f32(s[i]));
        break;
    case TSR_E5M2:
        EACH(uint8_t, tsr_e5m2_to_f32(s[i]));
        break;
    case TSR_U8:
    case TSR_BOOL:
        EACH(uint8_t, s[i]);
        break;
    case TSR_I8:
        EACH(int8_t, s[i]);
        break;
    case TSR_I16:
        EACH(int16_t, s[i]);
        break;
    case TSR_I32:
        EACH(int32_t, s[i]);
        break;
    case TSR_I64:
        EACH(int64_t, s[i]);
        break;
    default:
        memset(dst, 0, n * 4);
        break;
    }
}

#define EACH_BACK(type, expr)                                                                                          \
    do {                                                                                                               \
        type *d = dst;                                                                                                 \
        for (size_t i = 0; i < n; i++)                                                                                 \
            d[i] = (type)(expr);                                                                                       \
    } while (0)

void tsr_from_f32(tsr_dtype t, const float *src, void *dst, size_t n) {
    switch (t) {
    case TSR_F32:
        memcpy(dst, src, n * 4);
        break;
    case TSR_F16:
        EACH_BACK(uint16_t, tsr_f32_to_f16(src[i]));
        break;
    case TSR_BF16:
        EACH_BACK(uint16_t, tsr_f32_to_bf16(src[i]));
        break;
    case TSR_F64:
        EACH_BACK(double, src[i]);
        break;
    case TSR_E4M3:
        EACH_BACK(uint8_t, tsr_f32_to_e4m3(src[i]));
        break;
    default:
        break; /* nothing else is ever written */
    }
}

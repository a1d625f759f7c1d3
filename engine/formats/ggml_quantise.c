/* Floats to the blocks of 32 that ggml_blocks.c reads, with the roundings of ggml's own reference
 * code, so that files are equal to the bit to those of the official tools. */
#include "formats/containers.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { N = 32 };

/* Steps too small for an fp16 are stored as 0; their inverse may not be finite. */
static float inverse(float d) {
    return fabsf(d) < FLT_MIN ? 0 : 1 / d;
}

static void put_half(uint8_t *b, float f) {
    uint16_t h = tsr_f32_to_f16(f);
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
}

static void put_nibbles(uint8_t *b, const uint8_t *code) {
    for (int i = 0; i < N / 2; i++)
        b[i] = (uint8_t)((code[i] & 15) | (code[i + N / 2] & 15) << 4);
}

static void put_fifth_bits(uint8_t *b, const uint8_t *code) {
    memset(b, 0, 4);
    for (int i = 0; i < N; i++)
        b[i / 8] |= (uint8_t)((code[i] >> 4) << i % 8);
}

/* Codes 0..2h-1 around h. The value furthest from zero becomes the code 0, which reaches one step
 * further than 2h-1 does. Returns the step. */
static float signed_codes(const float *x, int h, uint8_t *code) {
    float extreme = 0;
    for (int i = 0; i < N; i++)
        if (fabsf(x[i]) > fabsf(extreme))
            extreme = x[i];
    float d = extreme / (float)-h, id = inverse(d);
    for (int i = 0; i < N; i++) {
        int c = (int)(x[i] * id + ((float)h + 0.5f));
        code[i] = (uint8_t)(c < 2 * h ? c : 2 * h - 1);
    }
    return d;
}

/* Codes 0..most between the smallest and the largest. Returns the step. */
static float ranged_codes(const float *x, int most, uint8_t *code, float *least) {
    float lo = x[0], hi = x[0];
    for (int i = 1; i < N; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    float d = (hi - lo) / (float)most, id = inverse(d);
    for (int i = 0; i < N; i++) {
        int c = (int)((x[i] - lo) * id + 0.5f);
        code[i] = (uint8_t)(c < most ? c : most);
    }
    *least = lo;
    return d;
}

static void q4_0(const float *x, uint8_t *b) {
    uint8_t code[N];
    put_half(b, signed_codes(x, 8, code));
    put_nibbles(b + 2, code);
}

static void q4_1(const float *x, uint8_t *b) {
    uint8_t code[N];
    float least;
    put_half(b, ranged_codes(x, 15, code, &least));
    put_half(b + 2, least);
    put_nibbles(b + 4, code);
}

static void q5_0(const float *x, uint8_t *b) {
    uint8_t code[N];
    put_half(b, signed_codes(x, 16, code));
    put_fifth_bits(b + 2, code);
    put_nibbles(b + 6, code);
}

static void q5_1(const float *x, uint8_t *b) {
    uint8_t code[N];
    float least;
    put_half(b, ranged_codes(x, 31, code, &least));
    put_half(b + 2, least);
    put_fifth_bits(b + 4, code);
    put_nibbles(b + 8, code);
}

static void q8_0(const float *x, uint8_t *b) {
    float most = 0;
    for (int i = 0; i < N; i++)
        most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, id = inverse(d);
    put_half(b, d);
    for (int i = 0; i < N; i++)
        b[2 + i] = (uint8_t)(int8_t)roundf(x[i] * id);
}

static void (*const quantise[TSR_DTYPE_COUNT])(const float *x, uint8_t *b) = {
    [TSR_Q4_0] = q4_0,
    [TSR_Q4_1] = q4_1,
    [TSR_Q5_0] = q5_0,
    [TSR_Q5_1] = q5_1,
    [TSR_Q8_0] = q8_0,
};

bool tsr_dtype_writable(tsr_dtype t) {
    return t == TSR_F32 || t == TSR_F16 || t == TSR_BF16 || quantise[t];
}

void tsr_tensor_encode(tsr_dtype t, const float *src, size_t n, void *out) {
    size_t elements, bytes;
    if (!quantise[t]) {
        tsr_from_f32(t, src, out, n);
        return;
    }
    tsr_block_size(t, &elements, &bytes);
    for (size_t i = 0; i < n / elements; i++)
        quantise[t](src + i * elements, (uint8_t *)out + i * bytes);
}

/* The blocks of quantised GGUF tensors: 32 or 256 weights that share fp16 scales. Each function
 * makes the floats of one block in the order and with the roundings of ggml's own code, so that
 * results are equal to the bit. */
#include "formats/containers.h"

typedef void (*block_fn)(const uint8_t *b, float *out);

static float half_at(const uint8_t *p) {
    return tsr_f16_to_f32(tsr_le16(p));
}

/* ---------------------------------------------------------------- blocks of 32 */
/* Low nibbles first, then high. */

/* d, 16 nibble pairs */
static void q4_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

/* d, min, 16 nibble pairs */
static void q4_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(b[4 + i] & 15) + m;
        out[i + 16] = d * (float)(b[4 + i] >> 4) + m;
    }
}

/* d, 32 fifth bits, 16 nibble pairs */
static void q5_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    uint32_t high = tsr_le32(b + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((int)((b[6 + i] & 15) | (high >> i & 1) << 4) - 16);
        out[i + 16] = d * (float)((int)(b[6 + i] >> 4 | (high >> (i + 16) & 1) << 4) - 16);
    }
}

/* d, min, 32 fifth bits, 16 nibble pairs */
static void q5_1(const uint8_t *b, float *out) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t high = tsr_le32(b + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((b[8 + i] & 15) | (high >> i & 1) << 4) + m;
        out[i + 16] = d * (float)(b[8 + i] >> 4 | (high >> (i + 16) & 1) << 4) + m;
    }
}

/* d, 32 int8 */
static void q8_0(const uint8_t *b, float *out) {
    float d = half_at(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

/* ---------------------------------------------------------------- blocks of 256 */
/* In 8 or 16 groups with own scales. */

/* 16 (scale, min) nibbles; 64 bytes of 2 bits; d, dmin */
static void q2_k(const uint8_t *b, float *out) {
    const uint8_t *scales = b, *q = b + 16;
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int i = 0; i < 256; i++) {
        int group = i / 16, byte = i / 128 * 32 + i % 32, shift = i / 32 % 4 * 2;
        float dl = d * (float)(scales[group] & 15), ml = dmin * (float)(scales[group] >> 4);
        out[i] = dl * (float)(q[byte] >> shift & 3) - ml;
    }
}

/* 32 bytes of third bits; 64 of 2 bits; 16 6-bit scales in 12; d */
static void q3_k(const uint8_t *b, float *out) {
    const uint8_t *high = b, *q = b + 32, *packed = b + 96;
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        int group = i / 16, byte = i / 128 * 32 + i % 32, shift = i / 32 % 4 * 2;
        int low4 = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
        int scale = (low4 | (packed[8 + group % 4] >> (group / 4 * 2) & 3) << 4) - 32;
        int value = (q[byte] >> shift & 3) - (high[i % 32] >> (i / 32) & 1 ? 0 : 4);
        out[i] = d * (float)scale * (float)value;
    }
}

/* The 8 6-bit scales and mins that Q4_K and Q5_K pack in 12 bytes. */
static void scale_and_min(const uint8_t *packed, int group, float *scale, float *min) {
    int g = group % 4;
    *scale = (float)(group < 4 ? packed[g] & 63 : (packed[8 + g] & 15) | (packed[g] >> 2 & 48));
    *min = (float)(group < 4 ? packed[4 + g] & 63 : packed[8 + g] >> 4 | (packed[4 + g] >> 2 & 48));
}

/* d, dmin; scales, mins; 128 nibble pairs */
static void q4_k(const uint8_t *b, float *out) {
    const uint8_t *q = b + 16;
    float d = half_at(b), dmin = half_at(b + 2);
    for (int group = 0; group < 8; group++) {
        float scale, min;
        scale_and_min(b + 4, group, &scale, &min);
        float dl = d * scale, ml = dmin * min;
        for (int i = 0; i < 32; i++)
            out[group * 32 + i] = dl * (float)(q[group / 2 * 32 + i] >> (group % 2 * 4) & 15) - ml;
    }
}

/* d, dmin; scales, mins; 32 bytes of fifth bits; 128 nibble pairs */
static void q5_k(const uint8_t *b, float *out) {
    const uint8_t *high = b + 16, *q = b + 48;
    float d = half_at(b), dmin = half_at(b + 2);
    for (int group = 0; group < 8; group++) {
        float scale, min;
        scale_and_min(b + 4, group, &scale, &min);
        float dl = d * scale, ml = dmin * min;
        for (int i = 0; i < 32; i++) {
            int low = q[group / 2 * 32 + i] >> (group % 2 * 4) & 15;
            out[group * 32 + i] = dl * (float)(low | (high[i] >> group & 1) << 4) - ml;
        }
    }
}

/* 128 nibble pairs; 64 bytes of 2 high bits; 16 int8 scales; d */
static void q6_k(const uint8_t *b, float *out) {
    const uint8_t *low = b, *high = b + 128, *scales = b + 192;
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int nibble = low[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
        int top = high[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
        out[i] = d * (float)(int8_t)scales[i / 16] * (float)((nibble | top << 4) - 32);
    }
}

static const struct {
    block_fn fn;
    uint16_t elements, bytes;
} blocks[TSR_DTYPE_COUNT] = {
    // clang-format off
    [TSR_Q8_0] = {q8_0, 32, 34},   [TSR_Q4_0] = {q4_0, 32, 18},   [TSR_Q4_1] = {q4_1, 32, 20},
    [TSR_Q5_0] = {q5_0, 32, 22},   [TSR_Q5_1] = {q5_1, 32, 24},   [TSR_Q2_K] = {q2_k, 256, 84},
    [TSR_Q3_K] = {q3_k, 256, 110}, [TSR_Q4_K] = {q4_k, 256, 144}, [TSR_Q5_K] = {q5_k, 256, 176},
    [TSR_Q6_K] = {q6_k, 256, 210},
    // clang-format on
};

void tsr_block_size(tsr_dtype t, size_t *elements, size_t *bytes) {
    *elements = blocks[t].fn ? blocks[t].elements : 1;
    *bytes = blocks[t].fn ? blocks[t].bytes : tsr_dtype_size(t);
}

void tsr_blocks_to_f32(tsr_dtype t, const uint8_t *src, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        blocks[t].fn(src + i * blocks[t].bytes, out + i * blocks[t].elements);
}

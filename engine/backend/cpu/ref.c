#include "backend/cpu/ref.h"

#include <math.h>

static const tsr_quant plain = {1, 0, NULL};

static const tsr_quant *quant_of(const tsr_program *p, const tsr_buffer *b) {
    return b->quant < 0 ? &plain : &p->quant[b->quant];
}

void tsr_ref_get(const tsr_program *p, const tsr_buffer *b, const void *pixel, int c0, int n, float *x) {
    const tsr_quant *q = quant_of(p, b);
    tsr_to_f32(b->dtype, (const char *)pixel + (size_t)c0 * tsr_dtype_size(b->dtype), x, (size_t)n);
    if (b->quant < 0)
        return;
    for (int i = 0; i < n; i++)
        x[i] = (x[i] - (float)q->zero) * q->scale / (q->gain ? q->gain[c0 + i] : 1);
}

void tsr_ref_put(const tsr_program *p, const tsr_buffer *b, void *pixel, int c0, int n, const float *x) {
    const tsr_quant *q = quant_of(p, b);
    char *to = (char *)pixel + (size_t)c0 * tsr_dtype_size(b->dtype);
    if (b->quant < 0) {
        tsr_from_f32(b->dtype, x, to, (size_t)n);
        return;
    }
    for (int i = 0; i < n; i++) {
        float v = x[i] * (q->gain ? q->gain[c0 + i] : 1) / q->scale;
        if (b->dtype == TSR_U8)
            ((uint8_t *)to)[i] = (uint8_t)fminf(255, fmaxf(0, rintf(v) + (float)q->zero));
        else
            tsr_from_f32(b->dtype, &v, to + i, 1);
    }
}

bool tsr_ref_is_u8(const tsr_program *p, int buffer) {
    const tsr_buffer *b = &p->buffer[buffer];
    return b->dtype == TSR_U8 && b->quant >= 0 && p->quant[b->quant].scale == 0;
}

const tsr_tier tsr_tier_c = {
    .name = "c",
    .kernel_bytes = tsr_ref_kernel_bytes,
    .pack = tsr_ref_pack,
    .gemm = tsr_sgemm_plain,
    .op =
        {
            [TSR_OP_INPUT] = {.run = tsr_ref_input},
            [TSR_OP_CONV] = {.run = tsr_ref_conv},
            [TSR_OP_STATS] = {.run = tsr_ref_stats},
            [TSR_OP_NORM] = {.run = tsr_ref_norm},
            [TSR_OP_ATTENTION] = {.run = tsr_ref_attention, .scratch = tsr_ref_attention_scratch},
            [TSR_OP_QUANTISE] = {.run = tsr_ref_quantise},
            [TSR_OP_CACHE_LOAD] = {.run = tsr_ref_cache_load},
            [TSR_OP_CACHE_SAVE] = {.run = tsr_ref_cache_save},
            [TSR_OP_STORE] = {.run = tsr_ref_store},
            [TSR_OP_PAGE_IN] = {.run = tsr_band_page},
            [TSR_OP_PAGE_OUT] = {.run = tsr_band_page},
        },
};

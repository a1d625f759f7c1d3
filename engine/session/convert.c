/* What a conversion costs: the same small latent decoded by both models. */
#include "session/session.h"

#include <tessera/convert.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LATENTS = 2, SIDE = 8 }; /* 5 frames of 64x64: seconds for the published model on a CPU */

typedef struct take {
    float *video; /* [frames][3][height][width] */
    size_t frame;
} take;

static tsr_status keep_frame(void *user, const tsr_frame *f) {
    take *t = user;
    memcpy(t->video + (size_t)f->index * t->frame, f->data, f->bytes);
    return TSR_OK;
}

/* Unit variance, as latents have: uniform, from a counter. */
static void fill_noise(float *z, size_t n) {
    uint64_t s = 0;
    for (size_t i = 0; i < n; i++) {
        s += 0x9E3779B97F4A7C15;
        uint64_t x = (s ^ s >> 30) * 0xBF58476D1CE4E5B9;
        x = (x ^ x >> 27) * 0x94D049BB133111EB;
        z[i] = sqrtf(3) * ((float)((x ^ x >> 31) >> 40) / (1 << 23) - 1);
    }
}

/* *video is malloc'd, *count values. */
static tsr_status decode(tsr_engine *e, tsr_model *m, float **video, size_t *count) {
    const tsr_model_info *i = tsr_model_get_info(m);
    size_t n = (size_t)LATENTS * SIDE * SIDE * (size_t)i->latent_channels;
    tsr_extent extent = {LATENTS, SIDE, SIDE};
    tsr_plan_params wishes = TSR_PLAN_PARAMS_DEFAULT;
    tsr_decode_params params = TSR_DECODE_PARAMS_DEFAULT;
    tsr_latent *latent = NULL;
    tsr_plan *plan = NULL;
    take t = {0};
    tsr_status status;
    float *z = malloc(n * sizeof *z);
    if (!z)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "convert: no memory for a latent"));
    fill_noise(z, n);
    TSR_TRY(tsr_latent_from_memory(&latent, z, LATENTS, SIDE, SIDE, i->latent_channels));
    wishes.precision = TSR_PRECISION_F32;
    TSR_TRY(tsr_plan_create(&plan, e, m, &extent, &wishes));
    const tsr_plan_info *p = tsr_plan_get_info(plan);
    t.frame = 3 * (size_t)p->width * (size_t)p->height;
    *count = t.frame * (size_t)p->frames;
    t.video = malloc(*count * sizeof *t.video);
    if (!t.video)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "convert: no memory for %d frames", p->frames));
    params.pixels = TSR_PIXELS_RGB_F32;
    params.on_frame = keep_frame;
    params.user = &t;
    status = tsr_decode(e, m, latent, plan, &params, NULL);
error:
    if (status != TSR_OK) {
        free(t.video);
        t.video = NULL;
    }
    *video = t.video;
    tsr_plan_destroy(&plan);
    tsr_latent_close(&latent);
    free(z);
    return status;
}

tsr_status tsr_convert_psnr(tsr_engine *e, tsr_model *from, tsr_model *to, double *psnr) {
    float *a = NULL, *b = NULL;
    size_t n = 0, other = 0;
    double squares = 0;
    tsr_status status;
    TSR_TRY(decode(e, from, &a, &n));
    TSR_TRY(decode(e, to, &b, &other));
    if (n != other)
        TSR_TRY(tsr_fail(TSR_ERR_ARGUMENT, "convert: the models decode to different sizes"));
    for (size_t i = 0; i < n; i++)
        squares += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    *psnr = squares > 0 ? 10 * log10(4 * (double)n / squares) : INFINITY;
error:
    free(a);
    free(b);
    return status;
}

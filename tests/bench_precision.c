/*
 * What the modes cost and how far they are from f32: the rows of the table in docs/quality.md.
 *
 *     bench_precision                    random weights of the published model's size, latents of
 * 16 x 16 bench_precision MODEL LATENT       a clip of your own; its first two latents, a corner of
 * 24 x 24 at most
 */
#include "formats/latent_file.h"
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct clip {
    tsr_model *model;
    tsr_latent *latent;
    float *video; /* [frame][3][height][width] */
} clip;

static void must(tsr_status status) {
    if (status == TSR_OK)
        return;
    fprintf(stderr, "bench_precision: %s\n", tsr_last_error());
    exit(1);
}

static tsr_status keep(void *user, const tsr_frame *f) {
    clip *c = user;
    memcpy(c->video + (size_t)f->index * f->bytes / sizeof(float), f->data, f->bytes);
    return TSR_OK;
}

static double psnr(const float *a, const float *b, size_t n) { /* over a range of 2 */
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return 10 * log10(4 * (double)n / sum);
}

/* Seconds of the second of two decodes: weights lie ready. */
static double decode(
    clip *c, tsr_engine *e, tsr_precision precision, float **video, size_t *n, int64_t *bytes) {
    const tsr_latent_info *i = tsr_latent_get_info(c->latent);
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan;
    tsr_result result = {0};
    double best = INFINITY;
    p.precision = precision;
    p.untiled = true;
    must(tsr_plan_create(&plan, e, c->model, &(tsr_extent){i->frames, i->height, i->width}, &p));
    const tsr_plan_info *info = tsr_plan_get_info(plan);
    *n = 3 * (size_t)info->frames * (size_t)info->width * (size_t)info->height;
    *video = c->video = malloc(*n * sizeof(float));
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = c};
    for (int run = 0; run < 3; run++) {
        must(tsr_decode(e, c->model, c->latent, plan, &d, &result));
        best = fmin(best, result.decode);
    }
    *bytes = result.peak_bytes;
    tsr_plan_destroy(&plan);
    return best;
}

static void table(clip *c, const char *name) {
    static const tsr_precision modes[] = {TSR_PRECISION_F32, TSR_PRECISION_FP16, TSR_PRECISION_BF16,
        TSR_PRECISION_FP8, TSR_PRECISION_INT8};
    const tsr_latent_info *i = tsr_latent_get_info(c->latent);
    tsr_engine *e;
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    float *f32 = NULL;
    double base = 0;
    params.device = TSR_DEVICE_CPU;
    must(tsr_engine_create(&e, &params));
    printf("| %s, %d x %d x %d | PSNR, dB | s | of f32's speed | bytes |\n|---|---|---|---|---|\n",
        name, i->frames, i->height, i->width);
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        float *video;
        size_t n;
        int64_t bytes;
        char text[32];
        double seconds = decode(c, e, modes[m], &video, &n, &bytes);
        base = m ? base : seconds;
        printf("| %s | ", tsr_precision_name(modes[m]));
        if (m)
            printf("%.2f", psnr(f32, video, n));
        printf(" | %.3f | %.2f | %s |\n", seconds, base / seconds, tsr_bytes_text(text, bytes));
        fflush(stdout);
        if (m == 0)
            f32 = video;
        else
            free(video);
    }
    free(f32);
    tsr_engine_destroy(&e);
}

static void synthetic(clip *c, int frames) {
    float *z = synth_latent(16, frames, 16, 16, 0);
    must(tsr_latent_from_memory(&c->latent, z, frames, 16, 16, 16));
    free(z);
    table(c, "random weights, full size");
    tsr_latent_close(&c->latent);
}

/* The corner of a file's first latents. */
static void corner(clip *c, const char *path) {
    tsr_latent *whole;
    tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
    must(tsr_latent_open(&whole, path, &params));
    const tsr_latent_info *i = tsr_latent_get_info(whole);
    int frames = i->frames < 2 ? i->frames : 2, h = i->height < 24 ? i->height : 24,
        w = i->width < 24 ? i->width : 24;
    size_t channels = (size_t)tsr_model_get_info(c->model)->latent_channels,
           row = (size_t)w * channels;
    float *frame = malloc((size_t)i->height * (size_t)i->width * channels * sizeof *frame);
    float *z = malloc((size_t)(frames * h) * row * sizeof *z);
    for (int t = 0; t < frames; t++) {
        must(tsr_latent_read(whole, 0, t, frame));
        for (int y = 0; y < h; y++)
            memcpy(z + (size_t)(t * h + y) * row, frame + (size_t)(y * i->width) * channels,
                row * sizeof *z);
    }
    must(tsr_latent_from_memory(&c->latent, z, frames, h, w, (int)channels));
    free(z);
    free(frame);
    tsr_latent_close(&whole);
}

int main(int argc, char **argv) {
    clip c = {0};
    if (argc == 3) {
        must(tsr_model_open(&c.model, argv[1]));
        corner(&c, argv[2]);
        table(&c, argv[1]);
        tsr_latent_close(&c.latent);
    } else {
        const char *path = temp_path("full.safetensors");
        must(synth_model_write(
            path, &(synth_config){.channels = {128, 256, 512, 512}, .decoder = true}));
        must(tsr_model_open(&c.model, path));
        synthetic(&c, 2);
        synthetic(&c, 1);
    }
    tsr_model_close(&c.model);
    return 0;
}

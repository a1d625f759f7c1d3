/*
 * What the modes cost and how far they are from f32: the tables of docs/quality.md.
 *
 *     bench_precision                    the demo model on a corner of its clip; random weights of the published
 *                                        model's size on latents of 16 x 16 and, as first measured, of 8 x 8
 *     bench_precision MODEL LATENT       a clip of your own: its first two latents, a corner of 24 x 24 at most
 */
#include "formats/latent_file.h"
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include <tessera/compare.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct clip {
    tsr_model *model;
    tsr_latent *latent;
    tsr_engine *engine;
    float *video; /* [frame][height][width][3] */
} clip;

static void must(tsr_status status) {
    if (status == TSR_OK)
        return;
    fprintf(stderr, "bench_precision: %s\n", tsr_last_error());
    exit(1);
}

static tsr_status keep(void *user, const tsr_frame *f) { /* planes become pixels */
    clip *c = user;
    const float *from = f->data;
    size_t plane = f->bytes / sizeof *from / 3;
    float *to = c->video + (size_t)f->index * 3 * plane;
    for (size_t i = 0; i < 3 * plane; i++)
        to[i % plane * 3 + i / plane] = from[i];
    return TSR_OK;
}

/* ---------------------------------------------------------------- modes */

typedef struct mode {
    const char *name;
    tsr_precision precision;
    double quality; /* dB to hold; 0: none */
    bool last;      /* 8 bits in the last two stages only */
} mode;

static const mode modes[] = {
    {"f32", TSR_PRECISION_F32, 0, false},
    {"fp16", TSR_PRECISION_FP16, 0, false},
    {"bf16", TSR_PRECISION_BF16, 0, false},
    {"fp8", TSR_PRECISION_FP8, 0, false},
    {"fp8, last two stages", TSR_PRECISION_FP8, 0, true},
    {"int8", TSR_PRECISION_INT8, 0, false},
    {"int8, last two stages", TSR_PRECISION_INT8, 0, true},
    {"int8, --quality 42", TSR_PRECISION_INT8, 42, false},
    {"int8, --quality 43", TSR_PRECISION_INT8, 43, false},
    {"int8, --quality 45", TSR_PRECISION_INT8, 45, false},
    {"int8, --quality 48", TSR_PRECISION_INT8, 48, false},
};

/* The blocks ahead of the last but one stage. */
static uint64_t early(const tsr_half *half) {
    uint64_t wide = 0;
    for (int b = 0, stage = 0; b < half->blocks && b < TSR_MIX_BLOCKS; b++) {
        stage += half->block[b].kind == TSR_BLOCK_UPSAMPLE;
        if (half->block[b].kind == TSR_BLOCK_RESNET && stage + 2 < half->levels)
            wide |= (uint64_t)1 << b;
    }
    return wide;
}

static tsr_plan *plan_of(clip *c, const mode *m) {
    const tsr_latent_info *i = tsr_latent_get_info(c->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan;
    p.precision = m->precision;
    p.quality = m->quality;
    p.untiled = true;
    const tsr_half *half = &c->model->vae->decoder;
    if (m->last)
        must(tsr_plan_mixed(&plan, c->engine, half, &extent, &p, &(tsr_mix){.wide = early(half)}));
    else
        must(tsr_plan_create(&plan, c->engine, c->model, &extent, &p));
    return plan;
}

/* Share of the last step's multiply-adds whose operands are in 8 bits. */
static double narrow(const tsr_plan *plan) {
    const tsr_program *p = NULL;
    double flops = 0;
    for (tsr_step s = 0; s < TSR_STEP_COUNT && plan->program[s]; s++)
        p = plan->program[s];
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        tsr_dtype in = op->kind == TSR_OP_CONV ? p->buffer[op->in.buf].dtype : TSR_F32;
        if (in == TSR_U8 || in == TSR_E4M3)
            flops += tsr_op_runs(p, op) * tsr_op_flops(p, op);
    }
    return flops / tsr_program_flops(p);
}

/* Seconds of the second of two decodes: weights lie ready. The video is to be freed. */
static double decode(clip *c, const mode *m, float **video, tsr_plan_info *info, double *share) {
    tsr_result result = {0};
    tsr_plan *plan = plan_of(c, m);
    *info = *tsr_plan_get_info(plan);
    *share = narrow(plan);
    *video = c->video = malloc(3 * sizeof(float) * (size_t)info->frames * (size_t)info->width * (size_t)info->height);
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = c};
    for (int run = 0; run < 2; run++)
        must(tsr_decode(c->engine, c->model, c->latent, plan, &d, &result));
    tsr_plan_destroy(&plan);
    return result.decode;
}

static void compare(const float *a, const float *b, const tsr_plan_info *info, double *psnr, double *ssim) {
    size_t n = 3 * (size_t)info->width * (size_t)info->height;
    double mse = 0;
    *ssim = 0;
    for (int f = 0; f < info->frames; f++) {
        tsr_difference d;
        must(tsr_compare_frames(a + (size_t)f * n, b + (size_t)f * n, info->width, info->height, 16, &d));
        mse += d.mse / info->frames;
        *ssim += d.ssim / info->frames;
    }
    *psnr = tsr_psnr(mse);
}

static void table(clip *c, const char *name) {
    const tsr_latent_info *i = tsr_latent_get_info(c->latent);
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    float *f32 = NULL;
    double base = 0;
    params.device = TSR_DEVICE_CPU;
    must(tsr_engine_create(&c->engine, &params));
    double begin = tsr_now();
    must(tsr_quality_measure(c->engine, c->model, c->latent, TSR_PRECISION_INT8));
    printf("%s, latent %d x %d x %d; measuring its resnets took %.1f s\n\n", name, i->frames, i->height, i->width,
        tsr_now() - begin);
    printf("| mode | PSNR, dB | SSIM | s | of f32's speed | multiply-adds in 8 bits |\n|---|---|---|---|---|---|\n");
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
        float *video;
        tsr_plan_info info;
        double psnr = INFINITY, ssim = 1, share, seconds = decode(c, &modes[m], &video, &info, &share);
        if (m)
            compare(f32, video, &info, &psnr, &ssim);
        base = m ? base : seconds;
        printf("| %s | %.2f | %.5f | %.3f | %.2f | %.1f%% |\n", modes[m].name, psnr, ssim, seconds, base / seconds,
            100 * share);
        fflush(stdout);
        if (m == 0)
            f32 = video;
        else
            free(video);
    }
    printf("\n");
    free(f32);
    tsr_engine_destroy(&c->engine);
}

/* ---------------------------------------------------------------- clips */

static void synthetic(clip *c, int frames, int side) {
    float *z = synth_latent(16, frames, side, side, 0);
    must(tsr_latent_from_memory(&c->latent, z, frames, side, side, 16));
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
    int frames = i->frames < 2 ? i->frames : 2, h = i->height < 24 ? i->height : 24, w = i->width < 24 ? i->width : 24;
    size_t channels = (size_t)tsr_model_get_info(c->model)->latent_channels, row = (size_t)w * channels;
    float *frame = malloc((size_t)i->height * (size_t)i->width * channels * sizeof *frame);
    float *z = malloc((size_t)(frames * h) * row * sizeof *z);
    for (int t = 0; t < frames; t++) {
        must(tsr_latent_read(whole, 0, t, frame));
        for (int y = 0; y < h; y++)
            memcpy(z + (size_t)(t * h + y) * row, frame + (size_t)(y * i->width) * channels, row * sizeof *z);
    }
    must(tsr_latent_from_memory(&c->latent, z, frames, h, w, (int)channels));
    free(z);
    free(frame);
    tsr_latent_close(&whole);
}

static void trained(const char *model, const char *latent) {
    clip c = {0};
    must(tsr_model_open(&c.model, model));
    corner(&c, latent);
    table(&c, model);
    tsr_latent_close(&c.latent);
    tsr_model_close(&c.model);
}

int main(int argc, char **argv) {
    const char *assets = getenv("TSR_ASSETS"), *path = temp_path("full.safetensors");
    char model[512], latent[512];
    clip c = {0};
    if (argc == 3) {
        trained(argv[1], argv[2]);
        return 0;
    }
    setenv("XDG_CACHE_HOME", "/dev/null", 1); /* nothing that was measured before */
    if (assets) {
        snprintf(model, sizeof model, "%s/demo-vae.safetensors", assets);
        snprintf(latent, sizeof latent, "%s/spheres.latent", assets);
        trained(model, latent);
    }
    must(synth_model_write(path, &(synth_config){.channels = {128, 256, 512, 512}, .decoder = true}));
    must(tsr_model_open(&c.model, path));
    synthetic(&c, 2, 16);
    synthetic(&c, 1, 16);
    synthetic(&c, 2, 8);
    tsr_model_close(&c.model);
    return 0;
}

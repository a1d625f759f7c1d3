/* Encoding on a driver without a GPU (fake/): latents against the CPU's in f32 and against the reference in PyTorch,
 * caches on the host, tiles, graphs and the calls that fail. */
#include "fake_help.h"

#include <tessera/encode.h>

typedef struct encoding {
    struct tsr_model model;
    int width, height, frames, t, h, w;
    const float *video; /* [3][frames][height][width] */
    float *have, *want; /* means [16][t][h][w] */
} encoding;

static tsr_status read_frame(void *user, int64_t index, float *rgb) {
    const encoding *x = user;
    size_t plane = (size_t)x->width * (size_t)x->height;
    for (size_t i = 0; i < plane; i++)
        for (size_t k = 0; k < 3; k++)
            rgb[3 * i + k] = x->video[(k * (size_t)x->frames + (size_t)index) * plane + i];
    return TSR_OK;
}

static tsr_status keep_latent(void *user, int t, float *mean, const float *logvar) {
    const encoding *x = user;
    size_t plane = (size_t)x->h * (size_t)x->w;
    (void)logvar;
    for (size_t k = 0; k < 16; k++)
        memcpy(x->have + (k * (size_t)x->t + (size_t)t) * plane, mean + k * plane, plane * sizeof *mean);
    return TSR_OK;
}

static size_t values(const encoding *x) {
    return 16 * (size_t)x->t * (size_t)x->h * (size_t)x->w;
}

static void open_clip(encoding *x, synth_config config, int width, int height, int frames) {
    clip c;
    config.encoder = true;
    model(&c, &config);
    const tsr_half *half = &c.vae->encoder;
    *x = (encoding){.model = {c.vae}, .width = width, .height = height, .frames = frames};
    x->t = (frames - 1) / half->time_factor + 1, x->h = height / half->space_factor, x->w = width / half->space_factor;
    x->video = synth_video(frames, height, width, 0);
    x->have = calloc(values(x), sizeof *x->have);
    x->want = calloc(values(x), sizeof *x->want);
}

static void close_encoding(encoding *x) {
    tsr_vae_destroy(&x->model.vae);
    free((float *)x->video);
    free(x->have);
    free(x->want);
}

static tsr_status encode(encoding *x, tsr_device_kind device, const tsr_plan_params *params, tsr_plan_info *info) {
    tsr_engine_params engine = TSR_ENGINE_PARAMS_DEFAULT;
    tsr_engine *e = NULL;
    tsr_plan *plan = NULL;
    tsr_encode_params q = {x->width, x->height, x->frames, read_frame, keep_latent, NULL, NULL, x};
    tsr_status status;
    engine.device = device;
    TSR_TRY(tsr_engine_create(&e, &engine));
    TSR_TRY(tsr_encode_plan(&plan, e, &x->model, &(tsr_extent){x->t, x->h, x->w}, params));
    *info = *tsr_plan_get_info(plan);
    TSR_TRY(tsr_encode(e, &x->model, plan, &q, NULL));
error:
    tsr_plan_destroy(&plan);
    tsr_engine_destroy(&e);
    return status;
}

static double distance(const encoding *x) {
    double squares = 0;
    for (size_t i = 0; i < values(x); i++)
        squares += ((double)x->have[i] - (double)x->want[i]) * ((double)x->have[i] - (double)x->want[i]);
    return 10 * log10(4 * (double)values(x) / squares);
}

/* A graph a step, whatever the caches and the tiles are. */
static void near(encoding *x, tsr_plan_params params, double wanted) {
    tsr_plan_info info = {0};
    fake.setup(&ADA);
    memset(x->have, 0, values(x) * sizeof *x->have);
    ok(encode(x, TSR_DEVICE_CUDA, &params, &info));
    cr_expect_eq(counted().graphs, x->t * info.columns * info.rows);
    nothing_is_left();
    double db = distance(x);
    printf("# %s, %dx%d tiles: %.1f dB\n", tsr_precision_name(info.precision), info.columns, info.rows, db);
    cr_expect_geq(db, wanted, "%s: %.1f dB", tsr_precision_name(info.precision), db);
}

static tsr_plan_params params_of(tsr_precision precision) {
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.precision = precision;
    p.untiled = true;
    return p;
}

#ifndef LONG
static const synth_config tiny = {.channels = {32, 32}, .layers = 1};

/* x->want, by the CPU in f32. */
static void reference(encoding *x, tsr_plan_params params) {
    tsr_plan_info info;
    params.precision = TSR_PRECISION_F32;
    ok(encode(x, TSR_DEVICE_CPU, &params, &info));
    memcpy(x->want, x->have, values(x) * sizeof *x->want);
}

Test(cuda_encode, every_precision, .init = open_fake) {
    encoding x;
    open_clip(&x, tiny, 12, 8, 5);
    reference(&x, params_of(TSR_PRECISION_F32));
    near(&x, params_of(TSR_PRECISION_FP16), 60);
    near(&x, params_of(TSR_PRECISION_BF16), 45);
    near(&x, params_of(TSR_PRECISION_INT8), 35);
    near(&x, params_of(TSR_PRECISION_FP8), 30);
    close_encoding(&x);
}

Test(cuda_encode, caches_on_the_host, .init = open_fake) {
    encoding x;
    open_clip(&x, tiny, 8, 8, 5);
    reference(&x, params_of(TSR_PRECISION_F32));
    tsr_plan_params p = params_of(TSR_PRECISION_FP16);
    p.caches = TSR_CACHES_HOST;
    near(&x, p, 60);
    close_encoding(&x);
}

/* Two tiles, whose latents fade into each other. */
Test(cuda_encode, tiles, .init = open_fake) {
    encoding x;
    tsr_plan_params p = params_of(TSR_PRECISION_FP16);
    p.untiled = false, p.tile_width = 16, p.tile_height = 8, p.overlap_width = 8, p.overlap_height = 0;
    open_clip(&x, tiny, 24, 8, 3);
    reference(&x, p);
    near(&x, p, 60);
    close_encoding(&x);
}

Test(cuda_encode, calls_may_fail, .init = open_fake) {
    encoding x;
    tsr_plan_info info;
    tsr_plan_params p = params_of(TSR_PRECISION_FP16);
    open_clip(&x, tiny, 4, 4, 3);
    fake.setup(&ADA);
    ok(encode(&x, TSR_DEVICE_CUDA, &p, &info));
    int calls = counted().calls, errors = 0;
    for (int at = 3; at < calls; at += 11) {
        fake.setup(&ADA);
        fake.fail_at(at);
        bool good = encode(&x, TSR_DEVICE_CUDA, &p, &info) == TSR_OK;
        cr_expect(good || !strchr(tsr_last_error(), '\n'), "call %d: %s", at, tsr_last_error());
        cr_expect(!good || !counted().failures, "call %d failed and nobody said so", at);
        errors += !good;
        fake.fail_at(-1);
        nothing_is_left();
    }
    cr_expect_gt(errors, 0);
    close_encoding(&x);
}
#else
static void golden(const char *name, int width, int height, int frames, tsr_plan_params params, double wanted) {
    char path[1024];
    encoding x;
    tsr_tensor_file *f;
    snprintf(path, sizeof path, "%s/goldens/%s.safetensors", getenv("TSR_TEST_DATA"), name);
    open_clip(&x, (synth_config){.channels = {32, 32, 64, 64}}, width, height, frames);
    ok(tsr_tensor_file_open(&f, path));
    const tsr_tensor *mean = tsr_tensor_file_find(f, "mean");
    cr_assert(mean && mean->count == values(&x));
    tsr_tensor_read(mean, 0, mean->count, x.want);
    near(&x, params, wanted);
    tsr_tensor_file_close(&f);
    close_encoding(&x);
}

Test(cuda_encode_long, one_picture, .init = open_fake) {
    golden("small_encode_1x64x64", 64, 64, 1, params_of(TSR_PRECISION_FP16), 60);
}
Test(cuda_encode_long, five_frames, .init = open_fake) {
    golden("small_encode_5x48x80", 80, 48, 5, params_of(TSR_PRECISION_INT8), 35);
}
Test(cuda_encode_long, caches_on_the_host, .init = open_fake) {
    tsr_plan_params p = params_of(TSR_PRECISION_FP16);
    p.caches = TSR_CACHES_HOST;
    golden("small_encode_13x32x64", 64, 32, 13, p, 60);
}
#endif

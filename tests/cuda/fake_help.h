/* What the tests on the driver without a GPU share: the driver, clips to decode, and who takes the frames. */
#ifndef CUDA_HELP_H
#define CUDA_HELP_H

#include "fake/fake.h"

#include "../synthetic.h"
#include "../temp.h"
#include "session/session.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())

static struct {
    fake_cuda_setup_fn setup;
    fake_cuda_fail_at_fn fail_at;
    fake_cuda_settled_fn settled;
    fake_cuda_count_fn count;
    fake_cuda_wrong_fn wrong;
    fake_cuda_timelines_fn set_timelines;
    fake_cuda_reconfigure_fn reconfigure;
} fake;

static const fake_cuda_config ADA = {
    .version = 13000, .devices = 1, .major = 8, .minor = 9, .exports = 1, .memory = (size_t)1 << 32};

static inline void open_fake(void) {
    void *so = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    cr_assert(so, "%s", dlerror());
    *(void **)&fake.setup = dlsym(so, "fake_cuda_setup");
    *(void **)&fake.fail_at = dlsym(so, "fake_cuda_fail_at");
    *(void **)&fake.settled = dlsym(so, "fake_cuda_settled");
    *(void **)&fake.count = dlsym(so, "fake_cuda_count");
    *(void **)&fake.wrong = dlsym(so, "fake_cuda_wrong");
    *(void **)&fake.reconfigure = dlsym(so, "fake_cuda_reconfigure");
    *(void **)&fake.set_timelines = dlsym(so, "fake_cuda_set_timelines");
    cr_assert(fake.setup && fake.fail_at && fake.settled && fake.count && fake.wrong && fake.set_timelines &&
                  fake.reconfigure,
        "libcuda.so.1 is not the fake one: set LD_LIBRARY_PATH");
    fake.setup(&ADA);
}

static inline fake_cuda_counts counted(void) {
    fake_cuda_counts c;
    fake.count(&c);
    return c;
}

static inline void nothing_is_left(void) {
    fake_cuda_counts c = counted();
    cr_assert_str_empty(fake.wrong());
    cr_assert_eq(c.live, 0, "%d objects are left", c.live);
    cr_assert_eq(c.memory, 0u, "%zu bytes are left", c.memory);
}

typedef struct clip {
    tsr_vae *vae;
    int steps, h, w;
    float *input, *want; /* want: NULL where there is no reference */
    size_t n;
} clip;

static inline void model(clip *c, const synth_config *config) {
    tsr_tensor_file *file;
    const char *path = temp_path("model.safetensors");
    ok(synth_model_write(path, config));
    ok(tsr_tensor_file_open(&file, path));
    ok(tsr_vae_create(&c->vae, file));
}

static inline void open_golden(clip *c, const char *name) {
    char path[1024];
    tsr_tensor_file *file;
    snprintf(path, sizeof path, "%s/goldens/%s.safetensors", getenv("TSR_TEST_DATA"), name);
    ok(tsr_tensor_file_open(&file, path));
    synth_config config = {.decoder = true};
    sscanf(tsr_tensor_file_meta(file, "channels"), "%d,%d,%d,%d", &config.channels[0], &config.channels[1],
        &config.channels[2], &config.channels[3]);
    *c = (clip){.steps = atoi(tsr_tensor_file_meta(file, "t")),
        .h = atoi(tsr_tensor_file_meta(file, "h")),
        .w = atoi(tsr_tensor_file_meta(file, "w"))};
    model(c, &config);
    c->input = synth_latent(16, c->steps, c->h, c->w, 0);
    const tsr_tensor *video = tsr_tensor_file_find(file, "video");
    c->n = video->count;
    c->want = malloc(c->n * sizeof *c->want);
    tsr_tensor_read(video, 0, c->n, c->want);
    tsr_tensor_file_close(&file);
}

static inline void close_clip(clip *c) {
    free(c->want);
    free(c->input);
    tsr_vae_destroy(&c->vae);
}

static inline double psnr(const clip *c, const float *have) {
    double squares = 0;
    for (size_t i = 0; i < c->n; i++)
        squares += ((double)have[i] - (double)c->want[i]) * ((double)have[i] - (double)c->want[i]);
    return 10 * log10(4 * (double)c->n / squares);
}

/* A model for what does not look at quality. */
static inline void open_tiny(clip *c, int steps) {
    *c = (clip){.steps = steps, .h = 1, .w = 2};
    model(c, &(synth_config){.decoder = true, .channels = {32, 32}, .layers = 1});
    c->input = synth_latent(16, steps, 1, 2, 0);
    c->n = 3 * (size_t)(1 + 2 * (steps - 1)) * 2 * 4;
}

typedef struct shown {
    float *video; /* [3][frames][pixels] */
    size_t plane;
    int64_t frames;
} shown;

static inline tsr_status keep_frame(void *user, const tsr_frame *f) {
    const shown *s = user;
    for (int64_t c = 0; c < 3; c++)
        memcpy(s->video + (size_t)(c * s->frames + f->index) * s->plane, (const float *)f->data + (size_t)c * s->plane,
            s->plane * sizeof(float));
    return TSR_OK;
}

/* A program's way from an engine to frames, of a tiny clip. */
typedef struct life {
    tsr_engine *e;
    tsr_plan *plan;
    tsr_latent *latent;
    struct tsr_model model;
} life;

/* config: NULL keeps the device as it is. */
static inline tsr_status start_life(life *l, const clip *c, const fake_cuda_config *config) {
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CUDA;
    *l = (life){.model = {c->vae}};
    if (config)
        fake.setup(config);
    tsr_status status = tsr_latent_from_memory(&l->latent, c->input, c->steps, c->h, c->w, 16);
    return status == TSR_OK ? tsr_engine_create(&l->e, &params) : status;
}

static inline tsr_status plan_life(life *l, const clip *c, tsr_precision precision, tsr_cache_home caches) {
    return tsr_plan_create(&l->plan, l->e, &l->model, &(tsr_extent){c->steps, c->h, c->w},
        &(tsr_plan_params){
            .precision = precision, .overlap_width = -1, .overlap_height = -1, .untiled = true, .caches = caches});
}

static inline void close_life(life *l) {
    tsr_plan_destroy(&l->plan);
    tsr_engine_destroy(&l->e);
    tsr_latent_close(&l->latent);
}

static inline tsr_status decode_life(life *l, const clip *c, float *out) {
    shown s = {out, (size_t)(c->h * c->w) * 4, 1 + 2 * (c->steps - 1)};
    tsr_result result;
    return tsr_decode(l->e, &l->model, l->latent, l->plan,
        &(tsr_decode_params){.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep_frame, .user = &s}, &result);
}

#endif

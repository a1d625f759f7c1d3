/* A decode by the fake backend, and who watches it. */
#ifndef TSR_TESTS_FAKE_RIG_H
#define TSR_TESTS_FAKE_RIG_H

#include "fake_backend.h"
#include "synthetic.h"
#include "temp.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct rig {
    fake_params fake;
    fake_counts counts;
    tsr_model *model;
    tsr_engine *engine;
    tsr_latent *latent;
    tsr_plan *plan;
} rig;

typedef struct watch {
    int64_t next, frames; /* index expected next; seen */
    int width, height;
    double worst;      /* difference from fake_value */
    int64_t fail_at;   /* the callback fails at this frame; -1: never */
    int sleep_us;      /* of the callback */
    fake_params *fall; /* whose memory is gone from frame fall_at on */
    int64_t fall_at;
    int plans; /* calls of on_plan */
    int stays; /* so many smaller plans are to follow before there is memory again */
    pthread_t caller, writer;
    bool on_caller; /* a frame came on the caller's thread */
    int calls;      /* of on_progress */
    bool backwards, elsewhere;
    tsr_progress last;
} watch;

static inline void open_rig(rig *r, int frames, int height, int width) {
    const char *path = temp_path("small.safetensors");
    cr_assert_eq(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}), TSR_OK);
    cr_assert_eq(tsr_model_open(&r->model, path), TSR_OK, "%s", tsr_last_error());
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    cr_assert_eq(tsr_engine_wrap(&r->engine, fake_create(&r->fake, &r->counts), &params), TSR_OK);
    r->latent = fake_latent(frames, height, width);
}

static inline void make_plan(rig *r, const tsr_plan_params *params) {
    const tsr_latent_info *i = tsr_latent_get_info(r->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan_destroy(&r->plan);
    cr_assert_eq(tsr_plan_create(&r->plan, r->engine, r->model, &extent, params), TSR_OK, "%s", tsr_last_error());
}

/* Tiles of 4x5 latents that overlap by at least one. */
static inline tsr_plan_params tiled(void) {
    return (tsr_plan_params){
        .budget = 1ll << 30, .tile_width = 40, .tile_height = 32, .overlap_width = 8, .overlap_height = 8};
}

static inline tsr_plan_params untiled(void) {
    return (tsr_plan_params){.budget = 1ll << 30, .untiled = true};
}

/* Cuts the plan into segments of k latents, with the caches of one tile on the device. */
static inline void cut_segments(tsr_plan *p, int k) {
    p->segment = p->info.segment = k;
    p->cache_sets = 1;
    p->parked_sets = p->y.tiles * p->x.tiles;
    p->frames_in_flight = 4 * k;
}

static inline void close_rig(rig *r) {
    tsr_plan_destroy(&r->plan);
    tsr_latent_close(&r->latent);
    tsr_engine_destroy(&r->engine);
    tsr_model_close(&r->model);
    cr_assert_str_eq(r->counts.wrong, "");
    cr_assert_eq(r->counts.execs, 0, "%d plans are still ready", r->counts.execs);
    cr_assert_eq(r->counts.slabs, 0);
    cr_assert_eq(tsr_mem_used(), 0, "%zu bytes are still in use", tsr_mem_used());
}

static inline tsr_status on_frame(void *user, const tsr_frame *f) {
    watch *w = user;
    if (f->index == w->fail_at)
        return tsr_fail(TSR_ERR_IO, "the disk of frame %lld is full", (long long)f->index);
    w->on_caller |= pthread_equal(pthread_self(), w->caller) != 0;
    if (w->frames++ > 0 && !pthread_equal(pthread_self(), w->writer))
        w->elsewhere = true;
    w->writer = pthread_self();
    w->backwards |= f->index != w->next;
    w->next = f->index + 1;
    const float *v = f->data;
    w->width = f->width, w->height = f->height;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < f->height; y++)
            for (int x = 0; x < f->width; x++) {
                double off = fabs((double)*v++ - (double)fake_value(f->index, c, y, x));
                w->worst = off <= w->worst ? w->worst : off; /* NaN is the worst */
            }
    if (w->fall && f->index == w->fall_at)
        atomic_store(&w->fall->left, 0);
    if (w->sleep_us)
        usleep((useconds_t)w->sleep_us);
    return TSR_OK;
}

static inline void on_progress(void *user, const tsr_progress *p) {
    watch *w = user;
    if (!pthread_equal(pthread_self(), w->caller))
        w->elsewhere = true;
    if (w->calls++ > 0 && (p->frames < w->last.frames || p->share < w->last.share || p->seconds < w->last.seconds))
        w->backwards = true;
    w->last = *p;
}

static inline void on_plan(void *user, const tsr_plan_info *plan, int64_t first, const char *why) {
    watch *w = user;
    w->elsewhere |= !pthread_equal(pthread_self(), w->caller);
    w->backwards |= first != w->next || plan->bytes.total <= 0 || !*why;
    w->plans++;
    if (w->fall && w->plans == w->stays)
        atomic_store(&w->fall->left, w->fall->total);
}

static inline tsr_status decode(rig *r, watch *w, const char *trace, tsr_result *result) {
    *w = (watch){.fail_at = w->fail_at,
        .sleep_us = w->sleep_us,
        .fall = w->fall,
        .fall_at = w->fall_at,
        .stays = w->stays,
        .caller = pthread_self(),
        .next = r->plan->params.first_frame};
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32,
        .trace = trace,
        .on_frame = on_frame,
        .on_progress = on_progress,
        .on_plan = on_plan,
        .user = w};
    return tsr_decode(r->engine, r->model, r->latent, r->plan, &d, result);
}

/* Decodes under the eyes of w and expects every wanted frame once, in order, right to the rounding of weights that sum
 * to 1. */
static inline tsr_result expect_video_seen(rig *r, watch *seen, int64_t frames) {
    tsr_result result = {0};
    cr_assert_eq(decode(r, seen, NULL, &result), TSR_OK, "%s", tsr_last_error());
    watch w = *seen;
    cr_assert_eq(w.frames, frames, "%lld frames, %lld expected", (long long)w.frames, (long long)frames);
    cr_assert_eq(result.frames, frames);
    cr_assert(!w.backwards && !w.elsewhere && !w.on_caller);
    cr_assert_eq(w.width, r->plan->info.width);
    cr_assert_eq(w.height, r->plan->info.height);
    cr_assert_lt(w.worst, 2e-6, "off by %g", w.worst);
    cr_assert(w.last.frames == frames && w.last.of == frames && w.last.share == 1 && w.last.eta == 0);
    cr_assert_str_eq(r->counts.wrong, "");
    return result;
}

static inline void expect_video(rig *r, int64_t frames) {
    watch w = {.fail_at = -1};
    expect_video_seen(r, &w, frames);
}

#endif

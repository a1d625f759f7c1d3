/* Tuning: what is measured, what is kept, who uses it. On a backend that takes its time and computes nothing. */
#include "fake_backend.h"
#include "synthetic.h"
#include "temp.h"

#include <tessera/tune.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert_eq((call), TSR_OK, "%s: %s", #call, tsr_last_error())

static const tsr_extent video = {3, 30, 40}; /* 320x240 pixels */
static const int64_t roomy = 1ll << 30;

typedef struct rig {
    fake_params fake;
    fake_counts counts;
    tsr_model *model;
    tsr_engine *engine;
    int calls, stop_after; /* calls of on_point; 0: never stop */
    bool stop_measured;    /* at the first point that is measured */
} rig;

static void open_rig(rig *r) {
    const char *path = temp_path("small.safetensors");
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
    OK(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}));
    OK(tsr_model_open(&r->model, path));
    OK(tsr_engine_wrap(&r->engine, fake_create(&r->fake, &r->counts), &params));
}

static void close_rig(rig *r) {
    tsr_engine_destroy(&r->engine);
    tsr_model_close(&r->model);
    cr_assert(r->counts.execs == 0 && r->counts.slabs == 0);
    cr_assert_eq(tsr_mem_used(), 0);
}

static bool count(void *user, const tsr_tune_table *t, int i) {
    rig *r = user;
    cr_assert(i < t->points && (i < 0 || t->point[i].runs > 0 || t->point[i].expected > 0));
    return ++r->calls != r->stop_after && !(r->stop_measured && i >= 0 && t->point[i].runs);
}

static tsr_status tune(rig *r, int64_t budget, bool exhaustive, tsr_tune_table **out) {
    tsr_tune_params p = TSR_TUNE_PARAMS_DEFAULT;
    p.extent = video;
    p.plan.budget = budget;
    p.exhaustive = exhaustive;
    p.on_point = count;
    p.user = r;
    r->calls = 0;
    return tsr_tune(out, r->engine, r->model, &p);
}

static tsr_plan *plan(rig *r, tsr_plan_params params) {
    tsr_plan *p;
    OK(tsr_plan_create(&p, r->engine, r->model, &video, &params));
    return p;
}

static int64_t untiled_bytes(rig *r) {
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.budget = roomy;
    tsr_plan *p = plan(r, params);
    int64_t bytes = tsr_plan_get_info(p)->bytes.total;
    cr_assert_eq(tsr_plan_get_info(p)->mode, TSR_MODE_UNTILED);
    tsr_plan_destroy(&p);
    return bytes;
}

Test(tune, every_size_once_and_the_best_of_them) {
    rig r = {.fake.op_us = 20};
    tsr_tune_table *t;
    open_rig(&r);
    OK(tune(&r, roomy, true, &t));
    cr_assert_geq(t->points, 10);
    cr_assert(t->width == 320 && t->height == 240 && t->frames == 9);
    cr_assert_eq(t->point[0].mode, TSR_MODE_UNTILED);
    int runs = 0;
    for (int i = 0; i < t->points; i++) {
        const tsr_tune_point *p = &t->point[i];
        runs += p->runs;
        cr_assert_geq(p->runs, 1);
        cr_assert(p->seconds > 0 && p->predicted > 0);
        cr_assert_float_eq(p->ms_per_mpx, 1e9 * p->seconds / (9.0 * 320 * 240), 1e-6 * p->ms_per_mpx);
        cr_assert_geq(p->seconds, t->point[t->best].seconds);
        cr_assert(p->planned_bytes <= roomy && p->peak_bytes > 0);
        cr_assert(i == 0 || p->tile_width * p->tile_height <= t->point[i - 1].tile_width * t->point[i - 1].tile_height);
        for (int k = 0; k < i; k++)
            cr_assert(p->tile_width != t->point[k].tile_width || p->tile_height != t->point[k].tile_height);
    }
    cr_assert_eq(r.calls, 1 + runs);
    cr_assert_eq(t->point[t->best_tiled].mode, TSR_MODE_TILED);
    for (int i = 1; i < t->points; i++)
        cr_assert_geq(t->point[i].seconds, t->point[t->best_tiled].seconds);
    tsr_tune_free(&t);
    cr_assert_null(t);
    close_rig(&r);
}

Test(tune, only_what_may_win_is_measured) {
    rig r = {.fake.op_us = 20};
    tsr_tune_table *t;
    open_rig(&r);
    OK(tune(&r, roomy, false, &t));
    int tried = 0, tiled = 0;
    for (int i = 0; i < t->points; i++) {
        const tsr_tune_point *p = &t->point[i];
        cr_assert_eq(p->runs > 0, p->seconds > 0);
        cr_assert(!p->runs || p->expected > 0);
        tried += p->expected > 0;
        tiled += p->runs && p->mode == TSR_MODE_TILED;
    }
    cr_assert_eq(tried, 4 + t->points / 4, "%d of %d", tried, t->points);
    cr_assert_eq(tiled, 3);
    tsr_tune_free(&t);
    close_rig(&r);
}

Test(tune, plans_that_have_to_be_tiled_use_the_tile) {
    rig r = {.fake.op_us = 20};
    tsr_tune_table *t;
    open_rig(&r);
    int64_t budget = untiled_bytes(&r) * 2 / 3;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.budget = budget;
    tsr_plan *before = plan(&r, params);
    cr_assert_eq(tsr_plan_get_info(before)->mode, TSR_MODE_TILED);
    cr_assert_null(strstr(tsr_plan_get_info(before)->why, "tune"));
    tsr_plan_destroy(&before);

    OK(tune(&r, budget, true, &t));
    const tsr_tune_point best = t->point[t->best_tiled];
    cr_assert_eq(best.mode, TSR_MODE_TILED);
    tsr_tune_free(&t);
    tsr_plan *p = plan(&r, params);
    const tsr_plan_info *i = tsr_plan_get_info(p);
    cr_assert(i->tile_width == best.tile_width && i->tile_height == best.tile_height);
    cr_assert_not_null(strstr(i->why, "tune"), "%s", i->why);
    cr_assert_leq(i->bytes.total, budget);
    tsr_plan_destroy(&p);

    params.budget = roomy; /* no need of tiles */
    p = plan(&r, params);
    cr_assert_eq(tsr_plan_get_info(p)->mode, TSR_MODE_UNTILED);
    tsr_plan_destroy(&p);
    params.budget = budget / 2; /* where it may not fit, the planner's choice has to */
    p = plan(&r, params);
    cr_assert_leq(tsr_plan_get_info(p)->bytes.total, budget / 2);
    tsr_plan_destroy(&p);
    params.budget = budget;
    params.tile_width = params.tile_height = 96; /* asked for */
    p = plan(&r, params);
    cr_assert_leq(tsr_plan_get_info(p)->tile_width, 96);
    tsr_plan_destroy(&p);
    close_rig(&r);
}

/* Among the first steps, and among what is measured. */
Test(tune, can_be_stopped_and_then_keeps_nothing) {
    rig r = {.fake.op_us = 20, .stop_after = 3};
    tsr_tune_table *t;
    open_rig(&r);
    int64_t budget = untiled_bytes(&r) * 2 / 3;
    cr_assert_eq(tune(&r, budget, false, &t), TSR_ERR_CANCELLED);
    cr_assert_not_null(t);
    cr_assert_eq(r.calls, 3);
    cr_assert_eq(t->best, -1);
    tsr_tune_free(&t);
    r.stop_after = 0;
    r.stop_measured = true;
    cr_assert_eq(tune(&r, budget, false, &t), TSR_ERR_CANCELLED);
    cr_assert_geq(t->best, 0);
    tsr_tune_free(&t);
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.budget = budget;
    tsr_plan *p = plan(&r, params);
    cr_assert_null(strstr(tsr_plan_get_info(p)->why, "tune"));
    tsr_plan_destroy(&p);
    close_rig(&r);
}

Test(tune, what_fails) {
    rig r = {.fake = {.op_us = 20, .fail_step = 3}};
    tsr_tune_table *t = (tsr_tune_table *)&r;
    open_rig(&r);
    cr_assert_eq(tune(&r, 1 << 20, false, &t), TSR_ERR_BUDGET);
    cr_assert_null(t);
    cr_assert_neq(tune(&r, roomy, false, &t), TSR_OK);
    cr_assert_null(t);
    close_rig(&r);
}

/* The preview without a window: a decode that is watched, interrupted, begun anew, and forgets what has no room. */
#include "fake_backend.h"
#include "session/cache_folder.h"
#include "session/rough.h"
#include "session/watch.h"
#include "synthetic.h"
#include "temp.h"
#include "vulkan_help.h"

#include <tessera/preview.h>

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
    tsr_preview *preview;
    atomic_int wakes;
} rig;

static void on_wake(void *user) {
    atomic_fetch_add(&((rig *)user)->wakes, 1);
}

/* A rough map as if it had been fitted before: fitting decodes in earnest. */
static void keep_map(const tsr_model *m) {
    uint64_t key;
    char name[48], text[256] = "16\n";
    OK(tsr_model_key(m, &key));
    snprintf(name, sizeof name, "rough-%016llx", (unsigned long long)key);
    for (int i = 0; i < 3 * 17; i++)
        strcat(text, "0.5 ");
    tsr_cache_write(name, text);
}

static void open_rig_with(rig *r, int64_t keep_bytes, bool map) {
    const char *path = temp_path("small.safetensors");
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
    OK(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}));
    OK(tsr_model_open(&r->model, path));
    if (map)
        keep_map(r->model);
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    OK(tsr_engine_wrap(&r->engine, fake_create(&r->fake, &r->counts), &params));
    if (!r->latent)
        r->latent = fake_latent(5, 6, 9);
    tsr_status status = tsr_preview_create(
        &r->preview, r->engine, &(tsr_preview_params){.keep_bytes = keep_bytes, .wake = on_wake, .user = r});
    if (status == TSR_ERR_DEVICE)
        cr_skip_test("no Vulkan here: %s", tsr_last_error());
    OK(status);
    OK(tsr_preview_open(r->preview, r->model, r->latent, 0));
}

static void open_rig(rig *r, int64_t keep_bytes) {
    open_rig_with(r, keep_bytes, true);
    cr_assert_eq(tsr_preview_get_info(r->preview)->frames, 17);
}

static void close_rig(rig *r) {
    tsr_preview_destroy(&r->preview);
    cr_assert_null(r->preview);
    tsr_latent_close(&r->latent);
    tsr_engine_destroy(&r->engine);
    tsr_model_close(&r->model);
    cr_assert_str_eq(r->counts.wrong, "");
    cr_assert_eq(r->counts.execs, 0, "%d plans are still ready", r->counts.execs);
    cr_assert_eq(r->counts.slabs, 0);
    cr_assert_eq(tsr_mem_used(), 0, "%zu bytes are still in use", tsr_mem_used());
}

static void start(rig *r, tsr_plan_params params, bool go_on) {
    const tsr_latent_info *i = tsr_latent_get_info(r->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan *plan;
    params.budget = 1ll << 30;
    OK(tsr_plan_create(&plan, r->engine, r->model, &extent, &params));
    OK(tsr_preview_start(r->preview, &plan, go_on));
    cr_assert_null(plan);
}

static tsr_plan_params tiled(int size) {
    return (tsr_plan_params){.tile_width = size, .tile_height = size, .overlap_width = 8, .overlap_height = 8};
}

/* Polls until the state is reached; gives up after some minutes. */
static const tsr_preview_info *await(rig *r, tsr_preview_state state) {
    for (int i = 0; i < 200000; i++) {
        OK(tsr_preview_poll(r->preview));
        const tsr_preview_info *info = tsr_preview_get_info(r->preview);
        if (info->state == state && !info->blending)
            return info;
        usleep(1000);
    }
    cr_assert(false, "state %d never came; it is %d: %s", state, tsr_preview_get_info(r->preview)->state,
        tsr_preview_get_info(r->preview)->error);
    return NULL;
}

static void check_frame(rig *r, int64_t f) {
    tsr_frame frame;
    cr_assert_eq(tsr_preview_frame_state(r->preview, f), TSR_FRAME_WHOLE, "frame %d", (int)f);
    OK(tsr_preview_pixels(r->preview, f, TSR_PIXELS_RGB_F32, false, &frame));
    cr_assert(frame.width == 72 && frame.height == 48 && frame.index == f);
    const float *v = frame.data;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < 48; y++)
            for (int x = 0; x < 72; x++, v++)
                cr_assert_float_eq(*v, fake_value(f, c, y, x), 2e-3f, "frame %d, %d,%d,%d: %g", (int)f, c, y, x, *v);
}

static void check_all(rig *r) {
    const tsr_preview_info *i = await(r, TSR_PREVIEW_DONE);
    cr_assert_eq(i->whole, 17);
    cr_assert(i->first_seconds > 0 && i->share == 1 && i->tile == -1);
    for (int f = 0; f < 17; f++)
        check_frame(r, f);
}

static void decode_one(bool asynchronous, tsr_plan_params params) {
    rig r = {.fake.asynchronous = asynchronous};
    open_rig(&r, 1 << 30);
    start(&r, params, false);
    check_all(&r);
    cr_assert_gt(atomic_load(&r.wakes), 0);
    close_rig(&r);
}

Test(preview, untiled) {
    decode_one(false, (tsr_plan_params){.untiled = true});
}

Test(preview, tiled) {
    decode_one(false, tiled(40));
}

Test(preview, asynchronous) {
    decode_one(true, tiled(40));
}

/* Whoever gives up the decode waits for what the device was given. */
Test(preview, long_steps_of_a_device_come_one_by_one) {
    rig r = {.fake = {.asynchronous = true, .op_us = 3000}};
    open_rig(&r, 1 << 30);
    start(&r, (tsr_plan_params){.untiled = true}, false);
    check_all(&r);
    cr_assert_leq(
        r.counts.queued, 1, "%d steps were queued; only of the first nobody knows how long it takes", r.counts.queued);
    close_rig(&r);
}

/* What a slider does: plans follow each other faster than any is done. */
static void restart_often(bool asynchronous) {
    rig r = {.fake = {.asynchronous = asynchronous, .op_us = 20}};
    open_rig(&r, 1 << 30);
    for (int i = 0; i < 40; i++) {
        start(&r, i % 4 == 3 ? (tsr_plan_params){.untiled = true} : tiled(24 + 8 * (i % 3)), false);
        for (int k = 0; k < i % 7; k++) {
            OK(tsr_preview_poll(r.preview));
            usleep(3000);
        }
        tsr_preview_image image;
        tsr_preview_view view = TSR_PREVIEW_VIEW_DEFAULT;
        view.width = view.height = 50;
        view.frame = i % 17;
        OK(tsr_preview_show(r.preview, &view, &image));
        if (i % 5 == 4)
            tsr_preview_stop(r.preview);
    }
    start(&r, tiled(32), false);
    check_all(&r);
    tsr_preview_stop(r.preview);
    OK(tsr_preview_poll(r.preview));
    check_frame(&r, 16);
    close_rig(&r);
}

Test(preview, plans_that_follow_each_other) {
    restart_often(false);
}

Test(preview, plans_that_follow_each_other_on_a_device) {
    restart_often(true);
}

/* Where cores draw, layers are flattened before they are enlarged: what is seen is the same. */
static void check_partial_picture(rig *r, double zoom) {
    enum { SIDE = 140 };
    static uint8_t seen[SIDE * SIDE * 4], direct[SIDE * SIDE * 4];
    tsr_preview_view view = {.width = SIDE, .height = SIDE, .left = 1.3, .top = 2.1, .zoom = zoom, .smooth = true};
    tsr_vk_show show = {.width = SIDE, .height = SIDE, .left = 1.3, .top = 2.1, .zoom = zoom, .smooth = true};
    tsr_vk *vk = r->engine->vk;
    tsr_preview_image image;
    tsr_vk_canvas *canvas;
    OK(tsr_preview_show(r->preview, &view, &image));
    read_canvas(vk, r->preview->canvas, SIDE, SIDE, seen);
    tsr_vk_stack stack = tsr_watch_stack(r->preview, 0, false, tsr_now(), NULL);
    cr_assert_gt(stack.columns, 1);
    OK(tsr_vk_canvas_create(vk, false, &canvas));
    OK(tsr_vk_show_frame(vk, &stack, &show, canvas));
    read_canvas(vk, canvas, SIDE, SIDE, direct);
    tsr_vk_canvas_destroy(vk, &canvas);
    for (int i = 0; i < SIDE * SIDE * 4; i++)
        cr_assert(abs(seen[i] - direct[i]) <= 1, "%d,%d: %d, %d", i / 4 % SIDE, i / 4 / SIDE, seen[i], direct[i]);
}

Test(preview, a_frame_of_some_tiles_is_seen_as_it_is) {
    rig r = {0};
    open_rig(&r, 1 << 30);
    start(&r, (tsr_plan_params){.untiled = true}, false);
    await(&r, TSR_PREVIEW_DONE);
    start(&r, tiled(40), false);
    while (tsr_preview_frame_state(r.preview, 0) != TSR_FRAME_PARTIAL) { /* two tiles of six at a time */
        OK(tsr_preview_poll(r.preview));
        usleep(1000);
    }
    check_partial_picture(&r, 2.5);
    check_partial_picture(&r, 0.4);
    check_all(&r);
    close_rig(&r);
}

Test(preview, old_frames_stay_until_new_ones_cover_them) {
    rig r = {.fake.op_us = 200};
    open_rig(&r, 1 << 30);
    start(&r, tiled(40), false);
    await(&r, TSR_PREVIEW_DONE);
    start(&r, (tsr_plan_params){.untiled = true}, false);
    for (int f = 0; f < 17; f++)
        cr_assert_eq(tsr_preview_frame_state(r.preview, f), TSR_FRAME_OLD);
    tsr_frame frame;
    cr_assert_eq(tsr_preview_pixels(r.preview, 3, TSR_PIXELS_RGB8, true, &frame), TSR_ERR_ARGUMENT);
    check_all(&r);
    close_rig(&r);
}

Test(preview, goes_on_elsewhere_and_keeps_what_is_whole) {
    rig r = {.fake.op_us = 50};
    open_rig(&r, 1 << 30);
    tsr_plan_params later = tiled(40);
    later.first_frame = 9;
    start(&r, later, false);
    const tsr_preview_info *i = await(&r, TSR_PREVIEW_DONE);
    cr_assert_eq(i->whole, 8);
    cr_assert_eq(tsr_preview_frame_state(r.preview, 8), TSR_FRAME_MISSING);
    start(&r, tiled(40), true);
    for (int f = 9; f < 17; f++)
        cr_assert_eq(tsr_preview_frame_state(r.preview, f), TSR_FRAME_WHOLE);
    check_all(&r);
    close_rig(&r);
}

Test(preview, pauses_where_frames_have_no_room_and_forgets_those_far_behind) {
    rig r = {0};
    open_rig(&r, 8 * 72 * 48 * 3 * 4); /* eight frames of f32 */
    start(&r, (tsr_plan_params){.untiled = true, .precision = TSR_PRECISION_F32}, false);
    const tsr_preview_info *i = await(&r, TSR_PREVIEW_PAUSED);
    cr_assert_leq(i->frame_bytes, 8 * 72 * 48 * 3 * 4);
    cr_assert(i->whole >= 4 && i->whole <= 8, "%d", i->whole);
    check_frame(&r, 0);
    tsr_preview_look_at(r.preview, 12);
    i = await(&r, TSR_PREVIEW_DONE);
    cr_assert_eq(tsr_preview_frame_state(r.preview, 0), TSR_FRAME_MISSING);
    check_frame(&r, 12);
    check_frame(&r, 16);
    cr_assert_leq(i->frame_bytes, 8 * 72 * 48 * 3 * 4);
    close_rig(&r);
}

Test(preview, another_video_in_the_middle_of_a_decode) {
    rig r = {.fake.op_us = 300};
    open_rig(&r, 1 << 30);
    for (int i = 0; i < 4; i++) {
        start(&r, tiled(32), false);
        usleep(20000);
        OK(tsr_preview_poll(r.preview));
        OK(tsr_preview_open(r.preview, r.model, r.latent, 0));
        cr_assert_eq(tsr_preview_frame_state(r.preview, 0), TSR_FRAME_MISSING);
    }
    OK(tsr_preview_open(r.preview, NULL, NULL, 0));
    cr_assert_eq(tsr_preview_get_info(r.preview)->frames, 0);
    OK(tsr_preview_poll(r.preview));
    OK(tsr_preview_open(r.preview, r.model, r.latent, 0));
    start(&r, tiled(32), false);
    usleep(20000); /* and is closed in the middle of this one */
    close_rig(&r);
}

Test(preview, a_rough_picture_of_a_video_that_is_gone_is_not_taken) {
    rig r = {0};
    open_rig(&r, 1 << 30);
    for (int i = 0; i < 1000 && !atomic_load(&r.wakes); i++)
        usleep(10000); /* until it is painted */
    cr_assert(atomic_load(&r.wakes));
    OK(tsr_preview_open(r.preview, NULL, NULL, 0));
    OK(tsr_preview_poll(r.preview));
    cr_assert_not(tsr_preview_get_info(r.preview)->rough);
    close_rig(&r);
}

Test(preview, a_failure_is_told_and_the_next_plan_runs) {
    rig r = {.fake.fail_step = 7};
    open_rig(&r, 1 << 30);
    start(&r, tiled(32), false);
    const tsr_preview_info *i = await(&r, TSR_PREVIEW_FAILED);
    cr_assert_gt(strlen(i->error), 0);
    r.fake = (fake_params){.fail_prepare = true};
    start(&r, tiled(40), false);
    await(&r, TSR_PREVIEW_FAILED);
    r.fake = (fake_params){.fail_slab = true};
    start(&r, (tsr_plan_params){.untiled = true}, false);
    await(&r, TSR_PREVIEW_FAILED);
    r.fake = (fake_params){0};
    start(&r, tiled(40), false);
    check_all(&r);
    cr_assert_str_eq(tsr_preview_get_info(r.preview)->error, "");
    close_rig(&r);
}

/* ---------------------------------------------------------------- memory that runs short */

/* Each allocation of a decode in turn finds none: a smaller plan goes on by itself. */
static void fail_every_allocation(bool asynchronous, tsr_plan_params params) {
    rig r = {.fake.asynchronous = asynchronous};
    open_rig(&r, 1 << 30);
    int failed = 0;
    bool again = true;
    for (int n = 0; again && n < 20; n++) {
        tsr_mem_fail_at(n); /* the worker is idle */
        start(&r, params, false);
        int64_t asked = r.preview->plan->info.bytes.total;
        const tsr_preview_info *i = await(&r, TSR_PREVIEW_DONE);
        tsr_mem_fail_at(-1);
        check_all(&r);
        again = *i->shrunk;
        failed += again;
        cr_assert((i->plan->bytes.total < asked) == again);
        cr_assert_str_eq(i->error, "");
        cr_assert(
            !again || (strstr(i->shrunk, "memory") && strstr(i->shrunk, "going on with a plan of ")), "%s", i->shrunk);
        OK(tsr_preview_open(r.preview, r.model, r.latent, 0)); /* so that the next one allocates all again */
    }
    cr_assert(failed >= 2 && !again, "%d allocations failed", failed);
    close_rig(&r);
}

Test(preview, shrinks_at_every_allocation) {
    fail_every_allocation(false, (tsr_plan_params){.overlap_width = -1, .overlap_height = -1});
}

Test(preview, shrinks_at_every_allocation_on_a_device) {
    fail_every_allocation(true, tiled(40));
}

/* Less memory is there than anybody knows. Who looks elsewhere goes on by the plan that fits; who asks anew is heard;
 * where none fits, one line says what would be needed, and the next plan runs. */
Test(preview, shrinks_until_it_fits_and_stays_there) {
    rig r = {0};
    open_rig(&r, 1 << 30);
    tsr_plan_params params = {.overlap_width = -1, .overlap_height = -1};
    start(&r, params, false);
    check_all(&r);
    cr_assert_str_eq(tsr_preview_get_info(r.preview)->shrunk, "");

    r.fake.most = r.preview->plan->info.bytes.total * 2 / 5;
    params.first_frame = 9;
    start(&r, params, false);
    const tsr_preview_info *i = await(&r, TSR_PREVIEW_DONE);
    cr_assert_neq(*i->shrunk, 0);
    cr_assert(i->plan->bytes.total <= r.fake.most && i->whole == 8);
    int prepares = r.counts.prepares;
    params.first_frame = 0;
    start(&r, params, true);
    check_all(&r);
    i = tsr_preview_get_info(r.preview);
    cr_assert_eq(r.counts.prepares, prepares + 1, "it goes on by the plan that fits");
    cr_assert_neq(*i->shrunk, 0);

    r.fake.most = 1;
    start(&r, params, false);
    i = await(&r, TSR_PREVIEW_FAILED);
    cr_assert_str_eq(i->shrunk, "");
    for (int polls = 0; polls < 3; polls++) {
        OK(tsr_preview_poll(r.preview));
        i = tsr_preview_get_info(r.preview);
        cr_assert(strstr(i->error, "no smaller plan than this of ") && strstr(i->error, " bytes)"), "%s", i->error);
    }
    r.fake.most = 0;
    start(&r, params, false);
    check_all(&r);
    cr_assert(!*tsr_preview_get_info(r.preview)->error && !*tsr_preview_get_info(r.preview)->shrunk);
    close_rig(&r);
}

Test(preview, compares_with_what_was_kept) {
    rig r = {0};
    open_rig(&r, 1 << 30);
    start(&r, tiled(40), false);
    await(&r, TSR_PREVIEW_DONE);
    cr_assert(isnan(tsr_preview_get_info(r.preview)->psnr));
    tsr_preview_keep(r.preview);
    cr_assert(tsr_preview_get_info(r.preview)->has_reference);
    OK(tsr_preview_compare(r.preview, 5, 0, 0, 72, 48));
    for (int i = 0; i < 1000 && isnan(tsr_preview_get_info(r.preview)->psnr); i++) {
        OK(tsr_preview_poll(r.preview));
        usleep(1000);
    }
    cr_assert_eq(tsr_preview_get_info(r.preview)->psnr, INFINITY);
    start(&r, (tsr_plan_params){.untiled = true}, false);
    check_all(&r);
    OK(tsr_preview_compare(r.preview, 5, 8, 8, 40, 30));
    tsr_preview_drop_reference(r.preview);
    OK(tsr_preview_compare(r.preview, 5, 8, 8, 40, 30));
    cr_assert(isnan(tsr_preview_get_info(r.preview)->psnr));
    close_rig(&r);
}

Test(preview, a_lost_device_is_an_error_and_all_can_be_closed) {
    rig r = {0};
    open_rig(&r, 1 << 30);
    start(&r, tiled(40), false);
    await(&r, TSR_PREVIEW_DONE); /* other threads of ours make no calls any more */
    tsr_preview_image image;
    tsr_preview_view view = TSR_PREVIEW_VIEW_DEFAULT;
    view.width = view.height = 64;
    tsr_preview_lose_device(r.preview);
    tsr_status status = tsr_preview_show(r.preview, &view, &image);
    cr_assert_eq(status, TSR_ERR_DEVICE);
    close_rig(&r);
}

/* ---------------------------------------------------------------- rough pictures */

Test(rough, a_linear_map_is_found) {
    enum { N = 400, C = 16 };
    static float x[N][C], rgb[N][3];
    unsigned seed = 1;
    for (int i = 0; i < N; i++) {
        for (int c = 0; c < C; c++)
            x[i][c] = (float)((seed = seed * 1664525 + 1013904223) >> 8) / 8388608.0f - 1;
        for (int c = 0; c < 3; c++)
            rgb[i][c] = 0.3f * x[i][c] - 0.2f * x[i][15 - c] + 0.1f * (float)c;
    }
    tsr_rough_map map;
    cr_assert(tsr_rough_fit(x[0], rgb[0], N, C, &map));
    uint32_t pixel[N];
    tsr_rough_paint(&map, x[0], N, pixel);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < 3; c++)
            cr_assert_float_eq((float)(pixel[i] >> 8 * c & 255), 255 * (rgb[i][c] * 0.5f + 0.5f), 0.8f);
    memset(x, 0, sizeof x); /* latents that say nothing: their mean colour */
    cr_assert(tsr_rough_fit(x[0], rgb[0], N, C, &map));
    cr_assert(!tsr_rough_fit(x[0], rgb[0], 0, C, &map));
    rgb[7][1] = NAN;
    cr_assert(!tsr_rough_fit(x[0], rgb[0], N, C, &map));
}

Test(rough, comes_by_itself_and_is_kept) {
    rig r = {.latent = fake_latent(1, 3, 3)}; /* small: the plain tier under TSan is slow */
    open_rig_with(&r, 1 << 30, false);
    for (int i = 0; i < 400000 && !tsr_preview_get_info(r.preview)->rough; i++) {
        OK(tsr_preview_poll(r.preview));
        usleep(1000);
    }
    cr_assert(tsr_preview_get_info(r.preview)->rough, "%s", tsr_last_error());
    char command[256];
    snprintf(command, sizeof command, "ls %s/tessera/rough-* >/dev/null", getenv("XDG_CACHE_HOME"));
    cr_assert_eq(system(command), 0);
    close_rig(&r);
}

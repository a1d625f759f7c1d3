/* Every mode, really run: budgets from roomy to hopeless, every precision, small sizes. What was planned is what was
 * taken, to the byte; where caches live and how a video is cut into segments changes no bit. */
#include "backend/cpu/cpu.h"
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct video { /* decoded by a slice level */
    float *at;
    size_t n;
} video;

typedef struct sweep {
    tsr_model *model;
    tsr_latent *latent;
    tsr_engine *engine;
    tsr_precision precision;
    const tsr_plan *plan; /* in hand */
    video now;
    video level[TSR_MAX_LEVELS + 1]; /* with caches on the device; [slice level] */
    int modes[TSR_MODE_EXACT + 1], streamed, parked, sliced, plans;
} sweep;

static void open_sweep(sweep *s, tsr_extent e, tsr_precision precision) {
    const char *path = temp_path("modes.safetensors");
    cr_assert_eq(
        synth_model_write(path, &(synth_config){.channels = {32, 32, 64}, .layers = 1, .decoder = true}), TSR_OK);
    cr_assert_eq(tsr_model_open(&s->model, path), TSR_OK, "%s", tsr_last_error());
    float *z = synth_latent(16, e.frames, e.height, e.width, 0);
    cr_assert_eq(tsr_latent_from_memory(&s->latent, z, e.frames, e.height, e.width, 16), TSR_OK);
    free(z);
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    params.threads = 1; /* small sizes: others would wait more than work */
    cr_assert_eq(tsr_engine_create(&s->engine, &params), TSR_OK, "%s", tsr_last_error());
    /* What is chosen must not hang on how fast this machine found itself. On a slow one, starting an op is next to
     * nothing even at small sizes, so slices and streams both have budgets at which they win. */
    tsr_cpu *cpu = (tsr_cpu *)s->engine->backend;
    cpu->gemm = 2e9;
    cpu->bandwidth = 1e9;
    s->precision = precision;
}

static void forget_videos(sweep *s) {
    for (int i = 0; i <= TSR_MAX_LEVELS; i++) {
        free(s->level[i].at);
        s->level[i] = (video){0};
    }
}

static void close_sweep(sweep *s) {
    forget_videos(s);
    tsr_engine_destroy(&s->engine);
    tsr_latent_close(&s->latent);
    tsr_model_close(&s->model);
    cr_assert(tsr_mem_used() == 0 && tsr_mem_host_used() == 0);
}

static tsr_status keep(void *user, const tsr_frame *f) {
    sweep *s = user;
    memcpy((char *)s->now.at + (size_t)f->index * f->bytes, f->data, f->bytes);
    return TSR_OK;
}

/* Decodes by the plan and checks what it took. The caller's to free. */
static video run(sweep *s, const tsr_plan *plan) {
    const tsr_plan_info *i = tsr_plan_get_info(plan);
    s->plan = plan;
    s->now.n = 3 * (size_t)i->frames * (size_t)i->width * (size_t)i->height;
    s->now.at = malloc(s->now.n * sizeof(float));
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = s};
    tsr_result r;
    cr_assert_eq(tsr_decode(s->engine, s->model, s->latent, plan, &d, &r), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(r.frames, i->frames);
    cr_assert_leq(i->bytes.total, i->budget);
    cr_assert_eq(r.peak_bytes, i->bytes.total, "%lld bytes where %lld were planned", (long long)r.peak_bytes,
        (long long)i->bytes.total);
    cr_assert_eq(r.planned_bytes, i->bytes.total);
    cr_assert_eq(r.host_peak_bytes, i->bytes.host, "host: %lld bytes where %lld were planned",
        (long long)r.host_peak_bytes, (long long)i->bytes.host);
    cr_assert_eq(r.host_planned_bytes, i->bytes.host);
    s->plans++;
    s->modes[i->mode]++;
    s->streamed += plan->host_bytes > 0;
    s->parked += plan->parked_sets > 0;
    s->sliced += plan->slice_level < plan->half->levels;
    return s->now;
}

static double psnr(const video *a, const video *b) {
    double sum = 0;
    for (size_t i = 0; i < a->n; i++)
        sum += ((double)a->at[i] - (double)b->at[i]) * ((double)a->at[i] - (double)b->at[i]);
    return sum > 0 ? 10 * log10(4 * (double)a->n / sum) : INFINITY;
}

/* The first of its slice level is what others have to be like; it is like unsliced. */
static void compare(sweep *s, const tsr_plan *plan, video v) {
    int levels = plan->half->levels;
    video *same = &s->level[plan->slice_level];
    if (same->at) {
        cr_assert(memcmp(same->at, v.at, v.n * sizeof(float)) == 0, "slice level %d, %s: %.1f dB", plan->slice_level,
            plan->info.why, psnr(same, &v));
        free(v.at);
        return;
    }
    *same = v;
    if (s->level[levels].at && s->precision == TSR_PRECISION_F32)
        cr_assert_geq(psnr(&s->level[levels], &v), 120);
}

/* From a budget that holds everything to one that is refused, each smaller by so much of what the one before took
 * beside its weights, which small videos are small beside. */
static void fall(sweep *s, tsr_plan_params params, double step) {
    const tsr_latent_info *i = tsr_latent_get_info(s->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan *plan = NULL;
    params.precision = s->precision;
    params.budget = 1ll << 32;
    while (tsr_plan_create(&plan, s->engine, s->model, &extent, &params) == TSR_OK) {
        compare(s, plan, run(s, plan));
        const tsr_plan_bytes *b = &plan->info.bytes;
        params.budget = b->weights + (int64_t)((1 - step) * (double)(b->total - b->weights));
        tsr_plan_destroy(&plan);
    }
    cr_assert(strstr(tsr_last_error(), "bytes)"), "%s", tsr_last_error());
}

static tsr_plan_params untiled(tsr_cache_home caches) {
    return (tsr_plan_params){.untiled = true, .caches = caches, .overlap_width = -1, .overlap_height = -1};
}

static tsr_plan_params tiled(tsr_cache_home caches, int tile) {
    return (tsr_plan_params){
        .tile_width = tile, .tile_height = tile, .caches = caches, .overlap_width = 8, .overlap_height = 8};
}

typedef struct seen {
    int streamed, sliced, parked;
} seen;

static void sweep_all(tsr_extent e, tsr_precision precision, double step, seen *sum) {
    sweep s = {0};
    open_sweep(&s, e, precision);
    fall(&s, untiled(TSR_CACHES_DEVICE), step);
    cr_assert_eq(s.streamed, 0);
    fall(&s, untiled(TSR_CACHES_AUTO), step);
    fall(&s, untiled(TSR_CACHES_HOST), step);
    forget_videos(&s);
    int tile = e.width > 8 || e.height > 8 ? 32 : 16; /* there are at least two: latents are 4 pixels wide */
    fall(&s, tiled(TSR_CACHES_DEVICE, tile), step);
    fall(&s, tiled(TSR_CACHES_AUTO, tile), step);
    fall(&s, tiled(TSR_CACHES_HOST, tile), step);
    printf("%dx%dx%d %s: %d plans, %d untiled, %d offloaded, %d tiled; %d sliced, %d parked\n", e.width, e.height,
        e.frames, tsr_precision_name(precision), s.plans, s.modes[TSR_MODE_UNTILED], s.modes[TSR_MODE_OFFLOADED],
        s.modes[TSR_MODE_TILED], s.sliced, s.parked);
    sum->streamed += s.streamed;
    sum->sliced += s.sliced;
    sum->parked += s.parked;
    close_sweep(&s);
}

static void expect_all(seen s) {
    cr_assert(s.streamed >= 2 && s.sliced >= 1 && s.parked >= 1, "%d streamed, %d sliced, %d parked", s.streamed,
        s.sliced, s.parked);
}

/* ---------------------------------------------------------------- length */

static tsr_plan_bytes taken(int latents, tsr_plan_params params) {
    sweep s = {0};
    tsr_plan *plan = NULL;
    tsr_extent e = {latents, 2, 3};
    open_sweep(&s, e, TSR_PRECISION_F32);
    cr_assert_eq(tsr_plan_create(&plan, s.engine, s.model, &e, &params), TSR_OK, "%s", tsr_last_error());
    free(run(&s, plan).at);
    tsr_plan_bytes bytes = plan->info.bytes;
    tsr_plan_destroy(&plan);
    close_sweep(&s);
    return bytes;
}

/* A video a hundred times as long takes the same memory. */
static void take_no_more(int latents) {
    tsr_plan_params params = untiled(TSR_CACHES_DEVICE);
    params.budget = 1ll << 32;
    for (int host = 0; host < 2; host++) {
        params.caches = host ? TSR_CACHES_HOST : TSR_CACHES_DEVICE;
        tsr_plan_bytes a = taken(5, params), b = taken(latents, params);
        cr_assert(a.total == b.total && a.host == b.host);
    }
    params = tiled(TSR_CACHES_AUTO, 8); /* in segments */
    params.overlap_width = params.overlap_height = 4;
    params.budget = taken(5,
        (tsr_plan_params){
            .tile_width = 8, .tile_height = 8, .overlap_width = 4, .overlap_height = 4, .budget = 1ll << 32})
                        .total;
    tsr_plan_bytes a = taken(latents / 2, params), b = taken(latents, params);
    cr_assert(a.total <= params.budget && b.total <= params.budget && a.host == b.host);
}

Test(modes, length_takes_no_memory) {
    take_no_more(40);
}

Test(long_modes, frames_1700_take_what_17_take) {
    take_no_more(425);
}

/* ---------------------------------------------------------------- going on */

static tsr_status keep_floats(void *user, const tsr_frame *f) {
    video *v = user;
    v->at = realloc(v->at, v->n * sizeof(float) + f->bytes);
    cr_assert_not_null(v->at);
    memcpy(v->at + v->n, f->data, f->bytes);
    v->n += f->bytes / sizeof(float);
    return TSR_OK;
}

static video from(sweep *s, const tsr_plan *plan, int64_t first) {
    video v = {0};
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .first_frame = (int)first, .on_frame = keep_floats};
    d.user = &v;
    cr_assert_eq(tsr_decode(s->engine, s->model, s->latent, plan, &d, NULL), TSR_OK, "%s", tsr_last_error());
    return v;
}

/* A render that went over to a smaller plan and was killed: by that plan's recipe the rest is the same to the bit. */
static void go_on(tsr_precision precision, bool tiles) {
    enum { AT = 160, KILLED = 13, LATENTS = 46 };
    sweep s = {0};
    tsr_extent e = {LATENTS, 3, 4};
    tsr_plan *plan, *smaller, *again;
    open_sweep(&s, e, precision);
    tsr_plan_params params = tiles ? tiled(TSR_CACHES_AUTO, 12) : (tsr_plan_params)TSR_PLAN_PARAMS_DEFAULT;
    params.precision = precision;
    params.budget = 1ll << 32;
    cr_assert_eq(tsr_plan_create(&plan, s.engine, s.model, &e, &params), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(tsr_plan_smaller(&smaller, plan, AT), TSR_OK, "%s", tsr_last_error());
    cr_assert(smaller->first_latent > 0, "all of it is decoded again: the case shows nothing");
    video rest = from(&s, smaller, AT);
    char recipe[1024];
    snprintf(recipe, sizeof recipe, "%s", tsr_plan_get_info(smaller)->recipe);
    tsr_plan_destroy(&smaller);
    tsr_plan_destroy(&plan);
    ((tsr_cpu *)s.engine->backend)->gemm *= 1000; /* another day */
    params = (tsr_plan_params){.recipe = recipe};
    cr_assert_eq(tsr_plan_create(&again, s.engine, s.model, &e, &params), TSR_OK, "%s", tsr_last_error());
    cr_assert_str_eq(tsr_plan_get_info(again)->recipe, recipe);
    video end = from(&s, again, AT + KILLED);
    size_t before = (size_t)KILLED * 3 * (size_t)again->info.width * (size_t)again->info.height;
    cr_assert_eq(rest.n, end.n + before);
    cr_assert(memcmp(rest.at + before, end.at, end.n * sizeof(float)) == 0);
    free(rest.at);
    free(end.at);
    tsr_plan_destroy(&again);
    close_sweep(&s);
}

Test(modes, a_smaller_plan_is_gone_on_with) {
    go_on(TSR_PRECISION_F32, true);
    go_on(TSR_PRECISION_INT8, false);
}

/* ---------------------------------------------------------------- all modes */

Test(modes, f32) {
    seen s = {0};
    sweep_all((tsr_extent){4, 9, 10}, TSR_PRECISION_F32, 0.15, &s);
    expect_all(s);
}

Test(modes, int8) {
    seen s = {0};
    sweep_all((tsr_extent){4, 9, 10}, TSR_PRECISION_INT8, 0.2, &s);
    expect_all(s);
}

Test(long_modes, every_precision_and_size) {
    static const tsr_extent extents[] = {{1, 5, 9}, {2, 7, 5}, {3, 9, 12}, {6, 6, 6}, {9, 5, 7}};
    seen s = {0};
    for (size_t i = 0; i < sizeof extents / sizeof *extents; i++)
        for (tsr_precision p = TSR_PRECISION_F32; p <= TSR_PRECISION_INT8; p++)
            sweep_all(extents[i], p, 0.02, &s);
    expect_all(s);
}

/* The demo's marbles, five frames, as the budget falls: every mode in turn. */
Test(long_modes, the_demo_under_falling_budgets) {
    static const struct {
        int64_t mib;
        tsr_mode mode;
        double db; /* against untiled: slices, streaming and bands are exact, tiles lack what lies beyond them */
    } cases[] = {{8192, TSR_MODE_UNTILED, 1000}, {1024, TSR_MODE_OFFLOADED, 1000}, {400, TSR_MODE_OFFLOADED, 120},
        {200, TSR_MODE_EXACT, 110}, {100, TSR_MODE_TILED, 20}, {60, TSR_MODE_TILED, 20}};
    char path[2][512];
    sweep s = {0};
    tsr_plan_params params = {
        .precision = TSR_PRECISION_F32, .end_frame = 5, .overlap_width = -1, .overlap_height = -1};
    snprintf(path[0], sizeof path[0], "%s/demo-vae.safetensors", getenv("TSR_ASSETS"));
    snprintf(path[1], sizeof path[1], "%s/marbles.latent", getenv("TSR_ASSETS"));
    cr_assert_eq(tsr_model_open(&s.model, path[0]), TSR_OK, "%s", tsr_last_error());
    tsr_latent_params lp = TSR_LATENT_PARAMS_DEFAULT;
    cr_assert_eq(tsr_latent_open(&s.latent, path[1], &lp), TSR_OK, "%s", tsr_last_error());
    tsr_engine_params ep = TSR_ENGINE_PARAMS_DEFAULT;
    ep.device = TSR_DEVICE_CPU;
    cr_assert_eq(tsr_engine_create(&s.engine, &ep), TSR_OK, "%s", tsr_last_error());
    const tsr_latent_info *i = tsr_latent_get_info(s.latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    video whole = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        tsr_plan *plan = NULL;
        params.budget = cases[c].mib << 20;
        cr_assert_eq(tsr_plan_create(&plan, s.engine, s.model, &extent, &params), TSR_OK, "%s", tsr_last_error());
        cr_assert_eq(plan->info.mode, cases[c].mode, "%lld MiB: %s", (long long)cases[c].mib, plan->info.why);
        video v = run(&s, plan);
        double db = whole.at ? psnr(&whole, &v) : INFINITY;
        printf("%lld MiB: %s, %.1f dB\n", (long long)cases[c].mib, plan->info.why, db);
        cr_assert_geq(db, cases[c].db);
        if (!whole.at)
            whole = v;
        else
            free(v.at);
        tsr_plan_destroy(&plan);
    }
    tsr_plan *none = NULL;
    params.budget = 40 << 20;
    cr_assert_eq(tsr_plan_create(&none, s.engine, s.model, &extent, &params), TSR_ERR_BUDGET);
    cr_assert(strstr(tsr_last_error(), "bytes)"), "%s", tsr_last_error());
    free(whole.at);
    close_sweep(&s);
}

/* Caches on the host: the list of transfers that every backend follows, and the CPU's thread that makes them, against
 * caches on the device. Small, in plain C: also under the thread sanitizer. */
#include "plan/moves.h"
#include "session/session.h"
#include "shapes.h"
#include "temp.h"

#include <tessera/encode.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- the list */

/* Every transfer begins and is done once, in order; none begins before the cache it brings was saved; a list walked by
 * ops meets every entry. */
static int check_moves(const tsr_plan *p, tsr_step step) {
    const tsr_program *g = p->program[step];
    int begun[8192] = {0}, done[8192] = {0}, waiting = 0, before = 0;
    tsr_moves m;
    cr_assert_eq(tsr_moves_create(&m, p, step), TSR_OK);
    for (int i = 0; i < m.n; i++) {
        const tsr_move *v = &m.move[i];
        const tsr_op *op = &g->op[v->op];
        bool load = op->kind == TSR_OP_CACHE_LOAD;
        cr_assert(v->before >= before && v->before <= g->ops && p->host_at[op->cache] != SIZE_MAX);
        before = v->before;
        tsr_move_span s = tsr_move_span_of(p, step, v->op);
        cr_assert(s.arena + s.bytes <= p->arena_bytes && s.host >= p->host_at[op->cache]);
        cr_assert_leq(s.host + s.bytes * (size_t)s.times, p->host_at[op->cache] + g->cache[op->cache].bytes);
        if (v->kind == TSR_MOVE_IN || v->kind == TSR_MOVE_OUT) {
            cr_assert(load == (v->kind == TSR_MOVE_IN) && !begun[v->op]++ && v->before <= v->op);
            waiting++;
            for (int k = v->before; load && k < v->op; k++)
                cr_assert(g->op[k].kind != TSR_OP_CACHE_SAVE || g->op[k].cache != op->cache);
        } else {
            cr_assert(begun[v->op] && !done[v->op]++ && (load ? v->before == v->op : v->before > v->op));
            waiting--;
        }
    }
    cr_assert_eq(waiting, 0);
    int n = m.n;
    tsr_moves_destroy(&m);
    return n;
}

Test(stream, lists_every_transfer) {
    tsr_vae *v = shapes_vae(&(synth_config){.channels = {32, 64, 64}, .layers = 1, .latent = 8, .decoder = true});
    tsr_target target = shapes_target();
    target.streams = true;
    int moves = 0, plans = 0;
    for (int64_t budget = 1 << 26; budget > 1 << 20; budget -= budget / 16) {
        tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
        params.budget = budget;
        params.untiled = true;
        params.precision = budget % 3 ? TSR_PRECISION_INT8 : TSR_PRECISION_F32;
        tsr_plan *p;
        if (tsr_plan_make(&p, &v->decoder, &target, &(tsr_extent){4, 12, 16}, &params) != TSR_OK)
            break;
        for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
            moves += check_moves(p, s);
        plans += p->info.mode == TSR_MODE_OFFLOADED;
        tsr_plan_free(&p);
    }
    cr_assert(plans >= 3 && moves > 100 * plans, "%d plans, %d moves", plans, moves);
    tsr_vae_destroy(&v);
}

/* ---------------------------------------------------------------- the thread */

typedef struct rig {
    tsr_model *model;
    tsr_engine *engine;
    float *out; /* what comes, one after the other */
    size_t n;
} rig;

static void open_rig(rig *r) {
    const char *path = temp_path("stream.safetensors");
    cr_assert_eq(synth_model_write(
                     path, &(synth_config){.channels = {32, 32, 32}, .layers = 1, .encoder = true, .decoder = true}),
        TSR_OK);
    cr_assert_eq(tsr_model_open(&r->model, path), TSR_OK, "%s", tsr_last_error());
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    params.reference = true;
    params.threads = 1;
    cr_assert_eq(tsr_engine_create(&r->engine, &params), TSR_OK, "%s", tsr_last_error());
}

static void close_rig(rig *r) {
    free(r->out);
    tsr_engine_destroy(&r->engine);
    tsr_model_close(&r->model);
    cr_assert(tsr_mem_used() == 0 && tsr_mem_host_used() == 0);
}

static void keep(rig *r, const float *values, size_t n) {
    r->out = realloc(r->out, (r->n + n) * sizeof *r->out);
    memcpy(r->out + r->n, values, n * sizeof *values);
    r->n += n;
}

static tsr_status keep_frame(void *user, const tsr_frame *f) {
    keep(user, f->data, f->bytes / sizeof(float));
    return TSR_OK;
}

static tsr_plan_params params_of(tsr_precision precision, bool host) {
    return (tsr_plan_params){.precision = precision,
        .budget = 1ll << 30,
        .untiled = true,
        .caches = host ? TSR_CACHES_HOST : TSR_CACHES_DEVICE};
}

static void check_result(const tsr_plan *plan, const tsr_result *result, bool host) {
    cr_assert_eq(plan->info.mode, host ? TSR_MODE_OFFLOADED : TSR_MODE_UNTILED);
    cr_assert_eq(plan->host_bytes > 0, host);
    cr_assert_eq(result->host_peak_bytes, plan->info.bytes.host, "%lld bytes on the host, %lld planned",
        (long long)result->host_peak_bytes, (long long)plan->info.bytes.host);
}

static void decode(rig *r, tsr_precision precision, bool host) {
    enum { T = 3, H = 1, W = 2 };
    tsr_plan_params params = params_of(precision, host);
    tsr_plan *plan = NULL;
    tsr_latent *latent = NULL;
    tsr_result result;
    float *z = synth_latent(16, T, H, W, 0);
    cr_assert_eq(tsr_latent_from_memory(&latent, z, T, H, W, 16), TSR_OK);
    free(z);
    cr_assert_eq(
        tsr_plan_create(&plan, r->engine, r->model, &(tsr_extent){T, H, W}, &params), TSR_OK, "%s", tsr_last_error());
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep_frame, .user = r};
    for (int twice = 0; twice < 1 + host; twice++) { /* the second by what the first made ready */
        r->n = 0;
        cr_assert_eq(tsr_decode(r->engine, r->model, latent, plan, &d, &result), TSR_OK, "%s", tsr_last_error());
    }
    check_result(plan, &result, host);
    cr_assert_eq(result.peak_bytes, plan->info.bytes.total);
    tsr_plan_destroy(&plan);
    tsr_latent_close(&latent);
}

enum { CLIP_W = 9, CLIP_H = 6, CLIP_T = 5 };

static tsr_status read_frame(void *user, int64_t index, float *rgb) {
    (void)user;
    float *video = synth_video(CLIP_T, CLIP_H, CLIP_W, 0);
    for (size_t i = 0; i < (size_t)CLIP_W * CLIP_H; i++)
        for (size_t c = 0; c < 3; c++)
            rgb[3 * i + c] = video[(c * CLIP_T + (size_t)index) * CLIP_W * CLIP_H + i];
    free(video);
    return TSR_OK;
}

static tsr_status keep_latent(void *user, int t, float *mean, const float *logvar) {
    (void)t;
    keep(user, mean, 16 * 2 * 3);
    keep(user, logvar, 16 * 2 * 3);
    return TSR_OK;
}

static void encode(rig *r, tsr_precision precision, bool host) {
    tsr_plan_params params = params_of(precision, host);
    tsr_extent extent;
    tsr_plan *plan = NULL;
    tsr_result result;
    cr_assert_eq(tsr_encode_extent(r->model, CLIP_W, CLIP_H, CLIP_T, &extent), TSR_OK);
    cr_assert(extent.height == 2 && extent.width == 3);
    cr_assert_eq(tsr_encode_plan(&plan, r->engine, r->model, &extent, &params), TSR_OK, "%s", tsr_last_error());
    tsr_encode_params e = {.width = CLIP_W,
        .height = CLIP_H,
        .frames = CLIP_T,
        .read_frame = read_frame,
        .on_latent = keep_latent,
        .user = r};
    r->n = 0;
    cr_assert_eq(tsr_encode(r->engine, r->model, plan, &e, &result), TSR_OK, "%s", tsr_last_error());
    check_result(plan, &result, host);
    tsr_plan_destroy(&plan);
}

/* Caches on the host change no bit. */
static void compare(void (*run)(rig *r, tsr_precision precision, bool host), tsr_precision precision) {
    rig r = {0};
    open_rig(&r);
    run(&r, precision, false);
    float *resident = r.out;
    size_t n = r.n;
    r.out = NULL;
    run(&r, precision, true);
    cr_assert(
        n > 0 && r.n == n && memcmp(resident, r.out, n * sizeof(float)) == 0, "%s", tsr_precision_name(precision));
    free(resident);
    close_rig(&r);
}

Test(stream, decodes_f32_alike) {
    compare(decode, TSR_PRECISION_F32);
}

Test(stream, decodes_int8_alike) {
    compare(decode, TSR_PRECISION_INT8);
}

Test(stream, encodes_f32_alike) {
    compare(encode, TSR_PRECISION_F32);
}

Test(stream, encodes_int8_alike) {
    compare(encode, TSR_PRECISION_INT8);
}

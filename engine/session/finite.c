#include "session/finite.h"

#include <stdio.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- what is said */

/* "frames 5 to 8, tile 2 of 6: 96 numbers are not finite in int8" */
static void name_them(
    char text[160], const tsr_finite *f, int tile, int t, tsr_step step, int64_t count, tsr_precision precision) {
    const tsr_plan *p = f->plan;
    int n = p->program[step]->out_frames, end = tsr_frames_of_latents(p->half->time_factor, t + 1);
    char frames[48];
    if (n == 1)
        snprintf(frames, sizeof frames, "frame %d", end - 1);
    else
        snprintf(frames, sizeof frames, "frames %d to %d", end - n, end - 1);
    snprintf(text, 160, "%s, tile %d of %d: %lld numbers are not finite in %s", frames, tile + 1,
        p->y.tiles * p->x.tiles, (long long)count, tsr_precision_name(precision));
}

/* ---------------------------------------------------------------- f32, made ready when first
 * needed */

/* One tile of the plan, in f32, in the memory that the plan leaves of its budget. */
static tsr_status make_plan(tsr_finite *f) {
    const tsr_plan *p = f->plan;
    tsr_plan_params params = p->params;
    params.precision = TSR_PRECISION_F32;
    params.untiled = true;
    params.tile_width = params.tile_height = 0;
    params.overlap_width = params.overlap_height = -1;
    params.caches = TSR_CACHES_DEVICE;
    params.quality = 0;
    params.exact = p->band > 0; /* may be in bands, too */
    params.live = false;
    params.budget = p->info.budget - p->info.bytes.total;
    if (params.budget <= 0)
        return tsr_fail(TSR_ERR_BUDGET, "the plan leaves none of the budget");
    tsr_target target = {0};
    f->e->backend->v->target(f->e->backend, &target);
    tsr_extent extent = {p->info.extent.frames, p->tile_h, p->tile_w};
    tsr_status status = tsr_plan_make(&f->f32, p->half, &target, &extent, &params);
    if (status == TSR_OK && (f->f32->slot_dtype != p->slot_dtype || f->f32->slot_bytes > p->slot_bytes))
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "slots of this device hold no f32");
    return status;
}

static tsr_status make_ready(tsr_finite *f) {
    size_t tiles = (size_t)f->plan->y.tiles * (size_t)f->plan->x.tiles;
    tsr_status status = make_plan(f);
    if (status != TSR_OK)
        return status;
    f->in_f32 = calloc(tiles, sizeof *f->in_f32);
    f->parked = calloc(tiles, sizeof *f->parked);
    if (!f->in_f32 || !f->parked)
        return tsr_fail(TSR_ERR_MEMORY, "no memory");
    f->holds = -1;
    return f->e->backend->v->prepare(f->e->backend, f->f32, &f->exec);
}

void tsr_finite_release(tsr_finite *f) {
    int tiles = f->plan ? f->plan->y.tiles * f->plan->x.tiles : 0;
    for (int i = 0; f->parked && i < tiles; i++)
        tsr_mem_free(f->parked[i]);
    if (f->exec)
        f->e->backend->v->exec_destroy(f->e->backend, &f->exec);
    tsr_plan_free(&f->f32);
    free(f->parked);
    free(f->in_f32);
    f->parked = NULL;
    f->in_f32 = NULL;
}

/* ---------------------------------------------------------------- caches in f32 */

/* exec has room for one tile's. */
static tsr_status put_away(tsr_finite *f) {
    if (f->holds < 0 || f->f32->cache_bytes == 0)
        return TSR_OK;
    char **to = &f->parked[f->holds];
    if (!*to)
        *to = tsr_mem_alloc_host(f->f32->cache_bytes);
    if (!*to)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a tile's caches in f32");
    return f->e->backend->v->park(f->e->backend, f->exec, 0, *to);
}

/* What the tile would remember had it been in f32 all along. Its last step's slot is the one to
 * come: it may be written. */
static tsr_status run_again(tsr_finite *f, int tile, int t, const tsr_step_args *to) {
    int back = tsr_lookback(f->plan->half), first = t - (back < 2 ? 2 : back); /* t itself is a later step */
    if (first < f->first_latent)
        first = f->first_latent;
    tsr_status status = TSR_OK;
    for (int u = first; u < t; u++) {
        tsr_step_args args = *to;
        args.step = u - first < TSR_STEP_LATER ? (tsr_step)(u - first) : TSR_STEP_LATER;
        TSR_TRY(f->load(f->ctx, tile, u));
        TSR_TRY(f->e->backend->v->step(f->e->backend, f->exec, &args));
    }
    TSR_TRY(f->load(f->ctx, tile, t));
error:
    return status;
}

static tsr_status take_caches(tsr_finite *f, int tile, int t, const tsr_step_args *to) {
    tsr_status status = TSR_OK;
    if (f->holds == tile && f->in_f32[tile])
        return TSR_OK;
    TSR_TRY(put_away(f));
    f->holds = -1;
    if (!f->in_f32[tile])
        TSR_TRY(run_again(f, tile, t, to));
    else if (f->parked[tile])
        TSR_TRY(f->e->backend->v->unpark(f->e->backend, f->exec, 0, f->parked[tile]));
    f->holds = tile;
    f->in_f32[tile] = true;
error:
    return status;
}

/* ---------------------------------------------------------------- steps */

static tsr_status step_in_f32(tsr_finite *f, int tile, int t, const tsr_step_args *to) {
    int64_t count = 0;
    tsr_step_args args = *to;
    char text[160];
    args.cache_set = 0;
    args.not_finite = NULL;
    tsr_status status = take_caches(f, tile, t, &args);
    args.not_finite = &count;
    if (status == TSR_OK)
        status = f->e->backend->v->step(f->e->backend, f->exec, &args);
    if (status == TSR_OK && count) {
        name_them(text, f, tile, t, to->step, count, TSR_PRECISION_F32);
        tsr_log(TSR_LOG_WARN, "%s, either; look at the latent", text);
    }
    return status;
}

/* Whether f32 is ready; warns in any case. */
static bool turn_to_f32(tsr_finite *f, int tile, int t, tsr_step step, int64_t count) {
    char text[160];
    name_them(text, f, tile, t, step, count, f->plan->info.precision);
    if (f->plan->info.precision == TSR_PRECISION_F32) {
        tsr_log(TSR_LOG_WARN, "%s; look at the latent", text);
        return false;
    }
    if (!f->exec && !f->gave_up)
        f->gave_up = make_ready(f) != TSR_OK;
    if (f->gave_up)
        tsr_log(TSR_LOG_WARN, "%s, and f32 beside it does not work (%s); use --precision f32", text, tsr_last_error());
    else
        tsr_log(TSR_LOG_WARN, "%s; the tile is decoded in f32 from here on", text);
    return !f->gave_up;
}

tsr_status tsr_finite_step(tsr_finite *f, tsr_exec *exec, int tile, int t, tsr_step_args *args) {
    if (!f->in_f32 || !f->in_f32[tile]) {
        int64_t count = 0;
        args->not_finite = &count;
        tsr_status status = f->e->backend->v->step(f->e->backend, exec, args);
        args->not_finite = NULL;
        if (status != TSR_OK || !count || !turn_to_f32(f, tile, t, args->step, count))
            return status;
    }
    return step_in_f32(f, tile, t, args);
}

/* Plans of the public header: the planner's arithmetic for this engine's backend. */
#include "session/session.h"

#include <tessera/encode.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tsr_status make(tsr_plan **out, tsr_engine *e, const tsr_half *half, const tsr_target *target,
    const tsr_extent *extent, const tsr_plan_params *params) {
    tsr_status status = tsr_plan_make(out, half, target, extent, params);
    if (status != TSR_OK)
        return status;
    (*out)->engine = e;
    tsr_engine_keep(e);
    return TSR_OK;
}

/* What is ready to run goes before another plan is made ready. */
static void target_of(tsr_engine *e, tsr_target *target) {
    *target = (tsr_target){0};
    e->backend->v->target(e->backend, target);
    pthread_mutex_lock(&e->lock);
    tsr_memory ready = e->exec_bytes;
    pthread_mutex_unlock(&e->lock);
    if (target->memory_free > 0)
        target->memory_free += ready.device;
    if (target->host_free > 0)
        target->host_free += ready.host + (target->host_is_device ? ready.device : 0);
}

tsr_status tsr_plan_mixed(tsr_plan **out, tsr_engine *e, const tsr_half *half, const tsr_extent *extent,
    const tsr_plan_params *params, const tsr_mix *mix) {
    tsr_target target;
    target_of(e, &target);
    target.mix = *mix;
    return make(out, e, half, &target, extent, params);
}

static tsr_status create(tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_half *half,
    const tsr_extent *extent, const tsr_plan_params *params) {
    tsr_plan_params p = *params;
    tsr_target target;
    target_of(e, &target);
    tsr_status status = p.recipe ? TSR_OK : tsr_quality_decide(e, m, half, &p, &target);
    return status == TSR_OK ? make(out, e, half, &target, extent, &p) : status;
}

/* A plan that has to be tiled, with the tile size left open, takes the one that tune found best, if it fits. */
static void use_tuned(tsr_plan **plan, tsr_engine *e, const tsr_model *m, const tsr_plan_params *params) {
    const tsr_plan *p = *plan;
    tsr_plan_params tuned = *params;
    tsr_plan *better = NULL;
    if (p->info.mode != TSR_MODE_TILED || params->recipe || params->tile_width || params->tile_height ||
        !tsr_tuned_tile(e, m, p->info.precision, &tuned.tile_width, &tuned.tile_height))
        return;
    if (create(&better, e, m, p->half, &p->info.extent, &tuned) != TSR_OK)
        return tsr_log(TSR_LOG_DEBUG, "plan: not the tile that tune found: %s", tsr_last_error());
    const char *because = strrchr(p->why, ';');
    snprintf(better->why, sizeof better->why, "%.*s; tiles of the size that tune found fastest here",
        (int)(because ? because - p->why : 0), p->why);
    tsr_plan_destroy(plan);
    *plan = better;
}

tsr_status tsr_plan_create(
    tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const tsr_plan_params *params) {
    *out = NULL;
    if (!m->vae->decoder.present)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "plan: %s: the file holds no decoder; use one that does", m->vae->info.path);
    tsr_status status = create(out, e, m, &m->vae->decoder, extent, params);
    if (status == TSR_OK)
        use_tuned(out, e, m, params);
    return status;
}

tsr_status tsr_encode_plan(
    tsr_plan **out, tsr_engine *e, const tsr_model *m, const tsr_extent *extent, const tsr_plan_params *params) {
    *out = NULL;
    if (!m->vae->encoder.present)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "encode: %s: the file holds no encoder; use one that does", m->vae->info.path);
    return create(out, e, NULL, &m->vae->encoder, extent, params);
}

/* ---------------------------------------------------------------- what is left of a task */

static tsr_status rest(
    tsr_plan **out, const tsr_plan *p, int64_t first, const tsr_plan_params *params, const tsr_target *target) {
    tsr_plan_params rest = *params;
    if (!p->half->encodes)
        rest.first_frame = (int)first;
    return make(out, p->engine, p->half, target, &p->info.extent, &rest);
}

tsr_status tsr_plan_rest(tsr_plan **out, const tsr_plan *p, int64_t first, const tsr_plan_params *params) {
    return rest(out, p, first, params, &p->target);
}

/* At least this share of memory is to be had back; a plan that takes less than 1/1024 less is none. */
static const int LEAST_CUT = 4, MOST_CUT = 1024;

tsr_status tsr_plan_smaller(tsr_plan **out, const tsr_plan *p, int64_t first) {
    const tsr_plan_bytes *b = &p->info.bytes;
    int64_t caches =
        (int64_t)p->host_bytes + (int64_t)p->cache_bytes * p->parked_sets; /* the host's share that can shrink */
    tsr_status status = TSR_ERR_BUDGET;
    for (int cut = LEAST_CUT; status == TSR_ERR_BUDGET && cut <= MOST_CUT; cut *= 2) {
        tsr_plan_params params = p->params;
        tsr_target target = p->target;
        params.budget = b->total - b->total / cut;
        int64_t host = b->host - caches / cut + (target.host_is_device ? params.budget : 0);
        if ((caches || target.host_is_device) && (host < target.host_free || target.host_free <= 0))
            target.host_free = host;
        status = rest(out, p, first, &params, &target);
    }
    return status;
}

tsr_status tsr_plan_shrink(tsr_plan **out, const tsr_plan *p, int64_t first, const char *why) {
    char need[32];
    tsr_status status = tsr_plan_smaller(out, p, first);
    if (status == TSR_ERR_BUDGET)
        return tsr_fail(TSR_ERR_MEMORY, "%s; no smaller plan than this of %s (%lld bytes): end other programs%s", why,
            tsr_bytes_text(need, p->info.bytes.total), (long long)p->info.bytes.total,
            p->params.untiled ? ", or allow tiles" : "");
    return status;
}

/* ---------------------------------------------------------------- ends */

void tsr_plan_destroy(tsr_plan **p) {
    if (!*p)
        return;
    tsr_engine *e = (*p)->engine;
    if (e)
        tsr_engine_forget(e, *p);
    tsr_plan_free(p);
    tsr_engine_destroy(&e);
}

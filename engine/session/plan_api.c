/* Plans of the public header: the planner's arithmetic for this engine's backend. */
#include "session/session.h"

#include <tessera/encode.h>

#include <stdlib.h>

static tsr_status create(tsr_plan **out, tsr_engine *e, const tsr_half *half,
    const tsr_extent *extent, const tsr_plan_params *params) {
    if (params->quality > 0)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "plan: choosing precisions by a quality of %g dB is not there yet; give a precision", params->quality);
    tsr_plan_params p = *params;
    if (p.precision == TSR_PRECISION_AUTO) {
        char why[128];
        p.precision = e->backend->v->best(e->backend, half, why);
        tsr_log(TSR_LOG_DEBUG, "precision %s: %s", tsr_precision_name(p.precision), why);
    }
    tsr_target target = {0};
    e->backend->v->target(e->backend, &target);
    if (target.memory_free > 0) { /* what is ready to run goes before another plan is made ready */
        pthread_mutex_lock(&e->lock);
        target.memory_free += e->exec_bytes;
        pthread_mutex_unlock(&e->lock);
    }
    tsr_status status = tsr_plan_make(out, half, &target, extent, &p);
    if (status != TSR_OK)
        return status;
    (*out)->engine = e;
    tsr_engine_keep(e);
    return TSR_OK;
}

tsr_status tsr_plan_create(tsr_plan **out, tsr_engine *e, const tsr_model *m,
    const tsr_extent *extent, const tsr_plan_params *params) {
    *out = NULL;
    if (!m->vae->decoder.present)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "plan: %s: the file holds no decoder; use one that does", m->vae->info.path);
    return create(out, e, &m->vae->decoder, extent, params);
}

tsr_status tsr_encode_plan(tsr_plan **out, tsr_engine *e, const tsr_model *m,
    const tsr_extent *extent, const tsr_plan_params *params) {
    *out = NULL;
    if (!m->vae->encoder.present)
        return tsr_fail(TSR_ERR_UNSUPPORTED,
            "encode: %s: the file holds no encoder; use one that does", m->vae->info.path);
    return create(out, e, &m->vae->encoder, extent, params);
}

void tsr_plan_destroy(tsr_plan **p) {
    if (!*p)
        return;
    tsr_engine *e = (*p)->engine;
    if (e)
        tsr_engine_forget(e, *p);
    tsr_plan_free(p);
    tsr_engine_destroy(&e);
}

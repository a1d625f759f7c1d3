/* tsr_decode: checks what it is given, takes the memory a run needs beside the backend's, runs the
 * pipeline; and where that finds no memory, runs it again by a smaller plan for what is left. */
#include "session/run.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* Output frames are wanted up to here. */
static int64_t end_of(const tsr_plan *p) {
    int64_t all = tsr_frames_of_latents(p->half->time_factor, p->info.extent.frames);
    return p->params.end_frame && p->params.end_frame < all ? p->params.end_frame : all;
}

static tsr_status check_arguments(
    const tsr_model *m, const tsr_latent *z, const tsr_plan *p, const tsr_decode_params *params) {
    const tsr_latent_info *li = tsr_latent_get_info(z);
    const tsr_extent *x = &p->info.extent;
    if (p->half != &m->vae->decoder)
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: the plan was made for another model");
    if (li->frames != x->frames || li->height != x->height || li->width != x->width)
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: the plan is for %dx%dx%d latents, the file has %dx%dx%d; plan anew",
            x->frames, x->height, x->width, li->frames, li->height, li->width);
    if (tsr_latent_channels(z) != p->half->in_channels)
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: the latent has %d channels, the model wants %d",
            tsr_latent_channels(z), p->half->in_channels);
    if (params->video < 0 || params->video >= li->videos)
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: video %d of %d; count from 0", params->video, li->videos);
    if ((unsigned)params->pixels > TSR_PIXELS_RGB_F32)
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: no such pixel format");
    if (params->first_frame < 0 || params->first_frame >= end_of(p))
        return tsr_fail(TSR_ERR_ARGUMENT, "decode: to go on at frame %d of %lld; there is none", params->first_frame,
            (long long)end_of(p));
    return TSR_OK;
}

/* What the run holds beside the backend's own: slab, parked caches, latents. */
static tsr_status allocate(tsr_run *r) {
    const tsr_plan *p = r->plan;
    static const size_t sample[] = {[TSR_PIXELS_RGB8] = 1, [TSR_PIXELS_RGB16] = 2, [TSR_PIXELS_RGB_F32] = 4};
    r->picture_bytes = (size_t)r->width * (size_t)r->height * 3 * sample[r->params->pixels];
    size_t c = (size_t)p->half->in_channels * sizeof(float);
    tsr_status status = tsr_engine_slab_alloc(r->e, (size_t)p->slots * p->slot_bytes, &r->slab);
    if (status != TSR_OK)
        return status;
    r->slot = calloc((size_t)p->slots, sizeof *r->slot);
    r->frame = tsr_mem_alloc_host((size_t)p->info.extent.height * (size_t)p->info.extent.width * c);
    r->tile = tsr_mem_alloc_host((size_t)p->tile_h * (size_t)p->tile_w * c);
    bool all = r->slot && r->frame && r->tile;
    if (p->parked_sets > 0 && p->cache_bytes > 0)
        all &= (r->parked = tsr_mem_alloc_host((size_t)p->parked_sets * p->cache_bytes)) != NULL;
    return all ? TSR_OK
               : tsr_fail(TSR_ERR_MEMORY, "decode: no memory for frames and caches of this size; use smaller tiles");
}

static void release(tsr_run *r) {
    tsr_finite_release(&r->finite);
    tsr_mem_free(r->parked);
    tsr_mem_free(r->tile);
    tsr_mem_free(r->frame);
    free(r->slot);
    tsr_engine_slab_free(r->e, &r->slab);
}

static void log_plan(const tsr_plan *p) {
    char budget[32], precision[16];
    snprintf(precision, sizeof precision, "%s", tsr_precision_name(p->info.precision));
    for (char *s = precision; *s; s++)
        *s = (char)toupper((unsigned char)*s);
    tsr_log(TSR_LOG_INFO, "[BLACKWELL_ENGINE] %s %s Path Activated.", p->info.device, precision);
    tsr_log(TSR_LOG_INFO, "[BLACKWELL_ENGINE] Memory Format: NDHWC (channels last)");
    tsr_log(TSR_LOG_INFO, "[BLACKWELL_ENGINE] Optimized Tile Size: %dx%d based on %s %s.", p->info.tile_width,
        p->info.tile_height, tsr_bytes_text(budget, p->info.budget), p->target.host_is_device ? "RAM" : "VRAM");
}

/* FLOPs a machine does in the time of a byte to memory, where the backend does not know. */
static const double USUAL_BALANCE = 20;

static tsr_run run_for(tsr_engine *e, tsr_latent *z, const tsr_plan *p, const tsr_decode_params *params) {
    bool later = params->first_frame > p->params.first_frame;
    tsr_run r = {
        .e = e,
        .plan = p,
        .z = z,
        .params = params,
        .first = later ? params->first_frame : p->params.first_frame,
        .end = end_of(p),
        .first_latent = later ? tsr_plan_begin(p, params->first_frame) : p->first_latent,
        .width = p->info.width,
        .height = p->info.height,
        .slots.size = p->slots,
        .pictures.size = TSR_PICTURES,
    };
    const tsr_target *t = &p->target;
    r.balance = t->flops_f32 > 0 && t->bandwidth > 0 ? t->flops_f32 / t->bandwidth : USUAL_BALANCE;
    for (tsr_step s = 0; s < TSR_STEP_COUNT && p->program[s]; s++)
        for (int i = 0; i < p->program[s]->ops; i++)
            r.step_work[s] += tsr_op_runs(p->program[s], &p->program[s]->op[i]) *
                              tsr_run_op_work(&r, p->program[s], &p->program[s]->op[i]);
    for (int i = r.first_latent; i < p->end_latent; i++)
        r.work_all += tsr_run_tiles(p) * r.step_work[tsr_run_step(&r, i)];
    return r;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Of a stretch, to those of the ones before. */
static void add_result(const tsr_run *r, tsr_memory others, tsr_result *sum) {
    sum->frames += r->written;
    sum->load += r->load;
    sum->prepare += r->prepare;
    sum->decode += r->decode;
    sum->blend += r->blend;
    sum->write += r->write;
    sum->peak_bytes = most(sum->peak_bytes, (int64_t)tsr_mem_peak() - others.device + r->frame_bytes);
    sum->planned_bytes = most(sum->planned_bytes, r->plan->info.bytes.total);
    sum->host_peak_bytes = most(sum->host_peak_bytes, (int64_t)tsr_mem_host_peak() - others.host);
    sum->host_planned_bytes = most(sum->host_planned_bytes, r->plan->info.bytes.host);
    sum->vulkan_bytes = most(sum->vulkan_bytes, r->vk_peak - r->frame_bytes);
}

/* ---------------------------------------------------------------- stretches */

/* Where a decode is. */
typedef struct place {
    tsr_engine *e;
    tsr_latent *z;
    const tsr_decode_params *params;
    const tsr_plan *plan; /* of the stretch in hand */
    tsr_plan *own;        /* where it is not the caller's */
    tsr_trace *trace;
    int64_t first; /* output frame of the whole */
    double begin;
    double share; /* of the work, as last told */
    tsr_result result;
    bool watches; /* as in tsr_run */
    bool again;   /* the stretch in hand found no memory */
} place;

static tsr_status open_trace(place *d) {
    if (!d->params->trace)
        return TSR_OK;
    tsr_status status = tsr_trace_open(&d->trace, d->params->trace);
    tsr_trace_thread(d->trace, TSR_THREAD_DECODE, "decode");
    tsr_trace_thread(d->trace, TSR_THREAD_VULKAN, "Vulkan");
    tsr_trace_thread(d->trace, TSR_THREAD_WRITER, "writer");
    return status;
}

/* A stage that fails raises e->cancel; a wish of the user's stays. */
static void lower_cancel(tsr_engine *e) {
    atomic_store(&e->cancel, false);
    if (atomic_load(&e->cancelled))
        atomic_store(&e->cancel, true);
}

static tsr_status run_stretch(place *d) {
    tsr_run r = run_for(d->e, d->z, d->plan, d->params);
    r.trace = d->trace;
    r.begin = d->begin;
    r.looked = r.told = r.steps_begin = tsr_now();
    r.given = d->result.frames;
    r.least_share = d->share;
    r.watches = d->watches;
    lower_cancel(d->e);
    tsr_status status = tsr_flow_init(&r.flow, &d->e->cancel);
    if (status != TSR_OK)
        return status;
    r.slots.flow = r.pictures.flow = &r.flow;

    tsr_memory others = tsr_engine_memory_before(d->e, d->plan);
    TSR_TRY(tsr_engine_probe_slots(d->e));
    TSR_TRY(allocate(&r));
    if (!d->e->quiet)
        log_plan(d->plan);
    tsr_run_progress(&r);
    status = tsr_run_pipeline(&r);
    if (status == TSR_ERR_MEMORY && r.written == r.end - r.first)
        status = TSR_OK; /* other programs took the memory while the last frames were given: nothing is left to plan */
    if (status != TSR_OK)
        tsr_fail(status, "%s", r.flow.message);
    else
        tsr_run_progress(&r);
    add_result(&r, others, &d->result);
error:
    d->again = status == TSR_ERR_MEMORY && !r.refused;
    d->share = r.least_share;
    release(&r);
    tsr_flow_destroy(&r.flow);
    return status;
}

/* Goes over to a smaller plan for the frames that are left. Where there is none, the failure stays. */
static tsr_status shrink(place *d) {
    char why[512], need[32];
    tsr_plan *smaller = NULL;
    int64_t first = d->first + d->result.frames;
    snprintf(why, sizeof why, "decode: %s", tsr_last_error());
    tsr_status status = tsr_plan_shrink(&smaller, d->plan, first, why);
    if (status != TSR_OK)
        return status;
    tsr_plan_destroy(&d->own);
    d->plan = d->own = smaller;
    tsr_log(TSR_LOG_WARN, "%s; going on from frame %lld with a plan of %s: %s", why, (long long)first,
        tsr_bytes_text(need, smaller->info.bytes.total), smaller->info.why);
    if (d->params->on_plan)
        d->params->on_plan(d->params->user, &smaller->info, first, why);
    return TSR_OK;
}

tsr_status tsr_decode(tsr_engine *e, tsr_model *m, tsr_latent *z, const tsr_plan *plan, const tsr_decode_params *params,
    tsr_result *result) {
    tsr_status status = check_arguments(m, z, plan, params);
    if (status != TSR_OK)
        return status;
    place d = {.e = e, .z = z, .params = params, .plan = plan, .begin = tsr_now()};
    d.first = most(plan->params.first_frame, params->first_frame);
    d.watches = plan->params.budget == 0 && !(plan->params.budget_share > 0);
    atomic_store(&e->cancelled, false);
    TSR_TRY(open_trace(&d));
    while ((status = run_stretch(&d)) != TSR_OK && d.again && (status = shrink(&d)) == TSR_OK)
        ;
    d.result.seconds = tsr_now() - d.begin;

    char message[1024];
    snprintf(message, sizeof message, "%s", tsr_last_error());
    tsr_status traced = tsr_trace_finish(d.trace); /* of a failed run too: it shows how far it came */
    if (status != TSR_OK)
        tsr_fail(status, "%s", message);
    else
        status = traced;
    if (status == TSR_OK && result)
        *result = d.result;
error:
    tsr_trace_close(&d.trace);
    tsr_plan_destroy(&d.own);
    return status;
}

void tsr_frame_pixels(const tsr_frame *f, tsr_pixels pixels, bool dither, void *out) {
    tsr_vk_pixels_host(f->data, f->width, f->height, f->index, pixels, dither, out);
}

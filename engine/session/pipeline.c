/*
 * A decode is a pipeline of three stages, each on a thread of its own, with bounded rings between
 * them:
 *
 *     decode_tiles   the caller's thread   latents -> steps of the backend -> slots
 *     blend_tiles    the Vulkan thread     slots x fade weights -> frames; whole frames -> pictures
 *     write_frames   the writer's thread   pictures -> on_frame
 *
 * tsr_run_pipeline() at the end shows it whole. Frames become whole in order, because the backend
 * works through segments, tiles and latents in plan.h's order and the rings keep it.
 */
#include "session/run.h"

#include <math.h>
#include <string.h>

/* Seconds between two calls of on_progress. */
static const double PROGRESS_EVERY = 0.1;
/* Share of the work after which the rate says something about the rest. */
static const double ETA_FROM = 0.005;
/* Seconds between two looks at the memory that is free, and the share of all that is too little. */
static const double LOOK_EVERY = 0.2;
static const int LEAST_SHARE = 64;

/* ---------------------------------------------------------------- what the plan says */

/* Output frames of latent t: *first and how many. The first latent of a run that begins inside the
 * video gives one frame too, in the place of its last. */
static int frames_of(const tsr_run *r, int t, int64_t *first) {
    int n = r->plan->program[tsr_run_step(r, t)]->out_frames;
    *first = tsr_frames_of_latents(r->plan->half->time_factor, t + 1) - n;
    return n;
}

/* ------------------------------------------------ progress and cancel: the caller's thread */

void tsr_run_progress(tsr_run *r) {
    if (!r->params->on_progress)
        return;
    pthread_mutex_lock(&r->flow.lock);
    int64_t written = r->written;
    pthread_mutex_unlock(&r->flow.lock);
    int64_t mine = r->end - r->first, all = r->given + mine;
    double now = tsr_now(), share = r->work_all > 0 ? r->work / r->work_all : 0;
    if (written == mine)
        share = 1;
    tsr_progress p = {.frames = r->given + written,
        .of = all,
        .seconds = now - r->begin,
        .share = ((double)r->given + share * (double)mine) / (double)all,
        .eta = -1};
    p.share = r->least_share = fmax(p.share, r->least_share);
    if (share >= ETA_FROM)
        p.eta = (now - r->steps_begin) * (1 - share) / share;
    r->told = now;
    r->params->on_progress(r->params->user, &p);
}

/* Other programs take the memory that was free, and there is a smaller plan. */
static bool memory_is_short(tsr_run *r) {
    tsr_backend *b = r->e->backend;
    double now = tsr_now();
    if (!b->v->memory_free || !r->watches || now - r->looked < LOOK_EVERY)
        return false;
    r->looked = now;
    if (b->v->memory_free(b) >= r->plan->target.memory_total / LEAST_SHARE)
        return false;
    tsr_plan *smaller = NULL;
    r->watches = tsr_plan_smaller(&smaller, r->plan, r->first) == TSR_OK;
    tsr_plan_destroy(&smaller);
    if (!r->watches)
        tsr_log(TSR_LOG_WARN, "decode: other programs take the device's memory, and no plan is smaller: going on");
    return r->watches;
}

/* Called while the decode stage works or waits. */
static void tick(void *ctx) {
    tsr_run *r = ctx;
    if (atomic_load(&r->e->cancel) && !tsr_flow_stopped(&r->flow))
        tsr_flow_fail(&r->flow, tsr_fail(TSR_ERR_CANCELLED, "decode: cancelled"));
    if (memory_is_short(r))
        tsr_flow_fail(&r->flow, tsr_fail(TSR_ERR_MEMORY, "other programs take the device's memory"));
    if (tsr_now() - r->told >= PROGRESS_EVERY)
        tsr_run_progress(r);
}

double tsr_run_op_work(const tsr_run *r, const tsr_program *p, const tsr_op *op) {
    return fmax(tsr_op_flops(p, op), tsr_op_bytes(p, op) * r->balance);
}

static void op_done(void *user, const tsr_program *p, int op, double begin, double end) {
    tsr_run *r = user;
    char text[160];
    if (r->trace)
        tsr_trace_event(r->trace, TSR_THREAD_DECODE, "op", begin, end, "%s", tsr_op_text(text, p, &p->op[op]));
    double most = r->work_before + r->step_work[p->params.step]; /* a step may run again, in f32 */
    r->work = fmax(r->work, fmin(r->work + tsr_run_op_work(r, p, &p->op[op]), most));
    tick(r);
}

/* ---------------------------------------------------------------- stage: latents -> slots */

static tsr_status prepare_weights(tsr_run *r) {
    double begin = tsr_now();
    tsr_status status = tsr_engine_prepare(r->e, r->plan, &r->exec);
    r->prepare = tsr_now() - begin;
    tsr_trace_event(r->trace, TSR_THREAD_DECODE, "stage", begin, tsr_now(), "prepare");
    return status;
}

/* r->tile = latent t of a tile, [h][w][c]. */
static tsr_status load_tile(void *ctx, int tile, int t) {
    tsr_run *r = ctx;
    const tsr_plan *p = r->plan;
    double begin = tsr_now();
    tsr_status status = tsr_latent_read(r->z, r->params->video, t, r->frame);
    if (status != TSR_OK)
        return status;
    const tsr_span *y = &p->y.latent[tile / p->x.tiles], *x = &p->x.latent[tile % p->x.tiles];
    size_t c = (size_t)p->half->in_channels, row = (size_t)(x->end - x->begin) * c;
    for (int i = y->begin; i < y->end; i++) {
        const float *from = r->frame + ((size_t)i * (size_t)p->info.extent.width + (size_t)x->begin) * c;
        memcpy(r->tile + (size_t)(i - y->begin) * row, from, row * sizeof *from);
    }
    r->load += tsr_now() - begin;
    return TSR_OK;
}

static tsr_status decode_step(tsr_run *r, int tile, int t) {
    const tsr_plan *p = r->plan;
    tsr_status status = load_tile(r, tile, t);
    if (status != TSR_OK)
        return status;
    int place = tsr_ring_reserve(&r->slots, tick, r);
    if (place < 0)
        return TSR_ERR_CANCELLED; /* another stage failed and said why */

    double begin = tsr_now();
    tsr_step_args args = {
        .step = tsr_run_step(r, t),
        .cache_set = p->cache_sets ? tile % p->cache_sets : 0,
        .input = r->tile,
        .slab = &r->slab,
        .slot_at = (size_t)place * p->slot_bytes,
        .ready_value = r->e->ready_value + 1,
        .free_at = r->slot[place].free_at,
    };
    status = tsr_finite_step(&r->finite, r->exec, tile, t, &args);
    if (status != TSR_OK)
        return status;
    r->e->ready_value = args.ready_value;
    r->decode += tsr_now() - begin;
    tsr_trace_event(r->trace, TSR_THREAD_DECODE, "tile", begin, tsr_now(), "tile %d latent %d", tile, t);
    r->slot[place] = (tsr_run_slot){.tile = tile, .latent = t, .ready_value = args.ready_value};
    tsr_ring_commit(&r->slots);
    r->work = r->work_before += r->step_work[args.step];
    tick(r);
    return TSR_OK;
}

/* A tile's caches, to the host or back. */
static tsr_status move_caches(tsr_run *r, int tile, char *parked, bool back) {
    const tsr_plan *p = r->plan;
    tsr_backend *b = r->e->backend;
    int set = p->cache_sets ? tile % p->cache_sets : 0;
    double begin = tsr_now();
    tsr_status status = back ? b->v->unpark(b, r->exec, set, parked) : b->v->park(b, r->exec, set, parked);
    tsr_trace_event(r->trace, TSR_THREAD_DECODE, "transfer", begin, tsr_now(), "%s caches of tile %d, %zu bytes",
        back ? "bring back" : "park", tile, p->cache_bytes);
    return status;
}

/* Caches of one tile over one segment; between its segments they lie parked where the device does
 * not hold them all. */
static tsr_status decode_segment(tsr_run *r, int tile, int begin, int end) {
    const tsr_plan *p = r->plan;
    tsr_status status = TSR_OK;
    char *parked = r->parked ? r->parked + (size_t)tile * p->cache_bytes : NULL;
    if (parked && begin > r->first_latent)
        TSR_TRY(move_caches(r, tile, parked, true));
    for (int t = begin; t < end; t++)
        TSR_TRY(decode_step(r, tile, t));
    if (parked && end < p->end_latent)
        TSR_TRY(move_caches(r, tile, parked, false));
error:
    return status;
}

static tsr_status decode_tiles(tsr_run *r) {
    const tsr_plan *p = r->plan;
    r->steps_begin = tsr_now();
    r->finite = (tsr_finite){.e = r->e, .plan = p, .first_latent = r->first_latent, .load = load_tile, .ctx = r};
    for (int begin = r->first_latent; begin < p->end_latent; begin += p->segment) {
        int end = begin + p->segment < p->end_latent ? begin + p->segment : p->end_latent;
        for (int tile = 0; tile < tsr_run_tiles(p); tile++) {
            tsr_status status = decode_segment(r, tile, begin, end);
            if (status != TSR_OK)
                return status;
        }
    }
    tsr_ring_close(&r->slots);
    return TSR_OK;
}

/* ------------------------------------------------ stage: slots -> pictures, the Vulkan thread */

static tsr_status open_vulkan(tsr_run *r) {
    const tsr_plan *p = r->plan;
    const char *how = "";
    tsr_status status = TSR_OK;
    double begin = tsr_now();
    TSR_TRY(tsr_engine_vulkan(r->e));
    TSR_TRY(tsr_engine_import(r->e, &r->slab, &r->vk_slab, &how));
    r->shared = r->e->lane && r->slab.kind != TSR_SLAB_HOST;
    int64_t before = (int64_t)tsr_vk_used(r->e->vk);
    TSR_TRY(tsr_vk_frames_create(r->e->vk, r->width, r->height, p->frame_dtype, p->frames_in_flight, &r->frames));
    r->vk_peak = (int64_t)tsr_vk_used(r->e->vk);
    r->frame_bytes = r->vk_peak - before;
    tsr_log(TSR_LOG_DEBUG, "slots: %s (%s)", how, tsr_vk_device_name(r->e->vk));
    tsr_trace_event(r->trace, TSR_THREAD_VULKAN, "stage", begin, tsr_now(), "open Vulkan");
error:
    return status;
}

/* tsr_vk_watch: steps that failed signal nothing any more. */
static bool lane_failed(void *user) {
    tsr_run *r = user;
    tsr_status status = r->e->backend->v->check(r->e->backend);
    if (status != TSR_OK)
        tsr_flow_fail(&r->flow, status);
    return status != TSR_OK;
}

/* What was recorded is done, or will be without an answer because the decode failed. */
static tsr_status submit(tsr_run *r) {
    tsr_status status = tsr_vk_submit(r->e->vk);
    return status == TSR_OK && tsr_flow_stopped(&r->flow) ? TSR_ERR_CANCELLED : status;
}

/* A whole frame: resolved, read back, handed on. */
static tsr_status resolve_frame(tsr_run *r, int64_t f) {
    tsr_vk *vk = r->e->vk;
    tsr_status status = TSR_OK;
    int place = tsr_ring_reserve(&r->pictures, NULL, NULL);
    if (place < 0)
        return TSR_ERR_CANCELLED;
    double begin = tsr_now();
    size_t bytes = 0;
    TSR_TRY(
        tsr_vk_resolve(vk, r->frames, (int)(f % r->plan->frames_in_flight), f, r->params->pixels, r->params->dither));
    TSR_TRY(submit(r));
    /* Stays until the second resolve from now, which waits for this place in the ring. */
    r->picture[place] = (tsr_picture){.index = f, .data = tsr_vk_pixels(vk, &bytes)};
    if (bytes != r->picture_bytes)
        return tsr_fail(TSR_ERR_DEVICE, "decode: Vulkan gave %zu bytes for a frame of %zu", bytes, r->picture_bytes);
    if ((int64_t)tsr_vk_used(vk) > r->vk_peak)
        r->vk_peak = (int64_t)tsr_vk_used(vk);
    r->blend += tsr_now() - begin;
    tsr_trace_event(r->trace, TSR_THREAD_VULKAN, "stage", begin, tsr_now(), "resolve frame %lld", (long long)f);
    tsr_ring_commit(&r->pictures);
error:
    return status;
}

static tsr_status blend_slot(tsr_run *r, int place) {
    const tsr_plan *p = r->plan;
    tsr_backend *b = r->e->backend;
    tsr_run_slot *s = &r->slot[place];
    tsr_status status = TSR_OK;
    double came = tsr_now(), begin;
    if (b->v->asynchronous && !r->shared)
        TSR_TRY(b->v->wait(b, r->exec, s->ready_value));

    int row = s->tile / p->x.tiles, column = s->tile % p->x.tiles;
    const tsr_span *y = &p->y.pixel[row], *x = &p->x.pixel[column];
    bool tiled = tsr_run_tiles(p) > 1, last = s->tile == tsr_run_tiles(p) - 1;
    int64_t first_frame;
    int n = frames_of(r, s->latent, &first_frame);
    for (int i = 0; i < n; i++) {
        int64_t f = first_frame + i;
        if (f < r->first || f >= r->end)
            continue;
        begin = tsr_now();
        TSR_TRY(tsr_vk_blend_tile(
            r->e->vk, &(tsr_vk_blend){
                          .slab = r->vk_slab,
                          .slot_at = (size_t)place * p->slot_bytes,
                          .dtype = p->slot_dtype,
                          .slot_frame = i,
                          .x = x->begin,
                          .y = y->begin,
                          .width = x->end - x->begin,
                          .height = y->end - y->begin,
                          .weight_x = tiled ? p->x.weight + (size_t)column * (size_t)(x->end - x->begin) : NULL,
                          .weight_y = tiled ? p->y.weight + (size_t)row * (size_t)(y->end - y->begin) : NULL,
                          .frames = r->frames,
                          .frame = (int)(f % p->frames_in_flight),
                          .first = s->tile == 0,
                          .wait = r->shared ? r->e->lane : NULL,
                          .wait_value = s->ready_value,
                      }));
        r->blend += tsr_now() - begin;
        if (last)
            TSR_TRY(resolve_frame(r, f));
    }
    begin = tsr_now();
    if (r->shared) /* the device sees to it that the slot is read before it is written again */
        TSR_TRY(tsr_vk_start(r->e->vk, &s->free_at));
    else
        TSR_TRY(submit(r));
    r->blend += tsr_now() - begin;
    tsr_trace_event(
        r->trace, TSR_THREAD_VULKAN, "tile", came, tsr_now(), "blend tile %d latent %d", s->tile, s->latent);
error:
    return status;
}

static void *blend_tiles(void *arg) {
    tsr_run *r = arg;
    tsr_status status = open_vulkan(r);
    if (r->shared)
        tsr_vk_watch(r->e->vk, lane_failed, r);
    for (int place; status == TSR_OK && (place = tsr_ring_next(&r->slots)) >= 0; tsr_ring_release(&r->slots))
        status = blend_slot(r, place);
    if (status != TSR_OK)
        tsr_flow_fail(&r->flow, status);
    tsr_ring_close(&r->pictures);
    tsr_vk_frames_destroy(r->e->vk, &r->frames);
    tsr_engine_let_go(r->e, &r->slab, &r->vk_slab);
    if (r->e->vk)
        tsr_vk_watch(r->e->vk, NULL, NULL);
    return NULL;
}

/* ---------------------------------------------------------------- stage: pictures -> on_frame */

static tsr_status write_frame(tsr_run *r, const tsr_picture *p) {
    tsr_frame frame = {
        .index = p->index,
        .width = r->width,
        .height = r->height,
        .pixels = r->params->pixels,
        .data = p->data,
        .bytes = r->picture_bytes,
    };
    double begin = tsr_now();
    tsr_status status = TSR_OK;
    if (r->params->on_frame) {
        tsr_fail(
            TSR_OK, "decode: the frame callback stopped at frame %lld", (long long)p->index); /* if it does not say */
        status = r->params->on_frame(r->params->user, &frame);
    }
    double end = tsr_now();
    tsr_trace_event(r->trace, TSR_THREAD_WRITER, "stage", begin, end, "write frame %lld", (long long)p->index);
    pthread_mutex_lock(&r->flow.lock);
    r->write += end - begin;
    r->written += status == TSR_OK;
    r->refused = status != TSR_OK;
    pthread_mutex_unlock(&r->flow.lock);
    return status;
}

static void *write_frames(void *arg) {
    tsr_run *r = arg;
    tsr_status status = TSR_OK;
    for (int place; status == TSR_OK && (place = tsr_ring_next(&r->pictures)) >= 0; tsr_ring_release(&r->pictures))
        status = write_frame(r, &r->picture[place]);
    if (status != TSR_OK)
        tsr_flow_fail(&r->flow, status);
    return NULL;
}

/* ---------------------------------------------------------------- the whole */

static void start_stage(tsr_run *r, void *(*stage)(void *), pthread_t *thread, bool *runs) {
    *runs = pthread_create(thread, NULL, stage, r) == 0;
    if (!*runs)
        tsr_flow_fail(&r->flow, tsr_fail(TSR_ERR_MEMORY, "decode: no thread to be had; end other programs"));
}

tsr_status tsr_run_pipeline(tsr_run *r) {
    start_stage(r, write_frames, &r->writer_thread, &r->writer_runs);
    start_stage(r, blend_tiles, &r->vulkan_thread, &r->vulkan_runs); /* opens Vulkan while weights are packed */

    tsr_backend *b = r->e->backend;
    if (!b->v->asynchronous || r->trace) /* looking at every op would hold the device up */
        b->on_op = op_done;
    b->on_op_user = r;
    tsr_status status = prepare_weights(r);
    if (status == TSR_OK)
        status = decode_tiles(r);
    b->on_op = NULL;
    if (status == TSR_ERR_CANCELLED)
        tsr_fail(status, "decode: cancelled");
    if (status != TSR_OK)
        tsr_flow_fail(&r->flow, status);

    if (tsr_ring_drained(&r->slots, tick, r))
        tsr_ring_drained(&r->pictures, tick, r);
    if (r->vulkan_runs)
        pthread_join(r->vulkan_thread, NULL);
    if (r->writer_runs)
        pthread_join(r->writer_thread, NULL);
    if (r->e->backend->v->asynchronous && r->exec)
        r->e->backend->v->wait(r->e->backend, r->exec, r->e->ready_value); /* nothing writes to the slab any more */
    return r->flow.status;
}

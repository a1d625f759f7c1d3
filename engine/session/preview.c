/* The preview: what the watching thread does. It takes what the decode has finished, and tells it what comes next. */
#include "session/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double ASK_MEMORY_EVERY = 0.5; /* seconds */

/* ---------------------------------------------------------------- life */

static tsr_status open_vulkan(tsr_preview *p) {
    const tsr_engine *e = p->e;
    if (e->vk)
        return tsr_fail(TSR_ERR_ARGUMENT, "preview: the engine has opened Vulkan already; create another one");
    return tsr_vk_create(&p->e->vk, &(tsr_vk_params){
                                        .index = e->params.vulkan_index,
                                        .uuid = e->backend->has_uuid ? e->backend->uuid : NULL,
                                        .validation = e->params.validation,
                                        .no_host_import = e->params.no_host_import,
                                        .instance_extensions = p->params.instance_extensions,
                                        .instance_extension_count = p->params.instance_extension_count,
                                        .swapchain = p->params.present,
                                    });
}

tsr_status tsr_preview_create(tsr_preview **out, tsr_engine *e, const tsr_preview_params *params) {
    tsr_status status;
    tsr_preview *p = *out = calloc(1, sizeof *p);
    if (!p)
        return tsr_fail(TSR_ERR_MEMORY, "preview: no memory");
    p->e = e;
    p->params = *params;
    p->info.psnr = NAN;
    TSR_TRY(open_vulkan(p));
    if (tsr_vk_is_software(e->vk))
        p->params.fade = 0; /* drawn by the cores that decode: a picture costs them as much as a tenth of a tile */
    TSR_TRY(tsr_engine_probe_slots(e)); /* the worker's slabs: exported by the backend, else host memory */
    p->pool = (tsr_watch_pool){.vk = e->vk, .bytes_most = params->keep_bytes};
    TSR_TRY(tsr_watch_worker_start(&p->worker, e, params->wake, params->user));
    return TSR_OK;
error:
    tsr_preview_destroy(out);
    return status;
}

static void let_go_of_slab(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    tsr_vk_slab_destroy(p->e->vk, &p->slab); /* waits for blends that read it */
    pthread_mutex_lock(&w->lock);
    w->slab_held = w->slab_wanted = false;
    for (int i = 0; i < w->slots; i++)
        if (w->slot[i].state == SLOT_BLENDING)
            w->slot[i].state = SLOT_FREE;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void tsr_preview_destroy(tsr_preview **preview) {
    tsr_preview *p = *preview;
    *preview = NULL;
    if (!p)
        return;
    if (p->worker.e) {
        let_go_of_slab(p);
        tsr_watch_worker_end(&p->worker);
    }
    tsr_vk *vk = p->e->vk;
    if (vk) {
        tsr_watch_forget(p);
        tsr_vk_rough_destroy(vk, &p->rough);
        tsr_vk_canvas_destroy(vk, &p->canvas);
        tsr_vk_canvas_destroy(vk, &p->deep_canvas);
    }
    free(p->x);
    free(p->y);
    free(p->come);
    free(p->tile_seconds);
    free(p->tile_steps);
    free(p);
}

tsr_preview_vulkan tsr_preview_get_vulkan(const tsr_preview *p) {
    _Static_assert((int)TSR_PREVIEW_DEVICES == (int)TSR_VK_DEVICES, "the list holds all");
    const tsr_backend *b = p->e->backend;
    tsr_vk_handles h = tsr_vk_get_handles(p->e->vk);
    tsr_preview_vulkan out = {
        .instance = h.instance,
        .physical = h.physical,
        .device = h.device,
        .queue = h.queue,
        .family = h.family,
        .draws = h.draws,
        .swapchain = h.swapchain,
        .software = tsr_vk_is_software(p->e->vk),
        .name = tsr_vk_device_name(p->e->vk),
    };
    out.devices = tsr_vk_devices(p->e->vk, b->has_uuid ? b->uuid : NULL, out.index);
    return out;
}

void tsr_preview_lose_device(tsr_preview *p) {
    (void)p;
    tsr_vk_fail_at(0);
}

/* ---------------------------------------------------------------- what is to be decoded */

/* With the lock: the job in hand is given up. */
static void interrupt(tsr_watch_worker *w) {
    w->stop = true;
    atomic_store(&w->e->cancel, true);
    tsr_plan_destroy(&w->next.plan);
    w->next = (tsr_watch_job){0};
    pthread_cond_broadcast(&w->changed);
}

/* Until the worker has nothing in hand and holds nothing of the video. */
static tsr_status wait_idle(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    tsr_status status = TSR_OK;
    pthread_mutex_lock(&w->lock);
    interrupt(w);
    w->sketch = (tsr_watch_sketch){0};
    w->forget = w->busy = true;
    atomic_store(&w->sketch_stop, true);
    while (w->busy && status == TSR_OK) {
        pthread_mutex_unlock(&w->lock);
        status = tsr_vk_submit(p->e->vk);
        let_go_of_slab(p);
        pthread_mutex_lock(&w->lock);
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_nsec += 5000000;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        if (w->busy)
            pthread_cond_timedwait(&w->changed, &w->lock, &t);
    }
    pthread_mutex_unlock(&w->lock);
    return status;
}

static void forget_video(tsr_preview *p) {
    tsr_watch_forget(p);
    tsr_vk_rough_destroy(p->e->vk, &p->rough);
    p->plan = NULL;
    p->m = NULL;
    p->z = NULL;
    p->sketch++; /* what was painted of it meanwhile is nobody's */
    p->comparing = false;
    p->shrunk[0] = 0;
    p->info = (tsr_preview_info){.psnr = NAN, .tile = -1, .latent = -1};
}

tsr_status tsr_preview_open(tsr_preview *p, tsr_model *m, tsr_latent *z, int video) {
    tsr_status status;
    TSR_TRY(wait_idle(p));
    forget_video(p);
    if (!m || !z)
        return TSR_OK;
    const tsr_latent_info *i = tsr_latent_get_info(z);
    const tsr_model_info *mi = tsr_model_get_info(m);
    if (video < 0 || video >= i->videos || tsr_latent_channels(z) != mi->latent_channels)
        return tsr_fail(TSR_ERR_ARGUMENT, "preview: no video %d of this model's latents in %s", video,
            i->path ? i->path : "memory");
    int64_t frames = tsr_frames_of_latents(mi->time_factor, i->frames);
    p->frame = calloc((size_t)frames, sizeof *p->frame);
    if (!p->frame)
        return tsr_fail(TSR_ERR_MEMORY, "preview: no memory for %lld frames", (long long)frames);
    p->m = m;
    p->z = z;
    p->video = video;
    p->frames = p->info.frames = (int)frames;
    p->pool.width = p->info.width = i->width * mi->space_factor;
    p->pool.height = p->info.height = i->height * mi->space_factor;
    pthread_mutex_lock(&p->worker.lock);
    p->worker.sketch = (tsr_watch_sketch){.number = ++p->sketch, .m = m, .z = z, .video = video};
    pthread_cond_broadcast(&p->worker.changed);
    pthread_mutex_unlock(&p->worker.lock);
    return TSR_OK;
error:
    return status;
}

/* For each place along an axis the tile with a weight there, or the first of two; the other one has the rest. */
static void fill_table(const tsr_axis *a, int total, float *out) {
    for (int i = 0; i < total; i++)
        out[2 * i] = -1;
    for (int t = 0; t < a->tiles; t++) {
        int n = a->pixel[t].end - a->pixel[t].begin;
        for (int i = 0; i < n; i++) {
            float w = a->tiles > 1 ? a->weight[(size_t)t * (size_t)n + (size_t)i] : 1,
                  *to = &out[2 * (a->pixel[t].begin + i)];
            if (w > 0 && to[0] < 0) {
                to[0] = (float)t;
                to[1] = w;
            }
        }
    }
}

static tsr_status make_tables(tsr_preview *p, const tsr_plan *plan) {
    size_t w = (size_t)plan->info.width, h = (size_t)plan->info.height,
           tiles = (size_t)plan->y.tiles * (size_t)plan->x.tiles;
    float *x = malloc(2 * w * sizeof *x), *y = malloc(2 * h * sizeof *y), *come = calloc(tiles, sizeof *come);
    double *seconds = calloc(tiles, sizeof *seconds);
    int *steps = calloc(tiles, sizeof *steps);
    if (!x || !y || !come || !seconds || !steps) {
        free(x), free(y), free(come), free(seconds), free(steps);
        return tsr_fail(TSR_ERR_MEMORY, "preview: no memory for tables of %zu tiles", tiles);
    }
    free(p->x), free(p->y), free(p->come), free(p->tile_seconds), free(p->tile_steps);
    p->x = x;
    p->y = y;
    p->come = come;
    p->tile_seconds = seconds;
    p->tile_steps = steps;
    fill_table(&plan->x, plan->info.width, x);
    fill_table(&plan->y, plan->info.height, y);
    return TSR_OK;
}

static bool same_tiles(const tsr_plan_info *a, const tsr_plan_info *b) {
    return a->tile_width == b->tile_width && a->tile_height == b->tile_height && a->overlap_width == b->overlap_width &&
           a->overlap_height == b->overlap_height && a->columns == b->columns && a->rows == b->rows &&
           a->precision == b->precision;
}

/* By this plan, which it takes over. */
static tsr_status begin(tsr_preview *p, tsr_plan *next, bool go_on) {
    tsr_watch_worker *w = &p->worker;
    tsr_status status;
    TSR_TRY(tsr_watch_retire(p, go_on && p->plan && same_tiles(&p->plan->info, &next->info)));
    TSR_TRY(make_tables(p, next));
    pthread_mutex_lock(&w->lock);
    interrupt(w);
    w->next = (tsr_watch_job){.run = ++p->run, .plan = next, .z = p->z, .video = p->video};
    w->busy = true;
    pthread_mutex_unlock(&w->lock);
    p->plan = next;
    p->info.plan = &next->info;
    p->info.state = TSR_PREVIEW_PREPARING;
    return TSR_OK;
error:
    tsr_plan_destroy(&next);
    return status;
}

/* Who goes on asks for the plan that was too large: it is the one in force that goes on. */
static tsr_status keep_shrunk(const tsr_preview *p, tsr_plan **next) {
    tsr_plan_params params = p->plan->params;
    tsr_plan *kept = NULL;
    params.end_frame = (*next)->params.end_frame;
    tsr_status status = tsr_plan_rest(&kept, p->plan, (*next)->params.first_frame, &params);
    tsr_plan_destroy(next);
    *next = kept;
    return status;
}

tsr_status tsr_preview_start(tsr_preview *p, tsr_plan **plan, bool go_on) {
    tsr_plan *next = *plan;
    tsr_status status;
    *plan = NULL;
    if (!p->frames || next->info.width != p->info.width || next->info.height != p->info.height ||
        next->half != &p->m->vae->decoder) {
        tsr_plan_destroy(&next);
        return tsr_fail(TSR_ERR_ARGUMENT, "preview: the plan was made for another video or model");
    }
    if (go_on && p->shrunk[0])
        TSR_TRY(keep_shrunk(p, &next));
    else
        p->shrunk[0] = 0;
    TSR_TRY(begin(p, next, go_on));
    p->info.first_seconds = 0;
    p->started = tsr_now();
error:
    return status;
}

void tsr_preview_stop(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    pthread_mutex_lock(&w->lock);
    if (w->next.run)
        w->next.never = true; /* its plan is that of the frames, so the worker takes it all the same */
    else
        interrupt(w);
    pthread_mutex_unlock(&w->lock);
}

void tsr_preview_look_at(tsr_preview *p, int64_t frame) {
    p->look_at = frame;
}

/* ---------------------------------------------------------------- taking what is done */

static bool is_wanted(const tsr_plan *p, int64_t f) {
    return f >= p->params.first_frame && (!p->params.end_frame || f < p->params.end_frame);
}

static int tiles_of(const tsr_plan *p) {
    return p->y.tiles * p->x.tiles;
}

/* Accumulators for all frames of a slot that lack one; *room false where there is none for some. */
static tsr_status need_frames(tsr_preview *p, const tsr_watch_slot *s, bool *room) {
    tsr_status status;
    int64_t first;
    int n = tsr_watch_frames_of(p->plan, s->latent, &first);
    *room = true;
    for (int64_t f = first; f < first + n && f < p->frames; f++) {
        tsr_watch_frame *w = &p->frame[f];
        if (!is_wanted(p->plan, f) || w->fresh)
            continue;
        TSR_TRY(tsr_watch_make_room(p, f, p->plan->frame_dtype, &w->fresh));
        if (w->fresh && !w->when)
            w->when = calloc((size_t)tiles_of(p->plan), sizeof *w->when);
        if (w->fresh && !w->when)
            return tsr_fail(TSR_ERR_MEMORY, "preview: no memory");
        *room &= w->fresh != NULL;
    }
    return TSR_OK;
error:
    return status;
}

static tsr_status blend_slot(tsr_preview *p, const tsr_watch_slot *s, int place) {
    const tsr_plan *plan = p->plan;
    tsr_status status = TSR_OK;
    int row = s->tile / plan->x.tiles, column = s->tile % plan->x.tiles;
    const tsr_span *y = &plan->y.pixel[row], *x = &plan->x.pixel[column];
    int w = x->end - x->begin, h = y->end - y->begin;
    bool tiled = tiles_of(plan) > 1;
    int64_t first;
    int n = tsr_watch_frames_of(plan, s->latent, &first);
    for (int i = 0; i < n && first + i < p->frames; i++) {
        tsr_watch_frame *f = &p->frame[first + i];
        if (!is_wanted(plan, first + i) || !f->when || f->when[s->tile] > 0)
            continue; /* also: whole, from before */
        TSR_TRY(tsr_vk_blend_tile(p->e->vk, &(tsr_vk_blend){
                                                .slab = p->slab,
                                                .slot_at = (size_t)place * plan->slot_bytes,
                                                .dtype = plan->slot_dtype,
                                                .slot_frame = i,
                                                .x = x->begin,
                                                .y = y->begin,
                                                .width = w,
                                                .height = h,
                                                .weight_x = tiled ? plan->x.weight + (size_t)column * (size_t)w : NULL,
                                                .weight_y = tiled ? plan->y.weight + (size_t)row * (size_t)h : NULL,
                                                .frames = f->fresh->frames,
                                                .first = f->come == 0,
                                            }));
        f->when[s->tile] = tsr_now();
        if (++f->come == tiles_of(plan) && !(p->info.first_seconds > 0))
            p->info.first_seconds = tsr_now() - p->started;
    }
    p->tile_seconds[s->tile] += s->seconds;
    p->tile_steps[s->tile]++;
error:
    return status;
}

/* The backend's slab, as Vulkan sees it. One that was let go of is not taken again: the worker frees it. */
static tsr_status need_slab(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    tsr_status status = TSR_OK;
    pthread_mutex_lock(&w->lock);
    bool let_go = w->slab_wanted, import = !let_go && w->slab.bytes && w->slab_number != p->slab_number;
    w->slab_held |= import;
    pthread_mutex_unlock(&w->lock);
    if (let_go || import)
        tsr_vk_slab_destroy(p->e->vk, &p->slab);
    if (let_go)
        let_go_of_slab(p);
    if (import) {
        const char *how = "";
        p->slab_number = w->slab_number; /* the worker leaves both alone while the slab is held */
        TSR_TRY(tsr_engine_import(p->e, &w->slab, &p->slab, &how));
        tsr_log(TSR_LOG_DEBUG, "slots: %s", how);
    }
error:
    return status;
}

/* Slots that are read become free; those that are written are blended. *paused: there is no room for what they hold. */
static tsr_status turn_slots(tsr_preview *p, bool *paused) {
    tsr_watch_worker *w = &p->worker;
    tsr_status status = TSR_OK;
    uint64_t ticket = 0;
    bool done = false, any = false, changed = false;
    int taken[TSR_WATCH_SLOTS], n = 0;
    *paused = false;
    TSR_TRY(tsr_vk_wait(p->e->vk, p->ticket, 0, &done));
    pthread_mutex_lock(&w->lock);
    int slots = w->slots, head = w->head;
    for (int i = 0; i < slots; i++) {
        int place = (head + i) % slots; /* oldest first */
        tsr_watch_slot *s = &w->slot[place];
        bool of_old = s->run != p->run;
        if ((s->state == SLOT_BLENDING && done) || (s->state == SLOT_READY && of_old)) {
            s->state = SLOT_FREE;
            changed = true;
        } else if (s->state == SLOT_READY && p->slab && done) {
            taken[n++] = place;
        }
        any |= s->state == SLOT_BLENDING;
    }
    if (changed)
        pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    p->info.blending = any;
    for (int i = 0; i < n && !*paused; i++) {
        tsr_watch_slot s = w->slot[taken[i]]; /* READY: ours */
        bool room;
        TSR_TRY(need_frames(p, &s, &room));
        *paused = !room;
        if (!room)
            break;
        TSR_TRY(blend_slot(p, &s, taken[i]));
        TSR_TRY(tsr_vk_start(p->e->vk, &ticket));
        p->ticket = ticket;
        p->info.blending = true;
        pthread_mutex_lock(&w->lock);
        w->slot[taken[i]].state = SLOT_BLENDING;
        pthread_mutex_unlock(&w->lock);
    }
error:
    return status;
}

static tsr_status take_rough(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    tsr_status status = TSR_OK;
    pthread_mutex_lock(&w->lock);
    uint32_t *pixels = w->rough_number == p->sketch ? w->rough : NULL;
    if (pixels)
        w->rough = NULL;
    pthread_mutex_unlock(&w->lock);
    if (!pixels)
        return TSR_OK;
    const tsr_latent_info *i = tsr_latent_get_info(p->z);
    if (tsr_vk_rough_create(p->e->vk, pixels, i->frames, i->height, i->width, &p->rough) == TSR_OK)
        p->info.rough = true;
    else
        tsr_log(TSR_LOG_DEBUG, "no rough picture: %s", tsr_last_error()); /* one can do without */
    free(pixels);
    return status;
}

/* Frames that are whole and faded in need no times and no old picture. */
static void tidy_frames(tsr_preview *p) {
    double now = tsr_now();
    p->info.whole = 0;
    for (int64_t f = 0; f < p->frames; f++) {
        tsr_watch_frame *w = &p->frame[f];
        if (!w->fresh || w->come != tiles_of(p->plan))
            continue;
        p->info.whole++;
        bool faded = w->when != NULL;
        for (int i = 0; faded && i < tiles_of(p->plan); i++)
            faded = now - w->when[i] > p->params.fade;
        if (faded) {
            free(w->when);
            w->when = NULL;
        }
        if (!w->when)
            tsr_watch_give(&p->pool, &w->old);
    }
}

/* The decode found no memory, though the plan said that there would be: a smaller one goes on, or the failure stays,
 * and says what would be needed. */
static tsr_status shrink(tsr_preview *p) {
    char why[sizeof p->error], need[32];
    tsr_plan *smaller;
    snprintf(why, sizeof why, "%s", p->error);
    if (tsr_plan_shrink(&smaller, p->plan, p->plan->params.first_frame, why) != TSR_OK) {
        pthread_mutex_lock(&p->worker.lock);
        snprintf(p->worker.error, sizeof p->worker.error, "%s", tsr_last_error());
        pthread_mutex_unlock(&p->worker.lock);
        snprintf(p->error, sizeof p->error, "%s", tsr_last_error());
        p->shrunk[0] = 0;
        return TSR_OK;
    }
    snprintf(p->shrunk, sizeof p->shrunk, "%s; going on with a plan of %s: %s", why,
        tsr_bytes_text(need, smaller->info.bytes.total), smaller->info.why);
    tsr_log(TSR_LOG_DEBUG, "%s", p->shrunk);
    p->error[0] = 0;
    return begin(p, smaller, true);
}

tsr_status tsr_preview_poll(tsr_preview *p) {
    tsr_watch_worker *w = &p->worker;
    tsr_preview_info *i = &p->info;
    tsr_status status;
    bool paused = false;
    TSR_TRY(need_slab(p));
    TSR_TRY(take_rough(p));
    TSR_TRY(turn_slots(p, &paused));
    tidy_frames(p);
    pthread_mutex_lock(&w->lock);
    bool begun = w->run == p->run;
    i->state = !p->run || !p->plan ? TSR_PREVIEW_IDLE : !begun ? TSR_PREVIEW_PREPARING : w->state;
    if (i->state == TSR_PREVIEW_DECODING && paused)
        i->state = TSR_PREVIEW_PAUSED;
    bool over =
        begun && (w->state == TSR_PREVIEW_DONE || w->state == TSR_PREVIEW_FAILED || w->state == TSR_PREVIEW_IDLE);
    i->tile = begun ? w->tile : -1;
    i->latent = begun ? w->latent : -1;
    i->share = begun ? w->share : 0;
    i->seconds = (over ? w->ended : tsr_now()) - p->started;
    i->backend_bytes = w->backend_bytes;
    i->slot_bytes = (int64_t)w->slab.bytes;
    snprintf(p->error, sizeof p->error, "%s", begun && w->state == TSR_PREVIEW_FAILED ? w->error : "");
    bool no_memory = begun && p->plan && w->no_memory;
    w->no_memory = false;
    pthread_mutex_unlock(&w->lock);
    if (no_memory)
        TSR_TRY(shrink(p));
    i->frame_bytes = p->pool.bytes;
    i->error = p->error;
    i->shrunk = p->shrunk;
    double mse = p->comparing ? tsr_vk_error_value(p->e->vk) : NAN;
    if (!isnan(mse)) {
        p->comparing = false;
        i->psnr = mse > 0 ? -10 * log10(mse) : INFINITY;
    }
error:
    return status;
}

const tsr_preview_info *tsr_preview_get_info(tsr_preview *p) {
    if (tsr_now() - p->asked_memory > ASK_MEMORY_EVERY) {
        tsr_target target = {0};
        p->e->backend->v->target(p->e->backend, &target);
        p->info.free_bytes = target.memory_free;
        p->info.total_bytes = target.memory_total;
        p->asked_memory = tsr_now();
    }
    return &p->info;
}

tsr_preview_frame tsr_preview_frame_state(const tsr_preview *p, int64_t frame) {
    if (frame < 0 || frame >= p->frames)
        return TSR_FRAME_MISSING;
    const tsr_watch_frame *w = &p->frame[frame];
    if (w->fresh && w->come == tiles_of(p->plan))
        return TSR_FRAME_WHOLE;
    return w->come ? TSR_FRAME_PARTIAL : w->old ? TSR_FRAME_OLD : TSR_FRAME_MISSING;
}

bool tsr_preview_get_tile(const tsr_preview *p, int tile, tsr_preview_tile *out) {
    const tsr_plan *plan = p->plan;
    if (!plan || tile < 0 || tile >= tiles_of(plan))
        return false;
    const tsr_span *y = &plan->y.pixel[tile / plan->x.tiles], *x = &plan->x.pixel[tile % plan->x.tiles];
    *out = (tsr_preview_tile){
        .x = x->begin,
        .y = y->begin,
        .width = x->end - x->begin,
        .height = y->end - y->begin,
        .seconds = p->tile_steps[tile] ? p->tile_seconds[tile] / p->tile_steps[tile] : 0,
        .in_hand = p->info.tile == tile,
    };
    return true;
}

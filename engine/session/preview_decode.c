/* The preview's decode: a thread of low priority that runs one job after the other, each until it is done or another
 * is wanted. Slots go round: free, written here, blended by the watcher, free. */
#include "session/finite.h"
#include "session/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* The window comes first. Threads that this one starts (OpenMP's) inherit it. */
enum { NICENESS = 10 };
/* Of a device's steps that take longer (seconds) only one is begun at a time: whoever gives up the decode waits for
 * what is begun, and beside such a step the host's turn between two is short. */
static const double LONG_STEP = 0.02;

int tsr_watch_frames_of(const tsr_plan *p, int t, int64_t *first) {
    int n = p->program[tsr_plan_step(p, t)]->out_frames;
    *first = tsr_frames_of_latents(p->half->time_factor, t + 1) - n;
    return n;
}

/* One job in hand. */
typedef struct job {
    tsr_watch_worker *w;
    tsr_watch_job j;
    char *parked;
    float *frame, *tile; /* latents: whole, and of one tile */
    tsr_finite finite;
    double work, work_before, work_all;
} job;

static void wake(const tsr_watch_worker *w) {
    if (w->wake)
        w->wake(w->user);
}

/* With the lock. */
static void set_state(tsr_watch_worker *w, tsr_preview_state state) {
    if (w->state == state)
        return;
    w->state = state;
    pthread_cond_broadcast(&w->changed);
    wake(w);
}

/* With the lock: whether what is in hand is still wanted. */
static bool wanted(const tsr_watch_worker *w) {
    return !w->quit && !w->stop && !w->next.run;
}

/* ---------------------------------------------------------------- slots */

/* With the lock: the oldest slot that the device still writes, -1: none. */
static int oldest_written(const tsr_watch_worker *w) {
    for (int n = 0; n < w->slots; n++)
        if (w->slot[(w->head + n) % w->slots].state == SLOT_WRITING)
            return (w->head + n) % w->slots;
    return -1;
}

/* With the lock: another step may begin, in this slot. */
static bool has_turn(const tsr_watch_worker *w, int place) {
    return w->slot[place].state == SLOT_FREE && (w->step_seconds <= LONG_STEP || oldest_written(w) < 0);
}

/* With the lock: what is shown as in hand. */
static void take_in_hand(tsr_watch_worker *w, int place) {
    w->tile = w->slot[place].tile;
    w->latent = w->slot[place].latent;
}

/* Waits for a free slot: -1 where the job is not wanted any more. */
static int take_slot(job *b, int tile, int latent) {
    tsr_watch_worker *w = b->w;
    pthread_mutex_lock(&w->lock);
    int place = w->head;
    while (wanted(w) && !has_turn(w, place))
        pthread_cond_wait(&w->changed, &w->lock);
    bool go = wanted(w);
    if (go) {
        w->slot[place] =
            (tsr_watch_slot){.state = SLOT_FREE, .run = b->j.run, .tile = tile, .latent = latent, .began = tsr_now()};
        w->head = (place + 1) % w->slots;
        if (oldest_written(w) < 0)
            take_in_hand(w, place);
    }
    pthread_mutex_unlock(&w->lock);
    return go ? place : -1;
}

/* With the lock. Steps that wait for this one on the device begin now. */
static void slot_done(tsr_watch_worker *w, int place) {
    tsr_watch_slot *s = &w->slot[place];
    double now = tsr_now();
    s->seconds = w->step_seconds = now - s->began;
    s->state = SLOT_READY;
    w->share = s->share;
    for (int i = 0; i < w->slots; i++)
        if (w->slot[i].state == SLOT_WRITING)
            w->slot[i].began = now;
    if (oldest_written(w) >= 0)
        take_in_hand(w, oldest_written(w));
    pthread_cond_broadcast(&w->changed);
    wake(w);
}

/* For asynchronous backends: waits for what step() began, in order. */
static void *collect(void *arg) {
    tsr_watch_worker *w = arg;
    tsr_backend *b = w->e->backend;
    pthread_mutex_lock(&w->lock);
    for (int place; (place = oldest_written(w)) >= 0 || !w->quit;) {
        if (place < 0) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        uint64_t value = w->slot[place].ready_value;
        tsr_exec *exec = w->exec;
        pthread_mutex_unlock(&w->lock);
        tsr_status status = b->v->wait(b, exec, value);
        pthread_mutex_lock(&w->lock);
        slot_done(w, place);
        if (status == TSR_OK)
            continue;
        w->slot[place].state = SLOT_FREE;
        if (!w->error[0] && status != TSR_ERR_CANCELLED)
            snprintf(w->error, sizeof w->error, "%s", tsr_last_error());
        w->stop = true;
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---------------------------------------------------------------- steps */

/* Where the backend is not asynchronous: others count when a step is done, or they would wait for every op. */
static void op_done(void *user, const tsr_program *p, int op, double begin, double end) {
    job *b = user;
    (void)begin;
    (void)end;
    b->work += tsr_op_flops(p, &p->op[op]);
    pthread_mutex_lock(&b->w->lock);
    b->w->share = b->work_all > 0 ? fmin(1, b->work / b->work_all) : 0;
    pthread_mutex_unlock(&b->w->lock);
}

/* b->tile = latent t of a tile, [h][w][c]. */
static tsr_status load_tile(void *ctx, int tile, int t) {
    job *b = ctx;
    const tsr_plan *p = b->j.plan;
    tsr_status status = tsr_latent_read(b->j.z, b->j.video, t, b->frame);
    if (status != TSR_OK)
        return status;
    const tsr_span *y = &p->y.latent[tile / p->x.tiles], *x = &p->x.latent[tile % p->x.tiles];
    size_t c = (size_t)p->half->in_channels, row = (size_t)(x->end - x->begin) * c;
    for (int i = y->begin; i < y->end; i++)
        memcpy(b->tile + (size_t)(i - y->begin) * row,
            b->frame + ((size_t)i * (size_t)p->info.extent.width + (size_t)x->begin) * c, row * sizeof *b->tile);
    return TSR_OK;
}

static tsr_status decode_step(job *b, int tile, int t) {
    tsr_watch_worker *w = b->w;
    const tsr_plan *p = b->j.plan;
    tsr_backend *backend = w->e->backend;
    tsr_status status = load_tile(b, tile, t);
    if (status != TSR_OK)
        return status;
    int place = take_slot(b, tile, t);
    if (place < 0)
        return TSR_ERR_CANCELLED;
    tsr_step_args args = {
        .step = tsr_plan_step(p, t),
        .cache_set = p->cache_sets ? tile % p->cache_sets : 0,
        .input = b->tile,
        .slab = &w->slab,
        .slot_at = (size_t)place * p->slot_bytes,
        .ready_value = w->e->ready_value + 1,
    };
    status = tsr_finite_step(&b->finite, w->exec, tile, t, &args);
    if (status != TSR_OK)
        return status;
    w->e->ready_value = args.ready_value;
    b->work = b->work_before += tsr_program_flops(p->program[args.step]);
    pthread_mutex_lock(&w->lock);
    w->slot[place].ready_value = args.ready_value;
    w->slot[place].share = b->work_all > 0 ? b->work / b->work_all : 1;
    if (backend->v->asynchronous) {
        w->slot[place].state = SLOT_WRITING;
        pthread_cond_broadcast(&w->changed);
    } else {
        slot_done(w, place);
    }
    pthread_mutex_unlock(&w->lock);
    return TSR_OK;
}

static tsr_status decode_segment(job *b, int tile, int begin, int end) {
    const tsr_plan *p = b->j.plan;
    tsr_backend *backend = b->w->e->backend;
    tsr_status status = TSR_OK;
    char *parked = b->parked ? b->parked + (size_t)tile * p->cache_bytes : NULL;
    int set = p->cache_sets ? tile % p->cache_sets : 0;
    if (parked && begin > p->first_latent)
        TSR_TRY(backend->v->unpark(backend, b->w->exec, set, parked));
    for (int t = begin; t < end; t++)
        TSR_TRY(decode_step(b, tile, t));
    if (parked && end < p->end_latent)
        TSR_TRY(backend->v->park(backend, b->w->exec, set, parked));
error:
    return status;
}

static tsr_status decode_tiles(job *b) {
    const tsr_plan *p = b->j.plan;
    for (int begin = p->first_latent; begin < p->end_latent; begin += p->segment) {
        int end = begin + p->segment < p->end_latent ? begin + p->segment : p->end_latent;
        for (int tile = 0; tile < p->y.tiles * p->x.tiles; tile++) {
            tsr_status status = decode_segment(b, tile, begin, end);
            if (status != TSR_OK)
                return status;
        }
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- a job */

/* Nothing reads or writes slots any more. */
static void settle(tsr_watch_worker *w) {
    pthread_mutex_lock(&w->lock);
    for (bool busy = true; busy;) {
        busy = false;
        for (int i = 0; i < w->slots; i++) {
            if (w->slot[i].state == SLOT_READY && !(w->state == TSR_PREVIEW_DECODING && wanted(w)))
                w->slot[i].state = SLOT_FREE; /* of no use any more */
            busy |= w->slot[i].state != SLOT_FREE;
        }
        if (busy)
            pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

/* The slab grows with the plans; the watcher lets go of it first. */
static tsr_status need_slab(tsr_watch_worker *w, size_t bytes) {
    tsr_backend *b = w->e->backend;
    if (w->slab.bytes >= bytes && bytes)
        return TSR_OK;
    pthread_mutex_lock(&w->lock);
    w->slab_wanted = w->slab_held;
    while (w->slab_wanted && !w->quit) {
        wake(w);
        pthread_cond_wait(&w->changed, &w->lock);
    }
    bool mine = !w->slab_held;
    tsr_slab old = w->slab;
    if (mine)
        w->slab = (tsr_slab){.handle = TSR_NO_HANDLE}; /* whoever looks meanwhile sees none */
    pthread_mutex_unlock(&w->lock);
    if (!mine)
        return tsr_fail(TSR_ERR_CANCELLED, "preview: closed");
    if (old.bytes)
        b->v->slab_free(b, &old);
    tsr_slab slab = {.handle = TSR_NO_HANDLE};
    tsr_status status = bytes ? b->v->slab_alloc(b, bytes, &slab) : TSR_OK;
    pthread_mutex_lock(&w->lock);
    w->slab = status == TSR_OK ? slab : (tsr_slab){.handle = TSR_NO_HANDLE};
    w->slab_number++;
    pthread_mutex_unlock(&w->lock);
    return status;
}

static tsr_status prepare(job *b) {
    tsr_watch_worker *w = b->w;
    const tsr_plan *p = b->j.plan;
    tsr_status status;
    size_t c = (size_t)p->half->in_channels * sizeof(float);
    if (p->slots > TSR_WATCH_SLOTS)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "preview: a plan of %d slots; at most %d", p->slots, TSR_WATCH_SLOTS);
    tsr_exec *exec = NULL;
    TSR_TRY(tsr_engine_prepare(w->e, p, &exec));
    TSR_TRY(need_slab(w, (size_t)p->slots * p->slot_bytes));
    b->frame = tsr_mem_alloc_host((size_t)p->info.extent.height * (size_t)p->info.extent.width * c);
    b->tile = tsr_mem_alloc_host((size_t)p->tile_h * (size_t)p->tile_w * c);
    bool parks = p->parked_sets > 0 && p->cache_bytes > 0;
    b->parked = parks ? tsr_mem_alloc_host((size_t)p->parked_sets * p->cache_bytes) : NULL;
    if (!b->frame || !b->tile || (parks && !b->parked))
        return tsr_fail(TSR_ERR_MEMORY, "preview: no memory for caches of this size; use smaller tiles");
    pthread_mutex_lock(&w->lock);
    memset(w->slot, 0, sizeof w->slot);
    w->slots = p->slots;
    w->head = 0;
    w->exec = exec;
    w->backend_bytes = p->info.bytes.weights + p->info.bytes.arena + p->info.bytes.caches;
    pthread_mutex_unlock(&w->lock);
error:
    return status;
}

/* *last goes once this one is ready to run, which may take its weights. */
static void run_job(tsr_watch_worker *w, tsr_watch_job j, tsr_plan **last) {
    job b = {
        .w = w, .j = j, .finite = {.e = w->e, .plan = j.plan, .first_latent = j.plan->first_latent, .load = load_tile}};
    b.finite.ctx = &b;
    const tsr_plan *p = j.plan;
    for (int t = p->first_latent; t < p->end_latent; t++)
        b.work_all += p->y.tiles * p->x.tiles * tsr_program_flops(p->program[tsr_plan_step(p, t)]);
    tsr_status status = prepare(&b);
    tsr_plan_destroy(last);
    if (status == TSR_OK) {
        pthread_mutex_lock(&w->lock);
        set_state(w, TSR_PREVIEW_DECODING);
        pthread_mutex_unlock(&w->lock);
        w->e->backend->on_op = w->e->backend->v->asynchronous ? NULL : op_done;
        w->e->backend->on_op_user = &b;
        status = decode_tiles(&b);
        w->e->backend->on_op = NULL;
    }
    char message[sizeof w->error];
    snprintf(message, sizeof message, "%s", status == TSR_OK ? "" : tsr_last_error());
    settle(w);
    pthread_mutex_lock(&w->lock);
    if (status != TSR_OK && status != TSR_ERR_CANCELLED && !w->error[0]) {
        snprintf(w->error, sizeof w->error, "%s", message);
        w->no_memory = status == TSR_ERR_MEMORY;
    }
    w->tile = w->latent = -1;
    w->ended = tsr_now();
    set_state(w, w->error[0] ? TSR_PREVIEW_FAILED : status == TSR_OK ? TSR_PREVIEW_DONE : TSR_PREVIEW_IDLE);
    pthread_mutex_unlock(&w->lock);
    tsr_finite_release(&b.finite);
    tsr_mem_free(b.parked);
    tsr_mem_free(b.tile);
    tsr_mem_free(b.frame);
}

/* ---------------------------------------------------------------- rough pictures */

static tsr_status paint(const tsr_watch_sketch *s, const tsr_rough_map *map, uint32_t **out) {
    const tsr_latent_info *i = tsr_latent_get_info(s->z);
    size_t n = (size_t)i->height * (size_t)i->width, all, bytes;
    tsr_status status = TSR_OK;
    if (!tsr_mul(n, (size_t)i->frames, &all) || !tsr_mul(all, sizeof **out, &bytes))
        return tsr_fail(TSR_ERR_MEMORY, "rough picture: the video is too large");
    uint32_t *pixels = malloc(bytes);
    float *z = malloc(n * (size_t)tsr_latent_channels(s->z) * sizeof *z);
    if (!pixels || !z)
        status = tsr_fail(TSR_ERR_MEMORY, "rough picture: no memory");
    for (int t = 0; t < i->frames && status == TSR_OK; t++) {
        status = tsr_latent_read(s->z, s->video, t, z);
        if (status == TSR_OK)
            tsr_rough_paint(map, z, n, pixels + (size_t)t * n);
    }
    free(z);
    *out = status == TSR_OK ? pixels : NULL;
    if (status != TSR_OK)
        free(pixels);
    return status;
}

static void run_sketch(tsr_watch_worker *w, tsr_watch_sketch s) {
    tsr_rough_map map;
    uint32_t *pixels = NULL;
    tsr_status status = tsr_rough_map_get(s.m, s.z, s.video, &w->e->params, &w->sketch_stop, &map);
    if (status == TSR_OK)
        status = paint(&s, &map, &pixels);
    if (status != TSR_OK && status != TSR_ERR_CANCELLED)
        tsr_log(TSR_LOG_DEBUG, "no rough picture: %s", tsr_last_error());
    pthread_mutex_lock(&w->lock);
    free(w->rough);
    w->rough = pixels;
    w->rough_number = s.number;
    pthread_mutex_unlock(&w->lock);
    wake(w);
}

/* ---------------------------------------------------------------- the thread */

/* With the lock, which it gives up meanwhile. */
static void take_sketch(tsr_watch_worker *w) {
    tsr_watch_sketch s = w->sketch;
    w->sketch = (tsr_watch_sketch){0};
    atomic_store(&w->sketch_stop, false);
    pthread_mutex_unlock(&w->lock);
    run_sketch(w, s);
    pthread_mutex_lock(&w->lock);
}

static void take_job(tsr_watch_worker *w, tsr_plan **last) {
    tsr_watch_job j = w->next;
    w->next = (tsr_watch_job){0};
    w->stop = false;
    w->run = j.run;
    w->error[0] = 0;
    w->no_memory = false;
    w->share = w->step_seconds = 0;
    w->began = w->ended = tsr_now();
    atomic_store(&w->e->cancel, false);
    set_state(w, j.never ? TSR_PREVIEW_IDLE : TSR_PREVIEW_PREPARING);
    pthread_mutex_unlock(&w->lock);
    if (!j.never)
        run_job(w, j, last);
    tsr_plan_destroy(last);
    *last = j.plan;
    pthread_mutex_lock(&w->lock);
}

/* With the lock, which it gives up meanwhile: nothing of the video is left. */
static void take_leave(tsr_watch_worker *w, tsr_plan **last) {
    w->forget = false;
    w->backend_bytes = 0;
    pthread_mutex_unlock(&w->lock);
    tsr_plan_destroy(last);
    need_slab(w, 0);
    pthread_mutex_lock(&w->lock);
}

static void *work(void *arg) {
    tsr_watch_worker *w = arg;
    tsr_plan *last = NULL; /* stays ready to run */
    setpriority(PRIO_PROCESS, 0, NICENESS);
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        w->busy = w->sketch.number || w->next.run || w->forget;
        if (w->forget) {
            take_leave(w, &last);
        } else if (w->sketch.number) {
            take_sketch(w);
        } else if (w->next.run) {
            take_job(w, &last);
        } else {
            pthread_cond_broadcast(&w->changed);
            pthread_cond_wait(&w->changed, &w->lock);
        }
    }
    pthread_mutex_unlock(&w->lock);
    tsr_plan_destroy(&last);
    need_slab(w, 0);
    return NULL;
}

tsr_status tsr_watch_worker_start(tsr_watch_worker *w, tsr_engine *e, void (*wake_fn)(void *), void *user) {
    *w = (tsr_watch_worker){
        .e = e, .wake = wake_fn, .user = user, .tile = -1, .latent = -1, .slab.handle = TSR_NO_HANDLE};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    atomic_init(&w->sketch_stop, false);
    w->runs = pthread_create(&w->thread, NULL, work, w) == 0;
    w->collects = w->runs && e->backend->v->asynchronous && pthread_create(&w->collector, NULL, collect, w) == 0;
    if (w->runs && (w->collects || !e->backend->v->asynchronous))
        return TSR_OK;
    return tsr_fail(TSR_ERR_MEMORY, "preview: no thread to be had; end other programs");
}

void tsr_watch_worker_end(tsr_watch_worker *w) {
    if (!w->e)
        return; /* it never started */
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    atomic_store(&w->sketch_stop, true);
    atomic_store(&w->e->cancel, true);
    for (int i = 0; i < w->slots; i++)
        if (w->slot[i].state == SLOT_BLENDING)
            w->slot[i].state = SLOT_FREE;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->runs)
        pthread_join(w->thread, NULL);
    if (w->collects)
        pthread_join(w->collector, NULL);
    tsr_plan_destroy(&w->next.plan);
    free(w->rough);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    w->e = NULL;
}

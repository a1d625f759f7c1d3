#include "fake_backend.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNELS = 16, OPS = 8 };

struct tsr_exec {
    const tsr_plan *plan;
    struct cache { /* of a tile: what lies on the device */
        int latent, x, y;
        int begin; /* latent of the first step */
        bool spoilt;
    } * cache; /* [cache_sets] */
};

typedef struct fake {
    tsr_backend base;
    fake_params *params;
    fake_counts *counts;
    /* asynchronous: one step at a time on its own thread */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool runs, ends, has_job;
    tsr_exec *exec;
    tsr_step_args job;
    int x, y, t;
    bool spoilt;
    uint64_t done;
} fake;

float fake_value(int64_t f, int c, int y, int x) {
    return 0.01f * (float)f - 0.3f * (float)c + 0.002f * (float)y - 0.001f * (float)x;
}

tsr_latent *fake_latent(int frames, int height, int width) {
    size_t n = (size_t)frames * (size_t)height * (size_t)width * CHANNELS;
    float *z = calloc(n, sizeof *z), *at = z;
    for (int t = 0; t < frames; t++)
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++, at += CHANNELS) {
                at[0] = (float)t;
                at[1] = (float)y;
                at[2] = (float)x;
            }
    tsr_latent *out = NULL;
    if (tsr_latent_from_memory(&out, z, frames, height, width, CHANNELS) != TSR_OK)
        abort();
    free(z);
    return out;
}

static void wrong(fake *f, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void wrong(fake *f, const char *format, ...) {
    if (f->counts->wrong[0])
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(f->counts->wrong, sizeof f->counts->wrong, format, args);
    va_end(args);
}

static void nap(int us) {
    if (us > 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000L * us}, NULL);
}

/* The tile's latents must be the ones around its corner. */
static void check_input(fake *f, const tsr_plan *p, const float *z) {
    for (int y = 0; y < p->tile_h; y++)
        for (int x = 0; x < p->tile_w; x++) {
            const float *v = z + ((size_t)y * (size_t)p->tile_w + (size_t)x) * CHANNELS;
            if (v[0] != z[0] || v[1] != z[1] + (float)y || v[2] != z[2] + (float)x)
                wrong(f, "latent (%d, %d) of the tile comes from (%g, %g) of frame %g", y, x, (double)v[1],
                    (double)v[2], (double)v[0]);
        }
}

static void fill_slot(const tsr_plan *p, const tsr_step_args *a, int t, int y0, int x0, bool spoilt) {
    int s = p->half->space_factor, frames = p->program[a->step]->out_frames, h = s * p->tile_h, w = s * p->tile_w;
    int64_t first = tsr_frames_of_latents(p->half->time_factor, t + 1) - frames;
    float *out = (float *)((char *)a->slab->host + a->slot_at);
    for (int i = 0; i < frames; i++)
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++)
                    *out++ = spoilt ? NAN : fake_value(first + i, c, s * y0 + y, s * x0 + x);
    if (a->not_finite)
        *a->not_finite = spoilt ? (int64_t)3 * frames * h * w : 0;
}

/* Whether the plan is one of another precision's, that runs a tile again. */
static bool runs_again(const fake *f, const tsr_plan *p) {
    return f->params->spoil_latent && p->numerics.precision == TSR_PRECISION_F32;
}

/* The caches must be those the tile left at the latent before; a tile that runs again begins where it likes. */
static void check_order(fake *f, const tsr_plan *p, struct cache *cache, const tsr_step_args *a, int t, int y, int x) {
    bool first = a->step == TSR_STEP_FIRST, spoilt = !first && cache->spoilt;
    int begin = first ? t : cache->begin, seen = t - begin;
    if ((begin != p->first_latent && !runs_again(f, p)) ||
        (int)a->step != (seen < TSR_STEP_LATER ? seen : TSR_STEP_LATER))
        wrong(f, "latent %d runs as step %d", t, a->step);
    if (!first && (cache->latent != t - 1 || cache->x != x || cache->y != y))
        wrong(f, "tile (%d, %d) latent %d meets the caches of (%d, %d) latent %d", y, x, t, cache->y, cache->x,
            cache->latent);
    bool meant = (y == f->params->spoil_y && x == f->params->spoil_x) || f->params->spoil_y < 0;
    if (f->params->spoil_latent && t + 1 >= f->params->spoil_latent && meant)
        spoilt |= p->numerics.precision != TSR_PRECISION_F32 || f->params->spoil_f32;
    f->counts->steps_f32 += runs_again(f, p);
    *cache = (struct cache){.latent = t, .x = x, .y = y, .begin = begin, .spoilt = spoilt};
}

static tsr_status run_step(fake *f, tsr_exec *exec, const tsr_step_args *a, int t, int y, int x, bool spoilt) {
    for (int op = 0; op < OPS; op++) {
        if (atomic_load(f->base.cancel))
            return tsr_fail(TSR_ERR_CANCELLED, "fake: cancelled");
        nap(f->params->op_us);
    }
    fill_slot(exec->plan, a, t, y, x, spoilt);
    return TSR_OK;
}

static tsr_status step(tsr_backend *b, tsr_exec *exec, const tsr_step_args *a) {
    fake *f = (fake *)b;
    const tsr_plan *p = exec->plan;
    int t = (int)a->input[0], y = (int)a->input[1], x = (int)a->input[2];
    if (++f->counts->steps == f->params->fail_step)
        return tsr_fail(TSR_ERR_DEVICE, "fake: step %d broke; mend it", f->counts->steps);
    check_input(f, p, a->input);
    check_order(f, p, &exec->cache[a->cache_set], a, t, y, x);
    if (!b->v->asynchronous)
        return run_step(f, exec, a, t, y, x, exec->cache[a->cache_set].spoilt);
    pthread_mutex_lock(&f->lock);
    f->counts->queued += f->has_job;
    while (f->has_job)
        pthread_cond_wait(&f->changed, &f->lock);
    f->has_job = true;
    f->exec = exec;
    f->job = *a;
    f->spoilt = exec->cache[a->cache_set].spoilt;
    f->job.not_finite = NULL; /* the caller's, for as long as the call */
    f->t = t, f->y = y, f->x = x;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return TSR_OK;
}

static void *work(void *arg) {
    fake *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->ends) {
        if (f->has_job) {
            pthread_mutex_unlock(&f->lock);
            run_step(f, f->exec, &f->job, f->t, f->y, f->x, f->spoilt);
            pthread_mutex_lock(&f->lock);
            f->has_job = false;
            f->done = f->job.ready_value;
            pthread_cond_broadcast(&f->changed);
        } else {
            pthread_cond_wait(&f->changed, &f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static tsr_status wait_for(tsr_backend *b, tsr_exec *x, uint64_t value) {
    fake *f = (fake *)b;
    (void)x;
    pthread_mutex_lock(&f->lock);
    while (f->done < value)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    if (atomic_load(b->cancel)) /* the steps since were dropped */
        return tsr_fail(TSR_ERR_CANCELLED, "fake: cancelled");
    return f->params->fail_wait ? tsr_fail(TSR_ERR_DEVICE, "fake: the lane broke") : TSR_OK;
}

static tsr_status park(tsr_backend *b, tsr_exec *x, int set, void *host) {
    ((fake *)b)->counts->parks++;
    memcpy(host, &x->cache[set], sizeof x->cache[set]);
    memset(&x->cache[set], 0xee, sizeof x->cache[set]);
    return TSR_OK;
}

static tsr_status unpark(tsr_backend *b, tsr_exec *x, int set, const void *host) {
    ((fake *)b)->counts->unparks++;
    memcpy(&x->cache[set], host, sizeof x->cache[set]);
    return TSR_OK;
}

static tsr_status prepare(tsr_backend *b, const tsr_plan *plan, tsr_exec **out) {
    fake *f = (fake *)b;
    f->counts->prepares++;
    if (f->params->fail_prepare || (f->params->most && plan->info.bytes.total > f->params->most))
        return tsr_fail(TSR_ERR_MEMORY, "fake: no memory for weights");
    tsr_exec *x = calloc(1, sizeof *x);
    x->plan = plan;
    x->cache = tsr_mem_alloc(sizeof *x->cache * (size_t)(plan->cache_sets + 1));
    if (!x->cache) {
        free(x);
        return tsr_fail(TSR_ERR_MEMORY, "fake: no memory for caches");
    }
    f->counts->execs++;
    *out = x;
    return TSR_OK;
}

static void exec_destroy(tsr_backend *b, tsr_exec **x) {
    if (!*x)
        return;
    ((fake *)b)->counts->execs--;
    tsr_mem_free((*x)->cache);
    free(*x);
    *x = NULL;
}

static tsr_status slab_alloc(tsr_backend *b, size_t bytes, tsr_slab *out) {
    fake *f = (fake *)b;
    size_t whole = tsr_align(bytes, 4096);
    void *pages = f->params->fail_slab ? NULL : tsr_mem_alloc(whole);
    if (!pages)
        return tsr_fail(TSR_ERR_MEMORY, "fake: no memory for slots");
    *out = (tsr_slab){
        .kind = TSR_SLAB_HOST, .handle = TSR_NO_HANDLE, .bytes = bytes, .export_bytes = whole, .host = pages};
    f->counts->slabs++;
    return TSR_OK;
}

static void slab_free(tsr_backend *b, tsr_slab *s) {
    ((fake *)b)->counts->slabs--;
    tsr_mem_free(s->host);
    *s = (tsr_slab){.handle = TSR_NO_HANDLE};
}

static void destroy(tsr_backend *b) {
    fake *f = (fake *)b;
    if (f->runs) {
        pthread_mutex_lock(&f->lock);
        f->ends = true;
        pthread_cond_broadcast(&f->changed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void report(tsr_backend *b, tsr_line_fn line, void *user) {
    line(user, "fake", b->v->name);
}

static size_t kernel_bytes(void *ctx, const tsr_kernel *k, tsr_dtype input) {
    (void)ctx, (void)input;
    return tsr_kernel_weights(k);
}

static void numerics(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out) {
    (void)ctx, (void)half;
    *out = (tsr_numerics){.precision = wanted, .stream = TSR_F32, .act = TSR_F32, .slot = TSR_F32};
}

static void target(tsr_backend *b, tsr_target *out) {
    fake_params *params = ((fake *)b)->params;
    *out = (tsr_target){.name = "fake",
        .join_heads = true,
        .align = 64,
        .memory_free = atomic_load(&params->left),
        .memory_total = params->total,
        .kernel_bytes = kernel_bytes,
        .numerics = numerics,
        .ctx = b};
}

static int64_t memory_free(tsr_backend *b) {
    fake_params *params = ((fake *)b)->params;
    return params->total ? atomic_load(&params->left) : INT64_MAX;
}

static tsr_precision best(tsr_backend *b, const tsr_half *half, char why[128]) {
    (void)b, (void)half;
    snprintf(why, 128, "it knows no other");
    return TSR_PRECISION_F32;
}

#define TABLE                                                                                                          \
    .name = "fake", .destroy = destroy, .report = report, .target = target, .best = best, .slab_alloc = slab_alloc,    \
    .slab_free = slab_free, .prepare = prepare, .exec_destroy = exec_destroy, .step = step, .park = park,              \
    .unpark = unpark, .memory_free = memory_free
static const tsr_backend_vtable synchronous = {TABLE}, asynchronous = {TABLE, .asynchronous = true, .wait = wait_for};

tsr_backend *fake_create(fake_params *params, fake_counts *counts) {
    fake *f = calloc(1, sizeof *f);
    f->base.v = params->asynchronous ? &asynchronous : &synchronous;
    f->params = params;
    f->counts = counts;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->runs = params->asynchronous && pthread_create(&f->thread, NULL, work, f) == 0;
    return &f->base;
}

/*
 * Encoding, on the caller's thread:
 *
 *     for every segment of latents
 *         read_segment    frames of the clip, filled up to whole latents
 *         encode_segment  for every tile: its caches, its steps, its latents added up by their weights
 *         give_segment    latents to the caller, in order
 *
 * Latents are a 48th of the frames they stand for: they are blended here, in f32, not by Vulkan.
 */
#include "session/session.h"

#include <tessera/encode.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double PROGRESS_EVERY = 0.1; /* seconds */
static const float LOGVAR_LEAST = -30, LOGVAR_MOST = 20;

typedef struct encode_run {
    tsr_engine *e;
    const tsr_plan *plan;
    const tsr_encode_params *params;
    tsr_exec *exec;
    tsr_slab slab;
    char *parked;   /* [parked_sets][cache_bytes] */
    float *source;  /* [height][width][3]: a frame as it comes */
    float *frames;  /* [frames of a segment][rows * 8][columns * 8][3] */
    float *input;   /* [frames of a step][tile rows * 8][tile columns * 8][3] */
    float *slot;    /* [2C][tile rows][tile columns]: one that is no host memory, copied; else NULL */
    float *latents; /* [segment][2C][rows][columns] */
    int64_t seen;   /* frames of the clip read */
    bool asked;     /* for one: from there on nothing is allocated, and no other plan can begin */
    double begin, told, steps_begin, load, prepare, encode, blend, write;
    double step_work[TSR_STEP_COUNT], work, work_before, work_all; /* FLOPs: of a step, done, all */
} encode_run;

/* ---------------------------------------------------------------- progress and cancel */

static void tell(encode_run *r) {
    r->told = tsr_now();
    if (!r->params->on_progress)
        return;
    double share = r->work_all > 0 ? r->work / r->work_all : 0, steps = r->told - r->steps_begin;
    tsr_progress p = {
        .frames = r->seen, .of = r->params->frames, .seconds = r->told - r->begin, .share = share, .eta = -1};
    if (share > 0.005)
        p.eta = steps * (1 - share) / share;
    r->params->on_progress(r->params->user, &p);
}

static void tick(encode_run *r) {
    if (tsr_now() - r->told > PROGRESS_EVERY)
        tell(r);
}

/* Where the backend is not asynchronous: a device would wait for the host at every op. */
static void op_done(void *user, const tsr_program *p, int op, double begin, double end) {
    encode_run *r = user;
    (void)begin, (void)end;
    r->work += tsr_op_flops(p, &p->op[op]);
    tick(r);
}

/* ---------------------------------------------------------------- frames in */

static size_t padded_width(const encode_run *r) {
    return (size_t)r->plan->info.extent.width * (size_t)r->plan->half->space_factor;
}

static size_t padded_frame(const encode_run *r) { /* floats */
    return 3 * padded_width(r) * (size_t)r->plan->info.extent.height * (size_t)r->plan->half->space_factor;
}

/* Number of the first frame of latent t. */
static int64_t first_frame(const encode_run *r, int t) {
    return t ? tsr_frames_of_latents(r->plan->half->time_factor, t) : 0;
}

/* The frame as it came, with copies of its last column and row beyond its edges. */
static void pad_frame(const encode_run *r, float *out) {
    size_t w = 3 * (size_t)r->params->width, full = 3 * padded_width(r), rows = padded_frame(r) / full;
    for (size_t y = 0; y < rows; y++) {
        size_t from = y < (size_t)r->params->height ? y : (size_t)r->params->height - 1;
        memcpy(out + y * full, r->source + from * w, w * sizeof *out);
        for (size_t x = w; x < full; x++)
            out[y * full + x] = out[y * full + x - 3];
    }
}

static tsr_status read_segment(encode_run *r, int begin, int end) {
    size_t frame = padded_frame(r);
    float *out = r->frames;
    double start = tsr_now();
    for (int64_t f = first_frame(r, begin), last = first_frame(r, end); f < last; f++, out += frame) {
        if (f >= r->params->frames) { /* a latent's rest: its last frame again */
            memcpy(out, out - frame, frame * sizeof *out);
            continue;
        }
        r->asked = true;
        tsr_fail(TSR_OK, "encode: frame %lld could not be read", (long long)f); /* if the callback does not say */
        tsr_status status = r->params->read_frame(r->params->user, f, r->source);
        if (status != TSR_OK)
            return status;
        pad_frame(r, out);
        r->seen = f + 1;
    }
    r->load += tsr_now() - start;
    return TSR_OK;
}

/* r->input = what latent t of a tile is made of; the segment begins with latent `begin`. */
static void cut_tile(encode_run *r, int tile, int t, int begin) {
    const tsr_plan *p = r->plan;
    const tsr_span *y = &p->y.pixel[tile / p->x.tiles], *x = &p->x.pixel[tile % p->x.tiles];
    size_t row = 3 * padded_width(r), width = 3 * (size_t)(x->end - x->begin);
    const float *from = r->frames + (size_t)(first_frame(r, t) - first_frame(r, begin)) * padded_frame(r);
    float *out = r->input;
    for (int64_t f = first_frame(r, t); f < first_frame(r, t + 1); f++, from += padded_frame(r))
        for (int i = y->begin; i < y->end; i++, out += width)
            memcpy(out, from + (size_t)i * row + 3 * (size_t)x->begin, width * sizeof *out);
}

/* ---------------------------------------------------------------- steps */

/* What the step left in the slot: [2C][rows][columns] of the tile. */
static tsr_status fetch_slot(encode_run *r, const tsr_step_args *args, const float **out) {
    tsr_backend *b = r->e->backend;
    tsr_status status = TSR_OK;
    if (b->v->asynchronous)
        TSR_TRY(b->v->wait(b, r->exec, args->ready_value));
    *out = r->slot;
    if (r->slab.host)
        *out = (const float *)((const char *)r->slab.host + args->slot_at);
    else
        status = b->v->slab_read(b, &r->slab, args->slot_at, r->plan->slot_bytes, r->slot);
error:
    return status;
}

/* Adds a tile's latent to the whole one, [2C][rows][columns]. */
static void blend(const encode_run *r, int tile, const float *slot, float *latent) {
    const tsr_plan *p = r->plan;
    int row = tile / p->x.tiles, column = tile % p->x.tiles;
    const tsr_span *y = &p->y.latent[row], *x = &p->x.latent[column];
    int h = y->end - y->begin, w = x->end - x->begin;
    const float *wy = p->y.weight + (size_t)row * (size_t)h, *wx = p->x.weight + (size_t)column * (size_t)w;
    for (int c = 0; c < p->half->out_channels; c++)
        for (int i = 0; i < h; i++, slot += w) {
            size_t at =
                ((size_t)c * (size_t)p->info.extent.height + (size_t)(y->begin + i)) * (size_t)p->info.extent.width;
            float *out = latent + at + (size_t)x->begin;
            for (int j = 0; j < w; j++)
                out[j] += slot[j] * wy[i] * wx[j];
        }
}

static size_t latent_frame(const tsr_plan *p) { /* floats */
    return (size_t)p->half->out_channels * (size_t)p->info.extent.height * (size_t)p->info.extent.width;
}

static tsr_status encode_step(encode_run *r, int tile, int t, int begin) {
    const tsr_plan *p = r->plan;
    tsr_backend *b = r->e->backend;
    const float *slot;
    tsr_status status;
    cut_tile(r, tile, t, begin);
    double start = tsr_now();
    tsr_step_args args = {
        .step = tsr_plan_step(p, t),
        .cache_set = p->cache_sets ? tile % p->cache_sets : 0,
        .input = r->input,
        .slab = &r->slab,
        .ready_value = r->e->ready_value + 1,
    };
    TSR_TRY(b->v->step(b, r->exec, &args));
    r->e->ready_value = args.ready_value;
    TSR_TRY(fetch_slot(r, &args, &slot));
    double end = tsr_now();
    r->encode += end - start;
    blend(r, tile, slot, r->latents + (size_t)(t - begin) * latent_frame(p));
    r->blend += tsr_now() - end;
    r->work = r->work_before += r->step_work[args.step];
    tick(r);
error:
    return status;
}

/* All tiles over one segment. Between segments their caches lie parked where the device does not hold them all. */
static tsr_status encode_segment(encode_run *r, int begin, int end) {
    const tsr_plan *p = r->plan;
    tsr_backend *b = r->e->backend;
    tsr_status status = TSR_OK;
    memset(r->latents, 0, (size_t)(end - begin) * latent_frame(p) * sizeof *r->latents);
    for (int tile = 0; tile < p->y.tiles * p->x.tiles; tile++) {
        char *parked = r->parked ? r->parked + (size_t)tile * p->cache_bytes : NULL;
        int set = p->cache_sets ? tile % p->cache_sets : 0;
        if (parked && begin > 0)
            TSR_TRY(b->v->unpark(b, r->exec, set, parked));
        for (int t = begin; t < end; t++)
            TSR_TRY(encode_step(r, tile, t, begin));
        if (parked && end < p->end_latent)
            TSR_TRY(b->v->park(b, r->exec, set, parked));
    }
error:
    return status;
}

static tsr_status give_segment(encode_run *r, int begin, int end) {
    const tsr_plan *p = r->plan;
    size_t half = latent_frame(p) / 2;
    double start = tsr_now();
    for (int t = begin; t < end; t++) {
        float *mean = r->latents + (size_t)(t - begin) * 2 * half, *logvar = mean + half;
        for (size_t i = 0; i < half; i++) {
            if (!isfinite(mean[i]) || isnan(logvar[i]))
                return tsr_fail(TSR_ERR_NOT_FINITE, "encode: latent frame %d is not finite at channel %zu in %s", t,
                    i / (half / ((size_t)p->half->out_channels / 2)), tsr_precision_name(p->info.precision));
            logvar[i] = fminf(fmaxf(logvar[i], LOGVAR_LEAST), LOGVAR_MOST);
        }
        tsr_fail(TSR_OK, "encode: the callback stopped at latent %d", t);
        tsr_status status = r->params->on_latent(r->params->user, t, mean, logvar);
        if (status != TSR_OK)
            return status;
    }
    r->write += tsr_now() - start;
    return TSR_OK;
}

/* ---------------------------------------------------------------- the whole */

static tsr_status allocate(encode_run *r) {
    const tsr_plan *p = r->plan;
    int factor = p->half->space_factor;
    size_t step_frames = (size_t)(p->info.extent.frames > 1 ? p->half->time_factor : 1);
    size_t tile = 3 * (size_t)p->tile_h * (size_t)p->tile_w * (size_t)factor * (size_t)factor;
    size_t segment = (size_t)first_frame(r, p->segment); /* one with the first latent has less */
    if (p->end_latent > p->segment)
        segment = (size_t)p->segment * (size_t)p->half->time_factor;
    tsr_status status = r->e->backend->v->slab_alloc(r->e->backend, p->slot_bytes, &r->slab);
    if (status != TSR_OK)
        return status;
    r->source = tsr_mem_alloc_host(padded_frame(r) * sizeof(float));
    r->frames = tsr_mem_alloc_host(segment * padded_frame(r) * sizeof(float));
    r->input = tsr_mem_alloc_host(step_frames * tile * sizeof(float));
    r->slot = r->slab.host ? NULL : tsr_mem_alloc_host(p->slot_bytes);
    r->latents = tsr_mem_alloc((size_t)p->segment * latent_frame(p) * sizeof(float));
    bool all = r->source && r->frames && r->input && r->latents && (r->slot || r->slab.host);
    if (p->parked_sets > 0 && p->cache_bytes > 0)
        all &= (r->parked = tsr_mem_alloc_host((size_t)p->parked_sets * p->cache_bytes)) != NULL;
    return all ? TSR_OK
               : tsr_fail(TSR_ERR_MEMORY, "encode: no memory for frames and caches of this size; use smaller tiles");
}

static void release(encode_run *r) {
    tsr_mem_free(r->parked);
    tsr_mem_free(r->latents);
    tsr_mem_free(r->slot);
    tsr_mem_free(r->input);
    tsr_mem_free(r->frames);
    tsr_mem_free(r->source);
    if (r->slab.bytes)
        r->e->backend->v->slab_free(r->e->backend, &r->slab);
}

static tsr_status run(encode_run *r) {
    const tsr_plan *p = r->plan;
    tsr_status status;
    double start = tsr_now();
    TSR_TRY(tsr_engine_prepare(r->e, p, &r->exec));
    r->steps_begin = tsr_now();
    r->prepare = r->steps_begin - start;
    for (int begin = 0; begin < p->end_latent; begin += p->segment) {
        int end = begin + p->segment < p->end_latent ? begin + p->segment : p->end_latent;
        TSR_TRY(read_segment(r, begin, end));
        TSR_TRY(encode_segment(r, begin, end));
        TSR_TRY(give_segment(r, begin, end));
        tell(r);
    }
error:
    if (status == TSR_ERR_CANCELLED && atomic_load(&r->e->cancel))
        tsr_fail(status, "encode: cancelled");
    return status;
}

static void fill_result(const encode_run *r, tsr_memory others, tsr_result *result) {
    *result = (tsr_result){
        .frames = r->seen,
        .seconds = tsr_now() - r->begin,
        .load = r->load,
        .prepare = r->prepare,
        .decode = r->encode,
        .blend = r->blend,
        .write = r->write,
        .peak_bytes = (int64_t)tsr_mem_peak() - others.device,
        .planned_bytes = r->plan->info.bytes.total,
        .host_peak_bytes = (int64_t)tsr_mem_host_peak() - others.host,
        .host_planned_bytes = r->plan->info.bytes.host,
    };
}

static tsr_status check_arguments(const tsr_model *m, const tsr_plan *plan, const tsr_encode_params *p) {
    tsr_extent x;
    if (plan->half != &m->vae->encoder)
        return tsr_fail(TSR_ERR_ARGUMENT, "encode: the plan was made for another model, or for decoding");
    tsr_status status = tsr_encode_extent(m, p->width, p->height, p->frames, &x);
    if (status != TSR_OK)
        return status;
    const tsr_extent *y = &plan->info.extent;
    if (x.frames != y->frames || x.height != y->height || x.width != y->width)
        return tsr_fail(TSR_ERR_ARGUMENT,
            "encode: the plan is for %dx%dx%d latents, the clip needs %dx%dx%d; plan anew", y->width, y->height,
            y->frames, x.width, x.height, x.frames);
    return TSR_OK;
}

/* By one plan, to the end. */
static tsr_status attempt(encode_run *r, tsr_result *result) {
    tsr_engine *e = r->e;
    const tsr_plan *p = r->plan;
    tsr_status status;
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        r->step_work[s] = p->program[s] ? tsr_program_flops(p->program[s]) : 0;
    for (int t = 0; t < p->end_latent; t++)
        r->work_all += p->y.tiles * p->x.tiles * r->step_work[tsr_plan_step(p, t)];
    tsr_memory others = tsr_engine_memory_before(e, p);
    TSR_TRY(allocate(r));
    tell(r);
    e->backend->on_op = e->backend->v->asynchronous ? NULL : op_done;
    e->backend->on_op_user = r;
    status = run(r);
    e->backend->on_op = NULL;
    if (e->backend->v->asynchronous && r->exec) /* nothing writes to the slab any more */
        e->backend->v->wait(e->backend, r->exec, e->ready_value);
    if (status == TSR_OK && result)
        fill_result(r, others, result);
error:
    release(r);
    return status;
}

/* Goes over to a smaller plan; *own is the one before where that was not the caller's. */
static tsr_status shrink(const encode_run *r, tsr_plan **own) {
    char why[512], need[32];
    tsr_plan *smaller = NULL;
    snprintf(why, sizeof why, "%s", tsr_last_error());
    tsr_status status = tsr_plan_shrink(&smaller, r->plan, 0, why);
    if (status != TSR_OK)
        return status;
    tsr_plan_destroy(own);
    *own = smaller;
    tsr_log(TSR_LOG_WARN, "%s; going on with a plan of %s: %s", why, tsr_bytes_text(need, smaller->info.bytes.total),
        smaller->info.why);
    if (r->params->on_plan)
        r->params->on_plan(r->params->user, &smaller->info, why);
    return TSR_OK;
}

tsr_status tsr_encode(
    tsr_engine *e, tsr_model *m, const tsr_plan *plan, const tsr_encode_params *params, tsr_result *result) {
    tsr_plan *own = NULL;
    double begin = tsr_now();
    tsr_status status = check_arguments(m, plan, params);
    bool again = status == TSR_OK;
    atomic_store(&e->cancel, false);
    while (again) {
        encode_run r = {.e = e, .plan = own ? own : plan, .params = params, .begin = begin};
        status = attempt(&r, result);
        again = status == TSR_ERR_MEMORY && !r.asked && (status = shrink(&r, &own)) == TSR_OK;
    }
    tsr_plan_destroy(&own);
    return status;
}

tsr_status tsr_encode_extent(const tsr_model *m, int width, int height, int64_t frames, tsr_extent *out) {
    const tsr_half *half = &m->vae->encoder;
    int s = half->space_factor, t = half->time_factor;
    if (!half->present)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "encode: %s: the file holds no encoder; use one that does", m->vae->info.path);
    if (width < 1 || height < 1 || frames < 1 || width > (1 << 20) || height > (1 << 20) || frames > INT32_MAX / 2)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "encode: a clip of %dx%d, %lld frames makes no sense", width, height, (long long)frames);
    *out = (tsr_extent){
        .frames = (int)((frames - 1 + t - 1) / t) + 1, .height = (height + s - 1) / s, .width = (width + s - 1) / s};
    return TSR_OK;
}

/* ---------------------------------------------------------------- sampling */

/* splitmix64's output for the state s. */
static uint64_t mix(uint64_t s) {
    s += 0x9E3779B97F4A7C15;
    s = (s ^ s >> 30) * 0xBF58476D1CE4E5B9;
    s = (s ^ s >> 27) * 0x94D049BB133111EB;
    return s ^ s >> 31;
}

/* Uniform in (0, 1), of 53 bits. */
static double uniform(uint64_t s) {
    return ((double)(mix(s) >> 11) + 0.5) * 0x1p-53;
}

void tsr_encode_sample(uint64_t seed, int t, size_t count, const float *mean, const float *logvar, float *latent) {
    uint64_t state = mix(mix(seed) + (uint64_t)t);
    for (size_t i = 0; i < count; i++) { /* Box and Muller's, one of the pair */
        double radius = sqrt(-2 * log(uniform(state + 2 * i)));
        double n = radius * cos(2 * M_PI * uniform(state + 2 * i + 1));
        latent[i] = (float)((double)mean[i] + exp((double)logvar[i] / 2) * n);
    }
}

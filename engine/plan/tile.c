#include "plan/tile.h"
#include "plan/pace.h"
#include "plan/stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_PAGE = 4096, PACK_EFFORT = 8, LIMITS = 6 };
#define PACKED 0.9 /* of an arena with transfers in flight, packing makes use of this much: measured at 0.83 to 1 */

int64_t tsr_sat_add(int64_t a, int64_t b) {
    int64_t r;
    return __builtin_add_overflow(a, b, &r) ? INT64_MAX : r;
}

int64_t tsr_sat_mul(int64_t a, int64_t b) {
    int64_t r;
    return __builtin_mul_overflow(a, b, &r) ? INT64_MAX : r;
}

static int64_t clamp_size(size_t n) {
    return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

/* ---------------------------------------------------------------- programs */

int tsr_task_steps(const tsr_task *t, tsr_step step) {
    int before = t->half->encodes && step == TSR_STEP_LATER ? 1 : (int)step;
    if (step == TSR_STEP_SECOND && t->half->encodes)
        return 0;
    if (step == TSR_STEP_LATER)
        return t->latents > before ? t->latents - before : 0;
    return t->latents > before;
}

int64_t tsr_task_host(const tsr_task *t, int h, int w, int segment) {
    const tsr_half *half = t->half;
    int64_t whole = tsr_sat_mul(t->extent.height, t->extent.width), tile = (int64_t)h * w,
            latent = half->in_channels * (int64_t)sizeof(float);
    if (!half->encodes)
        return tsr_sat_mul(tsr_sat_add(whole, tile), latent);
    int64_t pixel = latent * half->space_factor * half->space_factor; /* a latent's of a frame */
    int frames =
        segment == t->latents ? tsr_frames_of_latents(half->time_factor, segment) : segment * half->time_factor;
    int64_t input = tsr_sat_mul(tile, pixel * (t->latents > 1 ? half->time_factor : 1));
    int64_t slot =
        t->target->host_is_device
            ? 0
            : (int64_t)tsr_align((size_t)tsr_sat_mul(tile, half->out_channels * (int64_t)sizeof(float)), SLOT_PAGE);
    return tsr_sat_add(tsr_sat_mul(tsr_sat_mul(whole, pixel), frames + 1), tsr_sat_add(input, slot));
}

static tsr_step main_step(const tsr_task *t) { /* the one that takes most memory and is run most */
    return tsr_task_steps(t, TSR_STEP_LATER)    ? TSR_STEP_LATER
           : tsr_task_steps(t, TSR_STEP_SECOND) ? TSR_STEP_SECOND
                                                : TSR_STEP_FIRST;
}

static tsr_status make_program(const tsr_task *t, tsr_shape s, tsr_step step, tsr_program **out) {
    bool encode = t->half->encodes;
    int factor = encode ? t->half->space_factor : 1;
    tsr_program_params params = {
        .encode = encode,
        .step = step,
        .h = s.h * factor,
        .w = s.w * factor,
        .numerics = t->numerics,
        .keep = step != main_step(t) || tsr_task_steps(t, step) > 1, /* another step follows the first of this kind */
        .join_heads = t->target->join_heads || s.stream,
        .slice_level = s.slice_level,
        .band = s.band,
        .page_level = s.page_level,
    };
    return tsr_program_create(out, t->half, &params);
}

/* Whether op i is a norm whose output takes the place of its input: all frames, the same type, and nobody else reads
 * what it read. The head of the output then lies in front. */
static bool in_place(const tsr_target *target, const tsr_program *p, int i) {
    const tsr_op *op = &p->op[i];
    if (op->kind != TSR_OP_NORM || !target->norm_in_place || op->section >= 0)
        return false;
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    return in->dtype == out->dtype && in->head == 0 && in->frames == out->frames && op->in.nt == in->frames &&
           op->in.ny == in->h && in->last_op == i && out->first_op == i &&
           in->bytes / (size_t)in->frames * (size_t)out->head % target->align == 0;
}

/* Buffers, then the scratch of ops that want it: [buffers + ops] lives, zero bytes where there is none. The head of a
 * buffer is alive only from when the cache is loaded into it: it may lie where what the frames were made of lay. Paged
 * buffers take no room; bands keep their heads from one to the next. */
static tsr_life *lives_of(const tsr_target *target, const tsr_program *p) {
    tsr_life *life = malloc(((size_t)p->buffers + (size_t)p->ops) * sizeof *life);
    if (!life)
        return NULL;
    for (int i = 0; i < p->buffers; i++)
        life[i] =
            (tsr_life){p->buffer[i].paged ? 0 : p->buffer[i].bytes, p->buffer[i].first_op, p->buffer[i].last_op, 0, 0};
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        size_t bytes = target->op_scratch ? target->op_scratch(target->ctx, p, op) : 0;
        life[p->buffers + i] = (tsr_life){bytes, i, i, 0, 0};
        if (in_place(target, p, i)) { /* one piece of memory, the output's */
            life[op->out.buf].first = life[op->in.buf].first;
            life[op->in.buf].bytes = 0;
        }
        if (op->kind == TSR_OP_CACHE_LOAD && op->section < 0) {
            const tsr_buffer *b = &p->buffer[op->out.buf];
            life[op->out.buf].lead = b->bytes / (size_t)(b->head + b->frames) * (size_t)b->head;
            life[op->out.buf].lead_first = i;
        }
    }
    return life;
}

/* Lives of the frames that lie whole in host memory: [buffers]. */
static tsr_life *pages_of(const tsr_program *p) {
    tsr_life *life = malloc((size_t)p->buffers * sizeof *life);
    for (int i = 0; life && i < p->buffers; i++)
        life[i] =
            (tsr_life){p->buffer[i].paged ? p->buffer[i].bytes : 0, p->buffer[i].first_op, p->buffer[i].last_op, 0, 0};
    return life;
}

static int64_t cache_bytes(const tsr_target *target, const tsr_program *p, bool paged) {
    int64_t bytes = 0;
    for (int i = 0; i < p->caches; i++)
        if (p->cache[i].paged == paged)
            bytes = tsr_sat_add(bytes, clamp_size(tsr_align(p->cache[i].bytes, target->align)));
    return bytes;
}

/* ---------------------------------------------------------------- weights */

/* Kernels by layer and fold: steps share those they both use. */
typedef struct weight_set {
    int n, room;
    tsr_plan_weight *weight;
    size_t bytes;
} weight_set;

static tsr_dtype input_of(const tsr_program *p, int kernel) {
    for (int i = 0; i < p->ops; i++)
        if (p->op[i].kind == TSR_OP_CONV && p->op[i].kernel == kernel)
            return p->buffer[p->op[i].in.buf].dtype;
    return TSR_F32; /* not reached: programs list the kernels they use */
}

/* Adds what is new of a program's kernels; writes their places to `of` where it is not NULL. */
static tsr_status add_weights(weight_set *set, const tsr_target *target, const tsr_program *p, int *of) {
    for (int k = 0; k < p->kernels; k++) {
        const tsr_kernel *kernel = &p->kernel[k];
        int i = 0;
        while (i < set->n &&
               (set->weight[i].kernel->layer != kernel->layer || set->weight[i].kernel->fold != kernel->fold))
            i++;
        if (of)
            of[k] = i;
        if (i < set->n)
            continue;
        if (set->n == set->room) {
            int room = set->room ? 2 * set->room : 64;
            tsr_plan_weight *more = realloc(set->weight, (size_t)room * sizeof *more);
            if (!more)
                return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
            set->weight = more;
            set->room = room;
        }
        tsr_dtype input = input_of(p, k);
        size_t bytes = target->kernel_bytes(target->ctx, kernel, input);
        set->weight[set->n++] = (tsr_plan_weight){kernel, input, set->bytes, bytes};
        set->bytes += tsr_align(bytes, target->align); /* of weights that are in a file: far from overflow */
    }
    return TSR_OK;
}

static size_t add_norms(const tsr_half *half, size_t align, size_t at, size_t *norm_at) {
    for (int i = 0; i < half->layers; i++) {
        bool norm = half->layer[i].kind == TSR_LAYER_NORM;
        if (norm_at)
            norm_at[i] = norm ? at : SIZE_MAX;
        if (norm)
            at += tsr_align(2 * sizeof(float) * (size_t)half->layer[i].cout, align);
    }
    return at;
}

/* ---------------------------------------------------------------- measuring */

tsr_status tsr_task_weights(const tsr_task *t, int64_t *bytes) {
    tsr_status status = TSR_OK;
    weight_set set = {0};
    tsr_program *program[TSR_STEP_COUNT] = {0};
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        if (tsr_task_steps(t, step)) {
            TSR_TRY(make_program(t, (tsr_shape){.h = 1, .w = 1, .slice_level = t->half->levels}, step, &program[step]));
            TSR_TRY(add_weights(&set, t->target, program[step], NULL));
        }
    *bytes = clamp_size(add_norms(t->half, t->target->align, set.bytes, NULL));
error:
    free(set.weight);
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        tsr_program_destroy(&program[step]);
    return status;
}

static size_t slot_bytes(const tsr_program *p) { /* programs bound their sides: no overflow */
    size_t bytes = (size_t)p->out_frames * (size_t)p->out_c * (size_t)p->out_h * (size_t)p->out_w;
    return tsr_align(bytes * tsr_dtype_size(p->params.numerics.slot), SLOT_PAGE);
}

/* What moves, and when, in one step's program: of a device with `room` for arena and resident caches. */
typedef struct streaming {
    int64_t *profile; /* [ops] */
    bool *on_host;    /* [caches] */
    int *move_at;     /* [ops] */
} streaming;

static void end_streaming(streaming *s) {
    free(s->profile), free(s->on_host), free(s->move_at);
    *s = (streaming){0};
}

static tsr_status begin_streaming(const tsr_task *t, const tsr_program *p, const tsr_life *life, streaming *s) {
    s->profile = malloc((size_t)p->ops * sizeof *s->profile);
    s->on_host = calloc((size_t)p->caches + 1, sizeof *s->on_host);
    s->move_at = malloc((size_t)p->ops * sizeof *s->move_at);
    if (!s->profile || !s->on_host || !s->move_at)
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    tsr_stream_profile(life, p->buffers + p->ops, p->ops, t->target->align, s->profile);
    return TSR_OK;
}

/* With caches on the host; where not even that fits the room, *out says what the arena alone needs. */
static tsr_status measure_streamed(
    const tsr_task *t, tsr_shape s, const tsr_program *p, tsr_life *life, tsr_tile_cost *out) {
    streaming move = {0};
    tsr_status status = TSR_OK;
    TSR_TRY(begin_streaming(t, p, life, &move));
    int64_t resident = tsr_stream_pick(
        p, t->target->align, move.profile, s.room - s.reserve, t->params.caches == TSR_CACHES_HOST, move.on_host);
    out->host = resident < 0 ? out->cache : out->cache - resident;
    out->cache = resident < 0 ? 0 : resident;
    out->seconds = INFINITY;
    if (resident >= 0) {
        int64_t limit = (int64_t)(PACKED * (double)(s.room - resident));
        tsr_stream_schedule(p, t->target->align, move.on_host, limit, move.profile, life, move.move_at);
        out->arena = clamp_size(tsr_pack_bound(life, p->buffers + p->ops, t->target->align));
        out->seconds = t->latents * tsr_stream_seconds(t->target, p, move.on_host, move.move_at);
    }
error:
    end_streaming(&move);
    return status;
}

/* In bands. Their packing misses the lower bound by a little, so it is made. */
static tsr_status measure_bands(const tsr_task *t, const tsr_program *p, const tsr_life *life, tsr_tile_cost *out) {
    int n = p->buffers + p->ops;
    tsr_status status = TSR_OK;
    tsr_life *pages = pages_of(p);
    size_t *at = malloc((size_t)n * sizeof *at), bytes;
    if (!pages || !at)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    out->host =
        tsr_sat_add(cache_bytes(t->target, p, true), clamp_size(tsr_pack_bound(pages, p->buffers, t->target->align)));
    if (tsr_pack_bound(life, n, t->target->align) < SIZE_MAX) {
        TSR_TRY(tsr_pack(life, n, t->target->align, PACK_EFFORT, 0, at, &bytes));
        out->arena = clamp_size(bytes);
    }
error:
    free(pages);
    free(at);
    return status;
}

tsr_status tsr_tile_measure(const tsr_task *t, tsr_shape s, tsr_tile_cost *out) {
    tsr_program *p = NULL;
    tsr_life *life = NULL;
    *out = (tsr_tile_cost){INT64_MAX, INT64_MAX, INT64_MAX, 0, INFINITY};
    tsr_status status = make_program(t, s, main_step(t), &p);
    if (status == TSR_ERR_ARGUMENT) /* larger than any program may be */
        return TSR_OK;
    if (status != TSR_OK)
        return status;
    life = lives_of(t->target, p);
    if (!life)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    out->arena = clamp_size(tsr_pack_bound(life, p->buffers + p->ops, t->target->align));
    out->cache = cache_bytes(t->target, p, false);
    out->slot = clamp_size(slot_bytes(p));
    if (s.stream)
        TSR_TRY(measure_streamed(t, s, p, life, out));
    else
        out->seconds = t->latents * tsr_program_seconds(t->target, p);
    if (s.band)
        TSR_TRY(measure_bands(t, p, life, out));
error:
    free(life);
    tsr_program_destroy(&p);
    return status;
}

/* ---------------------------------------------------------------- laying out */

/* Schedules transfers within `limit` bytes of live memory and packs what follows. */
static tsr_status try_limit(const tsr_task *t, const tsr_program *program, const tsr_life *plain, int64_t limit,
    int64_t enough, streaming *move, tsr_life *life, size_t *at, size_t *bytes) {
    int n = program->buffers + program->ops;
    size_t align = t->target->align;
    memcpy(life, plain, (size_t)n * sizeof *life);
    tsr_stream_profile(life, n, program->ops, align, move->profile);
    tsr_stream_schedule(program, align, move->on_host, limit, move->profile, life, move->move_at);
    return tsr_pack(life, n, align, PACK_EFFORT, (size_t)enough, at, bytes);
}

/* Packs with transfers in flight. Their heads lie in front of frames that are not there yet, which tears holes: the
 * largest limit is searched for whose packing is small enough. Without any in flight, the lower bound is met. */
static tsr_status pack_streamed(
    const tsr_task *t, tsr_shape s, tsr_step step, tsr_plan *p, tsr_life *life, size_t *at, size_t *bytes) {
    const tsr_program *program = p->program[step];
    int64_t allowed = s.room - (int64_t)p->cache_bytes, low = 0, high = allowed, limit = allowed;
    size_t n = (size_t)program->buffers + (size_t)program->ops;
    streaming move = {0};
    tsr_status status = TSR_OK;
    tsr_life *plain = malloc(n * sizeof *plain);
    if (!plain)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    memcpy(plain, life, n * sizeof *plain);
    TSR_TRY(begin_streaming(t, program, life, &move));
    for (int i = 0; i < program->caches; i++)
        move.on_host[i] = p->host_at[i] != SIZE_MAX;
    for (int i = 0; i <= LIMITS; i++) {
        TSR_TRY(try_limit(t, program, plain, limit, allowed, &move, life, at, bytes));
        bool fits = (int64_t)*bytes <= allowed;
        if ((fits && limit == allowed) || i == LIMITS)
            break;
        low = fits ? limit : low;
        high = fits ? high : limit;
        limit = i + 1 < LIMITS ? low + (high - low) / 2 : low; /* the last time, the best */
    }
    p->info.seconds += tsr_task_steps(t, step) * tsr_stream_seconds(t->target, program, move.on_host, move.move_at);
    p->move_at[step] = move.move_at;
    move.move_at = NULL;
error:
    end_streaming(&move);
    free(plain);
    return status;
}

/* Places one step's paged frames in the host block, behind the caches. */
static tsr_status lay_out_pages(const tsr_task *t, tsr_step step, tsr_plan *p) {
    const tsr_program *program = p->program[step];
    size_t n = (size_t)program->buffers, caches = (size_t)cache_bytes(t->target, program, true), bytes;
    tsr_status status = TSR_OK;
    tsr_life *life = pages_of(program);
    size_t *at = malloc(n * sizeof *at);
    if (!life || !at)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    TSR_TRY(tsr_pack(life, program->buffers, t->target->align, PACK_EFFORT, 0, at, &bytes));
    for (size_t i = 0; i < n; i++)
        if (program->buffer[i].paged)
            p->buffer_at[step][i] = caches + at[i];
    if (caches + bytes > p->host_bytes)
        p->host_bytes = caches + bytes;
error:
    free(life);
    free(at);
    return status;
}

/* Places one step's buffers and scratch in the arena, and adds the tile's seconds. */
static tsr_status lay_out_arena(const tsr_task *t, tsr_shape s, tsr_step step, tsr_plan *p) {
    const tsr_program *program = p->program[step];
    int buffers = program->buffers, n = buffers + program->ops;
    tsr_status status = TSR_OK;
    tsr_life *life = lives_of(t->target, program);
    size_t *at = malloc((size_t)n * sizeof *at), bytes;
    p->buffer_at[step] = malloc((size_t)buffers * sizeof *at);
    p->scratch_at[step] = malloc((size_t)program->ops * sizeof *at);
    if (!life || !at || !p->buffer_at[step] || !p->scratch_at[step])
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    if (s.stream && p->host_at) {
        TSR_TRY(pack_streamed(t, s, step, p, life, at, &bytes));
    } else {
        TSR_TRY(tsr_pack(life, n, t->target->align, PACK_EFFORT, 0, at, &bytes));
        p->info.seconds += tsr_task_steps(t, step) * tsr_program_seconds(t->target, program);
    }
    memcpy(p->buffer_at[step], at, (size_t)buffers * sizeof *at);
    for (int i = 0; i < program->ops; i++)
        if (in_place(t->target, program, i)) {
            const tsr_buffer *in = &program->buffer[program->op[i].in.buf],
                             *out = &program->buffer[program->op[i].out.buf];
            p->buffer_at[step][in - program->buffer] =
                p->buffer_at[step][out - program->buffer] + out->bytes - in->bytes;
        }
    for (int i = 0; i < program->ops; i++)
        p->scratch_at[step][i] = life[buffers + i].bytes ? at[buffers + i] : SIZE_MAX;
    size_t bound = tsr_pack_bound(life, n, t->target->align);
    p->arena_bytes = bytes > p->arena_bytes ? bytes : p->arena_bytes;
    p->arena_bound = bound > p->arena_bound ? bound : p->arena_bound;
error:
    free(life);
    free(at);
    return status;
}

/* Every cache has its place, on the device or on the host. */
static tsr_status lay_out_caches(const tsr_task *t, tsr_shape s, tsr_plan *p) {
    const tsr_program *program = p->program[main_step(t)];
    streaming move = {0};
    tsr_life *life = NULL;
    tsr_status status = TSR_OK;
    if (!program->caches)
        return TSR_OK;
    size_t n = (size_t)program->caches;
    p->cache_at = malloc(n * sizeof *p->cache_at);
    bool away = s.stream || s.band;
    p->host_at = away ? malloc(n * sizeof *p->host_at) : NULL;
    life = lives_of(t->target, program);
    if (!p->cache_at || (away && !p->host_at) || !life)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    if (s.stream) {
        TSR_TRY(begin_streaming(t, program, life, &move));
        tsr_stream_pick(program, t->target->align, move.profile, s.room - s.reserve,
            t->params.caches == TSR_CACHES_HOST, move.on_host);
    }
    for (size_t i = 0; i < n; i++) {
        bool host = s.stream ? move.on_host[i] : program->cache[i].paged;
        size_t *at = host ? &p->host_bytes : &p->cache_bytes;
        p->cache_at[i] = host ? SIZE_MAX : *at;
        if (away)
            p->host_at[i] = host ? *at : SIZE_MAX;
        *at += tsr_align(program->cache[i].bytes, t->target->align);
    }
error:
    end_streaming(&move);
    free(life);
    return status;
}

tsr_status tsr_tile_lay_out(const tsr_task *t, tsr_shape s, tsr_plan *p) {
    tsr_status status = TSR_OK;
    weight_set set = {0};
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++) {
        int times = tsr_task_steps(t, step);
        if (!times)
            continue;
        TSR_TRY(make_program(t, s, step, &p->program[step]));
        const tsr_program *program = p->program[step];
        p->weight_of[step] = malloc((size_t)program->kernels * sizeof(int));
        if (!p->weight_of[step])
            TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
        TSR_TRY(add_weights(&set, t->target, program, p->weight_of[step]));
        p->info.flops += times * tsr_program_flops(program);
        if (slot_bytes(program) > p->slot_bytes)
            p->slot_bytes = slot_bytes(program);
    }
    TSR_TRY(lay_out_caches(t, s, p));
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        if (p->program[step]) {
            TSR_TRY(lay_out_arena(t, s, step, p));
            TSR_TRY(lay_out_pages(t, step, p));
        }
    p->norm_at = malloc((size_t)t->half->layers * sizeof *p->norm_at);
    if (!p->norm_at)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    p->weight_bytes = add_norms(t->half, t->target->align, set.bytes, p->norm_at);
    p->tile_h = s.h;
    p->tile_w = s.w;
    p->slice_level = s.slice_level;
    p->band = s.band;
    p->page_level = s.page_level;
error:
    p->weight = set.weight; /* the plan's, also on failure */
    p->weights = set.n;
    return status;
}

#include "plan/tile.h"
#include "plan/pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLOT_PAGE = 4096, PACK_EFFORT = 24 };

/* For ranking where a device's rates are not known; nothing derived from them is shown. */
#define NOMINAL_FLOPS 1e12
#define NOMINAL_BANDWIDTH 5e10
#define NOMINAL_LINK 1e10
#define OP_START 5e-6 /* seconds to start an op: what keeps slices from being free */

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

/* ---------------------------------------------------------------- time */

static double rate_of(const tsr_target *t, tsr_dtype in) {
    size_t size = tsr_dtype_size(in);
    double rate = size == 1 && t->flops_8 > 0    ? t->flops_8
                  : size <= 2 && t->flops_16 > 0 ? t->flops_16
                                                 : t->flops_f32;
    return rate > 0 ? rate : NOMINAL_FLOPS;
}

double tsr_program_seconds(const tsr_target *target, const tsr_program *p) {
    double seconds = 0, bandwidth = target->bandwidth > 0 ? target->bandwidth : NOMINAL_BANDWIDTH;
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        double flops = tsr_op_flops(p, op), traffic = tsr_op_bytes(p, op) / bandwidth;
        double compute = flops > 0 ? flops / rate_of(target, p->buffer[op->in.buf].dtype) : 0;
        seconds += OP_START + (compute > traffic ? compute : traffic);
    }
    return seconds;
}

double tsr_link_seconds(const tsr_target *t, double bytes) {
    double rate = t->link_bandwidth > 0 ? t->link_bandwidth
                  : t->host_is_device && t->bandwidth > 0 ? t->bandwidth / 2 /* read and write */
                                                          : NOMINAL_LINK;
    return bytes / rate;
}

/* ---------------------------------------------------------------- programs */

int tsr_task_steps(const tsr_task *t, tsr_step step) {
    int before = (int)step;
    if (step == TSR_STEP_LATER)
        return t->latents > before ? t->latents - before : 0;
    return t->latents > before;
}

static tsr_status make_program(const tsr_task *t, tsr_shape s, tsr_step step, tsr_program **out) {
    tsr_program_params params = {
        .step = step,
        .h = s.h,
        .w = s.w,
        .numerics = t->numerics,
        .keep = t->latents > (int)step + 1, /* another step follows the first of this kind */
        .join_heads = t->target->join_heads,
        .slice_level = s.slice_level,
    };
    return tsr_program_create(out, t->half, &params);
}

/* Buffers, then the scratch of ops that want it: [buffers + ops] lives, zero bytes where there is none. The head of a
 * buffer is alive only from when the cache is loaded into it: it may lie where what the frames were made of lay. */
static tsr_life *lives_of(const tsr_target *target, const tsr_program *p) {
    tsr_life *life = malloc(((size_t)p->buffers + (size_t)p->ops) * sizeof *life);
    if (!life)
        return NULL;
    for (int i = 0; i < p->buffers; i++)
        life[i] = (tsr_life){p->buffer[i].bytes, p->buffer[i].first_op, p->buffer[i].last_op, 0, 0};
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        size_t bytes = target->op_scratch ? target->op_scratch(target->ctx, p, op) : 0;
        life[p->buffers + i] = (tsr_life){bytes, i, i, 0, 0};
        if (op->kind == TSR_OP_CACHE_LOAD) {
            const tsr_buffer *b = &p->buffer[op->out.buf];
            life[op->out.buf].lead = b->bytes / (size_t)(b->head + b->frames) * (size_t)b->head;
            life[op->out.buf].lead_first = i;
        }
    }
    return life;
}

static size_t cache_bytes(const tsr_target *target, const tsr_program *p) {
    size_t at = 0;
    for (int i = 0; i < p->caches; i++)
        if (!tsr_add(at, tsr_align(p->cache[i].bytes, target->align), &at))
            return SIZE_MAX;
    return at;
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
        while (i < set->n && (set->weight[i].kernel->layer != kernel->layer || set->weight[i].kernel->fold != kernel->fold))
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
            TSR_TRY(make_program(t, (tsr_shape){1, 1, t->half->levels}, step, &program[step]));
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

tsr_status tsr_tile_measure(const tsr_task *t, tsr_shape s, tsr_tile_cost *out) {
    tsr_step step = t->latents > 2 ? TSR_STEP_LATER : t->latents > 1 ? TSR_STEP_SECOND : TSR_STEP_FIRST;
    tsr_program *p = NULL;
    tsr_status status = TSR_OK;
    *out = (tsr_tile_cost){INT64_MAX, INT64_MAX, INT64_MAX, INFINITY};
    status = make_program(t, s, step, &p);
    if (status == TSR_ERR_ARGUMENT) /* larger than any program may be */
        return TSR_OK;
    if (status != TSR_OK)
        return status;
    tsr_life *life = lives_of(t->target, p);
    if (!life)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    out->arena = clamp_size(tsr_pack_bound(life, p->buffers + p->ops, t->target->align));
    out->cache = clamp_size(cache_bytes(t->target, p));
    out->slot = clamp_size(slot_bytes(p));
    out->seconds = t->latents * tsr_program_seconds(t->target, p);
    free(life);
error:
    tsr_program_destroy(&p);
    return status;
}

/* ---------------------------------------------------------------- laying out */

static tsr_status lay_out_arena(const tsr_task *t, tsr_step step, tsr_plan *p) {
    const tsr_program *program = p->program[step];
    int buffers = program->buffers, n = buffers + program->ops;
    tsr_life *life = lives_of(t->target, program);
    size_t *at = malloc((size_t)n * sizeof *at), bytes;
    p->buffer_at[step] = malloc((size_t)buffers * sizeof *at);
    p->scratch_at[step] = malloc((size_t)program->ops * sizeof *at);
    tsr_status status = life && at && p->buffer_at[step] && p->scratch_at[step]
                            ? tsr_pack(life, n, t->target->align, PACK_EFFORT, at, &bytes)
                            : tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    if (status == TSR_OK) {
        memcpy(p->buffer_at[step], at, (size_t)buffers * sizeof *at);
        for (int i = 0; i < program->ops; i++)
            p->scratch_at[step][i] = life[buffers + i].bytes ? at[buffers + i] : SIZE_MAX;
        size_t bound = tsr_pack_bound(life, n, t->target->align);
        p->arena_bytes = bytes > p->arena_bytes ? bytes : p->arena_bytes;
        p->arena_bound = bound > p->arena_bound ? bound : p->arena_bound;
    }
    free(life);
    free(at);
    return status;
}

static tsr_status lay_out_caches(const tsr_task *t, tsr_plan *p) {
    const tsr_program *program = NULL;
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        if (p->program[step] && p->program[step]->caches)
            program = p->program[step];
    if (!program)
        return TSR_OK;
    p->cache_at = malloc((size_t)program->caches * sizeof *p->cache_at);
    if (!p->cache_at)
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    for (int i = 0; i < program->caches; i++) {
        p->cache_at[i] = p->cache_bytes;
        p->cache_bytes += tsr_align(program->cache[i].bytes, t->target->align);
    }
    return TSR_OK;
}

tsr_status tsr_tile_lay_out(const tsr_task *t, tsr_shape s, tsr_plan *p) {
    tsr_status status = TSR_OK;
    weight_set set = {0};
    double tile_flops = 0, tile_seconds = 0;
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
        TSR_TRY(lay_out_arena(t, step, p));
        tile_flops += times * tsr_program_flops(program);
        tile_seconds += times * tsr_program_seconds(t->target, program);
        if (slot_bytes(program) > p->slot_bytes)
            p->slot_bytes = slot_bytes(program);
    }
    TSR_TRY(lay_out_caches(t, p));
    p->norm_at = malloc((size_t)t->half->layers * sizeof *p->norm_at);
    if (!p->norm_at)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "plan: out of memory"));
    p->weight_bytes = add_norms(t->half, t->target->align, set.bytes, p->norm_at);
    p->tile_h = s.h;
    p->tile_w = s.w;
    p->info.flops = tile_flops;
    p->info.seconds = tile_seconds;
error:
    p->weight = set.weight; /* the plan's, also on failure */
    p->weights = set.n;
    return status;
}

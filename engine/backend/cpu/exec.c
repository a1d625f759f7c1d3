/* A plan made ready to run: its blocks allocated, ops bound; and the running of a step. */
#include "backend/cpu/ref.h"
#include "backend/cpu/stream.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- ops */

static void *buffer_at(const tsr_exec *x, tsr_step step, int buffer) {
    if (buffer < 0)
        return NULL;
    const tsr_buffer *b = &x->plan->program[step]->buffer[buffer];
    size_t head = b->bytes / (size_t)(b->head + b->frames) * (size_t)b->head;
    return (b->paged ? x->host : x->arena) + x->plan->buffer_at[step][buffer] + head;
}

/* NORM to u8: the gain of the convolution that reads the codes. */
static const float *gain_for(const tsr_exec *x, tsr_step step, const tsr_op *norm) {
    const tsr_program *p = x->plan->program[step];
    for (const tsr_op *op = norm; op < p->op + p->ops; op++)
        if (op->kind == TSR_OP_CONV && op->in.buf == norm->out.buf)
            return tsr_exec_gain(x, x->plan->weight_of[step][op->kernel]);
    return NULL; /* not reached: what a norm writes is read */
}

static bool is_u8(const tsr_program *p, int buffer) {
    return buffer >= 0 && p->buffer[buffer].dtype == TSR_U8;
}

const void *tsr_exec_buffer(const tsr_exec *x, tsr_step step, int buffer) {
    return buffer_at(x, step, buffer);
}

static tsr_status bind_op(tsr_exec *x, int tiers, tsr_step step, int i) {
    const tsr_plan *plan = x->plan;
    const tsr_program *p = plan->program[step];
    const tsr_op *op = &p->op[i];
    tsr_bound_op *b = &x->op[step][i];
    int weight = op->kernel < 0 ? -1 : plan->weight_of[step][op->kernel];
    b->tier = weight < 0 ? tsr_tier_for(tiers, p, op) : x->packed_by[weight];
    b->io = (tsr_op_io){
        .program = p,
        .op = op,
        .in = buffer_at(x, step, op->in.buf),
        .out = buffer_at(x, step, op->out.buf),
        .stats_in = op->kind == TSR_OP_NORM ? buffer_at(x, step, op->stats) : NULL,
        .kernel = weight < 0 ? NULL : &x->packed[weight],
        .slot_dtype = plan->slot_dtype,
        .scratch = plan->scratch_at[step][i] == SIZE_MAX ? NULL : x->arena + plan->scratch_at[step][i],
    };
    if (op->kind == TSR_OP_NORM) {
        b->io.gamma = (const float *)(x->weights + plan->norm_at[op->layer]);
        b->io.beta = b->io.gamma + plan->half->layer[op->layer].cout;
    }
    int codes = is_u8(p, op->in.buf) ? op->in.buf : is_u8(p, op->out.buf) ? op->out.buf : -1;
    if (codes >= 0)
        b->io.range = &x->range[step][codes];
    if (op->kind == TSR_OP_NORM && codes >= 0)
        b->io.gain = gain_for(x, step, op);
    const tsr_op_impl *impl = &b->tier->op[op->kind];
    return impl->bind ? impl->bind(&b->io.bound, p, op, b->io.kernel) : TSR_OK;
}

static tsr_status bind_step(tsr_exec *x, int tiers, tsr_step step) {
    const tsr_program *p = x->plan->program[step];
    x->op[step] = calloc((size_t)p->ops, sizeof *x->op[step]);
    x->range[step] = calloc((size_t)p->buffers, sizeof *x->range[step]);
    if (!x->op[step] || !x->range[step])
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a step's ops");
    for (int i = 0; i < p->ops; i++) {
        tsr_status status = bind_op(x, tiers, step, i);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- life */

static tsr_status no_memory(size_t bytes, const char *what) {
    char text[32];
    return tsr_fail(
        TSR_ERR_MEMORY, "out of memory: %s for %s; give a smaller budget", tsr_bytes_text(text, (int64_t)bytes), what);
}

/* Frames and caches of levels that run in bands. */
static tsr_status allocate_host(tsr_exec *x) {
    char text[32];
    x->host = tsr_mem_alloc_host(x->plan->host_bytes);
    return x->host
               ? TSR_OK
               : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s of host memory for frames in bands; give a larger budget",
                     tsr_bytes_text(text, (int64_t)x->plan->host_bytes));
}

/* Activations and caches are one block, whose pages serve the next plan however much it has of either. */
static tsr_status allocate_arena(tsr_exec *x) {
    const tsr_plan *plan = x->plan;
    size_t caches = plan->cache_bytes * (size_t)plan->cache_sets;
    x->arena = tsr_mem_turn(x->arena, plan->arena_bytes + caches);
    if (!x->arena)
        return no_memory(plan->arena_bytes + caches, "activations and caches");
    x->caches = x->arena + plan->arena_bytes; /* a multiple of the target's align */
    return TSR_OK;
}

static tsr_status allocate_weights(tsr_exec *x) {
    const tsr_plan *plan = x->plan;
    x->weights = tsr_mem_alloc(plan->weight_bytes);
    if (!x->weights)
        return no_memory(plan->weight_bytes, "weights");
    x->packed = calloc((size_t)plan->weights + 1, sizeof *x->packed);
    x->packed_by = calloc((size_t)plan->weights + 1, sizeof *x->packed_by);
    return x->packed && x->packed_by ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "out of memory");
}

/* What x lacks to run its plan. What it has of memory may be of another one, weights of one with the same. */
static tsr_status fill(tsr_exec *x, tsr_cpu *cpu) {
    const tsr_plan *plan = x->plan;
    bool again = x->weights != NULL;
    tsr_status status;
    TSR_TRY(allocate_arena(x));
    TSR_TRY(plan->band ? allocate_host(x) : tsr_cpu_stream_create(&x->stream, plan, x->arena));
    if (!again)
        TSR_TRY(allocate_weights(x));
    TSR_TRY(tsr_exec_pack(x, cpu->tiers, again));
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        if (plan->program[s])
            TSR_TRY(bind_step(x, cpu->tiers, s));
error:
    return status;
}

tsr_status tsr_exec_create(tsr_exec **out, tsr_cpu *cpu, const tsr_plan *plan) {
    tsr_exec *x = calloc(1, sizeof *x);
    if (!x)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    x->plan = plan;
    tsr_status status = fill(x, cpu);
    if (status == TSR_OK)
        *out = x;
    else
        tsr_exec_destroy(&x);
    return status;
}

static void unbind_step(tsr_exec *x, tsr_step step) {
    for (int i = 0; x->op[step] && i < x->plan->program[step]->ops; i++) {
        tsr_bound_op *b = &x->op[step][i];
        if (b->io.bound)
            b->tier->op[b->io.op->kind].unbind(b->io.bound);
    }
    free(x->op[step]);
    free(x->range[step]);
    x->op[step] = NULL;
    x->range[step] = NULL;
}

/* All but the weights, and the arena's pages. */
static void empty(tsr_exec *x) {
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        unbind_step(x, s);
    tsr_cpu_stream_destroy(&x->stream);
    tsr_mem_free(x->host);
    x->host = NULL;
}

static void drop_weights(tsr_exec *x) {
    for (int i = 0; x->packed && x->packed_by && i < x->plan->weights; i++)
        if (x->packed[i].layout)
            x->packed_by[i]->unpack(&x->packed[i]);
    tsr_mem_free(x->weights);
    free(x->packed_by);
    free(x->packed);
    x->weights = NULL;
    x->packed_by = NULL;
    x->packed = NULL;
}

void tsr_exec_destroy(tsr_exec **out) {
    tsr_exec *x = *out;
    *out = NULL;
    if (!x)
        return;
    empty(x);
    drop_weights(x);
    tsr_mem_free(x->arena);
    free(x);
}

tsr_status tsr_exec_turn(tsr_exec **out, tsr_cpu *cpu, const tsr_plan *plan) {
    tsr_exec *x = *out;
    empty(x);
    if (!tsr_exec_same_weights(x->plan, plan))
        drop_weights(x);
    x->plan = plan;
    tsr_status status = fill(x, cpu);
    if (status != TSR_OK)
        tsr_exec_destroy(out);
    return status;
}

/* ---------------------------------------------------------------- running */

/* Where the op's cache lies on the device, or in bands, if it does; and the range of its codes. */
static void set_cache(const tsr_exec *x, int set, tsr_op_io *io) {
    const tsr_plan *p = x->plan;
    int cache = io->op->cache;
    size_t at = p->cache_at[cache];
    if (at == SIZE_MAX && x->stream) {
        io->cache_range = tsr_cpu_stream_range(x->stream, cache);
        return;
    }
    io->cache = at == SIZE_MAX ? x->host + p->host_at[cache] : x->caches + (size_t)set * p->cache_bytes + at;
    io->cache_range = tsr_cache_range(&io->program->cache[cache], io->cache);
}

static tsr_status run_op(tsr_exec *x, const tsr_cpu *cpu, const tsr_step_args *args, int i, int band) {
    const tsr_plan *plan = x->plan;
    const tsr_bound_op *b = &x->op[args->step][i];
    tsr_op_io io = b->io;
    const tsr_op *op = io.op;
    if (op->cache >= 0 && !plan->cache_at) /* a video of one latent keeps nothing */
        return TSR_OK;
    io.band = band;
    if (op->cache >= 0)
        set_cache(x, args->cache_set, &io);
    io.input = args->input;
    io.not_finite = &x->not_finite;
    io.stop = cpu->base.cancel;
    io.slot = (char *)args->slab->host + args->slot_at;
    if (!io.cache && (op->kind == TSR_OP_CACHE_LOAD || op->kind == TSR_OP_CACHE_SAVE)) {
        tsr_cpu_stream_op(x->stream, &io);
        return TSR_OK;
    }
    tsr_status status = b->tier->op[op->kind].run(&io);
    if (status == TSR_OK) {
        tsr_cpu_round(io.program, op, io.out);
        tsr_band_pad(&io);
    }
    return status;
}

static tsr_status stopped(const tsr_cpu *cpu) {
    bool stop = cpu->base.cancel && atomic_load(cpu->base.cancel);
    return stop ? tsr_fail(TSR_ERR_CANCELLED, "cancelled") : TSR_OK;
}

/* One op, with what is due around every one. */
static tsr_status take(tsr_exec *x, tsr_cpu *cpu, const tsr_step_args *args, int i, int band) {
    const tsr_program *p = x->plan->program[args->step];
    if (stopped(cpu) != TSR_OK)
        return TSR_ERR_CANCELLED;
    double begin = cpu->base.on_op ? tsr_now() : 0;
    if (x->stream)
        tsr_cpu_stream_before(x->stream, i);
    tsr_status status = run_op(x, cpu, args, i, band);
    if (status == TSR_OK && stopped(cpu) != TSR_OK) /* perhaps in the middle of it */
        return TSR_ERR_CANCELLED;
    if (status != TSR_OK) {
        char text[160];
        return tsr_fail_context(status, "%s", tsr_op_text(text, p, &p->op[i]));
    }
    if (cpu->base.on_op)
        cpu->base.on_op(cpu->base.on_op_user, p, i, begin, tsr_now());
    return TSR_OK;
}

tsr_status tsr_exec_step(tsr_exec *x, tsr_cpu *cpu, const tsr_step_args *args) {
    const tsr_program *p = x->plan->program[args->step];
    atomic_store(&x->not_finite, 0);
    tsr_status status = TSR_OK;
    if (x->stream)
        tsr_cpu_stream_begin(x->stream, args->step);
    for (int i = 0, end; i < p->ops; i = end) {
        int section = p->op[i].section;
        end = section < 0 ? i + 1 : p->section[section].end;
        for (int band = 0; band < tsr_op_runs(p, &p->op[i]); band++)
            for (int j = i; j < end; j++)
                TSR_TRY(take(x, cpu, args, j, band));
    }
    if (args->not_finite)
        *args->not_finite = atomic_load(&x->not_finite);
error:
    return status;
}

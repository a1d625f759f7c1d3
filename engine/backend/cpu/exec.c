/* A plan made ready to run: its blocks allocated, kernels packed, ops bound; and the running of a
 * step. */
#include "backend/cpu/ref.h"
#include "backend/cpu/stream.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- weights */

/* Of the ops that use a kernel, the one with the most work: the kernel is packed to suit it. */
static const tsr_op *largest_user(const tsr_plan *plan, int weight, int *step) {
    const tsr_op *largest = NULL;
    double most = -1;
    for (int s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = plan->program[s];
        for (int i = 0; p && i < p->ops; i++) {
            const tsr_op *op = &p->op[i];
            if (op->kernel < 0 || plan->weight_of[s][op->kernel] != weight ||
                tsr_op_flops(p, op) <= most)
                continue;
            most = tsr_op_flops(p, op);
            largest = op;
            *step = s;
        }
    }
    return largest;
}

/* The fastest tier that runs every op which uses the kernel: a kernel is packed for one tier. */
static const tsr_tier *tier_of_kernel(const tsr_plan *plan, int tiers, int weight) {
    for (int s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = plan->program[s];
        for (int i = 0; p && i < p->ops; i++) {
            const tsr_op *op = &p->op[i];
            while (op->kernel >= 0 && plan->weight_of[s][op->kernel] == weight && tiers > 1) {
                const tsr_op_impl *impl = &tsr_tier_at(tiers - 1)->op[TSR_OP_CONV];
                if (impl->run && (!impl->can || impl->can(p, op)))
                    break;
                tiers--;
            }
        }
    }
    return tsr_tier_at(tiers - 1);
}

/* The numbers a kernel's inputs are rounded to: their type, or that of which they are numbers. */
static tsr_dtype input_type(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf];
    return in->dtype == TSR_F32 ? in->rounded : in->dtype;
}

/* Kernels of u8 inputs have their gain [cin] at the end of their block. */
static float *gain_of(const tsr_exec *x, int weight) {
    const tsr_plan_weight *w = &x->plan->weight[weight];
    return (float *)(x->weights + w->at + w->bytes - (size_t)w->kernel->cin * sizeof(float));
}

/* e4m3 codes of activations are eight times the number, which f32 inputs are not; and f32 tiers
 * know no scales. */
static void scale_filters(const tsr_kernel *k, const float *scale, float *weights) {
    size_t filter = tsr_kernel_weights(k) / (size_t)k->cout;
    for (size_t o = 0; o < (size_t)k->cout; o++)
        for (size_t i = 0; i < filter; i++)
            weights[o * filter + i] *= scale[o];
}

/* Room for biases, and a scale for each. */
static tsr_status pack_kernel(tsr_exec *x, int tiers, int weight, float *weights, float *biases) {
    const tsr_plan_weight *w = &x->plan->weight[weight];
    int step = 0;
    const tsr_op *op = largest_user(x->plan, weight, &step);
    x->packed_by[weight] = tier_of_kernel(x->plan, tiers, weight);
    tsr_dtype type = input_type(x->plan->program[step], op);
    float *scale = biases + tsr_kernel_biases(w->kernel),
          *gain = type == TSR_U8 ? gain_of(x, weight) : NULL;
    x->packed[weight] = (tsr_packed){.kernel = w->kernel, .scale = scale, .at = x->weights + w->at};
    tsr_status status =
        tsr_kernel_fold(x->plan->half, w->kernel, tsr_tier_gemm(tiers), weights, biases);
    if (status == TSR_OK)
        status = tsr_quantise_kernel(x->plan->half, w->kernel, type, weights, biases, scale, gain);
    if (status == TSR_OK && type == TSR_E4M3)
        scale_filters(w->kernel, scale, weights);
    if (status == TSR_OK)
        status = x->packed_by[weight]->pack(
            &x->packed[weight], x->plan->program[step], op, weights, biases);
    return status;
}

static tsr_status pack_kernels(tsr_exec *x, int tiers) {
    const tsr_plan *plan = x->plan;
    size_t weights = 0, biases = 0;
    for (int i = 0; i < plan->weights; i++) {
        size_t w = tsr_kernel_weights(plan->weight[i].kernel),
               b = tsr_kernel_biases(plan->weight[i].kernel);
        weights = w > weights ? w : weights;
        biases = b > biases ? b : biases;
    }
    /* Not counted: gone again before the arena's pages are first touched. */
    float *folded = malloc((weights + 2 * biases) * sizeof *folded);
    if (!folded)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for folding weights");
    tsr_status status = TSR_OK;
    for (int i = 0; i < plan->weights && status == TSR_OK; i++)
        status = pack_kernel(x, tiers, i, folded, folded + weights);
    free(folded);
    return status;
}

static void read_norms(tsr_exec *x) {
    const tsr_half *half = x->plan->half;
    for (int i = 0; i < half->layers; i++) {
        const tsr_layer *l = &half->layer[i];
        if (x->plan->norm_at[i] == SIZE_MAX)
            continue;
        float *gamma = (float *)(x->weights + x->plan->norm_at[i]);
        tsr_tensor_read(l->weight[0], 0, (size_t)l->cout, gamma);
        tsr_tensor_read(l->bias[0], 0, (size_t)l->cout, gamma + l->cout);
    }
}

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
            return gain_of(x, x->plan->weight_of[step][op->kernel]);
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
        .scratch =
            plan->scratch_at[step][i] == SIZE_MAX ? NULL : x->arena + plan->scratch_at[step][i],
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

static tsr_status allocate(char **out, size_t bytes, const char *what) {
    if (bytes == 0)
        return TSR_OK;
    *out = tsr_mem_alloc(bytes);
    if (*out)
        return TSR_OK;
    char text[32];
    return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s for %s; give a smaller budget",
        tsr_bytes_text(text, (int64_t)bytes), what);
}

/* Frames and caches of levels that run in bands. */
static tsr_status allocate_host(tsr_exec *x) {
    char text[32];
    x->host = tsr_mem_alloc_host(x->plan->host_bytes);
    return x->host ? TSR_OK
                   : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s of host memory for frames in bands; give a larger budget",
                         tsr_bytes_text(text, (int64_t)x->plan->host_bytes));
}

tsr_status tsr_exec_create(tsr_exec **out, tsr_cpu *cpu, const tsr_plan *plan) {
    tsr_status status;
    tsr_exec *x = calloc(1, sizeof *x);
    if (!x)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    x->plan = plan;
    x->packed = calloc((size_t)plan->weights + 1, sizeof *x->packed);
    x->packed_by = calloc((size_t)plan->weights + 1, sizeof *x->packed_by);
    if (!x->packed || !x->packed_by) {
        status = tsr_fail(TSR_ERR_MEMORY, "out of memory");
        goto error;
    }
    TSR_TRY(allocate(&x->weights, plan->weight_bytes, "weights"));
    TSR_TRY(allocate(&x->arena, plan->arena_bytes, "activations"));
    TSR_TRY(allocate(&x->caches, plan->cache_bytes * (size_t)plan->cache_sets, "caches"));
    TSR_TRY(plan->band ? allocate_host(x) : tsr_cpu_stream_create(&x->stream, plan, x->arena));
    TSR_TRY(pack_kernels(x, cpu->tiers));
    read_norms(x);
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        if (plan->program[s])
            TSR_TRY(bind_step(x, cpu->tiers, s));
    *out = x;
    return TSR_OK;
error:
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
}

void tsr_exec_destroy(tsr_exec **out) {
    tsr_exec *x = *out;
    if (!x)
        return;
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        unbind_step(x, s);
    for (int i = 0; x->packed && x->packed_by && i < x->plan->weights; i++)
        if (x->packed[i].layout)
            x->packed_by[i]->unpack(&x->packed[i]);
    tsr_cpu_stream_destroy(&x->stream);
    tsr_mem_free(x->host);
    tsr_mem_free(x->caches);
    tsr_mem_free(x->arena);
    tsr_mem_free(x->weights);
    free(x->packed_by);
    free(x->packed);
    free(x);
    *out = NULL;
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

static tsr_status run_op(tsr_exec *x, const tsr_step_args *args, int i, int band) {
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

/* One op, with what is due around every one. */
static tsr_status take(tsr_exec *x, tsr_cpu *cpu, const tsr_step_args *args, int i, int band) {
    const tsr_program *p = x->plan->program[args->step];
    if (cpu->base.cancel && atomic_load(cpu->base.cancel))
        return tsr_fail(TSR_ERR_CANCELLED, "cancelled");
    double begin = cpu->base.on_op ? tsr_now() : 0;
    if (x->stream)
        tsr_cpu_stream_before(x->stream, i);
    tsr_status status = run_op(x, args, i, band);
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

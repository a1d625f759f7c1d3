#include "direct.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct direct {
    tsr_plan plan;
    direct_params params;
    tsr_backend *backend;
    tsr_exec *exec;
    tsr_slab slab;
    void *mapped; /* an exported slab, as its importer sees it */
    uint64_t value;
};

static tsr_step kind_of(const direct *d, int step) {
    return step == 0 ? TSR_STEP_FIRST : step == 1 && !d->params.encode ? TSR_STEP_SECOND : TSR_STEP_LATER;
}

static const tsr_program *program_of(const direct *d, int step) {
    return d->plan.program[kind_of(d, step)];
}

/* ---------------------------------------------------------------- the plan */

static size_t place(size_t *end, size_t bytes, size_t align) {
    size_t at = tsr_align(*end, align);
    *end = at + bytes;
    return at;
}

static int weight_index(tsr_plan *p, const tsr_kernel *k, tsr_dtype input) {
    const tsr_target *t = &p->target;
    for (int i = 0; i < p->weights; i++)
        if (p->weight[i].kernel->layer == k->layer && p->weight[i].kernel->fold == k->fold &&
            p->weight[i].input == input)
            return i;
    p->weight = realloc(p->weight, ((size_t)p->weights + 1) * sizeof *p->weight);
    size_t bytes = t->kernel_bytes(t->ctx, k, input);
    p->weight[p->weights] = (tsr_plan_weight){k, input, place(&p->weight_bytes, bytes, t->align), bytes};
    return p->weights++;
}

static void lay_out_step(tsr_plan *p, tsr_step s) {
    const tsr_program *g = p->program[s];
    const tsr_target *t = &p->target;
    p->weight_of[s] = calloc((size_t)g->kernels, sizeof(int));
    p->buffer_at[s] = calloc((size_t)g->buffers, sizeof(size_t));
    p->scratch_at[s] = calloc((size_t)g->ops, sizeof(size_t));
    size_t end = 0;
    for (int i = 0; i < g->buffers; i++)
        p->buffer_at[s][i] = place(g->buffer[i].paged ? &p->host_bytes : &end, g->buffer[i].bytes, t->align);
    for (int i = 0; i < g->ops; i++) {
        const tsr_op *op = &g->op[i];
        size_t scratch = t->op_scratch(t->ctx, g, op);
        p->scratch_at[s][i] = scratch ? place(&end, scratch, t->align) : SIZE_MAX;
        if (op->kernel >= 0)
            p->weight_of[s][op->kernel] = weight_index(p, &g->kernel[op->kernel], g->buffer[op->in.buf].dtype);
    }
    end = tsr_align(end, t->align);
    p->arena_bytes = end > p->arena_bytes ? end : p->arena_bytes;
}

static void lay_out_rest(tsr_plan *p) {
    const tsr_half *half = p->half;
    p->norm_at = calloc((size_t)half->layers, sizeof(size_t));
    for (int i = 0; i < half->layers; i++) {
        const tsr_layer *l = &half->layer[i];
        bool norm = l->kind == TSR_LAYER_NORM;
        p->norm_at[i] = norm ? place(&p->weight_bytes, 2 * (size_t)l->cout * sizeof(float), p->target.align) : SIZE_MAX;
    }
    const tsr_program *last = NULL;
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        last = p->program[s] ? p->program[s] : last;
    p->cache_at = last->caches ? calloc((size_t)last->caches, sizeof(size_t)) : NULL;
    p->host_at = last->caches && last->bands ? calloc((size_t)last->caches, sizeof(size_t)) : NULL;
    for (int i = 0; i < last->caches; i++) {
        size_t *end = last->cache[i].paged ? &p->host_bytes : &p->cache_bytes,
               at = place(end, last->cache[i].bytes, p->target.align);
        p->cache_at[i] = last->cache[i].paged ? SIZE_MAX : at;
        if (p->host_at)
            p->host_at[i] = at;
    }
    p->cache_sets = last->caches > 0;
    p->slot_bytes = (size_t)last->out_frames * (size_t)last->out_c * (size_t)last->out_h * (size_t)last->out_w * 4;
    p->slot_dtype = TSR_F32;
    p->slots = 1;
}

static tsr_status make_programs(direct *d) {
    tsr_plan *p = &d->plan;
    p->params.precision = d->params.precision ? d->params.precision : TSR_PRECISION_F32;
    p->target.numerics(p->target.ctx, p->params.precision, p->half, &p->numerics);
    for (int i = 0; i < d->params.steps; i++) {
        tsr_step s = kind_of(d, i);
        tsr_program_params params = {.encode = d->params.encode,
            .step = s,
            .h = d->params.h,
            .w = d->params.w,
            .numerics = p->numerics,
            .keep = i + 1 < d->params.steps,
            .join_heads = p->target.join_heads || d->params.join_heads,
            .slice_level = d->params.slice_level > 0 ? d->params.slice_level : TSR_MAX_LEVELS,
            .band = d->params.band,
            .page_level = d->params.page_level};
        if (s != TSR_STEP_FIRST)
            params.keep = true; /* one program for the last of its kind and those before */
        tsr_status status = p->program[s] ? TSR_OK : tsr_program_create(&p->program[s], p->half, &params);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

tsr_status direct_create(direct **out, tsr_backend *b, const tsr_half *half, const direct_params *params) {
    tsr_status status;
    direct *d = calloc(1, sizeof *d);
    d->params = *params;
    d->backend = b;
    d->plan.half = half;
    d->plan.band = params->band;
    b->v->target(b, &d->plan.target);
    TSR_TRY(make_programs(d));
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        if (d->plan.program[s])
            lay_out_step(&d->plan, s);
    lay_out_rest(&d->plan);
    TSR_TRY(b->v->slab_alloc(b, d->plan.slot_bytes, &d->slab));
    if (d->slab.kind == TSR_SLAB_EXPORTED) {
        d->mapped = mmap(NULL, d->slab.export_bytes, PROT_READ, MAP_SHARED, d->slab.handle, 0);
        if (d->mapped == MAP_FAILED)
            abort();
    }
    TSR_TRY(b->v->prepare(b, &d->plan, &d->exec));
    *out = d;
    return TSR_OK;
error:
    direct_destroy(&d);
    *out = NULL;
    return status;
}

void direct_destroy(direct **out) {
    direct *d = *out;
    if (!d)
        return;
    d->backend->v->exec_destroy(d->backend, &d->exec);
    if (d->mapped)
        munmap(d->mapped, d->slab.export_bytes);
    d->backend->v->slab_free(d->backend, &d->slab);
    tsr_plan *p = &d->plan;
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++) {
        tsr_program_destroy(&p->program[s]);
        free(p->weight_of[s]);
        free(p->buffer_at[s]);
        free(p->scratch_at[s]);
    }
    free(p->weight);
    free(p->norm_at);
    free(p->cache_at);
    free(p->host_at);
    free(d);
    *out = NULL;
}

const tsr_plan *direct_plan(const direct *d) {
    return &d->plan;
}

tsr_exec *direct_exec(const direct *d) {
    return d->exec;
}

/* ---------------------------------------------------------------- running */

int direct_step_frame(const direct *d, int step, int per_step) {
    (void)d;
    return step == 0 ? 0 : 1 + (step - 1) * per_step;
}

void direct_extent(const direct *d, int *channels, int *frames, int *height, int *width) {
    const tsr_program *last = program_of(d, d->params.steps - 1);
    *channels = last->out_c;
    *frames = direct_step_frame(d, d->params.steps, last->out_frames);
    if (d->params.steps == 1)
        *frames = 1;
    *height = last->out_h;
    *width = last->out_w;
}

static void take_slot(const direct *d, int step, float *out) {
    const tsr_program *p = program_of(d, step);
    int channels, frames, h, w;
    direct_extent(d, &channels, &frames, &h, &w);
    size_t plane = (size_t)h * (size_t)w;
    const float *from = d->mapped ? d->mapped : d->slab.host;
    for (int f = 0; f < p->out_frames; f++)
        for (int c = 0; c < channels; c++) {
            size_t to = (size_t)c * (size_t)frames + (size_t)(direct_step_frame(d, step, p->out_frames) + f);
            memcpy(out + to * plane, from + (size_t)(f * channels + c) * plane, plane * sizeof *out);
        }
}

tsr_status direct_run(direct *d, const float *input, float *out) {
    for (int i = 0; i < d->params.steps; i++) {
        const tsr_program *p = program_of(d, i);
        size_t frame = (size_t)p->in_h * (size_t)p->in_w * (size_t)p->in_c;
        tsr_step_args args = {.step = kind_of(d, i),
            .slab = &d->slab,
            .input = input + (size_t)direct_step_frame(d, i, p->in_frames) * frame};
        args.ready_value = ++d->value;
        tsr_status status = d->backend->v->step(d->backend, d->exec, &args);
        if (status == TSR_OK && d->backend->v->asynchronous)
            status = d->backend->v->wait(d->backend, d->exec, args.ready_value);
        if (status != TSR_OK)
            return status;
        take_slot(d, i, out);
    }
    return TSR_OK;
}

/* Which kernel runs a conv where several could: the first time a GPU sees a plan, each choice is timed on one of the
 * plan's convs, and the fastest is kept in the cache folder, a line for each kind of operand and family:
 *
 *   tessera tiles 1
 *   E4M3 3x3 K33T
 */
#include "backend/cuda/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMED = 3 }; /* launches, after one that warms up */

static const char *const family_name[TSR_CUDA_FAMILIES] = {"3x3", "2x2"};
static const char HEAD[] = "tessera tiles 1\n";

bool tsr_cuda_hopper(const tsr_cuda *c) {
    return c->major == 9;
}

bool tsr_cuda_has(const tsr_cuda *c, tsr_conv_shape shape, tsr_dtype input) {
    const tsr_conv_form *f = &tsr_conv_forms[shape];
    if ((tsr_dtype_size(input) == 1 && !f->eight) || (input == TSR_BF16 && !f->bf16))
        return false;
    if (input == TSR_E4M3)
        return tsr_cuda_fp8(c) && f->hopper == tsr_cuda_hopper(c);
    return !f->hopper || tsr_cuda_hopper(c);
}

static int element_of(tsr_dtype input) {
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        if (tsr_cuda_element[e] == input)
            return e;
    return 0; /* not reached: there is a shape for it */
}

static tsr_cuda_family family_of(tsr_conv_shape shape) {
    return tsr_conv_forms[shape].kh == 2 ? TSR_CUDA_2X2 : TSR_CUDA_3X3;
}

tsr_conv_shape tsr_cuda_shape(const tsr_cuda *c, const tsr_kernel *k, tsr_dtype input) {
    tsr_conv_shape shape[TSR_CONV_CHOICES];
    int n = tsr_conv_choices(k, input, tsr_cuda_hopper(c), shape);
    if (n < 1)
        return TSR_CONV_SHAPE_COUNT;
    tsr_conv_shape tuned = c->tuned[element_of(input)][family_of(shape[0])];
    for (int i = 0; i < n; i++)
        if (shape[i] == tuned)
            return tuned;
    return shape[0];
}

/* ---------------------------------------------------------------- the cache folder */

static void file_name(const tsr_cuda *c, char name[128]) {
    snprintf(name, 128, "tiles-%.96s.txt", c->name);
    for (char *s = name; *s; s++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", *s))
            *s = '_';
}

/* Lines that name nothing known here are left out. */
static void read_line(tsr_cuda *c, const char *line) {
    char element[8], family[8], shape[8];
    if (sscanf(line, "%7s %7s %7s", element, family, shape) != 3)
        return;
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int f = 0; f < TSR_CUDA_FAMILIES; f++)
            for (int s = 0; s < TSR_CONV_SHAPE_COUNT; s++)
                if (strcmp(element, tsr_dtype_name(tsr_cuda_element[e])) == 0 && strcmp(family, family_name[f]) == 0 &&
                    strcmp(shape, tsr_conv_forms[s].name) == 0)
                    c->tuned[e][f] = (tsr_conv_shape)s; /* where it cannot be, tsr_cuda_shape() takes another */
}

static void read_file(tsr_cuda *c) {
    char name[128];
    file_name(c, name);
    c->tuned_read = true;
    char *text = c->base.kept(name);
    if (text && strncmp(text, HEAD, strlen(HEAD)) == 0)
        for (const char *line = text; line; line = strchr(line, '\n')) {
            line += *line == '\n';
            read_line(c, line);
        }
    free(text);
}

static void write_file(const tsr_cuda *c) {
    char name[128], text[1024];
    int n = snprintf(text, sizeof text, "%s", HEAD);
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int f = 0; f < TSR_CUDA_FAMILIES; f++)
            if (c->tuned[e][f] != TSR_CONV_SHAPE_COUNT)
                n += snprintf(text + n, sizeof text - (size_t)n, "%s %s %s\n", tsr_dtype_name(tsr_cuda_element[e]),
                    family_name[f], tsr_conv_forms[c->tuned[e][f]].name);
    file_name(c, name);
    c->base.keep(name, text);
}

/* ---------------------------------------------------------------- measuring */

tsr_status tsr_cuda_time(const tsr_cuda *c, CUresult (*run)(void *ctx), void *ctx, int times, float *out) {
    CUevent event[2] = {NULL, NULL};
    tsr_status status;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventCreate(&event[0], CU_EVENT_DEFAULT), "making an event"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventCreate(&event[1], CU_EVENT_DEFAULT), "making an event"));
    for (int i = 0; i <= times; i++) {
        TSR_TRY(tsr_cu_check(run(ctx), "trying a kernel"));
        if (i == 0)
            TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventRecord(event[0], c->stream), "recording an event"));
    }
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventRecord(event[1], c->stream), "recording an event"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventSynchronize(event[1]), "trying a kernel"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuEventElapsedTime(out, event[0], event[1]), "timing a kernel"));
    *out /= (float)times;
error:
    for (int i = 0; i < 2; i++)
        if (event[i])
            tsr_cu.p_cuEventDestroy(event[i]);
    return status;
}

typedef struct trial {
    const tsr_cuda *c;
    tsr_cuda_launch *l;
} trial;

static CUresult run_trial(void *ctx) {
    const trial *t = ctx;
    void *param[1] = {&t->l->args};
    return tsr_cu.p_cuLaunchKernel((CUfunction)t->l->kernel, t->l->grid[0], t->l->grid[1], t->l->grid[2],
        TSR_CONV_THREADS, 1, 1, t->l->shared, t->c->stream, param, NULL);
}

typedef struct sample { /* a conv of the plan to measure a family on */
    tsr_step step;
    int op; /* -1: none */
    double flops;
} sample;

/* Of those that fill the GPU for a few turns the smallest, for it is over soonest; else the largest. */
static void consider(const tsr_exec *x, tsr_step step, int op, sample *best) {
    const tsr_program *p = x->plan->program[step];
    const tsr_buffer *out = &p->buffer[p->op[op].out.buf];
    double flops = tsr_op_flops(p, &p->op[op]);
    double full = 4.0 * x->cuda->sms * 256 * 128; /* numbers of 4 blocks of the largest tile on each multiprocessor */
    double now = (double)out->h * out->w * out->c * p->op[op].out.nt;
    bool enough = now >= full, had = best->op >= 0 && best->flops > 0;
    if (best->op < 0 || (enough && (!had || flops < best->flops)) || (!enough && !had && flops > -best->flops))
        *best = (sample){step, op, enough ? flops : -flops};
}

static sample sample_of(const tsr_exec *x, tsr_dtype input, tsr_cuda_family family) {
    sample best = {0, -1, 0};
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++) {
        const tsr_program *p = x->plan->program[s];
        for (int i = 0; p && i < p->ops; i++) {
            tsr_conv_shape shape[TSR_CONV_CHOICES];
            const tsr_op *op = &p->op[i];
            if (op->kind == TSR_OP_CONV && p->buffer[op->in.buf].dtype == input &&
                tsr_conv_choices(&p->kernel[op->kernel], input, tsr_cuda_hopper(x->cuda), shape) > 1 &&
                family_of(shape[0]) == family)
                consider(x, s, i, &best);
        }
    }
    return best;
}

static tsr_status measure(tsr_exec *x, const sample *on, tsr_dtype input, tsr_conv_shape *fastest) {
    const tsr_program *p = x->plan->program[on->step];
    int weight = x->plan->weight_of[on->step][p->op[on->op].kernel];
    const tsr_kernel *k = x->plan->weight[weight].kernel;
    tsr_conv_shape shape[TSR_CONV_CHOICES];
    int n = tsr_conv_choices(k, input, tsr_cuda_hopper(x->cuda), shape);
    float least = 0;
    char text[160];
    for (int i = 0; i < n; i++) {
        tsr_cuda_launch l;
        float ms = 0;
        x->packing[weight] = tsr_conv_packing_of(k, shape[i], input);
        tsr_status status = tsr_cuda_bind_alone(x, on->step, on->op, &l);
        if (status == TSR_OK && l.moves == MOVES_PAST)
            l.args.conv.past = (const void *)(uintptr_t)(x->caches + l.from);
        if (status == TSR_OK)
            status = tsr_cuda_time(x->cuda, run_trial, &(trial){x->cuda, &l}, TIMED, &ms);
        if (status != TSR_OK)
            return status;
        tsr_log(TSR_LOG_DEBUG, "cuda: %s %s: %.3f ms for %s", tsr_dtype_name(input), tsr_conv_forms[shape[i]].name,
            (double)ms, tsr_op_text(text, p, &p->op[on->op]));
        if (i == 0 || ms < least) {
            least = ms;
            *fastest = shape[i];
        }
    }
    return TSR_OK;
}

tsr_status tsr_cuda_autotune(tsr_exec *x) {
    tsr_cuda *c = x->cuda;
    bool found = false;
    if (!c->base.kept || !c->base.keep)
        return TSR_OK;
    if (!c->tuned_read)
        read_file(c);
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int f = 0; f < TSR_CUDA_FAMILIES; f++) {
            sample on = sample_of(x, tsr_cuda_element[e], (tsr_cuda_family)f);
            if (on.op < 0 || c->tuned[e][f] != TSR_CONV_SHAPE_COUNT)
                continue;
            tsr_status status = measure(x, &on, tsr_cuda_element[e], &c->tuned[e][f]);
            if (status != TSR_OK)
                return status;
            found = true;
        }
    if (found)
        write_file(c);
    *x->flag = 0; /* what the memory held was no numbers */
    return TSR_OK;
}

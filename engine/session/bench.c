#include <tessera/bench.h>

#include "session/bench_ops.h"
#include "session/steps.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tsr_status check_params(const tsr_bench_params *p) {
    if (p->repetitions < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "bench: %d repetitions; ask for at least 1", p->repetitions);
    return TSR_OK;
}

/* ---------------------------------------------------------------- ops */

typedef struct timing {              /* seconds of every op of every step, in every repetition */
    int repetitions, repetition;     /* -1: the warm-up, not kept */
    double *seconds[TSR_STEP_COUNT]; /* [ops][repetitions] */
    tsr_backend *b;
} timing;

static void op_done(void *user, const tsr_program *p, int op, double begin, double end) {
    timing *t = user;
    if (t->repetition >= 0)
        t->seconds[p->params.step][op * t->repetitions + t->repetition] += end - begin; /* ops may run in pieces */
}

static tsr_status run_steps(tsr_engine *e, const tsr_plan *p, timing *t) {
    tsr_steps steps;
    atomic_store(&e->cancel, false);
    tsr_status status = tsr_steps_open(&steps, e, p);
    e->backend->on_op = op_done;
    e->backend->on_op_user = t;
    for (t->repetition = -1; status == TSR_OK && t->repetition < t->repetitions; t->repetition++)
        for (tsr_step s = 0; status == TSR_OK && s < TSR_STEP_COUNT && p->program[s]; s++)
            status = tsr_steps_run(&steps, s);
    e->backend->on_op = NULL;
    tsr_steps_close(&steps);
    return status;
}

/* "conv 3x3x3 ..." of "up_blocks.0.resnets.0.conv1 conv 3x3x3 ...". */
static const char *shape_of(const char *text, const tsr_op *op) {
    char kind[64];
    snprintf(kind, sizeof kind, " %s ", tsr_op_kind_name(op->kind));
    const char *at = strstr(text, kind);
    return at ? at + 1 : text;
}

typedef struct group { /* ops of one shape */
    tsr_bench_op op;
    char shape[160];
    const tsr_op *one; /* of them */
} group;

static void add_op(group *groups, int *count, const tsr_program *p, const tsr_op *op, double seconds) {
    char text[160];
    const char *shape = shape_of(tsr_op_text(text, p, op), op);
    int i = 0;
    while (i < *count && strcmp(groups[i].shape, shape) != 0)
        i++;
    group *g = &groups[i];
    if (i == *count) {
        *g = (group){.op.step = tsr_step_name(p->params.step), .one = op};
        snprintf(g->shape, sizeof g->shape, "%s", shape);
        ++*count;
    }
    g->op.count++;
    g->op.seconds += seconds;
    g->op.flops += tsr_op_runs(p, op) * tsr_op_flops(p, op);
    g->op.bytes += tsr_op_runs(p, op) * tsr_op_bytes(p, op);
}

static int slowest_first(const void *a, const void *b) {
    double x = ((const group *)a)->op.seconds, y = ((const group *)b)->op.seconds;
    return (x < y) - (x > y);
}

tsr_status tsr_bench_report_step(const tsr_program *p,
    double (*seconds)(void *ctx, const tsr_program *p, const tsr_op *op),
    double (*ceiling)(void *ctx, const tsr_program *p, const tsr_op *op),
    double (*copy)(void *ctx, const tsr_program *p, const tsr_op *op), void *ctx,
    void (*on_op)(void *user, const tsr_bench_op *op), void *user) {
    group *groups = calloc((size_t)p->ops, sizeof *groups);
    if (!groups)
        return tsr_fail(TSR_ERR_MEMORY, "bench: no memory");
    int count = 0;
    double all = 0;
    for (int i = 0; i < p->ops; i++) {
        double took = seconds(ctx, p, &p->op[i]);
        add_op(groups, &count, p, &p->op[i], took);
        all += took;
    }
    qsort(groups, (size_t)count, sizeof *groups, slowest_first);
    for (int i = 0; i < count; i++) {
        group *g = &groups[i];
        g->op.shape = g->shape;
        g->op.share = all > 0 ? g->op.seconds / all : 0;
        if (g->one->kernel >= 0 && ceiling)
            g->op.ceiling = ceiling(ctx, p, g->one);
        if (g->op.flops == 0 && copy)
            g->op.copy = copy(ctx, p, g->one);
        on_op(user, &g->op);
    }
    free(groups);
    return TSR_OK;
}

static double measured(void *ctx, const tsr_program *p, const tsr_op *op) {
    const timing *t = ctx;
    return tsr_median(&t->seconds[p->params.step][(op - p->op) * t->repetitions], t->repetitions);
}

static tsr_precision precision_of(tsr_dtype t) {
    return t == TSR_U8     ? TSR_PRECISION_INT8
           : t == TSR_E4M3 ? TSR_PRECISION_FP8
           : t == TSR_F16  ? TSR_PRECISION_FP16
           : t == TSR_BF16 ? TSR_PRECISION_BF16
                           : TSR_PRECISION_F32;
}

/* By the device's plain product of the same sizes and of what the op reads. */
static double product_rate(void *ctx, const tsr_program *p, const tsr_op *op) {
    const timing *t = ctx;
    const tsr_kernel *k = &p->kernel[op->kernel];
    int depth = k->kt * k->kh * k->kw * k->cin;
    int rows = (int)fmin(INT_MAX, tsr_op_flops(p, op) / 2 / k->cout / depth);
    tsr_precision precision = precision_of(p->buffer[op->in.buf].dtype);
    return rows > 0 ? t->b->v->gemm_rate(t->b, precision, rows, k->cout, depth) : 0;
}

/* In the caches or out of them, as the op's own bytes are. */
static double copy_rate(void *ctx, const tsr_program *p, const tsr_op *op) {
    const timing *t = ctx;
    return t->b->v->copy_rate(t->b, (size_t)tsr_op_bytes(p, op));
}

tsr_status tsr_bench_ops(tsr_engine *e, tsr_model *m, const tsr_bench_params *params,
    void (*on_op)(void *user, const tsr_bench_op *op), void *user) {
    tsr_plan *p = NULL;
    timing t = {.repetitions = params->repetitions};
    tsr_status status = TSR_OK;
    TSR_TRY(check_params(params));
    TSR_TRY(tsr_plan_create(&p, e, m, &params->extent, &params->plan));
    for (tsr_step s = 0; s < TSR_STEP_COUNT && p->program[s]; s++) {
        t.seconds[s] = calloc((size_t)p->program[s]->ops * (size_t)t.repetitions, sizeof(double));
        if (!t.seconds[s]) {
            status = tsr_fail(TSR_ERR_MEMORY, "bench: no memory");
            goto error;
        }
    }
    TSR_TRY(run_steps(e, p, &t));
    t.b = e->backend;
    for (tsr_step s = 0; s < TSR_STEP_COUNT && p->program[s]; s++)
        TSR_TRY(tsr_bench_report_step(p->program[s], measured, e->backend->v->gemm_rate ? product_rate : NULL,
            e->backend->v->copy_rate ? copy_rate : NULL, &t, on_op, user));
error:
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        free(t.seconds[s]);
    tsr_plan_destroy(&p);
    return status;
}

/* ---------------------------------------------------------------- whole decodes */

static int by_seconds(const void *a, const void *b) {
    double x = ((const tsr_result *)a)->seconds, y = ((const tsr_result *)b)->seconds;
    return (x > y) - (x < y);
}

tsr_status tsr_bench_decodes(tsr_engine *e, tsr_model *m, const tsr_bench_params *params,
    void (*on_decode)(void *user, const tsr_bench_decode *decode), void *user) {
    const tsr_extent *x = &params->extent;
    int channels = m->vae->info.latent_channels, n = params->repetitions;
    tsr_plan *p = NULL;
    tsr_latent *z = NULL;
    tsr_result *results = NULL, cold;
    float *values = NULL;
    tsr_status status = TSR_OK;
    TSR_TRY(check_params(params));
    TSR_TRY(tsr_plan_create(&p, e, m, x, &params->plan)); /* and with it, the extent is checked */
    values = tsr_noise((size_t)x->frames * (size_t)x->height * (size_t)x->width * (size_t)channels);
    results = calloc((size_t)n, sizeof *results);
    if (!values || !results) {
        status = tsr_fail(TSR_ERR_MEMORY, "bench: no memory");
        goto error;
    }
    TSR_TRY(tsr_latent_from_memory(&z, values, x->frames, x->height, x->width, channels));
    tsr_decode_params d = TSR_DECODE_PARAMS_DEFAULT;
    TSR_TRY(tsr_decode(e, m, z, p, &d, &cold));
    for (int i = 0; i < n; i++)
        TSR_TRY(tsr_decode(e, m, z, p, &d, &results[i]));
    qsort(results, (size_t)n, sizeof *results, by_seconds);
    on_decode(user, &(tsr_bench_decode){
                        .plan = tsr_plan_get_info(p),
                        .result = results[n / 2],
                        .cold = cold.seconds,
                        .fastest = results[0].seconds,
                        .slowest = results[n - 1].seconds,
                    });
error:
    tsr_latent_close(&z);
    free(results);
    free(values);
    tsr_plan_destroy(&p);
    return status;
}

/* What cards that nobody here has would take, by arithmetic: an op takes as long as its products or its bytes, the
 * longer of the two, at a share of what the card can do. */
#include <tessera/bench.h>

#include "model/quantise.h"
#include "session/bench_ops.h"
#include "session/session.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Dense rates. Measured ones come from public reports of matrix products on the card; the others are the maker's:
 *
 *     5070 Ti   fp16/bf16 104, e4m3 by block-scaled mma with unit scales 414-416, s8 411 (mmapeak reports)
 *     5090      bf16 217-240 by cuBLAS, e4m3 by block-scaled mma about 700 (reports of 575 to 700), s8 taken for it
 *     4090      fp16 with f32 sums 165, s8 660 (maker), e4m3 with f32 sums 351
 *     3090      fp16 with f32 sums 71, s8 284 (maker); no 8-bit floats
 *     H100, H200  bf16 989, e4m3 and s8 1979 (maker, SXM); DeepGEMM reached 1550 of it on an H800
 *
 * Bandwidths and memories are the maker's.
 */
#define GIB ((int64_t)1 << 30)
#define T 1e12
#define G 1e9
static const tsr_card cards[] = {
    {"5070ti", "GeForce RTX 5070 Ti, sm_120", 104 * T, 411 * T, 414 * T, 896 * G, 16 * GIB, 0.7},
    {"5090", "GeForce RTX 5090, sm_120", 217 * T, 700 * T, 700 * T, 1792 * G, 32 * GIB, 0.7},
    {"4090", "GeForce RTX 4090, sm_89", 165 * T, 660 * T, 351 * T, 1008 * G, 24 * GIB, 0.7},
    {"3090", "GeForce RTX 3090, sm_86", 71 * T, 284 * T, 0, 936 * G, 24 * GIB, 0.7},
    {"h100", "H100 SXM, sm_90", 989 * T, 1979 * T, 1979 * T, 3350 * G, 80 * GIB, 0.55},
    {"h200", "H200 SXM, sm_90", 989 * T, 1979 * T, 1979 * T, 4800 * G, 141 * GIB, 0.55},
};

const tsr_card *tsr_card_find(const char *name) {
    char plain[16];
    size_t n = 0;
    for (; *name && n + 1 < sizeof plain; name++)
        if (!strchr(" -_", *name))
            plain[n++] = (char)tolower((unsigned char)*name);
    plain[n] = '\0';
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++)
        if (strcmp(plain, cards[i].name) == 0)
            return &cards[i];
    return NULL;
}

/* ---------------------------------------------------------------- the card as a planner's target */

typedef struct roof {
    const tsr_card *card;
    uint8_t *eight; /* [layers] */
    tsr_precision wanted;
} roof;

static size_t kernel_bytes(void *ctx, const tsr_kernel *k, tsr_dtype input) {
    (void)ctx;
    return tsr_kernel_weights(k) * tsr_dtype_size(input) + tsr_kernel_biases(k) * sizeof(float);
}

/* auto is int8, as on the card itself. The convs of resnets read 8 bits, where the kernels take their channels. */
static void numerics(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out) {
    const roof *r = ctx;
    if (wanted == TSR_PRECISION_AUTO)
        wanted = TSR_PRECISION_INT8;
    bool eight = wanted == TSR_PRECISION_INT8 || (wanted == TSR_PRECISION_FP8 && r->card->fp8 > 0);
    *out = (tsr_numerics){.precision = eight || wanted == TSR_PRECISION_BF16 ? wanted : TSR_PRECISION_FP16,
        .stream = TSR_F16,
        .act = wanted == TSR_PRECISION_BF16 ? TSR_BF16 : TSR_F16,
        .slot = TSR_F16,
        .eight_type = wanted == TSR_PRECISION_FP8 ? TSR_E4M3 : TSR_U8,
        .eight = eight ? r->eight : NULL,
        .round = TSR_F32,
        .round_stream = TSR_F32,
        .shift = wanted == TSR_PRECISION_BF16 ? TSR_BF16_SHIFT : 0};
    tsr_eight_layers(half, r->eight, half->layers);
    for (int i = 0; i < half->layers; i++)
        if (half->layer[i].cin % 128)
            r->eight[i] = 0;
}

static tsr_target target_of(roof *r) {
    const tsr_card *c = r->card;
    return (tsr_target){.name = c->text,
        .align = 256,
        .memory_free = c->memory,
        .memory_total = c->memory,
        .flops_f32 = c->rate16 * c->efficiency,
        .flops_16 = c->rate16 * c->efficiency,
        .flops_8 = (r->wanted == TSR_PRECISION_FP8 && c->fp8 > 0 ? c->fp8 : c->int8) * c->efficiency,
        .bandwidth = c->bandwidth * TSR_CARD_BANDWIDTH,
        .link_bandwidth = 20e9, /* PCIe 4 with 16 lanes, in practice */
        .kernel_bytes = kernel_bytes,
        .numerics = numerics,
        .ctx = r};
}

/* ---------------------------------------------------------------- times */

static double rate_of(void *ctx, const tsr_program *p, const tsr_op *op) {
    const roof *r = ctx;
    if (op->kernel < 0) /* which may read no buffer */
        return r->card->rate16;
    tsr_dtype in = p->buffer[op->in.buf].dtype;
    return in == TSR_E4M3 ? r->card->fp8 : in == TSR_U8 ? r->card->int8 : r->card->rate16;
}

/* By the epilogues of the convs before, which read nothing again for it. */
static bool gathered(const tsr_program *p, const tsr_op *stats) {
    for (const tsr_op *op = p->op; op < stats; op++)
        if (op->kind == TSR_OP_CONV && op->stats == stats->out.buf)
            return true;
    return false;
}

static double seconds_of(void *ctx, const tsr_program *p, const tsr_op *op) {
    const roof *r = ctx;
    if (op->kind == TSR_OP_STATS && gathered(p, op))
        return TSR_CARD_LAUNCH;
    double products = tsr_op_flops(p, op) / (rate_of(ctx, p, op) * r->card->efficiency);
    return fmax(products, tsr_op_bytes(p, op) / (r->card->bandwidth * TSR_CARD_BANDWIDTH)) + TSR_CARD_LAUNCH;
}

static double step_seconds(roof *r, const tsr_program *p) {
    double sum = 0;
    for (int i = 0; p && i < p->ops; i++)
        sum += seconds_of(r, p, &p->op[i]);
    return sum;
}

static tsr_card_decode decode_of(roof *r, const tsr_plan *p) {
    tsr_card_decode d = {.plan = &p->info};
    int tiles = p->y.tiles * p->x.tiles;
    tsr_step last = TSR_STEP_FIRST;
    for (int t = p->first_latent; t < p->end_latent; t++) {
        last = tsr_plan_step(p, t);
        d.seconds += tiles * step_seconds(r, p->program[last]);
    }
    d.per_frame = tiles * step_seconds(r, p->program[last]) / p->program[last]->out_frames;
    return d;
}

tsr_status tsr_bench_card(tsr_model *m, const tsr_bench_params *params, const tsr_card *card,
    void (*on_op)(void *user, const tsr_bench_op *op), void (*on_decode)(void *user, const tsr_card_decode *decode),
    void *user) {
    const tsr_half *half = &m->vae->decoder;
    tsr_plan *p = NULL;
    roof r = {.card = card, .eight = calloc((size_t)half->layers + 1, 1), .wanted = params->plan.precision};
    tsr_target target = target_of(&r);
    tsr_status status = r.eight ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "bench: no memory");
    TSR_TRY(status);
    TSR_TRY(tsr_plan_make(&p, half, &target, &params->extent, &params->plan));
    for (tsr_step s = 0; s < TSR_STEP_COUNT; s++)
        if (p->program[s])
            TSR_TRY(tsr_bench_report_step(p->program[s], seconds_of, rate_of, NULL, &r, on_op, user));
    tsr_card_decode d = decode_of(&r, p);
    on_decode(user, &d);
error:
    tsr_plan_free(&p);
    free(r.eight);
    return status;
}

/* The CPU as a backend. The tier of ops is chosen when it is created: the fastest here, or the
 * plain C reference. */
#include "backend/cpu/cpu.h"
#include "backend/cpu/machine.h"
#include "backend/cpu/rates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what the planner asks */

static size_t kernel_bytes(void *ctx, const tsr_kernel *k, tsr_dtype input) {
    const tsr_cpu *cpu = ctx;
    size_t most = 0;
    tsr_threads_apply();
    for (int i = 0; i < cpu->tiers; i++) {
        const tsr_tier *tier = tsr_tier_at(i);
        size_t bytes = tier->kernel_bytes ? tier->kernel_bytes(k, input) : 0;
        most = bytes > most ? bytes : most;
    }
    return input == TSR_U8 ? tsr_align(most, sizeof(float)) + (size_t)k->cin * sizeof(float) /* the gain */
                           : most;
}

static size_t op_scratch(void *ctx, const tsr_program *p, const tsr_op *op) {
    const tsr_cpu *cpu = ctx;
    const tsr_op_impl *impl = &tsr_tier_for(cpu->tiers, p, op)->op[op->kind];
    tsr_threads_apply();
    return impl->scratch ? impl->scratch(p, op) : 0;
}

enum { MOST_LAYERS = 4096 }; /* more than a half may have */

/* Everything but the codes of `int8` is f32; the numbers of other modes are rounded where a GPU
 * would round. */
static void numerics(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out) {
    static _Thread_local uint8_t eight[MOST_LAYERS]; /* programs are made from it before the next call */
    (void)ctx;
    *out = (tsr_numerics){.precision = wanted == TSR_PRECISION_AUTO ? TSR_PRECISION_F32 : wanted,
        .stream = TSR_F32,
        .act = TSR_F32,
        .slot = TSR_F32,
        .eight_type = TSR_U8,
        .round = TSR_F32,
        .round_stream = TSR_F32};
    if (wanted == TSR_PRECISION_FP16 || wanted == TSR_PRECISION_BF16) {
        out->round = wanted == TSR_PRECISION_FP16 ? TSR_F16 : TSR_BF16;
        out->round_stream = TSR_F16;
        out->shift = wanted == TSR_PRECISION_BF16 ? TSR_BF16_SHIFT : 0;
    }
    if (wanted == TSR_PRECISION_INT8 || wanted == TSR_PRECISION_FP8) {
        tsr_eight_layers(half, eight, MOST_LAYERS);
        out->eight = eight;
        out->eight_type = wanted == TSR_PRECISION_INT8 ? TSR_U8 : TSR_F32;
    }
}

static void target(tsr_backend *b, tsr_target *out) {
    tsr_cpu *cpu = (tsr_cpu *)b;
    tsr_threads_apply();
    tsr_cpu_find_rates(cpu);
    *out = (tsr_target){
        .name = cpu->tiers > 1 ? "CPU" : "CPU, plain C",
        .join_heads = true,
        .align = 64, /* a cache line, and the widest vector */
        .host_is_device = true,
        .norm_in_place = true,
        .streams = true,
        .bands = true,
        .flops_f32 = cpu->gemm,
        .flops_16 = cpu->gemm, /* everything is computed in f32 */
        .flops_8 = cpu->gemm,
        .bandwidth = cpu->bandwidth,
        .link_bandwidth = cpu->bandwidth / 2, /* a copy in the same memory */
        .kernel_bytes = kernel_bytes,
        .op_scratch = op_scratch,
        .numerics = numerics,
        .ctx = cpu,
    };
    tsr_machine_memory(&out->memory_free, &out->memory_total);
    out->host_free = out->memory_free;
}

static tsr_precision best(tsr_backend *b, const tsr_half *half, char why[128]) {
    const tsr_cpu *cpu = (tsr_cpu *)b;
    static const tsr_kernel usual = {.cin = 64, .cout = 64, .kt = 3, .kh = 3, .kw = 3, .phases = 1, .classes = 1};
    (void)half;
    for (int i = cpu->tiers - 1; i > 0; i--) {
        const tsr_tier *t = tsr_tier_at(i);
        if (t->kernel_bytes && t->kernel_bytes(&usual, TSR_U8) > 0 && (!t->beats_f32 || t->beats_f32())) {
            snprintf(why, 128, "8 bits are multiplied faster than f32 here (%s)", t->name);
            return TSR_PRECISION_INT8;
        }
    }
    snprintf(why, 128, "nothing here multiplies 8 bits faster");
    return TSR_PRECISION_F32;
}

/* ---------------------------------------------------------------- slabs */

static tsr_status slab_alloc(tsr_backend *b, size_t bytes, tsr_slab *out) {
    (void)b;
    *out = (tsr_slab){.kind = TSR_SLAB_HOST, .bytes = bytes, .export_bytes = bytes, .handle = TSR_NO_HANDLE};
    out->host = tsr_mem_alloc(bytes);
    char text[32];
    return out->host ? TSR_OK
                     : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s for slots", tsr_bytes_text(text, (int64_t)bytes));
}

static void slab_free(tsr_backend *b, tsr_slab *s) {
    (void)b;
    tsr_mem_free(s->host);
    *s = (tsr_slab){.handle = TSR_NO_HANDLE};
}

/* ---------------------------------------------------------------- running */

static tsr_status prepare(tsr_backend *b, const tsr_plan *plan, tsr_exec **out) {
    tsr_threads_apply();
    return tsr_exec_create(out, (tsr_cpu *)b, plan);
}

static tsr_status turn(tsr_backend *b, const tsr_plan *plan, tsr_exec **x) {
    tsr_threads_apply();
    return tsr_exec_turn(x, (tsr_cpu *)b, plan);
}

static void exec_destroy(tsr_backend *b, tsr_exec **x) {
    (void)b;
    tsr_exec_destroy(x);
}

static tsr_status step(tsr_backend *b, tsr_exec *x, const tsr_step_args *args) {
    tsr_threads_apply();
    return tsr_exec_step(x, (tsr_cpu *)b, args);
}

static tsr_status park(tsr_backend *b, tsr_exec *x, int set, void *host) {
    (void)b;
    memcpy(host, x->caches + (size_t)set * x->plan->cache_bytes, x->plan->cache_bytes);
    return TSR_OK;
}

static tsr_status unpark(tsr_backend *b, tsr_exec *x, int set, const void *host) {
    (void)b;
    memcpy(x->caches + (size_t)set * x->plan->cache_bytes, host, x->plan->cache_bytes);
    return TSR_OK;
}

/* ---------------------------------------------------------------- about the machine */

static void report(tsr_backend *b, tsr_line_fn line, void *user) {
    const tsr_cpu *cpu = (tsr_cpu *)b;
    char name[128], text[160], bytes[2][32];
    int64_t left, total;
    tsr_machine_name(name);
    snprintf(text, sizeof text, "%s, %s, %d threads", name, tsr_machine_instructions(), tsr_threads());
    line(user, "cpu", text);
    size_t n = 0;
    for (int i = cpu->tiers - 1; i >= 0 && n < sizeof text; i--)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", tsr_tier_at(i)->name, i ? ", else " : "");
    line(user, "ops", text);
    tsr_machine_memory(&left, &total);
    snprintf(text, sizeof text, "%s free of %s", tsr_bytes_text(bytes[0], left), tsr_bytes_text(bytes[1], total));
    line(user, "memory", text);
}

static double gemm_rate(tsr_backend *b, tsr_precision precision, int m, int n, int k) {
    bool codes = precision == TSR_PRECISION_INT8;
    return codes || precision == TSR_PRECISION_F32 ? tsr_cpu_gemm_rate((const tsr_cpu *)b, codes, m, n, k) : 0;
}

static double copy_rate(tsr_backend *b, size_t bytes) {
    (void)b;
    tsr_threads_apply();
    return tsr_machine_copy_rate(bytes);
}

static void destroy(tsr_backend *b) {
    free(b);
}

static const tsr_backend_vtable vtable = {
    .name = "cpu",
    .destroy = destroy,
    .report = report,
    .target = target,
    .best = best,
    .slab_alloc = slab_alloc,
    .slab_free = slab_free,
    .prepare = prepare,
    .turn = turn,
    .exec_destroy = exec_destroy,
    .step = step,
    .park = park,
    .unpark = unpark,
    .gemm_rate = gemm_rate,
    .copy_rate = copy_rate,
};

tsr_status tsr_cpu_create(tsr_backend **out, const tsr_cpu_params *params) {
    tsr_cpu *cpu = calloc(1, sizeof *cpu);
    *out = NULL;
    if (!cpu)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    cpu->base.v = &vtable;
    tsr_threads_set(params->threads);
    for (cpu->tiers = 1; !params->reference && tsr_tier_at(cpu->tiers); cpu->tiers++)
        ;
    *out = &cpu->base;
    return TSR_OK;
}

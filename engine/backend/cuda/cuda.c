/* An NVIDIA GPU as a backend. */
#include "backend/cuda/device.h"
#include "backend/cpu/machine.h"
#include "model/quantise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const unsigned char tsr_fatbin[]; /* embed.S */

const tsr_dtype tsr_cuda_element[TSR_CUDA_CONV_ELEMENTS] = {TSR_F16, TSR_BF16, TSR_E4M3, TSR_U8};

/* ---------------------------------------------------------------- what the planner asks */

bool tsr_cuda_fp8(const tsr_cuda *c) {
    return (c->major == 8 && c->minor == 9) || c->major == 9 || (c->major == 12 && c->minor == 0);
}

tsr_status tsr_cuda_enter(const tsr_cuda *c) {
    return tsr_cu_check(tsr_cu.p_cuCtxSetCurrent(c->context), "entering the context");
}

/* Of the shape that needs most. */
static size_t kernel_bytes(void *ctx, const tsr_kernel *k, tsr_dtype input) {
    tsr_conv_shape shape[TSR_CONV_CHOICES];
    size_t most = 0;
    int n = tsr_conv_choices(k, input, tsr_cuda_hopper(ctx), shape);
    for (int i = 0; i < n; i++) {
        size_t bytes = tsr_conv_packing_of(k, shape[i], input).bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static size_t op_scratch(void *ctx, const tsr_program *p, const tsr_op *op) {
    return tsr_cuda_op_scratch(ctx, p, op);
}

/* Whether the 8-bit kernels take its channels. */
static bool takes_eight(const tsr_half *half, int layer) {
    tsr_kernel k;
    tsr_conv_shape shape[TSR_CONV_CHOICES];
    tsr_kernel_describe(&k, half, layer, TSR_FOLD_NONE);
    return tsr_conv_choices(&k, TSR_U8, false, shape) > 0;
}

enum { MOST_LAYERS = 4096 }; /* more than a half may have */

/* Which layers read 8 bits. The calling thread's until it asks again, for others plan at the same time. */
static const uint8_t *eight_of(const tsr_half *half) {
    static _Thread_local uint8_t eight[MOST_LAYERS];
    if (half->layers > MOST_LAYERS)
        return NULL;
    tsr_eight_layers(half, eight, MOST_LAYERS);
    for (int i = 0; i < half->layers; i++)
        if (eight[i] && !takes_eight(half, i))
            eight[i] = 0;
    return eight;
}

static void numerics(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out) {
    const tsr_cuda *c = ctx;
    *out = (tsr_numerics){TSR_PRECISION_FP16, TSR_F16, TSR_F16, TSR_F16, TSR_E4M3, NULL};
    if (wanted == TSR_PRECISION_BF16) {
        out->precision = TSR_PRECISION_BF16;
        out->act = TSR_BF16;
        out->shift = TSR_BF16_SHIFT;
    }
    if (wanted == TSR_PRECISION_INT8 || (wanted == TSR_PRECISION_FP8 && tsr_cuda_fp8(c)))
        out->eight = eight_of(half);
    if (!out->eight)
        return;
    out->precision = wanted;
    out->eight_type = wanted == TSR_PRECISION_INT8 ? TSR_U8 : TSR_E4M3;
}

/* Products of s8 for one of fp16 with f32 sums, which GeForce cards do at half the rate. Of e4m3 it is at most as
 * many: half of it on sm_89, where these sums are slow too. */
static int products_of_s8(const tsr_cuda *c) {
    return (c->major == 8 && c->minor == 0) || c->major == 9 || c->major == 10 ? 2 : 4;
}

/* s8 runs at least at the rate of e4m3 everywhere, and its picture is nearer to f32's (docs/quality.md). */
static tsr_precision best(tsr_backend *b, const tsr_half *half, char why[128]) {
    const tsr_cuda *c = (tsr_cuda *)b;
    (void)half;
    snprintf(why, 128, "sm_%d%d multiplies s8 at %d times the rate of fp16%s", c->major, c->minor, products_of_s8(c),
        tsr_cuda_fp8(c) ? ", nearer to f32 than fp8" : "; it has no 8-bit floats");
    return TSR_PRECISION_INT8;
}

/* ---------------------------------------------------------------- rates: estimates for comparing plans */

static int attribute(const tsr_cuda *c, CUdevice_attribute a) {
    int v = 0;
    return tsr_cu.p_cuDeviceGetAttribute(&v, a, c->device) == CUDA_SUCCESS ? v : 0;
}

/* FLOPs a multiprocessor's tensor cores do in a clock, fp16 operands and f32 sums, by mma.sync. */
static int flops_per_clock(const tsr_cuda *c) {
    if (c->major == 8)
        return c->minor == 0 ? 2048 : 512;
    return c->major == 9 ? 2560 : c->major == 10 ? 2048 : 512; /* sm_90: what mma.sync reaches of 4096 */
}

/* Of that a long convolution sustains about so much. */
static const double SUSTAINED = 0.6;
static const double LINK = 20e9; /* bytes/s to pinned host memory: PCIe 4 with 16 lanes, in practice */

static void target(tsr_backend *b, tsr_target *out) {
    tsr_cuda *c = (tsr_cuda *)b;
    size_t left = 0;
    double clock = 1e3 * attribute(c, CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
    double memory = 1e3 * attribute(c, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
    double rate = SUSTAINED * flops_per_clock(c) * c->sms * clock;
    bool known = tsr_cuda_memory_free(c, &left) == TSR_OK;
    *out = (tsr_target){
        .name = c->name,
        .join_heads = false,
        .streams = true,
        .align = 256, /* of what cp.async and packed weights want, and a few lines of L2 */
        .memory_free = known ? (int64_t)left : 0,
        .memory_total = known ? (int64_t)c->total : 0,
        .flops_f32 = rate, /* not to be had: everything runs in 16 bits or fewer */
        .flops_16 = rate,
        .flops_8 = products_of_s8(c) * rate,
        .bandwidth = memory * 2 * attribute(c, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH) / 8,
        .link_bandwidth = LINK,
        .kernel_bytes = kernel_bytes,
        .op_scratch = op_scratch,
        .numerics = numerics,
        .ctx = c,
    };
    int64_t all;
    tsr_machine_memory(&out->host_free, &all);
}

/* ---------------------------------------------------------------- running */

static tsr_status prepare(tsr_backend *b, const tsr_plan *plan, tsr_exec **out) {
    return tsr_cuda_exec_create(out, (tsr_cuda *)b, plan);
}

static tsr_status turn(tsr_backend *b, const tsr_plan *plan, tsr_exec **x) {
    return tsr_cuda_exec_turn(x, (tsr_cuda *)b, plan);
}

static void exec_destroy(tsr_backend *b, tsr_exec **x) {
    (void)b;
    tsr_cuda_exec_destroy(x);
}

static tsr_status step(tsr_backend *b, tsr_exec *x, const tsr_step_args *args) {
    (void)b;
    return tsr_cuda_exec_step(x, args);
}

static tsr_status wait(tsr_backend *b, tsr_exec *x, uint64_t value) {
    (void)b;
    return tsr_cuda_exec_wait(x, value);
}

static tsr_status park(tsr_backend *b, tsr_exec *x, int set, void *host) {
    const tsr_cuda *c = (tsr_cuda *)b;
    size_t bytes = x->plan->cache_bytes;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cu_check(
        tsr_cu.p_cuMemcpyDtoHAsync(host, x->caches + (size_t)set * bytes, bytes, c->stream), "parking caches"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamSynchronize(c->stream), "parking caches"));
error:
    return status;
}

static tsr_status unpark(tsr_backend *b, tsr_exec *x, int set, const void *host) {
    const tsr_cuda *c = (tsr_cuda *)b;
    size_t bytes = x->plan->cache_bytes;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cu_check(
        tsr_cu.p_cuMemcpyHtoDAsync(x->caches + (size_t)set * bytes, host, bytes, c->stream), "bringing caches back"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamSynchronize(c->stream), "bringing caches back"));
error:
    return status;
}

static int64_t memory_free(tsr_backend *b) {
    size_t left;
    return tsr_cuda_memory_free((tsr_cuda *)b, &left) == TSR_OK ? (int64_t)left : INT64_MAX;
}

/* ---------------------------------------------------------------- shared timelines */

static tsr_status share_timelines(tsr_backend *b, tsr_handle lane, tsr_handle progress) {
    return tsr_cuda_share((tsr_cuda *)b, lane, progress);
}

static void unshare_timelines(tsr_backend *b) {
    tsr_cuda_unshare((tsr_cuda *)b);
}

static tsr_status meet(tsr_backend *b, uint64_t progress, uint64_t lane) {
    const tsr_cuda *c = (tsr_cuda *)b;
    tsr_status status;
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cuda_await_progress(c, progress));
    TSR_TRY(tsr_cuda_signal_lane(c, lane));
error:
    return status;
}

static tsr_status check(tsr_backend *b) {
    const tsr_cuda *c = (tsr_cuda *)b;
    tsr_status status = tsr_cuda_enter(c);
    if (status != TSR_OK)
        return status;
    CUresult r = tsr_cu.p_cuStreamQuery(c->stream);
    return r == CUDA_ERROR_NOT_READY ? TSR_OK : tsr_cu_check(r, "running a step");
}

/* ---------------------------------------------------------------- life */

static void report(tsr_backend *b, tsr_line_fn line, void *user) {
    tsr_cuda *c = (tsr_cuda *)b;
    char text[192], why[128], bytes[2][32];
    size_t left = 0;
    snprintf(text, sizeof text, "%s, %d multiprocessors, driver for CUDA %d.%d", c->name, c->sms, tsr_cu.version / 1000,
        tsr_cu.version % 1000 / 10);
    line(user, "cuda", text);
    tsr_precision precision = best(b, NULL, why);
    snprintf(text, sizeof text, "%s: %s", tsr_precision_name(precision), why);
    line(user, "precision", text);
    if (tsr_cuda_memory_free(c, &left) == TSR_OK) {
        snprintf(text, sizeof text, "%s free of %s", tsr_bytes_text(bytes[0], (int64_t)left),
            tsr_bytes_text(bytes[1], (int64_t)c->total));
        line(user, "memory", text);
    }
}

static void destroy(tsr_backend *b) {
    tsr_cuda *c = (tsr_cuda *)b;
    if (c->context)
        tsr_cu.p_cuCtxSetCurrent(c->context);
    tsr_cuda_unshare(c);
    if (c->stream)
        tsr_cu.p_cuStreamDestroy(c->stream);
    if (c->library)
        tsr_cu.p_cuLibraryUnload(c->library);
    if (c->context) {
        tsr_cu.p_cuCtxSetCurrent(NULL);
        tsr_cu.p_cuDevicePrimaryCtxRelease(c->device);
    }
    pthread_mutex_destroy(&c->pinning);
    free(c);
}

/* A kernel by its symbol, allowed the shared memory it needs. */
static tsr_status find_kernel(tsr_cuda *c, const char *name, int shared, CUkernel *out) {
    tsr_status status;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuLibraryGetKernel(out, c->library, name), name));
    if (shared > 48 << 10) /* more has to be asked for */
        TSR_TRY(tsr_cu_check(
            tsr_cu.p_cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared, *out, c->device),
            name));
error:
    return status;
}

static tsr_status find_kernels(tsr_cuda *c) {
    static const char *const element[TSR_CUDA_CONV_ELEMENTS] = {"f16", "bf16", "e4m3", "u8"};
    static const char *const pass[] = {
#define X(name) #name,
        TSR_CUDA_PASSES(X)
#undef X
    };
    tsr_status status;
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int s = 0; s < TSR_CONV_SHAPE_COUNT; s++) {
            const tsr_conv_form *f = &tsr_conv_forms[s];
            char name[64];
            if (!tsr_cuda_has(c, (tsr_conv_shape)s, tsr_cuda_element[e]))
                continue;
            snprintf(name, sizeof name, "tsr_conv_%s_%s", element[e], f->name);
            TSR_TRY(find_kernel(c, name, f->shared, &c->conv[e][s]));
        }
    for (int i = 0; i < TSR_CUDA_PASS_COUNT; i++) {
        bool attention = i == PASS_tsr_attention_f16 || i == PASS_tsr_attention_bf16;
        TSR_TRY(find_kernel(c, pass[i], attention ? TSR_ATTENTION_SHARED : 0, &c->pass[i]));
    }
error:
    return status;
}

/* The device, and whether it can do what the backend needs. */
static tsr_status choose_device(tsr_cuda *c, int index) {
    int count = 0;
    CUuuid uuid;
    char name[64] = "";
    tsr_status status;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuDeviceGetCount(&count), "counting devices"));
    if (count < 1)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: no NVIDIA GPU here; use --device cpu"));
    if (index >= count)
        TSR_TRY(tsr_fail(TSR_ERR_ARGUMENT, "cuda: no device %d; there are %d, counted from 0", index, count));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuDeviceGet(&c->device, index < 0 ? 0 : index), "opening the device"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuDeviceGetName(name, sizeof name, c->device), "asking for the device's name"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuDeviceGetUuid(&uuid, c->device), "asking for the device's UUID"));
    c->major = attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    c->minor = attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    c->sms = attribute(c, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    c->exports = attribute(c, tsr_cuda_exports);
    snprintf(c->name, sizeof c->name, "%s, sm_%d%d", name, c->major, c->minor);
    memcpy(c->base.uuid, uuid.bytes, sizeof c->base.uuid);
    c->base.has_uuid = true;
    if (c->major < 8)
        TSR_TRY(tsr_fail(TSR_ERR_UNSUPPORTED,
            "cuda: %s is too old: the kernels need sm_80 (Ampere) or newer; use --device cpu", c->name));
    if (!attribute(c, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED))
        TSR_TRY(
            tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: %s has no virtual memory management here; use --device cpu", c->name));
error:
    return status;
}

static const tsr_backend_vtable vtable = {
    .name = "cuda",
    .asynchronous = true,
    .destroy = destroy,
    .report = report,
    .target = target,
    .best = best,
    .slab_alloc = tsr_cuda_slab_alloc,
    .slab_free = tsr_cuda_slab_free,
    .slab_read = tsr_cuda_slab_read,
    .slab_import = tsr_cuda_slab_import,
    .slab_write = tsr_cuda_slab_write,
    .share = share_timelines,
    .unshare = unshare_timelines,
    .meet = meet,
    .check = check,
    .memory_free = memory_free,
    .gemm_rate = tsr_cuda_gemm_rate,
    .prepare = prepare,
    .turn = turn,
    .exec_destroy = exec_destroy,
    .step = step,
    .park = park,
    .unpark = unpark,
    .wait = wait,
};

tsr_status tsr_cuda_create(tsr_backend **out, int index) {
    *out = NULL;
    tsr_status status = tsr_cu_load();
    if (status != TSR_OK)
        return status;
    size_t left = 0;
    tsr_cuda *c = calloc(1, sizeof *c);
    if (!c)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    c->base.v = &vtable;
    pthread_mutex_init(&c->pinning, NULL);
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int f = 0; f < TSR_CUDA_FAMILIES; f++)
            c->tuned[e][f] = TSR_CONV_SHAPE_COUNT;
    TSR_TRY(choose_device(c, index));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuDevicePrimaryCtxRetain(&c->context, c->device), "taking the device"));
    TSR_TRY(tsr_cuda_enter(c));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemGetInfo(&left, &c->total), "asking for the memory"));
    atomic_init(&c->room, (long long)left + (long long)tsr_mem_used());
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamCreate(&c->stream, CU_STREAM_NON_BLOCKING), "making a stream"));
    TSR_TRY(tsr_cu_check(
        tsr_cu.p_cuLibraryLoadData(&c->library, tsr_fatbin, NULL, NULL, 0, NULL, NULL, 0), "loading the kernels"));
    TSR_TRY(find_kernels(c));
    *out = &c->base;
    return TSR_OK;
error:
    destroy(&c->base);
    return status;
}

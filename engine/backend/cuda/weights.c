/* Weights on their way to the device: folded in f32, rounded or quantised (docs/precision.md), packed, uploaded. */
#include "backend/cuda/device.h"

#include <math.h>
#include <stdlib.h>

typedef struct workshop { /* room for the largest kernel */
    float *weights, *biases, *scale;
    void *codes, *packed;
} workshop;

/* ---------------------------------------------------------------- fp8 */

/* The norm whose output a resnet's conv reads; NULL for other layers. */
static const tsr_layer *norm_before(const tsr_half *half, int layer) {
    for (int i = 0; i < half->blocks; i++) {
        const tsr_block *b = &half->block[i];
        for (int j = 1; b->kind == TSR_BLOCK_RESNET && j <= 3; j += 2)
            if (b->layer[j] == layer)
                return &half->layer[b->layer[j - 1]];
    }
    return NULL;
}

/* E[c]: the mean of silu of a normal variable with the norm's deviation and mean. */
static void expect_inputs(const tsr_layer *norm, float *e) {
    enum { POINTS = 601 };
    for (int c = 0; c < norm->cout; c++) {
        float g, h;
        double sum = 0, weight = 0;
        tsr_tensor_read(norm->weight[0], (size_t)c, 1, &g);
        tsr_tensor_read(norm->bias[0], (size_t)c, 1, &h);
        for (int i = 0; i < POINTS; i++) {
            double z = -6 + 12.0 * i / (POINTS - 1), w = exp(-z * z / 2);
            double y = fabs((double)g) * z + (double)h;
            sum += w * y / (1 + exp(-y));
            weight += w;
        }
        e[c] = (float)(sum / weight);
    }
}

/* One scale a filter, and the filter's rounding taken out of its bias. A resnet's conv has one phase and class. */
static tsr_status quantise_e4m3(const tsr_half *half, const tsr_kernel *k, const workshop *w) {
    const tsr_layer *norm = norm_before(half, k->layer);
    if (!norm || k->phases != 1)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: only a resnet's convs read 8 bits", half->layer[k->layer].name);
    float *e = malloc((size_t)k->cin * sizeof *e);
    if (!e)
        return tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for quantising weights");
    expect_inputs(norm, e);
    size_t filter = tsr_kernel_weights(k) / (size_t)k->cout;
    uint8_t *code = w->codes;
    for (int o = 0; o < k->cout; o++, code += filter) {
        const float *from = w->weights + (size_t)o * filter;
        float most = 0;
        double off = 0;
        for (size_t i = 0; i < filter; i++)
            most = fmaxf(most, fabsf(from[i]));
        float scale = most > 0 ? most / 448 : 1;
        for (size_t i = 0; i < filter; i++) {
            code[i] = tsr_f32_to_e4m3(from[i] / scale);
            off += (double)(tsr_e4m3_to_f32(code[i]) * scale - from[i]) * (double)e[i % (size_t)k->cin];
        }
        w->scale[o] = scale / 8; /* the activations' scale */
        w->biases[o] -= (float)off;
    }
    free(e);
    return TSR_OK;
}

/* ---------------------------------------------------------------- all */

static tsr_status upload(tsr_exec *x, CUdeviceptr to, const void *from, size_t bytes) {
    CUstream s = x->cuda->stream;
    tsr_status status;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemcpyHtoDAsync(to, from, bytes, s), "uploading weights"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuStreamSynchronize(s), "uploading weights"));
error:
    return status;
}

static tsr_status upload_kernel(tsr_exec *x, int weight, const workshop *w) {
    const tsr_plan *plan = x->plan;
    const tsr_plan_weight *pw = &plan->weight[weight];
    const tsr_kernel *k = pw->kernel;
    tsr_status status = tsr_kernel_fold(plan->half, k, tsr_sgemm_plain, w->weights, w->biases);
    if (status == TSR_OK && pw->input == TSR_E4M3)
        status = quantise_e4m3(plan->half, k, w);
    else if (status == TSR_OK)
        tsr_from_f32(pw->input, w->weights, w->codes, tsr_kernel_weights(k));
    if (status != TSR_OK)
        return status;
    tsr_conv_pack(&x->packing[weight], k, w->codes, w->scale, w->biases, w->packed);
    return upload(x, x->weights + pw->at, w->packed, pw->bytes);
}

static tsr_status upload_norms(tsr_exec *x) {
    const tsr_half *half = x->plan->half;
    for (int i = 0; i < half->layers; i++) {
        const tsr_layer *l = &half->layer[i];
        size_t c = (size_t)l->cout;
        if (x->plan->norm_at[i] == SIZE_MAX)
            continue;
        float *v = malloc(2 * c * sizeof *v);
        if (!v)
            return tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for a norm's weights");
        tsr_tensor_read(l->weight[0], 0, c, v);
        tsr_tensor_read(l->bias[0], 0, c, v + c);
        tsr_status status = upload(x, x->weights + x->plan->norm_at[i], v, 2 * c * sizeof *v);
        free(v);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

static tsr_status choose_packing(tsr_exec *x) {
    for (int i = 0; i < x->plan->weights; i++) {
        const tsr_plan_weight *w = &x->plan->weight[i];
        tsr_conv_shape shape = tsr_conv_shape_for(w->kernel, w->input, false);
        if (shape == TSR_CONV_SHAPE_COUNT)
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                "cuda: no kernel for %s, %d to %d channels of %s; use --device cpu",
                x->plan->half->layer[w->kernel->layer].name, w->kernel->cin, w->kernel->cout,
                tsr_dtype_name(w->input));
        x->packing[i] = tsr_conv_packing_of(w->kernel, shape, w->input);
    }
    return TSR_OK;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

tsr_status tsr_cuda_weights(tsr_exec *x) {
    size_t weights = 0, biases = 0, packed = 0;
    tsr_status status = choose_packing(x);
    if (status != TSR_OK)
        return status;
    for (int i = 0; i < x->plan->weights; i++) {
        weights = larger(weights, tsr_kernel_weights(x->plan->weight[i].kernel));
        biases = larger(biases, tsr_kernel_biases(x->plan->weight[i].kernel));
        packed = larger(packed, x->packing[i].bytes);
    }
    /* Host memory, gone again when the weights are on the device. */
    workshop w = {malloc(weights * sizeof(float)), malloc(biases * sizeof(float)),
        malloc(biases * sizeof(float)), malloc(weights * 2), malloc(packed)};
    if (!w.weights || !w.biases || !w.scale || !w.codes || !w.packed)
        status = tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for folding weights");
    for (int i = 0; i < x->plan->weights && status == TSR_OK; i++)
        status = upload_kernel(x, i, &w);
    if (status == TSR_OK)
        status = upload_norms(x);
    free(w.packed);
    free(w.codes);
    free(w.scale);
    free(w.biases);
    free(w.weights);
    return status;
}

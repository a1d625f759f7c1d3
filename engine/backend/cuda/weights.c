/* Weights on their way to the device: folded in f32, rounded or quantised (docs/precision.md), packed, uploaded. */
#include "backend/cuda/device.h"
#include "model/quantise.h"

#include <stdlib.h>

typedef struct workshop { /* room for the largest kernel */
    float *weights, *biases, *scale, *gain;
    void *codes, *packed;
} workshop;

/* Rounded weights, numbers of the operands' type, as its bits. */
static void encode(tsr_dtype input, const float *weights, void *codes, size_t n) {
    int8_t *s8 = codes;
    if (input != TSR_U8)
        tsr_from_f32(input, weights, codes, n);
    for (size_t i = 0; input == TSR_U8 && i < n; i++)
        s8[i] = (int8_t)weights[i];
}

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
    tsr_status status;
    TSR_TRY(tsr_kernel_fold(plan->half, k, tsr_sgemm_plain, w->weights, w->biases));
    TSR_TRY(tsr_quantise_kernel(plan->half, k, pw->input, w->weights, w->biases, w->scale, w->gain));
    encode(pw->input, w->weights, w->codes, tsr_kernel_weights(k));
    for (int o = 0; pw->input == TSR_E4M3 && o < k->phases * k->cout; o++)
        w->scale[o] /= 8; /* the activations' scale */
    tsr_conv_pack(&x->packing[weight], k, &(tsr_conv_weights){w->codes, w->biases, w->scale, w->gain}, w->packed);
    TSR_TRY(upload(x, x->weights + pw->at, w->packed, pw->bytes));
error:
    return status;
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
        tsr_conv_shape shape = tsr_cuda_shape(x->cuda, w->kernel, w->input);
        if (shape == TSR_CONV_SHAPE_COUNT)
            return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: no kernel for %s, %d to %d channels of %s; use --device cpu",
                x->plan->half->layer[w->kernel->layer].name, w->kernel->cin, w->kernel->cout, tsr_dtype_name(w->input));
        x->packing[i] = tsr_conv_packing_of(w->kernel, shape, w->input);
    }
    return TSR_OK;
}

/* A first run's measurements may have chosen another shape since. */
static bool same_packing(const tsr_exec *x, const tsr_conv_packing *there) {
    for (int i = 0; there && i < x->plan->weights; i++)
        if (there[i].shape != x->packing[i].shape)
            return false;
    return there != NULL;
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

tsr_status tsr_cuda_weights(tsr_exec *x, const tsr_conv_packing *there) {
    size_t weights = 0, biases = 0, packed = 0, channels = 0;
    tsr_status status = choose_packing(x);
    if (status != TSR_OK || same_packing(x, there))
        return status;
    for (int i = 0; i < x->plan->weights; i++) {
        weights = larger(weights, tsr_kernel_weights(x->plan->weight[i].kernel));
        biases = larger(biases, tsr_kernel_biases(x->plan->weight[i].kernel));
        packed = larger(packed, x->packing[i].bytes);
        channels = larger(channels, (size_t)x->plan->weight[i].kernel->cin);
    }
    /* Host memory, gone again when the weights are on the device. */
    workshop w = {malloc(weights * sizeof(float)), malloc(biases * sizeof(float)), malloc(biases * sizeof(float)),
        malloc(channels * sizeof(float)), malloc(weights * 2), malloc(packed)};
    if (!w.weights || !w.biases || !w.scale || !w.gain || !w.codes || !w.packed)
        status = tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for folding weights");
    for (int i = 0; i < x->plan->weights && status == TSR_OK; i++)
        status = upload_kernel(x, i, &w);
    if (status == TSR_OK)
        status = upload_norms(x);
    free(w.packed);
    free(w.codes);
    free(w.gain);
    free(w.scale);
    free(w.biases);
    free(w.weights);
    return status;
}

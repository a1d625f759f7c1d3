#include "model/quantise.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const float SILU_LEAST = 0.2785f; /* silu(x) >= -0.2785 */

static float silu(float x) {
    return x / (1 + expf(-x));
}

/* ---------------------------------------------------------------- which layers */

/* Those of the lowest resolution lose most and have little work: their codes have two planes (docs/precision.md). */
void tsr_eight_layers(const tsr_half *half, uint8_t *eight, int room) {
    memset(eight, 0, (size_t)room);
    for (int i = 0; i < half->blocks; i++)
        for (int j = 1; j <= 3 && half->block[i].kind == TSR_BLOCK_RESNET; j += 2) {
            int layer = half->block[i].layer[j];
            if (layer < room)
                eight[layer] = half->layer[layer].level == 0 ? 2 : 1;
        }
}

/* The norm whose output a convolution of a resnet reads. */
static const tsr_layer *norm_before(const tsr_half *half, int layer) {
    for (int i = 0; i < half->blocks; i++)
        for (int j = 1; j <= 3 && half->block[i].kind == TSR_BLOCK_RESNET; j += 2)
            if (half->block[i].layer[j] == layer)
                return &half->layer[half->block[i].layer[j - 1]];
    return NULL;
}

/* ---------------------------------------------------------------- what is known without data */

/* The mean of silu(|gamma| n + beta) for a normal n: what a conv's input is on average. */
static double expected(float gamma, float beta) {
    enum { POINTS = 601 };
    double sum = 0, weights = 0;
    for (int i = 0; i < POINTS; i++) {
        double n = -6 + 12.0 * i / (POINTS - 1), p = exp(-n * n / 2), y = fabs((double)gamma) * n + (double)beta;
        sum += p * y / (1 + exp(-y));
        weights += p;
    }
    return sum / weights;
}

/* Elements of a filter [kt][kh][kw][cin]. */
static size_t filter_of(const tsr_kernel *k) {
    return (size_t)k->kt * (size_t)k->kh * (size_t)k->kw * (size_t)k->cin;
}

/* The gain must be one for all folds of a layer, because cached codes serve several: it is made
 * from the weights summed over time, which every fold knows. */
static void choose_gain(const tsr_kernel *k, const float *weights, const float *gamma, const float *beta, float *gain) {
    size_t cin = (size_t)k->cin, plane = (size_t)(k->kh * k->kw) * cin;
    double mean = 0;
    memset(gain, 0, cin * sizeof *gain);
    for (int o = 0; o < k->cout; o++)
        for (size_t i = 0; i < plane; i++) {
            float sum = 0;
            for (size_t t = 0; t < (size_t)k->kt; t++)
                sum += weights[((size_t)o * (size_t)k->kt + t) * plane + i];
            gain[i % cin] += sum * sum;
        }
    for (size_t c = 0; c < cin; c++) {
        float range = fmaxf(0.3f, silu(fmaxf(0, 4 * fabsf(gamma[c]) + beta[c]))) + SILU_LEAST;
        float weight = sqrtf(gain[c] / (float)(k->cout * k->kh * k->kw));
        gain[c] = powf(fmaxf(weight, 1e-8f), 0.25f) * powf(range, -0.75f);
        mean += (double)gain[c] / (double)cin;
    }
    for (size_t c = 0; c < cin; c++)
        gain[c] = (float)((double)gain[c] / mean);
}

/* ---------------------------------------------------------------- weights */

typedef struct job {
    const tsr_kernel *k;
    tsr_dtype type;
    float *weights, *biases, *scale;
    const float *gain;     /* [cin], NULL: ones */
    const double *average; /* [cin] of the inputs */
    atomic_bool *failed;
} job;

static inline float rounded(float x) { /* to the nearest even, within +-127; compilers make vectors of this */
    x = x < -127 ? -127 : x;
    x = x > 127 ? 127 : x;
    return x + 12582912.0f - 12582912.0f;
}

/* The scale of s8 codes with the least squared error: small filters gain by cutting off their
 * largest weight. */
static float best_scale(const float *w, size_t n, float most) {
    float best = 0;
    double least = INFINITY;
    for (int step = 0; step < 8; step++) {
        float scale = most * (1 - 0.05f * (float)step) / 127;
        float by = 1 / scale;
        double error = 0;
        for (size_t i = 0; i < n; i++) {
            float e = rounded(w[i] * by) * scale - w[i];
            error += (double)(e * e);
        }
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

/* The code next to `code` in the direction of `up`; itself at the end of the range. */
static float neighbour(tsr_dtype type, float code, bool up) {
    if (type == TSR_U8)
        return up ? fminf(127, code + 1) : fmaxf(-127, code - 1);
    uint8_t bits = tsr_f32_to_e4m3(code);
    bool negative = bits & 0x80, grows = negative != up; /* sign and magnitude */
    if ((bits & 0x7f) == 0)
        return tsr_e4m3_to_f32(up ? 0x01 : 0x81);
    if (grows && (bits & 0x7f) == 0x7e)
        return code;
    return tsr_e4m3_to_f32((uint8_t)(grows ? bits + 1 : bits - 1));
}

/* Where pictures are smooth a channel's taps see about the same number, and what counts is the
 * error of their sum: it is brought down by rounding those taps the other way that lose least by
 * it. x, code: [taps] at a stride. */
static void keep_sum(tsr_dtype type, const float *x, float *code, size_t taps, size_t stride) {
    float error = 0;
    for (size_t t = 0; t < taps; t++)
        error += code[t * stride] - x[t * stride];
    for (size_t moved = 0; moved < taps; moved++) {
        float least = INFINITY, change = 0;
        size_t at = 0;
        for (size_t t = 0; t < taps; t++) {
            float was = code[t * stride], now = neighbour(type, was, error < 0), real = x[t * stride];
            float loss = ((now - real) * (now - real) - (was - real) * (was - real)) / fabsf(now - was);
            if (now != was && fabsf(error + now - was) < fabsf(error) && loss < least) {
                least = loss;
                change = now - was;
                at = t;
            }
        }
        if (change == 0)
            return;
        code[at * stride] += change;
        error += change;
    }
}

static void round_filters(void *ctx, size_t begin, size_t end) { /* of [cout] */
    const job *j = ctx;
    size_t cin = (size_t)j->k->cin, n = filter_of(j->k);
    float *x = malloc(n * sizeof *x);
    if (!x) {
        atomic_store(j->failed, true);
        return;
    }
    for (size_t o = begin; o < end; o++) {
        float *w = j->weights + o * n, most = 0;
        double shift = 0;
        for (size_t i = 0; i < n; i++) {
            w[i] /= j->gain ? j->gain[i % cin] : 1;
            most = fmaxf(most, fabsf(w[i]));
        }
        float scale = most <= 0 ? 1 : j->type == TSR_U8 ? best_scale(w, n, most) : most / 448;
        for (size_t i = 0; i < n; i++) {
            x[i] = w[i] / scale;
            w[i] = j->type == TSR_U8 ? rounded(x[i]) : tsr_e4m3_to_f32(tsr_f32_to_e4m3(x[i]));
        }
        for (size_t c = 0; c < cin; c++)
            keep_sum(j->type, x + c, w + c, n / cin, cin);
        for (size_t i = 0; i < n; i++)
            shift += (double)((w[i] - x[i]) * scale * (j->gain ? j->gain[i % cin] : 1)) * j->average[i % cin];
        j->scale[o] = scale;
        j->biases[o] -= (float)shift;
    }
    free(x);
}

/* x[n][c] becomes [n][planes][c], all planes alike. */
static void repeat(float *x, size_t n, size_t c, size_t planes) {
    for (size_t i = n * planes; i-- > 0;) /* from the end: nothing is overwritten that is still read */
        memmove(x + i * c, x + i / planes * c, c * sizeof *x);
}

/* Behind a norm: one phase, one class of biases. */
static tsr_status quantise_normed(const tsr_half *half, const tsr_kernel *k, tsr_dtype input, float *weights,
    float *biases, float *scale, float *gain) {
    const tsr_layer *norm = norm_before(half, k->layer);
    size_t c = (size_t)k->cin;
    double *average = malloc(c * (sizeof *average + 2 * sizeof(float)));
    if (!norm || !average) {
        free(average);
        return norm ? tsr_fail(TSR_ERR_MEMORY, "out of memory for quantising")
                    : tsr_fail(TSR_ERR_UNSUPPORTED, "%s: no norm bounds its input: it cannot be of 8 bits",
                          half->layer[k->layer].name);
    }
    float *gamma = (float *)(average + c), *beta = gamma + c;
    tsr_tensor_read(norm->weight[0], 0, c, gamma);
    tsr_tensor_read(norm->bias[0], 0, c, beta);
    for (size_t i = 0; i < c; i++)
        average[i] = expected(gamma[i], beta[i]);
    if (input == TSR_U8)
        choose_gain(k, weights, gamma, beta, gain);
    atomic_bool failed = false;
    job j = {k, input, weights, biases, scale, input == TSR_U8 ? gain : NULL, average, &failed};
    tsr_parallel_for((size_t)k->cout, 4, round_filters, &j);
    free(average);
    return atomic_load(&failed) ? tsr_fail(TSR_ERR_MEMORY, "out of memory for quantising") : TSR_OK;
}

/* The planes that the kernel reads have the same weights. */
static tsr_status quantise_planes(const tsr_half *half, const tsr_kernel *k, tsr_dtype input, float *weights,
    float *biases, float *scale, float *gain) {
    tsr_kernel one = *k;
    one.cin = half->layer[k->layer].cin;
    size_t c = (size_t)one.cin, planes = (size_t)k->cin / c;
    tsr_status status = quantise_normed(half, &one, input, weights, biases, scale, gain);
    if (status != TSR_OK || planes == 1)
        return status;
    repeat(weights, tsr_kernel_weights(&one) / c, c, planes);
    repeat(gain, 1, c, planes);
    return TSR_OK;
}

static void round_weights(void *ctx, size_t begin, size_t end) {
    const job *j = ctx;
    for (size_t i = begin; i < end; i++)
        j->weights[i] = j->type == TSR_F16 ? tsr_f16_to_f32(tsr_f32_to_f16(j->weights[i]))
                                           : tsr_bf16_to_f32(tsr_f32_to_bf16(j->weights[i]));
}

tsr_status tsr_quantise_kernel(const tsr_half *half, const tsr_kernel *k, tsr_dtype input, float *weights,
    float *biases, float *scale, float *gain) {
    if (input == TSR_U8 || input == TSR_E4M3)
        return quantise_planes(half, k, input, weights, biases, scale, gain);
    job j = {.k = k, .type = input, .weights = weights};
    if (input == TSR_F16 || input == TSR_BF16)
        tsr_parallel_for(tsr_kernel_weights(k), 1 << 16, round_weights, &j);
    return TSR_OK;
}

/* ---------------------------------------------------------------- activations */

void tsr_norm_affine(const double *stats, double count, int c, const float *gamma, const float *beta, double eps,
    float *scale, float *shift) {
    int size = c / TSR_GROUPS;
    for (int g = 0; g < TSR_GROUPS; g++) {
        double mean = stats[g * 2] / count, variance = stats[g * 2 + 1] / count - mean * mean;
        if (variance < 0) /* by rounding; NaN stays */
            variance = 0;
        double factor = 1 / sqrt(variance + eps);
        for (int i = g * size; i < (g + 1) * size; i++) {
            scale[i] = (float)(factor * (double)gamma[i]);
            shift[i] = (float)((double)beta[i] - mean * factor * (double)gamma[i]);
        }
    }
}

/* The largest of gain * silu(norm) in a frame: silu has its only minimum inside, so it is at an end
 * of the channel. NaN where a number is not finite. */
static double largest(
    const double *stats, double count, int c, const float *gamma, const float *beta, const float *gain) {
    double most = 0;
    for (int g = 0; g < TSR_GROUPS; g++) {
        double mean = stats[g * 2] / count, variance = stats[g * 2 + 1] / count - mean * mean;
        double factor = 1 / sqrt(fmax(variance, 0) + TSR_NORM_EPS);
        if (!isfinite(mean) || !isfinite(variance))
            return NAN;
        for (int i = g * (c / TSR_GROUPS); i < (g + 1) * (c / TSR_GROUPS); i++)
            for (int end = 0; end < 2; end++) {
                double y = (stats[(TSR_GROUPS + i) * 2 + end] - mean) * factor * (double)gamma[i] + (double)beta[i];
                double a = y / (1 + exp(-y)) * (double)gain[i];
                if (!isfinite(a))
                    return NAN;
                most = fmax(most, a);
            }
    }
    return most;
}

tsr_code_range tsr_range_choose(const double *stats, int frames, double count, int c, int planes, const float *gamma,
    const float *beta, const float *gain, tsr_code_range before) {
    double high = 0, low = 0;
    for (int t = 0; t < frames; t++) {
        double most = largest(stats + (size_t)t * (size_t)(TSR_GROUPS + c) * 2, count, c, gamma, beta, gain);
        high = most <= high ? high : most; /* NaN wins, and stays */
        if (isnan(most))
            break;
    }
    if (isnan(high) || isnan(before.scale))
        return (tsr_code_range){NAN, 0};
    for (int i = 0; i < c; i++)
        low = fmax(low, (double)SILU_LEAST * (double)gain[i]);
    float scale = (float)exp2(ceil(128 * log2((high + low) / (255 * planes))) / 128);
    if (scale < before.scale)
        scale = before.scale;
    return (tsr_code_range){scale, (int32_t)lrint(low / ((double)scale * planes))};
}

void tsr_requantise(const uint8_t *from, tsr_code_range old, uint8_t *to, tsr_code_range now, size_t n) {
    if (old.scale == now.scale && old.zero == now.zero) {
        if (from != to)
            memcpy(to, from, n);
        return;
    }
    uint8_t table[256];
    float by = old.scale / now.scale;
    for (int q = 0; q < 256; q++)
        table[q] = (uint8_t)fminf(255, fmaxf(0, rintf((float)(q - old.zero) * by) + (float)now.zero));
    for (size_t i = 0; i < n; i++)
        to[i] = table[from[i]];
}

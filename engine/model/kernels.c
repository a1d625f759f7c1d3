/* Folding: exact algebra on stored weights, done once, in f32. */
#include "model/kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what kernel a fold gives */

/* What a merged upsampler's kernel sums (spec 9.3): time taps `taps` (bit kt) of the 3x3x3 conv,
 * applied to phase zi of upscale_conv, read low-resolution frame tau. Taps that read the same frame
 * and phase are summed before the product. */
typedef struct term {
    int tau;
    unsigned taps;
    int zi;
} term;

enum { KT0 = 1, KT1 = 2, KT2 = 4, KT_ALL = 7, MOST_TERMS = 3 };

static const struct recipe {
    const char *name;
    int kt; /* low-resolution frames read */
    int terms;
    term term[MOST_TERMS];
} recipes[] = {
    [TSR_FOLD_NONE] = {.name = ""},
    [TSR_FOLD_TIME] = {.name = "time"},
    [TSR_FOLD_UP_S] = {"s", 3, 3, {{0, KT0, 0}, {1, KT1, 0}, {2, KT2, 0}}},
    [TSR_FOLD_UP_S1] = {"s1", 1, 1, {{0, KT_ALL, 0}}},
    [TSR_FOLD_UP_Q0] = {"q0", 2, 3, {{0, KT0, 0}, {0, KT1, 1}, {1, KT2, 0}}},
    [TSR_FOLD_UP_Q1] = {"q1", 2, 3, {{0, KT0, 1}, {1, KT1, 0}, {1, KT2, 1}}},
    [TSR_FOLD_UP_N1] = {"n1", 1, 1, {{0, KT_ALL, 0}}},
    [TSR_FOLD_UP_N2] = {"n2", 2, 2, {{0, KT0 | KT1, 0}, {1, KT2, 0}}},
    [TSR_FOLD_UP_N3] = {"n3", 2, 3, {{0, KT0, 0}, {1, KT1, 0}, {1, KT2, 1}}},
};

const char *tsr_fold_name(tsr_fold f) {
    return (unsigned)f < sizeof recipes / sizeof *recipes ? recipes[f].name : "?";
}

void tsr_kernel_describe(tsr_kernel *out, const tsr_half *half, int layer, tsr_fold fold) {
    const tsr_layer *l = &half->layer[layer];
    tsr_kernel *k = out;
    *k = (tsr_kernel){.layer = layer,
        .fold = fold,
        .cin = l->cin,
        .cout = l->cout,
        .kt = l->kt,
        .kh = l->kh,
        .kw = l->kw,
        .st = l->st,
        .sy = l->sy,
        .sx = l->sx,
        .phases = 1,
        .classes = 1};
    if (fold == TSR_FOLD_TIME)
        k->kt = k->st = 1;
    if (l->kind == TSR_LAYER_UPSAMPLE) {
        k->kt = recipes[fold].kt;
        k->kh = k->kw = 2;
        k->phases = k->classes = 4;
    }
    bool wide = l->kh == 3; /* else 1x1 without padding; downsamplers pad below and at the right only */
    k->pad_bottom = k->pad_right = wide;
    k->pad_top = k->pad_left = wide && l->sy == 1;
}

size_t tsr_kernel_weights(const tsr_kernel *k) {
    return (size_t)k->phases * (size_t)k->cout * (size_t)(k->kt * k->kh * k->kw) * (size_t)k->cin;
}

size_t tsr_kernel_biases(const tsr_kernel *k) {
    return (size_t)k->phases * (size_t)k->classes * (size_t)k->cout;
}

/* ---------------------------------------------------------------- reading */

typedef struct read_job {
    const tsr_tensor *tensor;
    float *out;
} read_job;

enum {
    MOST_BLOCK = 256, /* elements of GGUF's largest blocks; every size divides it */
    CHUNK = 1 << 16,  /* elements read at once by a thread */
};

static void read_range(void *ctx, size_t begin, size_t end) {
    const read_job *job = ctx;
    size_t at = begin * CHUNK, to = end * CHUNK < job->tensor->count ? end * CHUNK : job->tensor->count;
    tsr_tensor_read(job->tensor, at, to - at, job->out + at);
}

static void read_all(const tsr_tensor *t, float *out) {
    read_job job = {t, out};
    tsr_parallel_for((t->count + CHUNK - 1) / CHUNK, 1, read_range, &job);
}

/* ---------------------------------------------------------------- plain convs */

typedef struct conv_job {
    const tsr_layer *layer;
    float *out; /* [co][kt][kh][kw][ci], or kt summed: [co][kh][kw][ci] */
    bool sum_time;
    size_t rows; /* output channels read at once */
    atomic_bool failed;
} conv_job;

/* Output channels that are whole blocks of a GGUF type together: 1 for most shapes. */
static size_t rows_at_once(const tsr_layer *l) {
    size_t rows = 1, row = (size_t)(l->cin * l->kt * l->kh * l->kw);
    while (rows * row % MOST_BLOCK)
        rows *= 2;
    return rows;
}

/* raw: [ci][kt][area] of one output channel. In blocks of input channels that stay in the
 * first-level cache. */
static void transpose(const conv_job *j, const float *raw, float *out) {
    size_t ci_n = (size_t)j->layer->cin, area = (size_t)(j->layer->kh * j->layer->kw);
    size_t taps = (size_t)j->layer->kt * area, kept = j->sum_time ? area : taps;
    for (size_t c0 = 0; c0 < ci_n; c0 += 64) {
        size_t c1 = c0 + 64 < ci_n ? c0 + 64 : ci_n;
        for (size_t tap = 0; tap < kept; tap++) {
            for (size_t ci = c0; ci < c1; ci++)
                out[tap * ci_n + ci] = raw[ci * taps + tap];
            for (size_t t = tap + kept; t < taps; t += kept)
                for (size_t ci = c0; ci < c1; ci++)
                    out[tap * ci_n + ci] += raw[ci * taps + t];
        }
    }
}

static void conv_range(void *ctx, size_t begin, size_t end) {
    conv_job *j = ctx;
    const tsr_layer *l = j->layer;
    size_t area = (size_t)(l->kh * l->kw), row = (size_t)(l->cin * l->kt) * area, cout = (size_t)l->cout;
    size_t kept = (size_t)l->cin * area * (j->sum_time ? 1 : (size_t)l->kt);
    float *raw = malloc(j->rows * row * sizeof *raw);
    if (!raw) {
        atomic_store(&j->failed, true);
        return;
    }
    for (size_t o = begin * j->rows; o < cout && o < end * j->rows; o += j->rows) {
        size_t n = cout - o < j->rows ? cout - o : j->rows;
        tsr_tensor_read(l->weight[0], o * row, n * row, raw);
        for (size_t i = 0; i < n; i++)
            transpose(j, raw + i * row, j->out + (o + i) * kept);
    }
    free(raw);
}

static tsr_status fold_conv(const tsr_layer *l, const tsr_kernel *k, float *weights, float *biases) {
    read_all(l->bias[0], biases);
    if (l->kt * l->kh * l->kw == 1) { /* [co][ci] already */
        read_all(l->weight[0], weights);
        return TSR_OK;
    }
    conv_job job = {l, weights, k->fold == TSR_FOLD_TIME, rows_at_once(l), false};
    tsr_parallel_for(((size_t)l->cout + job.rows - 1) / job.rows, 1, conv_range, &job);
    if (atomic_load(&job.failed))
        return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory for folding", l->name);
    return TSR_OK;
}

static tsr_status fold_qkv(const tsr_layer *l, float *weights, float *biases) {
    size_t c = (size_t)l->cin;
    for (size_t i = 0; i < 3; i++) {
        read_all(l->weight[i], weights + i * c * c);
        read_all(l->bias[i], biases + i * c);
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- merged upsamplers */

/* Spec 9.2, one axis: output parity p, tap k of the 3-tap conv read high-resolution row 2h + p + k
 * - 1, which is phase xi of low-resolution tap a (row h + a - 1 + p). Tap k leaves the picture at
 * its edge where it is the first of parity 0 or the last of parity 1. */
typedef struct place {
    int a, xi;
    bool leaves;
} place;

static place place_of(int p, int k) {
    int d = p + k - 1; /* -1 .. 2 */
    int low = d < 0 ? -1 : d / 2;
    return (place){.a = low - (p - 1), .xi = d & 1, .leaves = p == 0 ? k == 0 : k == 2};
}

typedef struct up_job {
    const float *raw;     /* conv, [o][c][3][3][3] */
    const float *up;      /* upscale_conv, [xi][yi][zi][c][ci] */
    const float *up_bias; /* [xi][yi][zi][c] */
    float *sum;           /* [ky][kx][o][c]: the conv's taps of a term, summed over time */
    float *biases;        /* [p][r][ey][ex][o] */
    int c, zt;
    term term;
} up_job;

static void sum_range(void *ctx, size_t begin, size_t end) {
    const up_job *j = ctx;
    size_t c_n = (size_t)j->c;
    for (size_t o = begin; o < end; o++) {
        for (size_t c = 0; c < c_n; c++) {
            const float *raw = j->raw + (o * c_n + c) * 27;
            for (size_t at = 0; at < 9; at++) {
                float sum = 0;
                for (size_t kt = 0; kt < 3; kt++)
                    if (j->term.taps >> kt & 1)
                        sum += raw[kt * 9 + at];
                j->sum[(at * c_n + o) * c_n + c] = sum;
            }
        }
    }
}

static const float *up_phase(const up_job *j, const float *of, size_t size, int xi, int yi) {
    return of + (size_t)((xi * 2 + yi) * j->zt + j->term.zi) * size;
}

/* Spec 9.5: what upscale_conv's bias adds, but for the taps that leave the picture where ey, ex say
 * so. */
static void bias_range(void *ctx, size_t begin, size_t end) {
    const up_job *j = ctx;
    size_t c_n = (size_t)j->c;
    for (size_t o = begin; o < end; o++) {
        for (int phase = 0; phase < 4; phase++) {
            for (int at = 0; at < 9; at++) {
                place y = place_of(phase >> 1, at / 3), x = place_of(phase & 1, at % 3);
                const float *ub = up_phase(j, j->up_bias, c_n, y.xi, x.xi), *k = j->sum + ((size_t)at * c_n + o) * c_n;
                double v = 0;
                for (size_t c = 0; c < c_n; c++)
                    v += (double)k[c] * (double)ub[c];
                for (int class = 0; class < 4; class ++)
                    if (!(class >> 1 && y.leaves) && !(class & 1 && x.leaves))
                        j->biases[(size_t)(phase * 4 + class) * c_n + o] += (float)v;
            }
        }
    }
}

/* weights[phase][o][tau][a][b][ci] += sum over the taps that read (a, b) of K[o][c] U[c][ci]. */
static void add_products(
    const up_job *j, const tsr_kernel *k, tsr_sgemm_fn gemm, bool written[4][3][4], float *weights) {
    size_t c = (size_t)j->c, row = (size_t)(k->kt * 4) * c;
    for (int phase = 0; phase < 4; phase++) {
        for (int at = 0; at < 9; at++) {
            place y = place_of(phase >> 1, at / 3), x = place_of(phase & 1, at % 3);
            int tap = y.a * 2 + x.a;
            bool *seen = &written[phase][j->term.tau][tap];
            float *out = weights + (size_t)phase * c * row + (size_t)(j->term.tau * 4 + tap) * c;
            gemm(j->c, j->c, j->c, j->sum + (size_t)at * c * c, j->c, up_phase(j, j->up, c * c, y.xi, x.xi), j->c,
                *seen ? 1 : 0, out, (int)row);
            *seen = true;
        }
    }
}

/* Temporaries of fold_upsample, in floats: the conv, upscale_conv and its bias, a term's summed
 * taps. */
static size_t upsample_temporaries(const tsr_layer *l) {
    size_t c = (size_t)l->cin, phases = 4 * (size_t)l->zt;
    return 27 * c * c + phases * c * c + phases * c + 9 * c * c;
}

static tsr_status fold_upsample(
    const tsr_layer *l, const tsr_kernel *k, tsr_sgemm_fn gemm, float *weights, float *biases) {
    size_t c = (size_t)l->cin, phases = 4 * (size_t)l->zt;
    float *memory = malloc(upsample_temporaries(l) * sizeof *memory);
    if (!memory)
        return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory for folding", l->name);
    float *raw = memory, *up = raw + 27 * c * c, *sum = up + phases * c * c, *up_bias = sum + 9 * c * c;
    up_job job = {raw, up, up_bias, sum, biases, l->cin, l->zt, {0}};
    read_all(l->weight[0], raw);
    read_all(l->weight[1], up);
    read_all(l->bias[1], up_bias);
    read_all(l->bias[0], biases);
    for (size_t i = 1; i < 16; i++)
        memcpy(biases + i * c, biases, c * sizeof *biases);
    bool written[4][3][4] = {0};
    const struct recipe *r = &recipes[k->fold];
    for (int i = 0; i < r->terms; i++) {
        job.term = r->term[i];
        tsr_parallel_for(c, 1, sum_range, &job);
        tsr_parallel_for(c, 1, bias_range, &job);
        add_products(&job, k, gemm, written, weights);
    }
    free(memory);
    return TSR_OK;
}

/* ---------------------------------------------------------------- all */

typedef struct shift_job {
    float factor, *x;
} shift_job;

static void shift_range(void *ctx, size_t begin, size_t end) {
    const shift_job *j = ctx;
    for (size_t i = begin; i < end; i++)
        j->x[i] *= j->factor;
}

static void shift(float *x, size_t n, int by) {
    shift_job job = {ldexpf(1, -by), x};
    if (by)
        tsr_parallel_for(n, CHUNK, shift_range, &job);
}

static tsr_status fold(const tsr_half *half, const tsr_kernel *k, tsr_sgemm_fn gemm, float *weights, float *biases) {
    const tsr_layer *l = &half->layer[k->layer];
    switch (l->kind) {
    case TSR_LAYER_UPSAMPLE:
        return fold_upsample(l, k, gemm, weights, biases);
    case TSR_LAYER_QKV:
        return fold_qkv(l, weights, biases);
    default:
        return fold_conv(l, k, weights, biases);
    }
}

tsr_status tsr_kernel_fold(
    const tsr_half *half, const tsr_kernel *k, tsr_sgemm_fn gemm, float *weights, float *biases) {
    tsr_status status = fold(half, k, gemm, weights, biases);
    if (status != TSR_OK)
        return status;
    shift(weights, tsr_kernel_weights(k) / (size_t)k->cin * (size_t)half->layer[k->layer].cin, k->weight_shift);
    shift(biases, tsr_kernel_biases(k), k->bias_shift);
    return TSR_OK;
}

size_t tsr_kernel_fold_bytes(const tsr_half *half, const tsr_kernel *k) {
    const tsr_layer *l = &half->layer[k->layer];
    if (l->kind == TSR_LAYER_UPSAMPLE)
        return upsample_temporaries(l) * sizeof(float);
    size_t row = (size_t)(l->cin * l->kt * l->kh * l->kw);
    bool as_stored = l->kt * l->kh * l->kw == 1;
    return as_stored ? 0 : (size_t)tsr_threads() * rows_at_once(l) * row * sizeof(float);
}

/* ---------------------------------------------------------------- a plain matrix product */

enum { ROWS = 4, COLS = 8, DEPTH = 256 }; /* register tile; depth of a packed panel of b */

typedef struct gemm_job {
    int n, k, lda, ldb, ldc;
    const float *a, *b;
    float beta, *c;
} gemm_job;

/* c[rows][cols] (+)= a[rows][depth] panel[depth][COLS] */
static void gemm_tile(
    const float *a, int lda, const float (*panel)[COLS], int depth, float beta, float *c, int ldc, int rows, int cols) {
    float sum[ROWS][COLS] = {0};
    if (rows == ROWS) {
        for (int k = 0; k < depth; k++)
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < COLS; j++)
                    sum[i][j] += a[(size_t)i * (size_t)lda + (size_t)k] * panel[k][j];
    } else {
        for (int i = 0; i < rows; i++)
            for (int k = 0; k < depth; k++)
                for (int j = 0; j < COLS; j++)
                    sum[i][j] += a[(size_t)i * (size_t)lda + (size_t)k] * panel[k][j];
    }
    for (int i = 0; i < rows; i++) {
        float *row = c + (size_t)i * (size_t)ldc;
        for (int j = 0; j < cols; j++)
            row[j] = sum[i][j] + (beta != 0 ? row[j] : 0); /* with beta 0, c may hold anything */
    }
}

static void gemm_rows(void *ctx, size_t begin, size_t end) {
    const gemm_job *g = ctx;
    float panel[DEPTH][COLS];
    for (int k0 = 0; k0 < g->k; k0 += DEPTH) {
        int depth = g->k - k0 < DEPTH ? g->k - k0 : DEPTH;
        float beta = k0 ? 1 : g->beta;
        for (int j0 = 0; j0 < g->n; j0 += COLS) {
            int cols = g->n - j0 < COLS ? g->n - j0 : COLS;
            for (int k = 0; k < depth; k++)
                for (int j = 0; j < COLS; j++)
                    panel[k][j] = j < cols ? g->b[(size_t)(k0 + k) * (size_t)g->ldb + (size_t)(j0 + j)] : 0;
            for (size_t i = begin; i < end; i += ROWS) {
                int rows = end - i < ROWS ? (int)(end - i) : ROWS;
                gemm_tile(g->a + i * (size_t)g->lda + k0, g->lda, (const float(*)[COLS])panel, depth, beta,
                    g->c + i * (size_t)g->ldc + j0, g->ldc, rows, cols);
            }
        }
    }
}

void tsr_sgemm_plain(
    int m, int n, int k, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    gemm_job g = {n, k, lda, ldb, ldc, a, b, beta, c};
    tsr_parallel_for((size_t)m, 16, gemm_rows, &g);
}

/* PSNR, SSIM and the worst block of two frames. */
#include "core/core.h"

#include <tessera/compare.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 11, MAPS = 5 }; /* of SSIM; a, b, aa, bb, ab */
static const double SIGMA = 1.5, C1 = (0.01 * 2) * (0.01 * 2), C2 = (0.03 * 2) * (0.03 * 2);

double tsr_psnr(double mse) {
    return mse > 0 ? 10 * log10(4 / mse) : INFINITY;
}

/* ---------------------------------------------------------------- squared errors */

static void measure_blocks(const float *a, const float *b, int w, int h, int block, tsr_difference *d) {
    double all = 0;
    d->block_mse = -1;
    for (int y0 = 0; y0 < h; y0 += block)
        for (int x0 = 0; x0 < w; x0 += block) {
            int x1 = x0 + block < w ? x0 + block : w, y1 = y0 + block < h ? y0 + block : h;
            double sum = 0;
            float most = 0;
            for (int y = y0; y < y1; y++)
                for (size_t i = 3 * ((size_t)y * (size_t)w + (size_t)x0), end = i + 3 * (size_t)(x1 - x0); i < end;
                     i++) {
                    float e = a[i] - b[i];
                    sum += (double)e * (double)e;
                    most = fmaxf(most, fabsf(e));
                }
            double mse = sum / (3.0 * (x1 - x0) * (y1 - y0));
            if (mse > d->block_mse) {
                d->block_mse = mse;
                d->block_x = x0;
                d->block_y = y0;
            }
            d->largest = fmax(d->largest, (double)most);
            all += sum;
        }
    d->mse = all / (3.0 * w * h);
    d->psnr = tsr_psnr(d->mse);
    d->block_psnr = tsr_psnr(d->block_mse);
}

/* ---------------------------------------------------------------- SSIM */

typedef struct ssim {
    const float *a, *b;
    int w, h;
    int window; /* WINDOW, or the side of a frame that is smaller */
    float weight[WINDOW];
    double *row; /* [rows where the window fits]: sums of the SSIM of 3 channels */
    bool failed;
} ssim;

static void fill_window(ssim *s) {
    double sum = 0, w[WINDOW];
    for (int i = 0; i < s->window; i++) {
        double x = i - (s->window - 1) / 2.0;
        sum += w[i] = exp(-x * x / (2 * SIGMA * SIGMA));
    }
    for (int i = 0; i < s->window; i++)
        s->weight[i] = (float)(w[i] / sum);
}

/* The five means down the window, for a row of values of all channels: map[m][i] += ... */
static void filter_down(const ssim *s, int y, float *map) {
    size_t n = 3 * (size_t)s->w;
    memset(map, 0, MAPS * n * sizeof *map);
    for (int k = 0; k < s->window; k++) {
        const float *restrict a = s->a + (size_t)(y + k) * n, *restrict b = s->b + (size_t)(y + k) * n;
        float weight = s->weight[k];
        float *restrict ma = map, *restrict mb = map + n, *restrict aa = map + 2 * n, *restrict bb = map + 3 * n,
                        *restrict ab = map + 4 * n;
        for (size_t i = 0; i < n; i++) {
            float wa = weight * a[i], wb = weight * b[i];
            ma[i] += wa;
            mb[i] += wb;
            aa[i] += wa * a[i];
            bb[i] += wb * b[i];
            ab[i] += wa * b[i];
        }
    }
}

static double ssim_at(const double m[MAPS]) {
    double va = m[2] - m[0] * m[0], vb = m[3] - m[1] * m[1], cov = m[4] - m[0] * m[1];
    return (2 * m[0] * m[1] + C1) * (2 * cov + C2) / ((m[0] * m[0] + m[1] * m[1] + C1) * (va + vb + C2));
}

static void ssim_rows(void *ctx, size_t begin, size_t end) {
    ssim *s = ctx;
    size_t n = 3 * (size_t)s->w, last = n - 3 * (size_t)(s->window - 1);
    float *map = malloc(MAPS * n * sizeof *map);
    if (!map) {
        s->failed = true;
        return;
    }
    for (size_t y = begin; y < end; y++) {
        filter_down(s, (int)y, map);
        s->row[y] = 0;
        for (size_t i = 0; i < last; i++) {
            double m[MAPS] = {0};
            for (int v = 0; v < MAPS; v++)
                for (int k = 0; k < s->window; k++)
                    m[v] += (double)(s->weight[k] * map[(size_t)v * n + i + 3 * (size_t)k]);
            s->row[y] += ssim_at(m);
        }
    }
    free(map);
}

static tsr_status measure_ssim(const float *a, const float *b, int w, int h, double *out) {
    int least = w < h ? w : h;
    ssim s = {.a = a, .b = b, .w = w, .h = h, .window = least < WINDOW ? least : WINDOW};
    size_t rows = (size_t)(h - s.window + 1), columns = (size_t)(w - s.window + 1);
    s.row = malloc(rows * sizeof *s.row);
    if (!s.row)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory to compare frames of %dx%d", w, h);
    fill_window(&s);
    tsr_parallel_for(rows, 8, ssim_rows, &s);
    *out = 0;
    for (size_t y = 0; y < rows && !s.failed; y++)
        *out += s.row[y];
    *out /= 3 * (double)rows * (double)columns;
    free(s.row);
    return s.failed ? tsr_fail(TSR_ERR_MEMORY, "out of memory to compare frames of %dx%d", w, h) : TSR_OK;
}

tsr_status tsr_compare_frames(const float *a, const float *b, int width, int height, int block, tsr_difference *out) {
    if (width < 1 || height < 1 || block < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "nothing to compare: frames of %dx%d in blocks of %d", width, height, block);
    *out = (tsr_difference){0};
    measure_blocks(a, b, width, height, block, out);
    return measure_ssim(a, b, width, height, &out->ssim);
}

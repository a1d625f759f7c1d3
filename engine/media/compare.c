/* Two files of frames against each other. */
#include "core/core.h"

#include <tessera/compare.h>
#include <tessera/media.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct pair {
    const tsr_compare_params *params;
    tsr_reader *reader[2];
    const tsr_media_info *info[2];
    size_t values; /* of a frame */
    bool clamp;
    float *frame[2]; /* [height][width][3] */
    float *worst;    /* |a - b| of the worst frame; NULL where no picture is wanted */
} pair;

static tsr_status open_pair(pair *p, const char *a, const char *b) {
    tsr_status status;
    TSR_TRY(tsr_reader_open(&p->reader[0], a));
    TSR_TRY(tsr_reader_open(&p->reader[1], b));
    for (int i = 0; i < 2; i++)
        p->info[i] = tsr_reader_get_info(p->reader[i]);
    int w = p->info[0]->width, h = p->info[0]->height;
    if (w != p->info[1]->width || h != p->info[1]->height)
        TSR_TRY(tsr_fail(TSR_ERR_ARGUMENT, "frames differ in size: %.300s has %dx%d, %.300s %dx%d", a, w, h, b,
            p->info[1]->width, p->info[1]->height));
    p->clamp = p->info[0]->depth != 32 || p->info[1]->depth != 32;
    p->values = (size_t)w * (size_t)h * 3;
    for (int i = 0; i < 2; i++)
        p->frame[i] = malloc(p->values * sizeof(float));
    p->worst = p->params->difference ? malloc(p->values * sizeof(float)) : NULL;
    if (!p->frame[0] || !p->frame[1] || (p->params->difference && !p->worst))
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory to compare frames of %dx%d", w, h));
error:
    return status;
}

static void close_pair(pair *p) {
    for (int i = 0; i < 2; i++) {
        tsr_reader_close(&p->reader[i]);
        free(p->frame[i]);
    }
    free(p->worst);
}

/* The next frame of both; *got is false where both end. */
static tsr_status read_pair(pair *p, int64_t index, bool skip, bool *got) {
    bool there[2];
    for (int i = 0; i < 2; i++) {
        tsr_status status = tsr_reader_frame(p->reader[i], skip ? NULL : p->frame[i], &there[i]);
        if (status != TSR_OK)
            return status;
        for (size_t k = 0; p->clamp && there[i] && !skip && k < p->values; k++)
            p->frame[i][k] = fminf(fmaxf(p->frame[i][k], -1), 1);
    }
    *got = there[0];
    if (there[0] == there[1])
        return TSR_OK;
    int shorter = there[0] ? 1 : 0;
    return tsr_fail(TSR_ERR_ARGUMENT,
        "%.300s has %lld frames, %.300s has more; compare as many of both (--frames :%lld)", p->info[shorter]->path,
        (long long)index, p->info[1 - shorter]->path, (long long)index);
}

static void keep_worst(pair *p) {
    for (size_t i = 0; p->worst && i < p->values; i++)
        p->worst[i] = fabsf(p->frame[0][i] - p->frame[1][i]);
}

static void add(pair *p, tsr_comparison *out, const tsr_difference *d) {
    bool first = out->frames++ == 0;
    if (first || d->mse > out->worst.mse) {
        out->worst = *d;
        keep_worst(p);
    }
    if (first || d->block_mse > out->block.block_mse)
        out->block = *d;
    out->largest = fmax(out->largest, d->largest);
    out->psnr += d->mse; /* means, once all are there */
    out->ssim += d->ssim;
}

/* ---------------------------------------------------------------- the difference picture */

/* A line of one pixel around the block, where the frame has room. */
static void outline(uint8_t *rgb, int w, int h, const tsr_difference *d, int block) {
    int x0 = d->block_x - 1, y0 = d->block_y - 1, x1 = d->block_x + block, y1 = d->block_y + block;
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++) {
            bool edge = x == x0 || x == x1 || y == y0 || y == y1;
            if (!edge || x < 0 || y < 0 || x >= w || y >= h)
                continue;
            uint8_t *p = rgb + 3 * ((size_t)y * (size_t)w + (size_t)x);
            p[0] = 255;
            p[1] = p[2] = 0;
        }
}

/* The largest difference becomes white, or as near to it as a power of two brings it. */
static tsr_status write_difference(const pair *p, tsr_comparison *out) {
    tsr_writer *w = NULL;
    tsr_status status;
    tsr_writer_params params = TSR_WRITER_PARAMS_DEFAULT;
    out->gain = out->worst.largest > 0 ? exp2(floor(log2(2 / out->worst.largest))) : 1;
    params.path = p->params->difference;
    params.format = TSR_FORMAT_PNG;
    params.width = out->width;
    params.height = out->height;
    params.frames = 1;
    params.overwrite = p->params->overwrite;
    uint8_t *rgb = malloc(p->values);
    if (!rgb)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", params.path);
    for (size_t i = 0; i < p->values; i++)
        rgb[i] = (uint8_t)lrint(fmin((double)p->worst[i] * out->gain * 127.5, 255));
    if (out->worst.mse > 0)
        outline(rgb, out->width, out->height, &out->worst, p->params->block);
    TSR_TRY(tsr_writer_open(&w, &params));
    TSR_TRY(tsr_writer_frame(w, &(tsr_frame){0, out->width, out->height, TSR_PIXELS_RGB8, rgb, p->values}));
    TSR_TRY(tsr_writer_finish(w));
error:
    tsr_writer_close(&w);
    free(rgb);
    return status;
}

/* ---------------------------------------------------------------- all frames */

static tsr_status compare_all(pair *p, tsr_comparison *out) {
    const tsr_compare_params *q = p->params;
    tsr_status status = TSR_OK;
    for (int64_t i = 0; q->end == 0 || i < q->end; i++) {
        bool got;
        tsr_difference d;
        TSR_TRY(read_pair(p, i, i < q->first, &got));
        if (!got && (q->end || i <= q->first))
            return tsr_fail(TSR_ERR_ARGUMENT, "%.300s has %lld frames only", p->info[0]->path, (long long)i);
        if (!got)
            break;
        if (i < q->first)
            continue;
        TSR_TRY(tsr_compare_frames(p->frame[0], p->frame[1], out->width, out->height, q->block, &d));
        d.frame = i;
        add(p, out, &d);
        if (q->on_frame)
            TSR_TRY(q->on_frame(q->user, &d));
    }
    out->psnr = tsr_psnr(out->psnr / (double)out->frames);
    out->ssim /= (double)out->frames;
error:
    return status;
}

tsr_status tsr_compare(const char *a, const char *b, const tsr_compare_params *params, tsr_comparison *out) {
    pair p = {.params = params};
    tsr_status status;
    *out = (tsr_comparison){0};
    if (params->block < 1 || params->first < 0 || (params->end && params->end <= params->first))
        return tsr_fail(TSR_ERR_ARGUMENT, "nothing to compare: frames %lld to %lld in blocks of %d",
            (long long)params->first, (long long)params->end, params->block);
    TSR_TRY(open_pair(&p, a, b));
    out->width = p.info[0]->width;
    out->height = p.info[0]->height;
    TSR_TRY(compare_all(&p, out));
    if (params->difference)
        TSR_TRY(write_difference(&p, out));
error:
    close_pair(&p);
    return status;
}

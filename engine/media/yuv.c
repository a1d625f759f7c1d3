#include "media/yuv.h"

#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <string.h>

const enum AVPixelFormat tsr_yuv_formats_8[3] = {AV_PIX_FMT_YUV420P, AV_PIX_FMT_YUV422P, AV_PIX_FMT_YUV444P};
const enum AVPixelFormat tsr_yuv_formats_10[3] = {
    AV_PIX_FMT_YUV420P10LE, AV_PIX_FMT_YUV422P10LE, AV_PIX_FMT_YUV444P10LE};

/* BT.709: luma of red, green, blue. */
static const float KR = 0.2126f, KG = 0.7152f, KB = 0.0722f;

tsr_status tsr_yuv_init(tsr_yuv *y, int width, int height, enum AVPixelFormat format) {
    *y = (tsr_yuv){0};
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(format);
    y->depth = d->comp[0].depth;
    y->log2_w = d->log2_chroma_w;
    y->log2_h = d->log2_chroma_h;
    size_t row = (size_t)width;
    y->rgb = malloc(3 * row * sizeof(float));
    y->cb = malloc((row + 2) * sizeof(float));
    y->cr = malloc((row + 2) * sizeof(float));
    y->frame = av_frame_alloc();
    if (!y->rgb || !y->cb || !y->cr || !y->frame)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: video frame of %dx%d", width, height);
    AVFrame *f = y->frame;
    f->width = width;
    f->height = height;
    f->format = format;
    f->color_range = AVCOL_RANGE_MPEG;
    f->colorspace = AVCOL_SPC_BT709;
    f->color_primaries = AVCOL_PRI_BT709;
    f->color_trc = AVCOL_TRC_BT709;
    f->chroma_location = AVCHROMA_LOC_LEFT;
    f->sample_aspect_ratio = (AVRational){1, 1};
    if (av_frame_get_buffer(f, 0) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: video frame of %dx%d", width, height);
    return TSR_OK;
}

static void load_row(const tsr_frame *f, int row, float *restrict rgb) {
    size_t n = (size_t)f->width, at = (size_t)row * n * 3;
    float *restrict r = rgb, *restrict g = rgb + n, *restrict b = rgb + 2 * n;
    if (f->pixels == TSR_PIXELS_RGB8) {
        const uint8_t *restrict p = (const uint8_t *)f->data + at;
        for (size_t x = 0; x < n; x++) {
            r[x] = (float)p[3 * x] * (1 / 255.0f);
            g[x] = (float)p[3 * x + 1] * (1 / 255.0f);
            b[x] = (float)p[3 * x + 2] * (1 / 255.0f);
        }
    } else {
        const uint16_t *restrict p = (const uint16_t *)f->data + at;
        for (size_t x = 0; x < n; x++) {
            r[x] = (float)p[3 * x] * (1 / 65535.0f);
            g[x] = (float)p[3 * x + 1] * (1 / 65535.0f);
            b[x] = (float)p[3 * x + 2] * (1 / 65535.0f);
        }
    }
}

/* v, as code = offset + span * v in units of 8 bits, into a row of a plane. */
static void store_row(
    const tsr_yuv *y, int plane, int row, const float *restrict v, size_t n, float offset, float span) {
    uint8_t *out = y->frame->data[plane] + (ptrdiff_t)row * y->frame->linesize[plane];
    float one = (float)(1 << (y->depth - 8));
    offset = offset * one + 0.5f;
    span *= one;
    if (y->depth == 8) {
        for (size_t x = 0; x < n; x++)
            out[x] = (uint8_t)(int)(v[x] * span + offset);
    } else {
        uint16_t *restrict wide = (uint16_t *)(void *)out;
        for (size_t x = 0; x < n; x++)
            wide[x] = (uint16_t)(int)(v[x] * span + offset);
    }
}

/* Luma goes out; chroma is added to cb and cr at [1 .. n] with the weight given. */
static void luma_row(tsr_yuv *y, int row, float weight) {
    size_t n = (size_t)y->frame->width;
    const float *restrict r = y->rgb, *restrict b = y->rgb + 2 * n;
    float *restrict g = y->rgb + n; /* luma takes its place */
    float *restrict cb = y->cb + 1, *restrict cr = y->cr + 1;
    float to_cb = weight / (2 * (1 - KB)), to_cr = weight / (2 * (1 - KR));
    for (size_t x = 0; x < n; x++) {
        float l = KR * r[x] + KG * g[x] + KB * b[x];
        cb[x] += (b[x] - l) * to_cb;
        cr[x] += (r[x] - l) * to_cr;
        g[x] = l;
    }
    store_row(y, 0, row, g, n, 16, 219);
}

/* Sited left: an even column keeps its place and takes a quarter of each neighbour. */
static void chroma_row(const tsr_yuv *y, int plane, int row, float *restrict c) {
    size_t n = (size_t)y->frame->width, step = (size_t)1 << y->log2_w, count = (n + step - 1) / step;
    if (step == 2) {
        c[0] = c[1];
        c[n + 1] = c[n];
        for (size_t x = 0; x < count; x++) /* in place: what is still to be read lies at 2x + 2 and behind */
            c[x] = 0.25f * c[2 * x] + 0.5f * c[2 * x + 1] + 0.25f * c[2 * x + 2];
        store_row(y, plane, row, c, count, 128, 224);
    } else {
        store_row(y, plane, row, c + 1, count, 128, 224);
    }
}

tsr_status tsr_yuv_convert(tsr_yuv *y, const tsr_frame *rgb) {
    if (av_frame_make_writable(y->frame) < 0) /* an encoder may still hold the last one */
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: video frame of %dx%d", rgb->width, rgb->height);
    int rows = 1 << y->log2_h;
    for (int top = 0; top < rgb->height; top += rows) {
        int end = top + rows < rgb->height ? top + rows : rgb->height;
        memset(y->cb, 0, ((size_t)rgb->width + 2) * sizeof(float));
        memset(y->cr, 0, ((size_t)rgb->width + 2) * sizeof(float));
        for (int row = top; row < end; row++) {
            load_row(rgb, row, y->rgb);
            luma_row(y, row, 1.0f / (float)(end - top));
        }
        chroma_row(y, 1, top / rows, y->cb);
        chroma_row(y, 2, top / rows, y->cr);
    }
    return TSR_OK;
}

void tsr_yuv_free(tsr_yuv *y) {
    free(y->rgb);
    free(y->cb);
    free(y->cr);
    av_frame_free(&y->frame);
    *y = (tsr_yuv){0};
}

#include "media/unpack.h"

#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- what the tags mean */

/* Untagged video is what players take it for: BT.601 up to the size of PAL, BT.709 above. */
static enum AVColorSpace colorspace(const AVFrame *f) {
    switch (f->colorspace) {
    case AVCOL_SPC_BT709:
    case AVCOL_SPC_FCC:
    case AVCOL_SPC_BT470BG:
    case AVCOL_SPC_SMPTE170M:
    case AVCOL_SPC_SMPTE240M:
    case AVCOL_SPC_YCGCO:
    case AVCOL_SPC_BT2020_NCL:
        return f->colorspace;
    case AVCOL_SPC_BT2020_CL:
        return AVCOL_SPC_BT2020_NCL; /* near enough, and hardly ever seen */
    default:
        return f->width >= 1280 || f->height > 576 ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    }
}

static void set_matrix(tsr_unpack *u, const AVFrame *f) {
    static const struct {
        enum AVColorSpace space;
        float kr, kb;
    } luma[] = {
        {AVCOL_SPC_BT709, 0.2126f, 0.0722f},
        {AVCOL_SPC_FCC, 0.30f, 0.11f},
        {AVCOL_SPC_BT470BG, 0.299f, 0.114f},
        {AVCOL_SPC_SMPTE170M, 0.299f, 0.114f},
        {AVCOL_SPC_SMPTE240M, 0.212f, 0.087f},
        {AVCOL_SPC_BT2020_NCL, 0.2627f, 0.0593f},
    };
    enum AVColorSpace space = colorspace(f);
    u->greenish = !u->rgb && space == AVCOL_SPC_YCGCO;
    for (size_t i = 0; i < sizeof luma / sizeof *luma; i++)
        if (luma[i].space == space) {
            u->kr = luma[i].kr;
            u->kb = luma[i].kb;
        }
}

static bool is_full_range(const tsr_unpack *u, const AVFrame *f) {
    switch (f->format) {
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUVJ444P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUVJ411P:
        return true;
    default: /* untagged: RGB and gray are full, YUV is limited */
        return f->color_range == AVCOL_RANGE_JPEG || (f->color_range != AVCOL_RANGE_MPEG && (u->rgb || u->gray));
    }
}

/* Chroma is sited left where nothing is said: MPEG-2, H.264, HEVC, VP9, AV1. */
static void set_siting(tsr_unpack *u, const AVFrame *f) {
    float middle_x = ((float)(1 << u->format->log2_chroma_w) - 1) / 2;
    float middle_y = ((float)(1 << u->format->log2_chroma_h) - 1) / 2;
    enum AVChromaLocation at = f->chroma_location;
    u->left = at == AVCHROMA_LOC_CENTER || at == AVCHROMA_LOC_TOP || at == AVCHROMA_LOC_BOTTOM ? middle_x : 0;
    u->top = at == AVCHROMA_LOC_TOPLEFT || at == AVCHROMA_LOC_TOP         ? 0
             : at == AVCHROMA_LOC_BOTTOMLEFT || at == AVCHROMA_LOC_BOTTOM ? 2 * middle_y
                                                                          : middle_y;
}

tsr_status tsr_unpack_init(tsr_unpack *u, const AVFrame *f) {
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(f->format);
    const uint64_t no_picture = AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_FLOAT | AV_PIX_FMT_FLAG_BAYER;
    *u = (tsr_unpack){.format = d, .width = f->width, .height = f->height};
    if (!d || (d->flags & no_picture) || d->comp[0].depth > 16 || f->format == AV_PIX_FMT_XYZ12LE ||
        f->format == AV_PIX_FMT_XYZ12BE)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "pixel format %s is not read; convert it with ffmpeg -pix_fmt rgb48",
            d ? d->name : "unknown");
    u->gray = d->nb_components < 3 && !(d->flags & AV_PIX_FMT_FLAG_PAL);
    u->rgb = (d->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) != 0;
    u->full = is_full_range(u, f);
    set_matrix(u, f);
    set_siting(u, f);
    size_t n = (size_t)f->width;
    u->code = malloc(n * sizeof *u->code);
    u->row = malloc(3 * n * sizeof *u->row);
    u->near = malloc(n * sizeof *u->near);
    if (!u->code || !u->row || !u->near)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: a row of %d pixels", f->width);
    return TSR_OK;
}

void tsr_unpack_free(tsr_unpack *u) {
    free(u->code);
    free(u->row);
    free(u->near);
    *u = (tsr_unpack){0};
}

/* ---------------------------------------------------------------- one row */

/* out = weight * row y of component c, as 0..1, or as -0.5..0.5 of chroma; added where weight < 1 is the rest. */
static void read_row(tsr_unpack *u, const AVFrame *f, int c, int y, int n, float weight, bool add, float *out) {
    bool chroma = !u->rgb && c > 0;
    int depth = u->format->flags & AV_PIX_FMT_FLAG_PAL ? 8 : u->format->comp[c].depth;
    float one = depth >= 8 ? (float)(1 << (depth - 8)) : 1, most = (float)((1 << depth) - 1);
    float zero = chroma ? (float)(1 << (depth - 1)) : u->full ? 0 : 16 * one;
    float scale = weight / (u->full ? most : chroma ? 224 * one : 219 * one);
    av_read_image_line2(u->code, (const uint8_t **)f->data, f->linesize, u->format, 0, y, c, n,
        (u->format->flags & AV_PIX_FMT_FLAG_PAL) != 0, sizeof *u->code);
    if (add)
        for (int x = 0; x < n; x++)
            out[x] += ((float)u->code[x] - zero) * scale;
    else
        for (int x = 0; x < n; x++)
            out[x] = ((float)u->code[x] - zero) * scale;
}

/* Sample i and the fraction towards i + 1 of `count` samples every `step` luma samples, at position p. */
static int sample_at(float p, float first, int step, int count, float *fraction) {
    float at = (p - first) / (float)step;
    at = at < 0 ? 0 : at > (float)(count - 1) ? (float)(count - 1) : at;
    int i = (int)at;
    i = i > count - 2 ? count - 2 : i;
    i = i < 0 ? 0 : i;
    *fraction = at - (float)i;
    return i;
}

/* A row of chroma, linear between samples. */
static void chroma_row(tsr_unpack *u, const AVFrame *f, int c, int y, float *out) {
    int log2_w = u->format->log2_chroma_w, log2_h = u->format->log2_chroma_h;
    int columns = AV_CEIL_RSHIFT(u->width, log2_w), rows = AV_CEIL_RSHIFT(u->height, log2_h);
    float part;
    int above = sample_at((float)y, u->top, 1 << log2_h, rows, &part);
    float *near = log2_w ? u->near : out;
    read_row(u, f, c, above, columns, 1 - part, false, near);
    if (part > 0)
        read_row(u, f, c, above + 1, columns, part, true, near);
    for (int x = 0; log2_w && x < u->width; x++) {
        int i = sample_at((float)x, u->left, 1 << log2_w, columns, &part);
        out[x] = part > 0 ? near[i] + (near[i + 1] - near[i]) * part : near[i];
    }
}

/* Y Cb Cr (or Y Cg Co) to R G B, in place. */
static void to_rgb(const tsr_unpack *u, float *row) {
    size_t n = (size_t)u->width;
    float *restrict y = row, *restrict cb = row + n, *restrict cr = row + 2 * n;
    float r_cr = 2 * (1 - u->kr), b_cb = 2 * (1 - u->kb), kg = 1 - u->kr - u->kb;
    for (size_t x = 0; u->greenish && x < n; x++) {
        float base = y[x] - cb[x], orange = cr[x], green = y[x] + cb[x];
        y[x] = base + orange;
        cb[x] = green;
        cr[x] = base - orange;
    }
    for (size_t x = 0; !u->greenish && x < n; x++) {
        float r = y[x] + r_cr * cr[x], b = y[x] + b_cb * cb[x];
        float g = (y[x] - u->kr * r - u->kb * b) / kg;
        y[x] = r;
        cb[x] = g;
        cr[x] = b;
    }
}

static float clamped(float v) {
    v = 2 * v - 1;
    return v < -1 ? -1 : v > 1 ? 1 : v;
}

void tsr_unpack_frame(tsr_unpack *u, const AVFrame *f, tsr_turn turn, float *rgb) {
    size_t n = (size_t)u->width;
    float *row = u->row;
    for (int y = 0; y < u->height; y++) {
        read_row(u, f, 0, y, u->width, 1, false, row);
        for (int c = 1; c < 3 && !u->gray; c++)
            if (u->rgb)
                read_row(u, f, c, y, u->width, 1, false, row + (size_t)c * n);
            else
                chroma_row(u, f, c, y, row + (size_t)c * n);
        if (!u->rgb && !u->gray)
            to_rgb(u, row);
        for (size_t x = 0; x < n; x++) {
            float *out = rgb + 3 * (turn.base + y * turn.dy + (int64_t)x * turn.dx);
            for (size_t c = 0; c < 3; c++)
                out[c] = clamped(row[u->gray ? x : c * n + x]);
        }
    }
}

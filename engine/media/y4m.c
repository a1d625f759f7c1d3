/* YUV4MPEG2: a text header, then FRAME and three planes. It has no tag for the matrix: BT.709, as
 * all our video. */
#include "media/yuv.h"

#include <libavutil/imgutils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char frame_mark[] = "FRAME\n";
enum { MARK = sizeof frame_mark - 1 };

struct y4m {
    tsr_yuv yuv;
    char *buffer; /* the mark and the planes, tightly packed */
    size_t bytes;
};

static tsr_status y4m_open(tsr_writer *w) {
    const tsr_writer_params *p = &w->params;
    bool deep = p->depth == 10;
    w->pixels = deep ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    struct y4m *y = w->state = calloc(1, sizeof *y);
    if (!y)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path);
    enum AVPixelFormat format = deep ? tsr_yuv_formats_10[0] : tsr_yuv_formats_8[0];
    tsr_status status;
    TSR_TRY(tsr_yuv_init(&y->yuv, p->width, p->height, format));
    int planes = av_image_get_buffer_size(format, p->width, p->height, 1);
    y->buffer = planes > 0 ? malloc(MARK + (size_t)planes) : NULL;
    if (!y->buffer)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path);
    y->bytes = MARK + (size_t)planes;
    memcpy(y->buffer, frame_mark, MARK);

    int num, den;
    tsr_fps_fraction(p->fps, &num, &den);
    char header[160];
    int n = snprintf(header, sizeof header, "YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 %s XCOLORRANGE=LIMITED\n", p->width,
        p->height, num, den, deep ? "C420p10 XYSCSS=420P10" : "C420mpeg2 XYSCSS=420MPEG2");
    if (w->written)
        return tsr_writer_go_on(w, header, (size_t)n, n + w->written * (int64_t)y->bytes);
    TSR_TRY(tsr_out_open(&w->out, p->path, p->overwrite));
    status = tsr_out_write(&w->out, header, (size_t)n);
error:
    return status;
}

static tsr_status y4m_frame(tsr_writer *w, const tsr_frame *f) {
    struct y4m *y = w->state;
    tsr_status status = tsr_yuv_convert(&y->yuv, f);
    if (status != TSR_OK)
        return status;
    const AVFrame *a = y->yuv.frame;
    av_image_copy_to_buffer((uint8_t *)y->buffer + MARK, (int)(y->bytes - MARK), (const uint8_t *const *)a->data,
        a->linesize, a->format, a->width, a->height, 1);
    return tsr_out_write(&w->out, y->buffer, y->bytes);
}

static void y4m_close(tsr_writer *w) {
    struct y4m *y = w->state;
    if (!y)
        return;
    free(y->buffer);
    tsr_yuv_free(&y->yuv);
    free(y);
}

const tsr_writer_ops tsr_y4m_ops = {.open = y4m_open, .frame = y4m_frame, .close = y4m_close, .appends = true};

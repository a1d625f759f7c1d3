/* RGB to BT.709 limited-range YUV, for the video and Y4M writers. Our own, because swscale (6.7)
 * takes 16-bit white to 943 of 1023 where 940 is due, and sites chroma in the middle. */
#ifndef TSR_YUV_H
#define TSR_YUV_H

#include "media/media.h"

#include <libavutil/frame.h>

typedef struct tsr_yuv {
    AVFrame *frame;            /* planes of the format asked for, tagged BT.709 limited, chroma sited left */
    int depth, log2_w, log2_h; /* bits; chroma subsampling */
    float *rgb;                /* [3][width], one row, 0..1 */
    float *cb, *cr;            /* [width + 2], one chroma row before it is thinned out, with a copy of its ends
                                  around it; -0.5..0.5 */
} tsr_yuv;

/* 4:2:0 at [0], 4:2:2 at [1], 4:4:4 at [2]; of 8 or 10 bits. */
extern const enum AVPixelFormat tsr_yuv_formats_8[3], tsr_yuv_formats_10[3];
tsr_status tsr_yuv_init(tsr_yuv *y, int width, int height, enum AVPixelFormat format);
/* rgb (RGB8 or RGB16, of the size given) into y->frame. */
tsr_status tsr_yuv_convert(tsr_yuv *y, const tsr_frame *rgb);
void tsr_yuv_free(tsr_yuv *y);

#endif

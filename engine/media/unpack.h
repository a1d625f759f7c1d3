/* Decoded frames of any pixel format to RGB floats: matrix, range and chroma siting as tagged. Our own, because
 * swscale (6.7) rounds through 8 to 15 bits on the way. */
#ifndef TSR_UNPACK_H
#define TSR_UNPACK_H

#include "core/core.h"
#include "media/read.h"

#include <libavutil/frame.h>

struct AVPixFmtDescriptor;

typedef struct tsr_unpack {
    const struct AVPixFmtDescriptor *format;
    int width, height;
    bool full, gray, rgb, greenish; /* range; one component; no matrix; YCgCo */
    float kr, kb;                   /* luma of red and blue */
    float left, top;                /* where the first chroma sample lies, in luma samples */
    uint16_t *code;                 /* [width] */
    float *row;                     /* [3][width]: Y or R, Cb or G, Cr or B; 0..1 and -0.5..0.5 */
    float *near;                    /* [width]: a row of chroma before it is stretched */
} tsr_unpack;

/* For frames like this one. Fails where the pixel format is not one of pictures (float, Bayer, hardware). */
tsr_status tsr_unpack_init(tsr_unpack *u, const AVFrame *like);
void tsr_unpack_free(tsr_unpack *u);
/* Pixel (x, y) goes to rgb[3 * (turn.base + x*turn.dx + y*turn.dy)], clamped to -1..1. */
void tsr_unpack_frame(tsr_unpack *u, const AVFrame *f, tsr_turn turn, float *rgb);

#endif

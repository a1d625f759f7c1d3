/* libav's encoder for the video writers.
 *
 * A video is coded in parts of TSR_PART_FRAMES frames, each by an encoder of its own: closed groups of pictures that
 * know nothing of each other. So the packets of a part that is coded stay as they are, and the file is the same to the
 * byte whether its writer was killed in between or not. */
#ifndef TSR_ENCODER_H
#define TSR_ENCODER_H

#include "media/yuv.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>

enum { TSR_PART_FRAMES = 96 };

typedef struct tsr_encoder {
    const tsr_writer_params *params;
    const AVCodec *codec;
    AVCodecContext *av; /* NULL between parts */
    AVPacket *packet;
    bool global_header;
    tsr_yuv yuv;
    int64_t frames, begin; /* that were given; of them, before the part in hand */
    /* Takes a packet, its times in frames of the video. Not to be kept. */
    tsr_status (*put)(void *user, AVPacket *packet);
    void *user;
} tsr_encoder;

/* Finds the encoder, checks what it is asked for, opens it. Set put and user before a frame is given. */
tsr_status tsr_encoder_open(tsr_encoder *e, const tsr_writer_params *p, const AVOutputFormat *container);
tsr_status tsr_encoder_frame(tsr_encoder *e); /* the one in e->yuv */
tsr_status tsr_encoder_end_part(tsr_encoder *e);
void tsr_encoder_close(tsr_encoder *e);

#endif

/* The sound of another clip, copied packet by packet beside the video that is written. */
#ifndef TSR_AUDIO_H
#define TSR_AUDIO_H

#include "core/core.h"

#include <libavformat/avformat.h>

typedef struct tsr_audio {
    AVFormatContext *demux; /* NULL: no sound */
    AVStream *from, *to;
    AVPacket *packet; /* the next one, where `waiting` */
    bool waiting, ended;
    double start; /* seconds of the clip that come out as 0 */
} tsr_audio;

/* Adds a stream to mux, before its header is written. A clip without sound adds none. */
tsr_status tsr_audio_open(tsr_audio *a, const char *clip, double start, AVFormatContext *mux, const char *out);
/* Writes what sounds before `until` seconds of the output. Returns libav's error, 0 where all is well. */
int tsr_audio_copy(tsr_audio *a, AVFormatContext *mux, double until);
void tsr_audio_close(tsr_audio *a);

#endif

#include "media/audio.h"

#include "media/libav.h"

#include <libavcodec/avcodec.h>
#include <math.h>

/* When the clip's first frame is shown, in its own time. */
static double clip_begin(AVFormatContext *demux) {
    int video = av_find_best_stream(demux, AVMEDIA_TYPE_VIDEO, -1, -1, NULL, 0);
    const AVStream *s = video >= 0 ? demux->streams[video] : NULL;
    if (s && s->start_time != AV_NOPTS_VALUE)
        return (double)s->start_time * av_q2d(s->time_base);
    return demux->start_time != AV_NOPTS_VALUE ? (double)demux->start_time / AV_TIME_BASE : 0;
}

tsr_status tsr_audio_open(tsr_audio *a, const char *clip, double start, AVFormatContext *mux, const char *out) {
    tsr_status status;
    TSR_TRY(tsr_libav_open(&a->demux, clip));
    int stream = av_find_best_stream(a->demux, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0);
    if (stream < 0) {
        avformat_close_input(&a->demux);
        return TSR_OK;
    }
    for (unsigned i = 0; i < a->demux->nb_streams; i++)
        if ((int)i != stream)
            a->demux->streams[i]->discard = AVDISCARD_ALL;
    a->from = a->demux->streams[stream];
    a->start = clip_begin(a->demux) + start;
    if (avformat_query_codec(mux->oformat, a->from->codecpar->codec_id, FF_COMPLIANCE_NORMAL) == 0)
        TSR_TRY(tsr_fail(TSR_ERR_ARGUMENT, "wrong container: the sound of %.200s, %s, does not go into %.200s; use mkv",
            clip, avcodec_get_name(a->from->codecpar->codec_id), out));
    a->to = avformat_new_stream(mux, NULL);
    a->packet = av_packet_alloc();
    if (!a->to || !a->packet || avcodec_parameters_copy(a->to->codecpar, a->from->codecpar) < 0)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory: %.300s", out));
    a->to->codecpar->codec_tag = 0; /* containers have their own */
    a->to->time_base = a->from->time_base;
error:
    return status;
}

static double time_of(const tsr_audio *a) {
    int64_t pts = a->packet->pts != AV_NOPTS_VALUE ? a->packet->pts : a->packet->dts;
    return pts == AV_NOPTS_VALUE ? -INFINITY : (double)pts * av_q2d(a->from->time_base) - a->start;
}

/* The next packet of the sound; false at its end. A clip that is cut short was told of by who read its frames. */
static bool fetch(tsr_audio *a) {
    while (!a->waiting && !a->ended) {
        a->ended = av_read_frame(a->demux, a->packet) < 0;
        a->waiting = !a->ended && a->packet->stream_index == a->from->index && time_of(a) >= 0;
        if (!a->waiting)
            av_packet_unref(a->packet);
    }
    return a->waiting;
}

int tsr_audio_copy(tsr_audio *a, AVFormatContext *mux, double until) {
    int error = 0;
    if (!a->demux)
        return 0;
    int64_t shift = llrint(a->start / av_q2d(a->from->time_base));
    while (error >= 0 && fetch(a) && time_of(a) < until) {
        if (a->packet->pts != AV_NOPTS_VALUE)
            a->packet->pts -= shift;
        if (a->packet->dts != AV_NOPTS_VALUE)
            a->packet->dts -= shift;
        a->packet->stream_index = a->to->index;
        a->packet->pos = -1;
        av_packet_rescale_ts(a->packet, a->from->time_base, a->to->time_base);
        error = av_interleaved_write_frame(mux, a->packet); /* takes the packet */
        a->waiting = false;
    }
    return error;
}

void tsr_audio_close(tsr_audio *a) {
    av_packet_free(&a->packet);
    avformat_close_input(&a->demux);
}

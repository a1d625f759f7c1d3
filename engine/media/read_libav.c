/* Video, and pictures that are no PNG, through libav: any container and codec it knows, every decoded frame as it
 * stands, turned as the file asks. */
#include "media/libav.h"
#include "media/unpack.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/pixdesc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct clip {
    AVFormatContext *demux;
    AVCodecContext *decoder;
    AVPacket *packet;
    AVFrame *frame;
    int stream;
    int width, height; /* as stored */
    bool drained;      /* the demuxer has no more */
    tsr_turn turn;
    tsr_unpack unpack; /* format NULL until the first frame */
};

/* ---------------------------------------------------------------- opening */

static tsr_status open_decoder(tsr_reader *r, struct clip *c) {
    const AVCodec *codec = NULL;
    c->stream = av_find_best_stream(c->demux, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
    if (c->stream == AVERROR_DECODER_NOT_FOUND)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "%.300s: libav has no decoder here for its video; convert it first", r->path);
    if (c->stream < 0)
        return tsr_reader_bad(r, "holds no picture or video");
    const AVStream *s = c->demux->streams[c->stream];
    for (unsigned i = 0; i < c->demux->nb_streams; i++)
        if ((int)i != c->stream)
            c->demux->streams[i]->discard = AVDISCARD_ALL;
    c->decoder = avcodec_alloc_context3(codec);
    c->packet = av_packet_alloc();
    c->frame = av_frame_alloc();
    if (!c->decoder || !c->packet || !c->frame || avcodec_parameters_to_context(c->decoder, s->codecpar) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to decode it", r->path);
    c->decoder->pkt_timebase = s->time_base;
    c->decoder->thread_count = 0; /* one a core */
    int error = avcodec_open2(c->decoder, codec, NULL);
    return error < 0 ? tsr_libav_fail(TSR_ERR_FORMAT, "cannot decode", r->path, error) : TSR_OK;
}

/* ---------------------------------------------------------------- what the file says of itself */

/* The display matrix, by quarter turns and flips. (x, y) goes to (a x + c y, b x + d y). */
static void read_turn(tsr_reader *r, struct clip *c) {
    const AVStream *s = c->demux->streams[c->stream];
    int64_t w = c->width, h = c->height;
    int32_t *m = (int32_t *)(void *)av_stream_get_side_data(s, AV_PKT_DATA_DISPLAYMATRIX, NULL);
    double angle = m ? av_display_rotation_get(m) : 0;
    c->turn = (tsr_turn){0, 1, w};
    if (!m || isnan(angle))
        return;
    double a = m[0], b = m[1], cc = m[3], d = m[4], near = 0.01 * (fabs(a) + fabs(b));
    if (fabs(b) < near && fabs(cc) < near) {
        c->turn = (tsr_turn){(a < 0 ? w - 1 : 0) + (d < 0 ? (h - 1) * w : 0), a < 0 ? -1 : 1, d < 0 ? -w : w};
        if (a < 0 || d < 0)
            tsr_reader_note(r, a < 0 && d < 0 ? "turned by 180 degrees" : "flipped");
    } else if (fabs(a) < near && fabs(d) < near) { /* the picture shown is h wide */
        c->turn = (tsr_turn){(cc < 0 ? h - 1 : 0) + (b < 0 ? (w - 1) * h : 0), b < 0 ? -h : h, cc < 0 ? -1 : 1};
        r->info.width = c->height;
        r->info.height = c->width;
        tsr_reader_note(r, "turned by 90 degrees");
    } else {
        tsr_reader_note(r, "asks to be turned by %.0f degrees, which is not done", -angle);
    }
}

static void read_rate(tsr_reader *r, const AVStream *s) {
    AVRational rate = s->avg_frame_rate.num > 0 && s->avg_frame_rate.den > 0 ? s->avg_frame_rate : s->r_frame_rate;
    r->info.fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 0;
}

static void read_notes(tsr_reader *r, const AVCodecParameters *p, const AVStream *s) {
    const AVPixFmtDescriptor *d = av_pix_fmt_desc_get(p->format);
    AVRational aspect = s->sample_aspect_ratio.num ? s->sample_aspect_ratio : p->sample_aspect_ratio;
    r->info.depth = d ? d->comp[0].depth : 8;
    if (d && (d->flags & AV_PIX_FMT_FLAG_ALPHA))
        tsr_reader_note(r, "alpha is dropped");
    if (p->color_trc == AVCOL_TRC_SMPTE2084 || p->color_trc == AVCOL_TRC_ARIB_STD_B67)
        tsr_reader_note(r, "is HDR (%s): its values are taken as they are", av_color_transfer_name(p->color_trc));
    if (aspect.num > 0 && aspect.den > 0 && aspect.num != aspect.den)
        tsr_reader_note(r, "pixels are %d:%d and stay so", aspect.num, aspect.den);
    if (p->field_order > AV_FIELD_PROGRESSIVE)
        tsr_reader_note(r, "is interlaced: frames are taken with both fields");
}

static tsr_status libav_open(tsr_reader *r) {
    tsr_status status;
    struct clip *c = r->state = calloc(1, sizeof *c);
    if (!c)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to read it", r->path);
    TSR_TRY(tsr_reader_check_whole(r));
    TSR_TRY(tsr_libav_open(&c->demux, r->path));
    TSR_TRY(open_decoder(r, c));
    const AVStream *s = c->demux->streams[c->stream];
    const char *demuxer = c->demux->iformat->name;
    bool picture = strstr(demuxer, "_pipe") || strncmp(demuxer, "image2", 6) == 0;
    c->width = r->info.width = s->codecpar->width;
    c->height = r->info.height = s->codecpar->height;
    r->info.kind = picture ? "picture" : "video";
    r->info.frames = picture ? 1 : 0;
    r->info.audio = av_find_best_stream(c->demux, AVMEDIA_TYPE_AUDIO, -1, -1, NULL, 0) >= 0;
    read_turn(r, c);
    if (!picture)
        read_rate(r, s);
    read_notes(r, s->codecpar, s);
error:
    return status;
}

/* ---------------------------------------------------------------- frames */

static tsr_status damaged(tsr_reader *r, int error) {
    char what[64];
    snprintf(what, sizeof what, "damaged or cut short at frame %lld", (long long)r->at);
    return tsr_libav_fail(TSR_ERR_FORMAT, what, r->path, error);
}

/* Hands the decoder one more packet of the video, or the end. */
static tsr_status feed(tsr_reader *r, struct clip *c) {
    int error;
    do {
        av_packet_unref(c->packet);
        error = av_read_frame(c->demux, c->packet);
    } while (error >= 0 && c->packet->stream_index != c->stream);
    if (error < 0 && (error != AVERROR_EOF || tsr_libav_demuxer_complained()))
        return damaged(r, error == AVERROR_EOF ? AVERROR_INVALIDDATA : error);
    if (error >= 0 && (c->packet->flags & AV_PKT_FLAG_CORRUPT))
        return damaged(r, AVERROR_INVALIDDATA);
    c->drained = error < 0;
    error = avcodec_send_packet(c->decoder, c->drained ? NULL : c->packet);
    av_packet_unref(c->packet);
    return error < 0 ? damaged(r, error) : TSR_OK;
}

/* *got: c->frame is the next one. */
static tsr_status next_frame(tsr_reader *r, struct clip *c, bool *got) {
    *got = false;
    tsr_libav_forget();
    for (;;) {
        int error = avcodec_receive_frame(c->decoder, c->frame);
        if (error == AVERROR_EOF)
            return TSR_OK;
        if (error == AVERROR(EAGAIN)) {
            tsr_status status = feed(r, c);
            if (status != TSR_OK)
                return status;
            continue;
        }
        if (error < 0 || c->frame->decode_error_flags || (c->frame->flags & AV_FRAME_FLAG_CORRUPT))
            return damaged(r, error < 0 ? error : AVERROR_INVALIDDATA);
        *got = true;
        return TSR_OK;
    }
}

static void note_time(tsr_reader *r, const struct clip *c) {
    int64_t pts = c->frame->best_effort_timestamp;
    double now = pts == AV_NOPTS_VALUE ? NAN : (double)pts * av_q2d(c->demux->streams[c->stream]->time_base);
    double step = now - r->last;
    if (r->at == 0)
        r->first = now;
    if (r->at > 0)
        r->shortest = r->at == 1 ? step : fmin(r->shortest, step);
    r->longest = r->at > 0 ? fmax(r->longest, step) : 0;
    r->last = now;
}

/* An mp4 names its frames in front: one that ends early is seen by their number. */
static tsr_status check_end(tsr_reader *r, const struct clip *c) {
    int64_t announced = c->demux->streams[c->stream]->nb_frames;
    if (r->at == 0 || (tsr_libav_demuxer_complained() && r->at < announced))
        return damaged(r, AVERROR_INVALIDDATA);
    return TSR_OK;
}

static tsr_status libav_frame(tsr_reader *r, float *rgb, bool *got) {
    struct clip *c = r->state;
    tsr_status status = TSR_OK;
    if (r->info.frames && r->at == r->info.frames)
        return TSR_OK;
    TSR_TRY(next_frame(r, c, got));
    if (!*got)
        return check_end(r, c);
    if (c->frame->width != c->width || c->frame->height != c->height)
        TSR_TRY(tsr_reader_bad(r, "frame %lld is %dx%d, the first one %dx%d; cut the video where its size changes",
            (long long)r->at, c->frame->width, c->frame->height, c->width, c->height));
    if (c->unpack.format && c->unpack.format != av_pix_fmt_desc_get(c->frame->format))
        tsr_unpack_free(&c->unpack);
    if (!c->unpack.format && tsr_unpack_init(&c->unpack, c->frame) != TSR_OK)
        TSR_TRY(tsr_fail_context(TSR_ERR_UNSUPPORTED, "%.300s", r->path));
    note_time(r, c);
    if (rgb)
        tsr_unpack_frame(&c->unpack, c->frame, c->turn, rgb);
error:
    if (status != TSR_OK)
        *got = false;
    av_frame_unref(c->frame);
    return status;
}

static void libav_close(tsr_reader *r) {
    struct clip *c = r->state;
    if (!c)
        return;
    tsr_unpack_free(&c->unpack);
    av_frame_free(&c->frame);
    av_packet_free(&c->packet);
    avcodec_free_context(&c->decoder);
    avformat_close_input(&c->demux);
    free(c);
}

const tsr_reader_ops tsr_read_libav = {.open = libav_open, .frame = libav_frame, .close = libav_close};

/* mp4, mkv and webm through libav. The bytes go through tsr_out, so that every failed write is
 * seen, and named. */
#include "media/audio.h"
#include "media/libav.h"
#include "media/yuv.h"

#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IO_BUFFER = 1 << 16 };

/* What good encoders want to be told. crf: visually lossless or near it, for results that get
 * edited or shown. */
static const struct known {
    const char *encoder;
    int crf;
    const char *options;
} known[] = {
    {"libx264", 16, "preset=medium"},
    {"libx265", 18, "preset=medium:x265-params=log-level=none"},
    {"libvpx-vp9", 22, "b=0:deadline=good:cpu-used=2:row-mt=1"},
    {"libaom-av1", 22, "b=0:cpu-used=5:row-mt=1"},
    {"libsvtav1", 22, ""},
};

struct video {
    AVFormatContext *mux;
    AVCodecContext *encoder;
    AVStream *stream;
    AVPacket *packet;
    AVIOContext *io;
    tsr_audio audio;
    tsr_yuv yuv;
    tsr_status io_status; /* of the first write that failed; its message is kept in io_message, for
                             libav hides it */
    char io_message[512];
};

/* ---------------------------------------------------------------- errors */

static tsr_status fail_av(tsr_writer *w, const char *what, int error) {
    struct video *v = w->state;
    if (v->io_status != TSR_OK)
        return tsr_fail(v->io_status, "%s", v->io_message);
    return tsr_libav_fail(TSR_ERR_IO, what, w->params.path, error);
}

/* ---------------------------------------------------------------- bytes */

static int on_write(void *opaque, uint8_t *data, int bytes) {
    tsr_writer *w = opaque;
    struct video *v = w->state;
    tsr_status status = tsr_out_write(&w->out, data, (size_t)bytes);
    if (status == TSR_OK)
        return bytes;
    if (v->io_status == TSR_OK) {
        v->io_status = status;
        snprintf(v->io_message, sizeof v->io_message, "%s", tsr_last_error());
    }
    return AVERROR(EIO);
}

static int64_t on_seek(void *opaque, int64_t offset, int whence) {
    tsr_writer *w = opaque;
    if (whence == AVSEEK_SIZE) {
        struct stat st;
        return fstat(w->out.fd, &st) == 0 ? st.st_size : AVERROR(errno);
    }
    off_t at = lseek(w->out.fd, offset, whence & ~AVSEEK_FORCE);
    return at < 0 ? AVERROR(errno) : at;
}

static tsr_status open_bytes(tsr_writer *w) {
    struct video *v = w->state;
    tsr_status status = tsr_out_open(&w->out, w->params.path, w->params.overwrite);
    if (status != TSR_OK)
        return status;
    uint8_t *buffer = av_malloc(IO_BUFFER);
    bool file = w->out.part != NULL;
    v->io = buffer
                ? avio_alloc_context(buffer, IO_BUFFER, 1, w, NULL, on_write, file ? on_seek : NULL)
                : NULL;
    if (!v->io) {
        av_free(buffer);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    }
    v->io->seekable = file ? AVIO_SEEKABLE_NORMAL : 0;
    v->mux->pb = v->io;
    v->mux->flags |=
        AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT; /* the same frames make the same file */
    /* mp4 reads the file back to move its index to the front. */
    v->mux->url = av_strdup(file ? w->out.part : "pipe:");
    return v->mux->url ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
}

/* ---------------------------------------------------------------- encoder */

static tsr_status find_encoder(tsr_writer *w, const AVCodec **out) {
    const tsr_writer_params *p = &w->params;
    const AVOutputFormat *container = ((struct video *)w->state)->mux->oformat;
    bool webm = p->format == TSR_FORMAT_WEBM;
    const AVCodec *c;
    if (p->codec) {
        c = avcodec_find_encoder_by_name(p->codec);
        if (!c || c->type != AVMEDIA_TYPE_VIDEO)
            return tsr_fail(TSR_ERR_ARGUMENT,
                "unknown video encoder: %s; `ffmpeg -encoders` lists what libav may have here "
                "(libx264, libx265, libvpx-vp9, ...)",
                p->codec);
    } else {
        c = avcodec_find_encoder_by_name(webm ? "libvpx-vp9" : "libx264");
        if (!c)
            c = avcodec_find_encoder(webm ? AV_CODEC_ID_VP9 : AV_CODEC_ID_H264);
        if (!c)
            return tsr_fail(TSR_ERR_UNSUPPORTED,
                "libav has no %s encoder here: %s; name another codec or another format",
                webm ? "VP9" : "H.264", p->path);
    }
    if (avformat_query_codec(container, c->id, FF_COMPLIANCE_NORMAL) == 0)
        return tsr_fail(TSR_ERR_ARGUMENT,
            "wrong codec: %s does not go into %s; use mkv or another codec", c->name,
            tsr_format_name(p->format));
    *out = c;
    return TSR_OK;
}

/* Among the encoder's formats of the depth asked for the one with the least chroma that fits the
 * size: H.264 and HEVC crop to whole chroma samples, so an odd picture is 4:4:4 there; VP9 and AV1
 * have odd 4:2:0. */
static tsr_status choose_pixels(tsr_writer *w, const AVCodec *c, enum AVPixelFormat *out) {
    const tsr_writer_params *p = &w->params;
    bool odd = (p->width | p->height) & 1;
    bool full = odd && c->id != AV_CODEC_ID_VP9 && c->id != AV_CODEC_ID_AV1;
    const enum AVPixelFormat *want = p->depth == 10 ? tsr_yuv_formats_10 : tsr_yuv_formats_8;
    for (int i = full ? 2 : 0; i < 3; i++)
        for (const enum AVPixelFormat *has = c->pix_fmts; has && *has != AV_PIX_FMT_NONE; has++)
            if (*has == want[i]) {
                *out = want[i];
                return TSR_OK;
            }
    return tsr_fail(TSR_ERR_ARGUMENT,
        "wrong codec: %s takes no %d-bit YUV%s; choose another depth or codec", c->name, p->depth,
        full ? " 4:4:4, which an odd picture size needs" : "");
}

static tsr_status encoder_options(tsr_writer *w, const AVCodec *c, AVDictionary **options) {
    int crf = w->params.crf;
    const char *more = "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(c->name, known[i].encoder) == 0) {
            crf = crf < 0 ? known[i].crf : crf;
            more = known[i].options;
        }
    av_dict_parse_string(options, more, "=", ":", 0);
    if (crf < 0)
        return TSR_OK;
    if (!c->priv_class ||
        !av_opt_find((void *)&c->priv_class, "crf", NULL, 0, AV_OPT_SEARCH_FAKE_OBJ))
        return tsr_fail(TSR_ERR_ARGUMENT,
            "wrong codec: %s has no crf; leave it out or choose another codec", c->name);
    av_dict_set_int(options, "crf", crf, 0);
    return TSR_OK;
}

static tsr_status open_encoder(tsr_writer *w, const AVCodec *c) {
    const tsr_writer_params *p = &w->params;
    struct video *v = w->state;
    AVDictionary *options = NULL;
    enum AVPixelFormat pixels = AV_PIX_FMT_NONE;
    int num, den, error;
    tsr_status status;
    TSR_TRY(choose_pixels(w, c, &pixels));
    TSR_TRY(tsr_yuv_init(&v->yuv, p->width, p->height, pixels));
    TSR_TRY(encoder_options(w, c, &options));
    AVCodecContext *e = v->encoder = avcodec_alloc_context3(c);
    if (!e) {
        status = tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", c->name);
        goto error;
    }
    tsr_fps_fraction(p->fps, &num, &den);
    e->width = p->width;
    e->height = p->height;
    e->pix_fmt = pixels;
    e->time_base = (AVRational){den, num};
    e->framerate = (AVRational){num, den};
    e->sample_aspect_ratio = v->yuv.frame->sample_aspect_ratio;
    e->color_range = v->yuv.frame->color_range;
    e->colorspace = v->yuv.frame->colorspace;
    e->color_primaries = v->yuv.frame->color_primaries;
    e->color_trc = v->yuv.frame->color_trc;
    e->chroma_sample_location = v->yuv.frame->chroma_location;
    if (v->mux->oformat->flags & AVFMT_GLOBALHEADER)
        e->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    tsr_libav_forget();
    error = avcodec_open2(e, c, &options);
    status = error < 0 ? fail_av(w, "cannot encode", error) : TSR_OK;
error:
    av_dict_free(&options);
    return status;
}

/* ---------------------------------------------------------------- the writer */

static tsr_status add_stream(tsr_writer *w) {
    struct video *v = w->state;
    v->packet = av_packet_alloc();
    v->stream = avformat_new_stream(v->mux, NULL);
    if (!v->packet || !v->stream ||
        avcodec_parameters_from_context(v->stream->codecpar, v->encoder) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    v->stream->time_base = v->encoder->time_base;
    v->stream->avg_frame_rate = v->stream->r_frame_rate = v->encoder->framerate;
    v->stream->sample_aspect_ratio = v->encoder->sample_aspect_ratio;
    if (w->params.format == TSR_FORMAT_MP4 && v->encoder->codec_id == AV_CODEC_ID_HEVC)
        v->stream->codecpar->codec_tag =
            MKTAG('h', 'v', 'c', '1'); /* the only HEVC tag Apple's players take */
    return TSR_OK;
}

static tsr_status write_header(tsr_writer *w) {
    struct video *v = w->state;
    AVDictionary *options = NULL;
    if (w->params.format ==
        TSR_FORMAT_MP4) /* index in front, for the web; in fragments where it cannot go back */
        av_dict_set(&options, "movflags",
            w->out.part ? "+faststart" : "+frag_keyframe+delay_moov+default_base_moof", 0);
    tsr_libav_forget();
    int error = avformat_write_header(v->mux, &options);
    av_dict_free(&options);
    return error < 0 ? fail_av(w, "cannot start", error) : TSR_OK;
}

static tsr_status video_open(tsr_writer *w) {
    static const char *const muxer[] = {
        [TSR_FORMAT_MP4] = "mp4", [TSR_FORMAT_MKV] = "matroska", [TSR_FORMAT_WEBM] = "webm"};
    const char *name = muxer[w->params.format];
    const AVCodec *codec = NULL;
    w->pixels = w->params.depth == 10 ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    struct video *v = w->state = calloc(1, sizeof *v);
    if (!v)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    tsr_libav_listen();
    if (avformat_alloc_output_context2(&v->mux, NULL, name, NULL) < 0)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "libav has no %s here: %s; choose another format",
            name, w->params.path);
    tsr_status status;
    TSR_TRY(find_encoder(w, &codec));
    TSR_TRY(open_encoder(w, codec));
    TSR_TRY(open_bytes(w));
    TSR_TRY(add_stream(w));
    if (w->params.audio_from)
        TSR_TRY(tsr_audio_open(&v->audio, w->params.audio_from, w->params.audio_start, v->mux, w->params.path));
    TSR_TRY(write_header(w));
error:
    return status;
}

/* Hands a frame (NULL: no more) to the encoder and writes what comes out. */
static tsr_status encode(tsr_writer *w, AVFrame *frame) {
    struct video *v = w->state;
    tsr_libav_forget();
    int error = avcodec_send_frame(v->encoder, frame);
    if (error < 0)
        return fail_av(w, "cannot encode", error);
    while ((error = avcodec_receive_packet(v->encoder, v->packet)) >= 0) {
        v->packet->duration = 1; /* of the last frame mp4 could not guess it */
        av_packet_rescale_ts(v->packet, v->encoder->time_base, v->stream->time_base);
        v->packet->stream_index = v->stream->index;
        error = av_interleaved_write_frame(v->mux, v->packet);
        if (error < 0 || v->io_status != TSR_OK)
            return fail_av(w, "cannot write", error);
    }
    return error == AVERROR(EAGAIN) || error == AVERROR_EOF ? TSR_OK
                                                            : fail_av(w, "cannot encode", error);
}

/* The sound up to the end of the frames written so far. */
static tsr_status copy_audio(tsr_writer *w) {
    struct video *v = w->state;
    double seconds = (double)v->yuv.frame->pts * av_q2d(v->encoder->time_base) + av_q2d(v->encoder->time_base);
    int error = tsr_audio_copy(&v->audio, v->mux, seconds);
    return error < 0 || v->io_status != TSR_OK ? fail_av(w, "cannot write the sound", error) : TSR_OK;
}

static tsr_status video_frame(tsr_writer *w, const tsr_frame *f) {
    struct video *v = w->state;
    tsr_status status = tsr_yuv_convert(&v->yuv, f);
    if (status != TSR_OK)
        return status;
    v->yuv.frame->pts = w->written;
    status = copy_audio(w);
    return status == TSR_OK ? encode(w, v->yuv.frame) : status;
}

static tsr_status video_finish(tsr_writer *w) {
    struct video *v = w->state;
    tsr_status status = encode(w, NULL);
    if (status != TSR_OK)
        return status;
    int error = av_write_trailer(v->mux);
    avio_flush(v->io);
    return error < 0 || v->io_status != TSR_OK ? fail_av(w, "cannot finish", error) : TSR_OK;
}

static void video_close(tsr_writer *w) {
    struct video *v = w->state;
    if (!v)
        return;
    tsr_audio_close(&v->audio);
    av_packet_free(&v->packet);
    avcodec_free_context(&v->encoder);
    avformat_free_context(v->mux);
    if (v->io)
        av_freep(&v->io->buffer);
    avio_context_free(&v->io);
    tsr_yuv_free(&v->yuv);
    free(v);
}

const tsr_writer_ops tsr_video_ops = {
    .open = video_open, .frame = video_frame, .finish = video_finish, .close = video_close};

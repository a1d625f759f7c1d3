#include "media/encoder.h"

#include "media/libav.h"

#include <errno.h>
#include <libavutil/opt.h>
#include <string.h>

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

static tsr_status encode_failed(const tsr_encoder *e, int error) {
    return tsr_libav_fail(TSR_ERR_IO, "cannot encode", e->params->path, error);
}

static tsr_status find_encoder(const tsr_writer_params *p, const AVOutputFormat *container, const AVCodec **out) {
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
                "libav has no %s encoder here: %s; name another codec or another format", webm ? "VP9" : "H.264",
                p->path);
    }
    if (avformat_query_codec(container, c->id, FF_COMPLIANCE_NORMAL) == 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "wrong codec: %s does not go into %s; use mkv or another codec", c->name,
            tsr_format_name(p->format));
    *out = c;
    return TSR_OK;
}

/* Among the encoder's formats of the depth asked for the one with the least chroma that fits the
 * size: H.264 and HEVC crop to whole chroma samples, so an odd picture is 4:4:4 there; VP9 and AV1
 * have odd 4:2:0. */
static tsr_status choose_pixels(const tsr_writer_params *p, const AVCodec *c, enum AVPixelFormat *out) {
    bool odd = (p->width | p->height) & 1;
    bool full = odd && c->id != AV_CODEC_ID_VP9 && c->id != AV_CODEC_ID_AV1;
    const enum AVPixelFormat *want = p->depth == 10 ? tsr_yuv_formats_10 : tsr_yuv_formats_8;
    for (int i = full ? 2 : 0; i < 3; i++)
        for (const enum AVPixelFormat *has = c->pix_fmts; has && *has != AV_PIX_FMT_NONE; has++)
            if (*has == want[i]) {
                *out = want[i];
                return TSR_OK;
            }
    return tsr_fail(TSR_ERR_ARGUMENT, "wrong codec: %s takes no %d-bit YUV%s; choose another depth or codec", c->name,
        p->depth, full ? " 4:4:4, which an odd picture size needs" : "");
}

/*
 * With AVX-512 libx264's output hangs on what memory held before: the same frames now and then give another stream, and
 * a render that is gone on with another file than one nobody disturbed. Every CPU that has it has these.
 * libx265's vectors (3.5, seen with AVX2) write past the end of its own memory where pictures are narrower than 56.
 */
static void avoid_faults(const AVCodec *c, int width, AVDictionary **options) {
#ifdef __x86_64__
    if (strcmp(c->name, "libx264") == 0 && __builtin_cpu_supports("avx512f"))
        av_dict_set(options, "x264-params", "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2", 0);
#endif
    if (strcmp(c->name, "libx265") == 0 && width < 64)
        av_dict_set(options, "x265-params", ":no-asm=1", AV_DICT_APPEND);
}

static tsr_status encoder_options(int crf, const AVCodec *c, int width, AVDictionary **options) {
    const char *more = "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(c->name, known[i].encoder) == 0) {
            crf = crf < 0 ? known[i].crf : crf;
            more = known[i].options;
        }
    av_dict_parse_string(options, more, "=", ":", 0);
    avoid_faults(c, width, options);
    if (crf < 0)
        return TSR_OK;
    if (!c->priv_class || !av_opt_find((void *)&c->priv_class, "crf", NULL, 0, AV_OPT_SEARCH_FAKE_OBJ))
        return tsr_fail(TSR_ERR_ARGUMENT, "wrong codec: %s has no crf; leave it out or choose another codec", c->name);
    av_dict_set_int(options, "crf", crf, 0);
    return TSR_OK;
}

static tsr_status begin_part(tsr_encoder *e) {
    const tsr_writer_params *p = e->params;
    const AVFrame *like = e->yuv.frame;
    AVDictionary *options = NULL;
    int num, den, error;
    tsr_status status;
    TSR_TRY(encoder_options(p->crf, e->codec, p->width, &options));
    AVCodecContext *av = e->av = avcodec_alloc_context3(e->codec);
    if (!av)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", e->codec->name));
    tsr_fps_fraction(p->fps, &num, &den);
    av->width = p->width;
    av->height = p->height;
    av->pix_fmt = like->format;
    av->time_base = (AVRational){den, num};
    av->framerate = (AVRational){num, den};
    av->sample_aspect_ratio = like->sample_aspect_ratio;
    av->color_range = like->color_range;
    av->colorspace = like->colorspace;
    av->color_primaries = like->color_primaries;
    av->color_trc = like->color_trc;
    av->chroma_sample_location = like->chroma_location;
    if (e->global_header)
        av->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    tsr_libav_forget();
    error = avcodec_open2(av, e->codec, &options);
    status = error < 0 ? encode_failed(e, error) : TSR_OK;
error:
    av_dict_free(&options);
    return status;
}

tsr_status tsr_encoder_open(tsr_encoder *e, const tsr_writer_params *p, const AVOutputFormat *container) {
    enum AVPixelFormat pixels = AV_PIX_FMT_NONE;
    tsr_status status;
    e->params = p;
    e->global_header = container->flags & AVFMT_GLOBALHEADER;
    TSR_TRY(find_encoder(p, container, &e->codec));
    TSR_TRY(choose_pixels(p, e->codec, &pixels));
    TSR_TRY(tsr_yuv_init(&e->yuv, p->width, p->height, pixels));
    e->packet = av_packet_alloc();
    if (!e->packet)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path));
    status = begin_part(e);
error:
    return status;
}

/* Hands a frame (NULL: no more of this part) to the encoder and on what comes out. */
static tsr_status encode(tsr_encoder *e, AVFrame *frame) {
    tsr_libav_forget();
    int error = avcodec_send_frame(e->av, frame);
    if (error < 0)
        return encode_failed(e, error);
    while ((error = avcodec_receive_packet(e->av, e->packet)) >= 0) {
        av_packet_rescale_ts(e->packet, e->av->time_base, av_inv_q(e->av->framerate));
        e->packet->pts += e->begin;
        e->packet->dts += e->begin;
        e->packet->duration = 1; /* of the last frame mp4 could not guess it */
        tsr_status status = e->put(e->user, e->packet);
        av_packet_unref(e->packet);
        if (status != TSR_OK)
            return status;
    }
    return error == AVERROR(EAGAIN) || error == AVERROR_EOF ? TSR_OK : encode_failed(e, error);
}

tsr_status tsr_encoder_frame(tsr_encoder *e) {
    tsr_status status = e->av ? TSR_OK : begin_part(e);
    e->yuv.frame->pts = e->frames - e->begin;
    if (status == TSR_OK)
        status = encode(e, e->yuv.frame);
    e->frames += status == TSR_OK;
    return status;
}

tsr_status tsr_encoder_end_part(tsr_encoder *e) {
    tsr_status status = encode(e, NULL);
    avcodec_free_context(&e->av);
    e->begin = e->frames;
    return status;
}

void tsr_encoder_close(tsr_encoder *e) {
    avcodec_free_context(&e->av);
    av_packet_free(&e->packet);
    tsr_yuv_free(&e->yuv);
}

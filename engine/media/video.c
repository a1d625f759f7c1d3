/* mp4, mkv and webm through libav. The bytes go through tsr_out, so that every failed write is
 * seen, and named. With a journal packets wait in tsr_parts, and the file is made of them at the end. */
#include "media/audio.h"
#include "media/encoder.h"
#include "media/libav.h"
#include "media/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IO_BUFFER = 1 << 16 };

struct video {
    AVFormatContext *mux;
    AVStream *stream;
    AVIOContext *io;
    tsr_encoder encoder;
    AVRational tick; /* seconds a frame */
    tsr_audio audio;
    int64_t muxed; /* packets */
    tsr_parts parts;
    int64_t coded_bytes;  /* of the parts that are coded */
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
    v->io = buffer ? avio_alloc_context(buffer, IO_BUFFER, 1, w, NULL, on_write, file ? on_seek : NULL) : NULL;
    if (!v->io) {
        av_free(buffer);
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    }
    v->io->seekable = file ? AVIO_SEEKABLE_NORMAL : 0;
    v->mux->pb = v->io;
    v->mux->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT; /* the same frames make the same file */
    /* mp4 reads the file back to move its index to the front. */
    v->mux->url = av_strdup(file ? w->out.part : "pipe:");
    return v->mux->url ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
}

/* ---------------------------------------------------------------- the writer */

static tsr_status add_stream(tsr_writer *w) {
    struct video *v = w->state;
    const AVCodecContext *av = v->encoder.av;
    v->stream = avformat_new_stream(v->mux, NULL);
    if (!v->stream || avcodec_parameters_from_context(v->stream->codecpar, av) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    v->tick = v->stream->time_base = av_inv_q(av->framerate);
    v->stream->avg_frame_rate = v->stream->r_frame_rate = av->framerate;
    v->stream->sample_aspect_ratio = av->sample_aspect_ratio;
    if (w->params.format == TSR_FORMAT_MP4 && av->codec_id == AV_CODEC_ID_HEVC)
        v->stream->codecpar->codec_tag = MKTAG('h', 'v', 'c', '1'); /* the only HEVC tag Apple's players take */
    return TSR_OK;
}

static tsr_status write_header(tsr_writer *w) {
    struct video *v = w->state;
    AVDictionary *options = NULL;
    if (w->params.format == TSR_FORMAT_MP4) /* index in front, for the web; in fragments where it cannot go back */
        av_dict_set(
            &options, "movflags", w->out.part ? "+faststart" : "+frag_keyframe+delay_moov+default_base_moof", 0);
    tsr_libav_forget();
    int error = avformat_write_header(v->mux, &options);
    av_dict_free(&options);
    return error < 0 ? fail_av(w, "cannot start", error) : TSR_OK;
}

/* A packet of the encoder, behind the sound up to the end of as many frames. Takes what the packet refers to. */
static tsr_status mux_packet(tsr_writer *w, AVPacket *packet) {
    struct video *v = w->state;
    int error = tsr_audio_copy(&v->audio, v->mux, (double)++v->muxed * av_q2d(v->tick));
    if (error < 0 || v->io_status != TSR_OK)
        return fail_av(w, "cannot write the sound", error);
    av_packet_rescale_ts(packet, v->tick, v->stream->time_base);
    packet->stream_index = v->stream->index;
    tsr_libav_forget();
    error = av_interleaved_write_frame(v->mux, packet);
    return error < 0 || v->io_status != TSR_OK ? fail_av(w, "cannot write", error) : TSR_OK;
}

static tsr_status on_packet(void *user, AVPacket *packet) {
    tsr_writer *w = user;
    struct video *v = w->state;
    return w->journal.path ? tsr_parts_put_packet(&v->parts, packet) : mux_packet(w, packet);
}

/* ---------------------------------------------------------------- parts and the journal */

static tsr_status end_part(tsr_writer *w) {
    struct video *v = w->state;
    tsr_status status;
    TSR_TRY(tsr_encoder_end_part(&v->encoder));
    if (w->journal.path) {
        TSR_TRY(tsr_out_sync(&v->parts.file));
        v->coded_bytes = tsr_parts_bytes(&v->parts);
        TSR_TRY(tsr_journal_record(&w->journal, v->encoder.frames, v->encoder.frames, v->coded_bytes));
    }
error:
    return status;
}

/* The frame in the encoder's hand. */
static tsr_status encode(tsr_writer *w) {
    struct video *v = w->state;
    tsr_status status = tsr_encoder_frame(&v->encoder);
    if (status == TSR_OK && v->encoder.frames - v->encoder.begin == TSR_PART_FRAMES)
        status = end_part(w);
    return status;
}

/* Codes anew what was not in a whole part when the writer before was killed. */
static tsr_status catch_up(tsr_writer *w) {
    struct video *v = w->state;
    const tsr_journal *j = &w->journal;
    int64_t coded = j->coded, frames = j->frames;
    if ((coded % TSR_PART_FRAMES && coded != w->params.frames) || frames - coded > TSR_PART_FRAMES)
        return tsr_journal_misfit(j, "is damaged; restore it,");
    v->encoder.frames = v->encoder.begin = coded;
    tsr_status status = TSR_OK;
    for (int64_t i = coded; i < frames && status == TSR_OK; i++) {
        status = tsr_parts_get_frame(&v->parts, i - coded, v->encoder.yuv.frame);
        if (status == TSR_OK)
            status = encode(w);
    }
    return status;
}

static tsr_status open_parts(tsr_writer *w) {
    struct video *v = w->state;
    const tsr_journal *j = &w->journal;
    tsr_status status;
    TSR_TRY(tsr_out_check(w->params.path, w->params.overwrite));
    TSR_TRY(tsr_parts_open(&v->parts, j->parts, j->frames > 0, j->bytes, v->encoder.yuv.frame, v->encoder.av));
    v->coded_bytes = tsr_parts_bytes(&v->parts);
    TSR_TRY(catch_up(w));
error:
    return status;
}

static tsr_status open_file(tsr_writer *w) {
    tsr_status status = open_bytes(w);
    return status == TSR_OK ? write_header(w) : status;
}

static tsr_status join_parts(tsr_writer *w) {
    struct video *v = w->state;
    AVPacket *packet = av_packet_alloc();
    tsr_status status = packet ? open_file(w) : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    bool got = true;
    for (int64_t at = v->parts.begin; status == TSR_OK && got;) {
        status = tsr_parts_get_packet(&v->parts, &at, packet, &got);
        if (status == TSR_OK && got)
            status = mux_packet(w, packet);
    }
    av_packet_free(&packet);
    return status;
}

/* ---------------------------------------------------------------- the writer */

static tsr_status video_open(tsr_writer *w) {
    static const char *const muxer[] = {
        [TSR_FORMAT_MP4] = "mp4", [TSR_FORMAT_MKV] = "matroska", [TSR_FORMAT_WEBM] = "webm"};
    const char *name = muxer[w->params.format];
    w->pixels = w->params.depth == 10 ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    struct video *v = w->state = calloc(1, sizeof *v);
    if (!v)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    v->parts = (tsr_parts)TSR_PARTS_NONE;
    v->encoder.put = on_packet;
    v->encoder.user = w;
    tsr_libav_listen();
    if (avformat_alloc_output_context2(&v->mux, NULL, name, NULL) < 0)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "libav has no %s here: %s; choose another format", name, w->params.path);
    tsr_status status;
    TSR_TRY(tsr_encoder_open(&v->encoder, &w->params, v->mux->oformat));
    TSR_TRY(add_stream(w));
    if (w->params.audio_from)
        TSR_TRY(tsr_audio_open(&v->audio, w->params.audio_from, w->params.audio_start, v->mux, w->params.path));
    TSR_TRY(w->journal.path ? open_parts(w) : open_file(w));
error:
    return status;
}

static tsr_status video_frame(tsr_writer *w, const tsr_frame *f) {
    struct video *v = w->state;
    tsr_encoder *e = &v->encoder;
    tsr_status status;
    TSR_TRY(tsr_yuv_convert(&e->yuv, f));
    if (w->journal.path) {
        TSR_TRY(tsr_parts_put_frame(&v->parts, w->written % TSR_PART_FRAMES, e->yuv.frame));
        TSR_TRY(tsr_out_sync(&v->parts.file));
        TSR_TRY(tsr_journal_record(&w->journal, w->written + 1, e->begin, v->coded_bytes));
    }
    status = encode(w);
error:
    return status;
}

static tsr_status video_finish(tsr_writer *w) {
    struct video *v = w->state;
    tsr_status status;
    if (v->encoder.frames > v->encoder.begin)
        TSR_TRY(end_part(w));
    if (w->journal.path)
        TSR_TRY(join_parts(w));
    int error = av_write_trailer(v->mux);
    avio_flush(v->io);
    return error < 0 || v->io_status != TSR_OK ? fail_av(w, "cannot finish", error) : TSR_OK;
error:
    return status;
}

static void video_close(tsr_writer *w) {
    struct video *v = w->state;
    if (!v)
        return;
    tsr_audio_close(&v->audio);
    tsr_encoder_close(&v->encoder);
    avformat_free_context(v->mux);
    if (v->io)
        av_freep(&v->io->buffer);
    avio_context_free(&v->io);
    tsr_parts_close(&v->parts);
    free(v);
}

const tsr_writer_ops tsr_video_ops = {
    .open = video_open, .frame = video_frame, .finish = video_finish, .close = video_close};

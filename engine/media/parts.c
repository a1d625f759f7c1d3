#include "media/parts.h"

#include "media/encoder.h"

#include <fcntl.h>
#include <libavutil/crc.h>
#include <libavutil/imgutils.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In front of a packet's data. */
struct head {
    int64_t pts, dts; /* in frames */
    int32_t size, flags;
    uint32_t sum;  /* of the data */
    uint32_t self; /* of all above */
};

static uint32_t sum_of(const void *data, size_t n) {
    return n ? av_crc(av_crc_get_table(AV_CRC_32_IEEE_LE), UINT32_MAX, data, n) : 0;
}

static uint32_t sum_of_head(const struct head *h) {
    return sum_of(h, offsetof(struct head, self));
}

static tsr_status damaged(const tsr_parts *p) {
    return tsr_fail(
        TSR_ERR_FORMAT, "cannot go on: %s is damaged; remove it and its neighbour .resume to start anew", p->file.path);
}

static bool get(const tsr_parts *p, int64_t at, void *data, size_t n) {
    return pread(p->file.fd, data, n, (off_t)at) == (ssize_t)n;
}

/* ---------------------------------------------------------------- frames */

static int64_t place_at(const tsr_parts *p, int64_t place) {
    return place * (p->frame_bytes + (int64_t)sizeof(uint32_t));
}

tsr_status tsr_parts_put_frame(tsr_parts *p, int64_t place, const AVFrame *f) {
    av_image_copy_to_buffer(
        p->frame, p->frame_bytes, (const uint8_t *const *)f->data, f->linesize, f->format, f->width, f->height, 1);
    uint32_t sum = sum_of(p->frame, (size_t)p->frame_bytes);
    memcpy(p->frame + p->frame_bytes, &sum, sizeof sum);
    return tsr_out_write_at(&p->file, place_at(p, place), p->frame, (size_t)p->frame_bytes + sizeof sum);
}

tsr_status tsr_parts_get_frame(tsr_parts *p, int64_t place, AVFrame *f) {
    uint8_t *data[4];
    int stride[4];
    uint32_t sum;
    if (!get(p, place_at(p, place), p->frame, (size_t)p->frame_bytes + sizeof sum))
        return damaged(p);
    memcpy(&sum, p->frame + p->frame_bytes, sizeof sum);
    if (sum != sum_of(p->frame, (size_t)p->frame_bytes))
        return damaged(p);
    av_image_fill_arrays(data, stride, p->frame, f->format, f->width, f->height, 1);
    av_image_copy(f->data, f->linesize, (const uint8_t **)data, stride, f->format, f->width, f->height);
    return TSR_OK;
}

/* ---------------------------------------------------------------- packets */

static tsr_status put(tsr_parts *p, struct head h, const void *data) {
    h.sum = sum_of(data, (size_t)h.size);
    h.self = sum_of_head(&h);
    tsr_status status = tsr_out_write_at(&p->file, p->at, &h, sizeof h);
    if (status == TSR_OK)
        status = tsr_out_write_at(&p->file, p->at + (int64_t)sizeof h, data, (size_t)h.size);
    if (status == TSR_OK)
        p->at += (int64_t)sizeof h + h.size;
    return status;
}

tsr_status tsr_parts_put_packet(tsr_parts *p, const AVPacket *a) {
    return put(p, (struct head){.pts = a->pts, .dts = a->dts, .size = a->size, .flags = a->flags}, a->data);
}

tsr_status tsr_parts_get_packet(tsr_parts *p, int64_t *at, AVPacket *a, bool *got) {
    struct head h;
    *got = *at < p->at;
    if (!*got)
        return TSR_OK;
    int64_t room = p->at - *at - (int64_t)sizeof h;
    if (room < 0 || !get(p, *at, &h, sizeof h) || h.self != sum_of_head(&h) || h.size < 0 || h.size > room)
        return damaged(p);
    if (av_new_packet(a, h.size) < 0)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: a packet of %s", p->file.path);
    a->pts = h.pts;
    a->dts = h.dts;
    a->flags = h.flags;
    a->duration = 1;
    *at += (int64_t)sizeof h;
    if (!get(p, *at, a->data, (size_t)h.size) || h.sum != sum_of(a->data, (size_t)h.size)) {
        av_packet_unref(a);
        return damaged(p);
    }
    *at += h.size;
    return TSR_OK;
}

/* ---------------------------------------------------------------- the file */

static tsr_status check_codec(tsr_parts *p, int64_t bytes, const AVCodecContext *codec, AVPacket *a) {
    struct stat st;
    bool got, same;
    int64_t at = p->at;
    if (fstat(p->file.fd, &st) != 0 || st.st_size - p->at < bytes)
        return damaged(p);
    p->at += bytes;
    tsr_status status = tsr_parts_get_packet(p, &at, a, &got);
    if (status != TSR_OK || !got)
        return status == TSR_OK ? damaged(p) : status;
    same =
        a->size == codec->extradata_size && (a->size == 0 || memcmp(a->data, codec->extradata, (size_t)a->size) == 0);
    p->begin = at;
    if (!same)
        return tsr_fail(TSR_ERR_FORMAT,
            "cannot go on: %s was coded by another %s; remove it and its neighbour .resume to start anew", p->file.path,
            codec->codec->name);
    return ftruncate(p->file.fd, p->at) == 0 ? TSR_OK : tsr_out_fail(&p->file);
}

tsr_status tsr_parts_open(
    tsr_parts *p, const char *path, bool left, int64_t bytes, const AVFrame *like, const AVCodecContext *codec) {
    struct stat st;
    p->file.path = strdup(path);
    p->frame_bytes = av_image_get_buffer_size(like->format, like->width, like->height, 1);
    p->frame = p->frame_bytes > 0 ? malloc((size_t)p->frame_bytes + sizeof(uint32_t)) : NULL;
    if (!p->file.path || !p->frame)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", path);
    p->file.fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | (left ? 0 : O_CREAT), 0666);
    if (p->file.fd < 0)
        return tsr_out_fail(&p->file);
    if (fstat(p->file.fd, &st) != 0 || !S_ISREG(st.st_mode))
        return tsr_fail(TSR_ERR_IO, "not a regular file: %s; choose another output", path);
    p->at = place_at(p, TSR_PART_FRAMES);
    if (left) {
        AVPacket *a = av_packet_alloc();
        tsr_status status = a ? check_codec(p, bytes, codec, a) : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", path);
        av_packet_free(&a);
        return status;
    }
    if (ftruncate(p->file.fd, 0) != 0)
        return tsr_out_fail(&p->file);
    tsr_status status = put(p, (struct head){.size = codec->extradata_size}, codec->extradata);
    p->begin = p->at;
    return status;
}

int64_t tsr_parts_bytes(const tsr_parts *p) {
    return p->at - place_at(p, TSR_PART_FRAMES);
}

void tsr_parts_close(tsr_parts *p) {
    tsr_out_abort(&p->file);
    free(p->frame);
}

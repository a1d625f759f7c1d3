/* npy and safetensors: float32 [3, F, H, W]. Frames come as [3][H][W], so each plane goes to its
 * own place. */
#include "media/media.h"

#include "formats/tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensor files are little-endian: swap here");

struct layout {
    size_t header, plane; /* bytes before the data; of one channel of one frame */
};

static tsr_status start(tsr_writer *w, const char *header, size_t header_bytes, int64_t bytes) {
    tsr_status status = tsr_out_open(&w->out, w->params.path, w->params.overwrite);
    if (status != TSR_OK)
        return status;
    if (lseek(w->out.fd, 0, SEEK_CUR) < 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "cannot go back and forth in a pipe: %s; use a file, or y4m", w->out.path);
    /* A disk that is too small says so now and not after hours. Not every file system can reserve. */
    if (w->out.part && fallocate(w->out.fd, 0, 0, bytes) != 0 &&
        ((errno != EOPNOTSUPP && errno != ENOSYS) || ftruncate(w->out.fd, bytes) != 0))
        return tsr_out_fail(&w->out);
    return tsr_out_write_at(&w->out, 0, header, header_bytes);
}

static tsr_status tensor_open(tsr_writer *w, bool npy) {
    const tsr_writer_params *p = &w->params;
    if (p->frames < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "no frame count: %s; it is written into the header first", p->path);
    w->pixels = TSR_PIXELS_RGB_F32;
    struct layout *l = w->state = calloc(1, sizeof *l);
    if (!l)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path);
    l->plane = tsr_pixels_bytes(w->pixels, p->width, p->height) / 3;
    tsr_tensor t = {
        .name = npy ? "" : "video", .dtype = TSR_F32, .ndim = 4, .dim = {3, p->frames, p->height, p->width}};
    if (!tsr_mul(l->plane, 3 * (size_t)p->frames, &t.bytes) || t.bytes > INT64_MAX / 2)
        return tsr_fail(TSR_ERR_ARGUMENT, "too large: %s", p->path);
    t.count = t.bytes / sizeof(float);

    char *header = NULL;
    int64_t bytes;
    tsr_status status;
    TSR_TRY(
        npy ? tsr_npy_header(&t, &header, &l->header) : tsr_safetensors_header(&t, 1, NULL, 0, &header, &l->header));
    bytes = (int64_t)(l->header + t.bytes);
    status = w->written ? tsr_writer_go_on(w, header, l->header, bytes) : start(w, header, l->header, bytes);
error:
    free(header);
    return status;
}

static tsr_status npy_open(tsr_writer *w) {
    return tensor_open(w, true);
}

static tsr_status safetensors_open(tsr_writer *w) {
    return tensor_open(w, false);
}

static tsr_status tensor_frame(tsr_writer *w, const tsr_frame *f) {
    const struct layout *l = w->state;
    for (int c = 0; c < 3; c++) {
        size_t plane = (size_t)c * (size_t)w->params.frames + (size_t)w->written;
        const char *data = (const char *)f->data + (size_t)c * l->plane;
        tsr_status status = tsr_out_write_at(&w->out, (int64_t)(l->header + plane * l->plane), data, l->plane);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

static void tensor_close(tsr_writer *w) {
    free(w->state);
}

const tsr_writer_ops tsr_npy_ops = {.open = npy_open, .frame = tensor_frame, .close = tensor_close, .appends = true};
const tsr_writer_ops tsr_safetensors_ops = {
    .open = safetensors_open, .frame = tensor_frame, .close = tensor_close, .appends = true};

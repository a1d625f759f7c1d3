/* npy and safetensors: [3, F, H, W] (or [3, H, W], or a batch of one in front), nominally -1..1. */
#include "media/read.h"

#include "formats/tensor_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Nobody's decoder leaves -1..1 this far; 0..255 does. */
static const float FAR_OUT = 16;

struct tensor {
    tsr_tensor_file *file;
    const tsr_tensor *video;
    float *plane; /* [height][width] of one channel */
};

/* *frames, *height, *width where the shape is one of a video. */
static bool is_video(const tsr_tensor *t, int64_t *frames, int64_t *height, int64_t *width) {
    const int64_t *d = t->dim;
    int n = t->ndim;
    if (n == 5 && d[0] == 1) {
        d++;
        n--;
    }
    if (!tsr_dtype_size(t->dtype) || n < 3 || n > 4 || d[0] != 3)
        return false;
    *frames = n == 4 ? d[1] : 1;
    *height = d[n - 2];
    *width = d[n - 1];
    return *frames > 0 && *height > 0 && *width > 0;
}

static tsr_status find_video(tsr_reader *r, struct tensor *t, int64_t size[3]) {
    char shape[96];
    for (size_t i = 0; i < tsr_tensor_file_count(t->file); i++) {
        const tsr_tensor *x = tsr_tensor_file_at(t->file, i);
        int64_t s[3];
        if (!is_video(x, &s[0], &s[1], &s[2]) || (t->video && strcmp(x->name, "video") != 0))
            continue;
        t->video = x;
        memcpy(size, s, sizeof s);
    }
    if (t->video)
        return TSR_OK;
    if (tsr_tensor_file_count(t->file) == 1) {
        const tsr_tensor *x = tsr_tensor_file_at(t->file, 0);
        return tsr_reader_bad(r, "holds %s %s; a video is float32 [3, frames, height, width]", tsr_dtype_name(x->dtype),
            tsr_shape_text(shape, x->dim, x->ndim));
    }
    return tsr_reader_bad(
        r, "holds no video: none of its %zu tensors is [3, frames, height, width]", tsr_tensor_file_count(t->file));
}

static tsr_status tensor_open(tsr_reader *r) {
    int64_t size[3] = {0};
    tsr_status status;
    struct tensor *t = r->state = calloc(1, sizeof *t);
    if (!t)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to read it", r->path);
    TSR_TRY(tsr_tensor_file_open(&t->file, r->path));
    TSR_TRY(find_video(r, t, size));
    if (size[0] > INT32_MAX || size[1] > 65536 || size[2] > 65536)
        TSR_TRY(tsr_reader_bad(r, "impossible picture size"));
    r->info = (tsr_media_info){.kind = tsr_tensor_file_container(t->file),
        .frames = size[0],
        .height = (int)size[1],
        .width = (int)size[2],
        .depth = 32};
    t->plane = malloc((size_t)(size[1] * size[2]) * sizeof(float));
    if (!t->plane)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for a frame", r->path));
error:
    return status;
}

static tsr_status check_values(const tsr_reader *r, const float *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            return tsr_reader_bad(r, "frame %lld holds a value that is not finite", (long long)r->at);
        if (fabsf(v[i]) > FAR_OUT)
            return tsr_reader_bad(
                r, "frame %lld holds a value of %g; frames lie in -1..1", (long long)r->at, (double)v[i]);
    }
    return TSR_OK;
}

static tsr_status tensor_frame(tsr_reader *r, float *rgb, bool *got) {
    struct tensor *t = r->state;
    size_t plane = (size_t)r->info.width * (size_t)r->info.height;
    if (r->at == r->info.frames)
        return TSR_OK;
    for (size_t c = 0; rgb && c < 3; c++) {
        tsr_tensor_read(t->video, (c * (size_t)r->info.frames + (size_t)r->at) * plane, plane, t->plane);
        tsr_status status = check_values(r, t->plane, plane);
        if (status != TSR_OK)
            return status;
        for (size_t i = 0; i < plane; i++)
            rgb[3 * i + c] = t->plane[i];
    }
    *got = true;
    return TSR_OK;
}

static void tensor_close(tsr_reader *r) {
    struct tensor *t = r->state;
    if (!t)
        return;
    tsr_tensor_file_close(&t->file);
    free(t->plane);
    free(t);
}

const tsr_reader_ops tsr_read_tensor = {.open = tensor_open, .frame = tensor_frame, .close = tensor_close};

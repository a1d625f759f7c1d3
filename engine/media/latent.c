/* Latents to files: the header first, then each channel's plane of a frame to its place. */
#include "media/media.h"

#include "formats/tensor_file.h"

#include <tessera/encode.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LATENT, MEAN, LOGVAR, TENSORS };

struct tsr_latent_writer {
    tsr_latent_writer_params params;
    tsr_out out;
    size_t at[TENSORS]; /* offset of each tensor in the file */
    int tensors;
    size_t plane; /* bytes of one channel of one frame */
    float *scaled;
    int written;
    bool finished;
};

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcasecmp(path + n - m, suffix) == 0;
}

static tsr_tensor tensor_of(const tsr_latent_writer_params *p, const char *name, bool npy) {
    tsr_tensor t = {.name = name,
        .dtype = TSR_F32,
        .ndim = npy ? 4 : 5,
        .dim = {1, p->channels, p->extent.frames, p->extent.height, p->extent.width},
        .count = (size_t)p->channels * (size_t)p->extent.frames * (size_t)p->extent.height * (size_t)p->extent.width};
    if (npy)
        memmove(t.dim, t.dim + 1, 4 * sizeof *t.dim);
    t.bytes = t.count * sizeof(float);
    return t;
}

/* What readers need: the scale, and the true size where the latents stand for more. */
static size_t fill_meta(const tsr_latent_writer_params *p, tsr_meta meta[4], char text[4][32]) {
    static const char *const key[4] = {
        "tessera.scale", "tessera.crop_width", "tessera.crop_height", "tessera.crop_frames"};
    bool cropped =
        p->width && (p->width != 8 * (int64_t)p->extent.width || p->height != 8 * (int64_t)p->extent.height ||
                        p->frames != 4 * (int64_t)p->extent.frames - 3);
    snprintf(text[0], 32, "%.15g", p->scale);
    snprintf(text[1], 32, "%d", p->width);
    snprintf(text[2], 32, "%d", p->height);
    snprintf(text[3], 32, "%lld", (long long)p->frames);
    for (int i = 0; i < 4; i++)
        meta[i] = (tsr_meta){key[i], text[i]};
    return cropped ? 4 : 1;
}

static tsr_status make_header(tsr_latent_writer *w, bool npy, char **header, size_t *size) {
    const tsr_latent_writer_params *p = &w->params;
    tsr_tensor t[TENSORS + 1] = {tensor_of(p, "latent_tensor", npy)};
    tsr_meta meta[4];
    char text[4][32];
    if (npy)
        return tsr_npy_header(&t[0], header, size);
    w->tensors = p->stats ? 3 : 1;
    if (p->stats) {
        t[MEAN] = tensor_of(p, "mean", false);
        t[LOGVAR] = tensor_of(p, "logvar", false);
    }
    /* ComfyUI takes files without this empty tensor for ones from before it, and divides by 0.18215. */
    t[w->tensors] = (tsr_tensor){.name = "latent_format_version_0", .dtype = TSR_F32, .ndim = 1};
    return tsr_safetensors_header(t, (size_t)w->tensors + 1, meta, fill_meta(p, meta, text), header, size);
}

static tsr_status check_params(const tsr_latent_writer_params *p, bool npy) {
    size_t bytes;
    if (!npy && !has_suffix(p->path, ".latent") && !has_suffix(p->path, ".safetensors"))
        return tsr_fail(TSR_ERR_ARGUMENT, "unknown suffix: %s; latents go to .latent, .safetensors or .npy", p->path);
    if (npy && p->stats)
        return tsr_fail(TSR_ERR_ARGUMENT, "no place for statistics: %s holds one array; use .safetensors", p->path);
    if (p->channels < 1 || p->extent.frames < 1 || p->extent.height < 1 || p->extent.width < 1 || !(p->scale > 0) ||
        !tsr_mul((size_t)p->channels, (size_t)p->extent.frames, &bytes) ||
        !tsr_mul(bytes, (size_t)p->extent.height, &bytes) || !tsr_mul(bytes, (size_t)p->extent.width, &bytes) ||
        !tsr_mul(bytes, 3 * sizeof(float), &bytes) || bytes > INT64_MAX / 2)
        return tsr_fail(TSR_ERR_ARGUMENT, "impossible latent: %d channels of %dx%dx%d times %g", p->channels,
            p->extent.width, p->extent.height, p->extent.frames, p->scale);
    return TSR_OK;
}

tsr_status tsr_latent_writer_open(tsr_latent_writer **out, const tsr_latent_writer_params *params) {
    bool npy = has_suffix(params->path, ".npy");
    char *header = NULL;
    size_t size = 0;
    *out = NULL;
    tsr_status status = check_params(params, npy);
    if (status != TSR_OK)
        return status;
    tsr_latent_writer *w = calloc(1, sizeof *w);
    if (!w)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", params->path);
    w->params = *params;
    w->params.path = NULL; /* the caller's */
    w->out = (tsr_out)TSR_OUT_NONE;
    w->tensors = 1;
    w->plane = (size_t)params->extent.height * (size_t)params->extent.width * sizeof(float);
    w->scaled = malloc(w->plane);
    if (!w->scaled)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", params->path));
    TSR_TRY(make_header(w, npy, &header, &size));
    for (int i = 0; i < w->tensors; i++)
        w->at[i] = size + (size_t)i * (size_t)params->channels * (size_t)params->extent.frames * w->plane;
    TSR_TRY(tsr_out_open(&w->out, params->path, params->overwrite));
    if (lseek(w->out.fd, 0, SEEK_CUR) < 0)
        TSR_TRY(tsr_fail(TSR_ERR_ARGUMENT, "cannot go back and forth in a pipe: %s; use a file", params->path));
    TSR_TRY(tsr_out_write_at(&w->out, 0, header, size));
    if (npy && params->width && (params->width % 8 || params->height % 8 || params->frames % 4 != 1))
        tsr_log(TSR_LOG_WARN,
            "%s: npy has no place for the true size of %dx%d, %lld frames; use .latent or .safetensors", params->path,
            params->width, params->height, (long long)params->frames);
    *out = w;
error:
    free(header);
    if (status != TSR_OK)
        tsr_latent_writer_close(&w);
    return status;
}

static tsr_status put_plane(tsr_latent_writer *w, int tensor, int channel, const float *plane) {
    size_t index = (size_t)channel * (size_t)w->params.extent.frames + (size_t)w->written;
    return tsr_out_write_at(&w->out, (int64_t)(w->at[tensor] + index * w->plane), plane, w->plane);
}

tsr_status tsr_latent_writer_frame(tsr_latent_writer *w, const float *latent, const float *mean, const float *logvar) {
    size_t n = w->plane / sizeof(float);
    tsr_status status = TSR_OK;
    if (w->finished || w->written == w->params.extent.frames)
        return tsr_fail(TSR_ERR_ARGUMENT, "no more latents: all %d are written", w->params.extent.frames);
    for (int c = 0; c < w->params.channels; c++) {
        for (size_t i = 0; i < n; i++)
            w->scaled[i] = (float)((double)latent[(size_t)c * n + i] * w->params.scale);
        TSR_TRY(put_plane(w, LATENT, c, w->scaled));
        if (!w->params.stats)
            continue;
        TSR_TRY(put_plane(w, MEAN, c, mean + (size_t)c * n));
        TSR_TRY(put_plane(w, LOGVAR, c, logvar + (size_t)c * n));
    }
    w->written++;
error:
    return status;
}

tsr_status tsr_latent_writer_finish(tsr_latent_writer *w) {
    if (w->finished || w->written != w->params.extent.frames)
        return tsr_fail(TSR_ERR_IO, "incomplete: %d of %d latents written", w->written, w->params.extent.frames);
    w->finished = true;
    return tsr_out_commit(&w->out);
}

void tsr_latent_writer_close(tsr_latent_writer **wp) {
    tsr_latent_writer *w = *wp;
    if (!w)
        return;
    tsr_out_abort(&w->out);
    free(w->scaled);
    free(w);
    *wp = NULL;
}

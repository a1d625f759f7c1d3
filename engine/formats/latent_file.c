/* Latents: which tensor of a file it is, how its dimensions are meant, and its frames, channels
 * last, unscaled. */
#include "formats/latent_file.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct tsr_latent {
    tsr_latent_info info;
    int channels;
    tsr_tensor_file *file; /* NULL: from memory */
    const tsr_tensor *tensor;
    float *memory; /* [frames][height][width][channels] */
};

/* Of Stable Diffusion 1.5, for ComfyUI files without a version marker. */
static const double sd15_scale = 0.18215;
static const int64_t dim_most = INT_MAX / 64; /* so that a size in output pixels fits an int */

/* ---------------------------------------------------------------- what the dimensions mean */

typedef struct fit {
    tsr_layout layout;
    int64_t videos, frames, height, width;
} fit;

/* Channels first: [B, C, T, h, w], [B, C*T, h, w] (ComfyUI's collapsed form; [1, C, h, w] is a
 * picture), [C, T, h, w], [C, h, w]. The two of four dimensions can both fit: `batch_first` prefers
 * the former. */
static bool fit_bcfhw(const tsr_tensor *t, int64_t c, bool batch_first, fit *out) {
    const int64_t *d = t->dim;
    fit f = {.layout = TSR_LAYOUT_BCFHW, .videos = 1, .frames = 1};
    if (t->ndim == 5 && d[1] == c)
        f.videos = d[0], f.frames = d[2];
    else if (t->ndim == 4 && d[1] % c == 0 && (batch_first || d[0] != c))
        f.videos = d[0], f.frames = d[1] / c;
    else if (t->ndim == 4 && d[0] == c)
        f.frames = d[1];
    else if (t->ndim != 3 || d[0] != c)
        return false;
    f.height = d[t->ndim - 2];
    f.width = d[t->ndim - 1];
    *out = f;
    return true;
}

/* Channels last: [B, T, h, w, C], [T, h, w, C], [h, w, C]. */
static bool fit_bfhwc(const tsr_tensor *t, int64_t c, fit *out) {
    const int64_t *d = t->dim;
    int n = t->ndim;
    if (n < 3 || n > 5 || d[n - 1] != c)
        return false;
    *out = (fit){TSR_LAYOUT_BFHWC, n == 5 ? d[0] : 1, n >= 4 ? d[n - 4] : 1, d[n - 3], d[n - 2]};
    return true;
}

static bool is_float(tsr_dtype t) {
    return t == TSR_F32 || t == TSR_F16 || t == TSR_BF16 || t == TSR_F64 || t == TSR_E4M3 || t == TSR_E5M2;
}

/* ComfyUI's own tensor has a batch in front; arrays saved by hand more often have none. */
static bool is_comfy(const tsr_tensor *t) {
    return strcmp(t->name, "latent_tensor") == 0;
}

static bool fits(const tsr_tensor *t, const tsr_latent_params *p, fit *out) {
    fit last;
    bool last_fits = p->layout != TSR_LAYOUT_BCFHW && fit_bfhwc(t, p->channels, &last);
    if (p->layout != TSR_LAYOUT_BFHWC && fit_bcfhw(t, p->channels, is_comfy(t), out))
        return true;
    if (last_fits)
        *out = last;
    return last_fits;
}

static const char *const wanted = "[B, C, T, h, w], [C, T, h, w], [B, C*T, h, w], [B, T, h, w, C] or [T, h, w, C]";

static const char *const asked[] = {"", "; --layout bcfhw was asked for", "; --layout bfhwc was asked for"};

static tsr_status misfit(const tsr_latent *z, const tsr_tensor *t, const tsr_latent_params *p) {
    char shape[96];
    tsr_shape_text(shape, t->dim, t->ndim);
    return tsr_fail(TSR_ERR_FORMAT, "%.300s: tensor %.150s is %s, not a latent of %d channels, C: %s%s", z->info.path,
        *t->name ? t->name : "(the array)", shape, p->channels, wanted, asked[p->layout]);
}

/* ---------------------------------------------------------------- which tensor */

/* Weights can have the shape of a latent; nobody calls a latent so. */
static bool is_weight(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcmp(dot, ".weight") == 0 || strcmp(dot, ".bias") == 0);
}

static bool is_candidate(const tsr_tensor *t, const tsr_latent_params *p) {
    fit f;
    return t && is_float(t->dtype) && !is_weight(t->name) && fits(t, p, &f);
}

static tsr_status choose_tensor(tsr_latent *z, const tsr_latent_params *p) {
    size_t n = tsr_tensor_file_count(z->file), found = 0;
    const tsr_tensor *named = tsr_tensor_file_find(z->file, "latent_tensor");
    if (!named && n == 1) /* its shape is then worth a message of its own */
        named = tsr_tensor_file_at(z->file, 0);
    z->tensor = named;
    for (size_t i = 0; !named && i < n; i++)
        if (is_candidate(tsr_tensor_file_at(z->file, i), p)) {
            z->tensor = tsr_tensor_file_at(z->file, i);
            found++;
        }
    if (named || found == 1)
        return TSR_OK;
    static const char *const usual[] = {"samples", "latent"};
    for (int i = 0; i < 2; i++) {
        z->tensor = tsr_tensor_file_find(z->file, usual[i]);
        if (is_candidate(z->tensor, p))
            return TSR_OK;
    }
    if (found)
        return tsr_fail(TSR_ERR_FORMAT,
            "%.300s: %zu of its tensors could be the latent; call the right one latent_tensor", z->info.path, found);
    for (size_t i = 0; i < n; i++)
        if (is_weight(tsr_tensor_file_at(z->file, i)->name))
            return tsr_fail(
                TSR_ERR_FORMAT, "%.300s: holds the weights of a model, not a latent; name a latent file", z->info.path);
    return tsr_fail(TSR_ERR_FORMAT, "%.300s: none of its %zu tensors is a latent of %d channels, C: %s%s", z->info.path,
        n, p->channels, wanted, asked[p->layout]);
}

static tsr_status choose_layout(tsr_latent *z, const tsr_latent_params *p) {
    const tsr_tensor *t = z->tensor;
    fit f, other;
    char shape[96];
    if (!is_float(t->dtype))
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: tensor %.150s is of type %s, a latent is of floats", z->info.path,
            t->name, tsr_dtype_name(t->dtype));
    if (is_weight(t->name))
        return tsr_fail(
            TSR_ERR_FORMAT, "%.300s: holds the weight %.150s, not a latent; name a latent file", z->info.path, t->name);
    if (!fits(t, p, &f))
        return misfit(z, t, p);
    if (f.videos < 1 || f.frames < 1 || f.height < 1 || f.width < 1)
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: tensor %.150s is %s: there is nothing in it", z->info.path, t->name,
            tsr_shape_text(shape, t->dim, t->ndim));
    if (f.videos > dim_most || f.frames > dim_most || f.height > dim_most || f.width > dim_most)
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: tensor %.150s is %s: too large", z->info.path, t->name,
            tsr_shape_text(shape, t->dim, t->ndim));
    if (p->layout == TSR_LAYOUT_AUTO && f.layout == TSR_LAYOUT_BCFHW && fit_bfhwc(t, p->channels, &other))
        tsr_log(TSR_LOG_WARN,
            "%s: %s fits channels first and channels last; read channels first (--layout bfhwc for "
            "the other)",
            z->info.path, tsr_shape_text(shape, t->dim, t->ndim));
    z->info.layout = f.layout;
    z->info.videos = (int)f.videos;
    z->info.frames = (int)f.frames;
    z->info.height = (int)f.height;
    z->info.width = (int)f.width;
    return TSR_OK;
}

/* ---------------------------------------------------------------- scale and crop */

static bool is_scale(double v) {
    return v > 0 && isfinite(v);
}

static tsr_status choose_scale(tsr_latent *z, const tsr_latent_params *p) {
    const char *recorded = tsr_tensor_file_meta(z->file, "tessera.scale");
    char *end;
    z->info.scale = p->scale != 0 ? p->scale : p->model_scale;
    if (!is_scale(z->info.scale))
        return tsr_fail(TSR_ERR_ARGUMENT, "latent scale %g: a number above 0 is needed", z->info.scale);
    if (p->scale != 0)
        return TSR_OK;
    if (recorded) {
        z->info.scale = strtod(recorded, &end);
        if (end == recorded || *end || !is_scale(z->info.scale))
            return tsr_fail(TSR_ERR_FORMAT, "%.300s: metadata tessera.scale \"%.40s\" is not a number above 0",
                z->info.path, recorded);
    } else if (is_comfy(z->tensor) && !tsr_tensor_file_find(z->file, "latent_format_version_0")) {
        /* As ComfyUI's LoadLatent does: files from before the marker hold samples times 0.18215. */
        z->info.scale *= sd15_scale;
        tsr_log(TSR_LOG_INFO, "%s: no latent_format_version_0: values are divided by 0.18215 too, as ComfyUI does",
            z->info.path);
    }
    return TSR_OK;
}

static tsr_status read_crop(const tsr_latent *z, const char *key, int *out) {
    const char *text = tsr_tensor_file_meta(z->file, key);
    if (!text)
        return TSR_OK;
    size_t digits = strspn(text, "0123456789");
    long v = digits > 0 && digits < 10 && !text[digits] ? strtol(text, NULL, 10) : 0;
    if (v < 1)
        return tsr_fail(
            TSR_ERR_FORMAT, "%.300s: metadata %s \"%.40s\" is not a whole number from 1", z->info.path, key, text);
    *out = (int)v;
    return TSR_OK;
}

/* ---------------------------------------------------------------- public */

static tsr_status check_params(const tsr_latent_params *p) {
    if ((unsigned)p->layout > TSR_LAYOUT_BFHWC)
        return tsr_fail(TSR_ERR_ARGUMENT, "latent layout %d is not known", (int)p->layout);
    if (p->channels < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "a latent of %d channels makes no sense", p->channels);
    return TSR_OK;
}

tsr_status tsr_latent_open(tsr_latent **out, const char *path, const tsr_latent_params *params) {
    tsr_status status;
    const tsr_latent_params p = params ? *params : (tsr_latent_params)TSR_LATENT_PARAMS_DEFAULT;
    *out = NULL;
    tsr_latent *z = calloc(1, sizeof *z);
    if (!z)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to open it", path);
    TSR_TRY(check_params(&p));
    TSR_TRY(tsr_tensor_file_open(&z->file, path));
    z->channels = p.channels;
    z->info.path = tsr_tensor_file_path(z->file);
    z->info.container = tsr_tensor_file_container(z->file);
    if (strcmp(z->info.container, "gguf") == 0)
        TSR_TRY(tsr_fail(TSR_ERR_FORMAT,
            "%.300s: is a GGUF file, which holds a model; name a latent (safetensors, .latent or "
            "npy)",
            path));
    TSR_TRY(choose_tensor(z, &p));
    TSR_TRY(choose_layout(z, &p));
    TSR_TRY(choose_scale(z, &p));
    TSR_TRY(read_crop(z, "tessera.crop_width", &z->info.crop_width));
    TSR_TRY(read_crop(z, "tessera.crop_height", &z->info.crop_height));
    TSR_TRY(read_crop(z, "tessera.crop_frames", &z->info.crop_frames));
    *out = z;
    return TSR_OK;
error:
    tsr_latent_close(&z);
    return status;
}

tsr_status tsr_latent_from_memory(tsr_latent **out, const float *z, int frames, int height, int width, int channels) {
    size_t n;
    *out = NULL;
    if (!z || frames < 1 || height < 1 || width < 1 || channels < 1 || frames > dim_most || height > dim_most ||
        width > dim_most)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "latent from memory: %d x %d x %d x %d makes no sense", frames, height, width, channels);
    tsr_latent *made = calloc(1, sizeof *made);
    bool fits_memory = tsr_mul((size_t)frames, (size_t)height, &n) && tsr_mul(n, (size_t)width, &n) &&
                       tsr_mul(n, (size_t)channels, &n) && tsr_mul(n, sizeof *z, &n);
    if (!made || !fits_memory || !(made->memory = malloc(n))) {
        free(made);
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a latent of %d x %d x %d x %d", frames, height, width, channels);
    }
    memcpy(made->memory, z, n);
    made->channels = channels;
    made->info = (tsr_latent_info){.path = "memory",
        .container = "memory",
        .videos = 1,
        .frames = frames,
        .height = height,
        .width = width,
        .layout = TSR_LAYOUT_BFHWC,
        .scale = 1};
    *out = made;
    return TSR_OK;
}

void tsr_latent_close(tsr_latent **z) {
    if (!*z)
        return;
    tsr_tensor_file_close(&(*z)->file);
    free((*z)->memory);
    free(*z);
    *z = NULL;
}

const tsr_latent_info *tsr_latent_get_info(const tsr_latent *z) {
    return &z->info;
}

int tsr_latent_channels(const tsr_latent *z) {
    return z->channels;
}

/* ---------------------------------------------------------------- frames */

/* [B][C][T][h][w] to [h][w][C], a piece of a plane at a time. */
static void read_channels_first(const tsr_latent *z, int video, int t, float *out) {
    float piece[1024];
    size_t plane = (size_t)z->info.height * (size_t)z->info.width, c = (size_t)z->channels;
    for (size_t k = 0; k < c; k++) {
        size_t begin = (((size_t)video * c + k) * (size_t)z->info.frames + (size_t)t) * plane;
        for (size_t at = 0; at < plane; at += 1024) {
            size_t n = plane - at < 1024 ? plane - at : 1024;
            tsr_tensor_read(z->tensor, begin + at, n, piece);
            for (size_t i = 0; i < n; i++)
                out[(at + i) * c + k] = piece[i];
        }
    }
}

static tsr_status unscale(const tsr_latent *z, int video, int t, float *out) {
    size_t c = (size_t)z->channels, w = (size_t)z->info.width, n = (size_t)z->info.height * w * c;
    for (size_t i = 0; i < n; i++) {
        float v = (float)((double)out[i] / z->info.scale);
        if (!isfinite(v))
            return tsr_fail(TSR_ERR_FORMAT,
                "%.300s: video %d, latent frame %d, channel %zu, row %zu, column %zu is %g; sample "
                "the latent again",
                z->info.path, video, t, i % c, i / c / w, i / c % w, (double)v);
        out[i] = v;
    }
    return TSR_OK;
}

tsr_status tsr_latent_read(const tsr_latent *z, int video, int t, float *out) {
    size_t frame = (size_t)z->info.height * (size_t)z->info.width * (size_t)z->channels;
    if (video < 0 || video >= z->info.videos || t < 0 || t >= z->info.frames)
        return tsr_fail(TSR_ERR_ARGUMENT, "%.300s: video %d, latent frame %d: it has %d of %d", z->info.path, video, t,
            z->info.videos, z->info.frames);
    if (z->memory)
        memcpy(out, z->memory + (size_t)t * frame, frame * sizeof *out);
    else if (z->info.layout == TSR_LAYOUT_BFHWC)
        tsr_tensor_read(z->tensor, ((size_t)video * (size_t)z->info.frames + (size_t)t) * frame, frame, out);
    else
        read_channels_first(z, video, t, out);
    return unscale(z, video, t, out);
}

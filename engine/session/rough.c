#include "session/rough.h"

#include "formats/latent_file.h"
#include "session/cache_folder.h"
#include "session/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pieces of the video, ROWS x COLUMNS of them beside each other in one tiny decode: few and small, because somebody
 * waits; some thirty samples for every unknown. */
enum { ROWS = 2, COLUMNS = 2, PIECES = ROWS * COLUMNS, SIDE = 8, FRAMES = 2 };
#define RIDGE 1e-4 /* of the mean square of the inputs */

/* ---------------------------------------------------------------- least squares */

enum { MOST = TSR_ROUGH_CHANNELS + 1 };

/* Solves a * v = b for three right sides, a symmetric and positive [n][n]: Gauss with pivots. */
static bool solve(double a[MOST][MOST], double b[MOST][3], int n) {
    for (int i = 0; i < n; i++) {
        int p = i;
        for (int r = i + 1; r < n; r++)
            p = fabs(a[r][i]) > fabs(a[p][i]) ? r : p;
        if (!(fabs(a[p][i]) > 1e-12))
            return false;
        for (int c = 0; c < n; c++) {
            double t = a[i][c];
            a[i][c] = a[p][c];
            a[p][c] = t;
        }
        for (int c = 0; c < 3; c++) {
            double t = b[i][c];
            b[i][c] = b[p][c];
            b[p][c] = t;
        }
        for (int r = 0; r < n; r++) {
            double f = r == i ? 0 : a[r][i] / a[i][i];
            for (int c = i; c < n && f != 0; c++)
                a[r][c] -= f * a[i][c];
            for (int c = 0; c < 3; c++)
                b[r][c] -= f * b[i][c];
        }
    }
    for (int i = 0; i < n; i++)
        for (int c = 0; c < 3; c++)
            b[i][c] /= a[i][i];
    return true;
}

bool tsr_rough_fit(const float *x, const float *rgb, size_t n, int channels, tsr_rough_map *out) {
    static _Thread_local double a[MOST][MOST], b[MOST][3];
    int m = channels + 1;
    if (channels < 1 || channels > TSR_ROUGH_CHANNELS || n < 1)
        return false;
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    for (size_t k = 0; k < n; k++)
        for (int i = 0; i < m; i++) {
            double xi = i < channels ? (double)x[k * (size_t)channels + (size_t)i] : 1;
            for (int j = 0; j < m; j++)
                a[i][j] += xi * (j < channels ? (double)x[k * (size_t)channels + (size_t)j] : 1);
            for (int c = 0; c < 3; c++)
                b[i][c] += xi * (double)rgb[3 * k + (size_t)c];
        }
    double trace = 0;
    for (int i = 0; i < channels; i++)
        trace += a[i][i];
    for (int i = 0; i < channels; i++)
        a[i][i] += RIDGE * trace / channels + 1e-9;
    if (!solve(a, b, m))
        return false;
    *out = (tsr_rough_map){.channels = channels};
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < m; i++) {
            if (!isfinite(b[i][c]))
                return false;
            out->row[c][i == channels ? TSR_ROUGH_CHANNELS : i] = (float)b[i][c];
        }
    return true;
}

void tsr_rough_paint(const tsr_rough_map *map, const float *z, size_t n, uint32_t *out) {
    for (size_t k = 0; k < n; k++, z += map->channels) {
        uint32_t pixel = 0xff000000;
        for (int c = 0; c < 3; c++) {
            float v = map->row[c][TSR_ROUGH_CHANNELS];
            for (int i = 0; i < map->channels; i++)
                v += map->row[c][i] * z[i];
            v = v * 0.5f + 0.5f;
            v = v > 0 ? v < 1 ? v : 1 : 0; /* NaN is 0 */
            pixel |= (uint32_t)(v * 255 + 0.5f) << 8 * c;
        }
        out[k] = pixel;
    }
}

/* ---------------------------------------------------------------- samples: tiny decodes */

typedef struct samples {
    int channels, frames, height, width; /* of the latents decoded */
    int factor, time_factor;             /* pixels, frames a latent */
    float *x, *rgb;                      /* [n][channels], [n][3]; n = frames * height * width */
} samples;

/* Mean colours of the blocks that latents stand for; the frames of a later latent follow one another. */
static tsr_status take_frame(void *user, const tsr_frame *f) {
    samples *s = user;
    const float *px = f->data;
    size_t latent = (size_t)(f->index + s->time_factor - 1) / (size_t)s->time_factor, w = (size_t)s->width,
           side = (size_t)s->factor;
    size_t plane = (size_t)f->width * (size_t)f->height, count = (size_t)s->height * w;
    double weight = 1.0 / (double)(side * side * (latent ? (size_t)s->time_factor : 1));
    for (size_t k = 0; k < count; k++) {
        size_t y0 = k / w * side, x0 = k % w * side;
        for (size_t c = 0; c < 3; c++) {
            double sum = 0;
            for (size_t y = y0; y < y0 + side; y++)
                for (size_t x = x0; x < x0 + side; x++)
                    sum += (double)px[c * plane + y * (size_t)f->width + x];
            s->rgb[3 * (latent * count + k) + c] += (float)(sum * weight);
        }
    }
    return TSR_OK;
}

static tsr_status decode_samples(tsr_engine *e, tsr_model *m, samples *s) {
    tsr_latent *z = NULL;
    tsr_plan *plan = NULL;
    tsr_status status;
    tsr_extent extent = {s->frames, s->height, s->width};
    TSR_TRY(tsr_latent_from_memory(&z, s->x, s->frames, s->height, s->width, s->channels));
    TSR_TRY(tsr_plan_create(
        &plan, e, m, &extent, &(tsr_plan_params){.untiled = true, .overlap_width = -1, .overlap_height = -1}));
    TSR_TRY(tsr_decode(
        e, m, z, plan, &(tsr_decode_params){.pixels = TSR_PIXELS_RGB_F32, .on_frame = take_frame, .user = s}, NULL));
error:
    tsr_plan_destroy(&plan);
    tsr_latent_close(&z);
    return status;
}

/* Piece i, spread over the video and the picture, into its place of s->x. */
static tsr_status cut_piece(const tsr_latent *z, int video, int i, const samples *s, float *frame) {
    const tsr_latent_info *li = tsr_latent_get_info(z);
    int h = s->height / ROWS, w = s->width / COLUMNS;
    int t0 = (int)((int64_t)(li->frames - s->frames) * i / (PIECES - 1));
    int y0 = (li->height - h) * (i & 1 ? 2 : 1) / 3, x0 = (li->width - w) * (i + 1) / (PIECES + 1);
    size_t c = (size_t)s->channels;
    for (int t = 0; t < s->frames; t++) {
        tsr_status status = tsr_latent_read(z, video, t0 + t, frame);
        if (status != TSR_OK)
            return status;
        for (int y = 0; y < h; y++) {
            size_t to = ((size_t)t * (size_t)s->height + (size_t)(i / COLUMNS * h + y)) * (size_t)s->width +
                        (size_t)(i % COLUMNS * w);
            memcpy(s->x + to * c, frame + ((size_t)(y0 + y) * (size_t)li->width + (size_t)x0) * c,
                (size_t)w * c * sizeof *frame);
        }
    }
    return TSR_OK;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

static tsr_status fit(tsr_model *m, const tsr_latent *z, int video, const tsr_engine_params *params,
    const atomic_bool *stop, tsr_rough_map *out) {
    const tsr_latent_info *li = tsr_latent_get_info(z);
    tsr_status status = TSR_OK;
    tsr_engine *e = NULL;
    samples s = {
        .channels = tsr_latent_channels(z),
        .height = ROWS * least(li->height, SIDE),
        .width = COLUMNS * least(li->width, SIDE),
        .frames = least(li->frames, FRAMES),
        .factor = tsr_model_get_info(m)->space_factor,
        .time_factor = tsr_model_get_info(m)->time_factor,
    };
    size_t n = (size_t)(s.frames * s.height * s.width), c = (size_t)s.channels;
    float *frame = malloc((size_t)li->height * (size_t)li->width * c * sizeof *frame);
    s.x = calloc(n * c, sizeof *s.x);
    s.rgb = calloc(n * 3, sizeof *s.rgb);
    if (!frame || !s.x || !s.rgb) {
        status = tsr_fail(TSR_ERR_MEMORY, "rough picture: no memory");
        goto error;
    }
    for (int i = 0; i < PIECES; i++)
        TSR_TRY(cut_piece(z, video, i, &s, frame));
    TSR_TRY(tsr_engine_create(&e, params));
    e->quiet = true;
    status = atomic_load(stop) ? tsr_fail(TSR_ERR_CANCELLED, "rough picture: cancelled") : decode_samples(e, m, &s);
    if (status == TSR_OK && !tsr_rough_fit(s.x, s.rgb, n, s.channels, out))
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "rough picture: the latents say nothing about colour");
error:
    tsr_engine_destroy(&e);
    free(s.rgb);
    free(s.x);
    free(frame);
    return status;
}

/* ---------------------------------------------------------------- kept */

static bool parse(const char *text, int channels, tsr_rough_map *out) {
    char *end;
    *out = (tsr_rough_map){.channels = channels};
    if (strtol(text, &end, 10) != channels)
        return false;
    for (int c = 0; c < 3; c++)
        for (int i = 0; i <= channels; i++) {
            const char *at = end;
            float v = strtof(at, &end);
            if (end == at || !isfinite(v))
                return false;
            out->row[c][i == channels ? TSR_ROUGH_CHANNELS : i] = v;
        }
    return true;
}

static void keep(const char *name, const tsr_rough_map *map) {
    char text[3 * MOST * 16 + 32];
    int n = snprintf(text, sizeof text, "%d\n", map->channels);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i <= map->channels; i++)
            n += snprintf(text + n, sizeof text - (size_t)n, "%.7g%c",
                (double)map->row[c][i == map->channels ? TSR_ROUGH_CHANNELS : i], i == map->channels ? '\n' : ' ');
    tsr_cache_write(name, text);
}

tsr_status tsr_rough_map_get(tsr_model *m, const tsr_latent *z, int video, const tsr_engine_params *engine,
    const atomic_bool *stop, tsr_rough_map *out) {
    uint64_t key;
    char name[48];
    int channels = tsr_latent_channels(z);
    if (channels > TSR_ROUGH_CHANNELS)
        return tsr_fail(
            TSR_ERR_UNSUPPORTED, "rough picture: latents of %d channels; at most %d", channels, TSR_ROUGH_CHANNELS);
    tsr_status status = tsr_model_key(m, &key);
    if (status != TSR_OK)
        return status;
    snprintf(name, sizeof name, "rough-%016llx", (unsigned long long)key);
    char *text = tsr_cache_read(name);
    bool known = text && parse(text, channels, out);
    free(text);
    if (known)
        return TSR_OK;
    status = fit(m, z, video, engine, stop, out);
    if (status == TSR_OK)
        keep(name, out);
    return status;
}

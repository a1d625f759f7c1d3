/* Encoding through the public interface: goldens of the reference, tiles against their definition, clips of any size,
 * memory as planned; draws; and the files. */
#include "synthetic.h"
#include "temp.h"

#include "formats/latent_file.h"
#include "model/vae.h"
#include "plan/spans.h"

#include <tessera/encode.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())
#define fails(call, status, text)                                                                                      \
    do {                                                                                                               \
        cr_assert((call) == (status), "not refused as it should be: %s", tsr_last_error());                            \
        cr_assert(strstr(tsr_last_error(), text), "%s", tsr_last_error());                                             \
    } while (0)

/* ---------------------------------------------------------------- a clip and its latents */

typedef struct clip {
    int width, height, frames;
    const float *planar; /* [3][frames][height][width] */
    int stop_at;         /* a frame whose reading fails; 0: none */
    tsr_engine *cancel;  /* cancelled at frame 1; NULL: not */
    int channels, t, h, w;
    float *mean, *logvar; /* [channels][t][h][w] */
    int latents, told, plans;
    double share;
} clip;

static tsr_status read_frame(void *user, int64_t index, float *rgb) {
    clip *c = user;
    size_t plane = (size_t)c->width * (size_t)c->height;
    if (c->stop_at && index == c->stop_at)
        return TSR_ERR_IO;
    if (c->cancel && index == 1)
        tsr_cancel(c->cancel);
    for (size_t i = 0; i < plane; i++)
        for (size_t k = 0; k < 3; k++)
            rgb[3 * i + k] = c->planar[(k * (size_t)c->frames + (size_t)index) * plane + i];
    return TSR_OK;
}

static tsr_status on_latent(void *user, int t, float *mean, const float *logvar) {
    clip *c = user;
    size_t plane = (size_t)c->h * (size_t)c->w;
    cr_assert_eq(t, c->latents, "latent %d out of order", t);
    for (size_t k = 0; k < (size_t)c->channels; k++) {
        memcpy(c->mean + (k * (size_t)c->t + (size_t)t) * plane, mean + k * plane, plane * sizeof *mean);
        memcpy(c->logvar + (k * (size_t)c->t + (size_t)t) * plane, logvar + k * plane, plane * sizeof *mean);
    }
    c->latents++;
    return TSR_OK;
}

static void on_progress(void *user, const tsr_progress *p) {
    clip *c = user;
    cr_assert(p->share >= c->share && p->share <= 1.0000001, "share %g after %g", p->share, c->share);
    c->share = p->share;
    c->told++;
}

static void on_plan(void *user, const tsr_plan_info *plan, const char *why) {
    clip *c = user;
    cr_assert(c->latents == 0 && plan->bytes.total > 0 && strstr(why, "memory"), "%s", why);
    c->share = 0;
    c->plans++;
}

static clip clip_of(int width, int height, int frames) {
    clip c = {.width = width, .height = height, .frames = frames, .channels = 16};
    c.planar = synth_video(frames, height, width, 0);
    c.t = (frames - 1 + 3) / 4 + 1;
    c.h = (height + 7) / 8;
    c.w = (width + 7) / 8;
    size_t n = (size_t)c.channels * (size_t)c.t * (size_t)c.h * (size_t)c.w;
    c.mean = calloc(n, sizeof *c.mean);
    c.logvar = calloc(n, sizeof *c.logvar);
    return c;
}

static size_t values(const clip *c) {
    return (size_t)c->channels * (size_t)c->t * (size_t)c->h * (size_t)c->w;
}

static void clip_free(clip *c) {
    free((float *)c->planar);
    free(c->mean);
    free(c->logvar);
}

static tsr_encode_params params_of(clip *c) {
    return (tsr_encode_params){c->width, c->height, c->frames, read_frame, on_latent, on_progress, on_plan, c};
}

static tsr_plan *plan_for(tsr_engine *e, tsr_model *m, const clip *c, const tsr_plan_params *params) {
    static const tsr_plan_params usual = TSR_PLAN_PARAMS_DEFAULT;
    tsr_extent x;
    tsr_plan *p;
    tsr_plan_params f32 = params ? *params : usual;
    f32.precision = TSR_PRECISION_F32;
    ok(tsr_encode_extent(m, c->width, c->height, c->frames, &x));
    cr_assert(x.frames == c->t && x.height == c->h && x.width == c->w);
    ok(tsr_encode_plan(&p, e, m, &x, &f32));
    return p;
}

/* Encodes the clip; the memory it takes is what the plan says. */
static tsr_plan_info encode(tsr_engine *e, tsr_model *m, clip *c, const tsr_plan_params *params) {
    tsr_plan *p = plan_for(e, m, c, params);
    tsr_encode_params q = params_of(c);
    tsr_result r;
    ok(tsr_encode(e, m, p, &q, &r));
    tsr_plan_info info = *tsr_plan_get_info(p);
    cr_expect(c->latents == c->t && r.frames == c->frames && c->share > 0.999999 && c->told > 1);
    cr_expect(r.peak_bytes == r.planned_bytes, "%lld bytes at most, planned %lld", (long long)r.peak_bytes,
        (long long)r.planned_bytes);
    info.why = info.runner_up = NULL; /* the plan's */
    tsr_plan_destroy(&p);
    return info;
}

static double psnr(const float *a, const float *b, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return 10 * log10(4 * (double)n / squares);
}

static tsr_model *open_model(const synth_config *config) {
    tsr_model *m;
    ok(synth_model_write(temp_path("model.safetensors"), config));
    ok(tsr_model_open(&m, temp_path("model.safetensors")));
    return m;
}

static tsr_engine *engine(void) {
    tsr_engine *e;
    tsr_engine_params p = TSR_ENGINE_PARAMS_DEFAULT;
    p.device = TSR_DEVICE_CPU;
    ok(tsr_engine_create(&e, &p));
    return e;
}

static const synth_config small = {.channels = {32, 32, 64, 64}, .encoder = true};

/* ---------------------------------------------------------------- goldens */

static void check_golden(const char *name, const synth_config *config) {
    char path[1024];
    tsr_tensor_file *f;
    snprintf(path, sizeof path, "%s/goldens/%s.safetensors", getenv("TSR_TEST_DATA"), name);
    ok(tsr_tensor_file_open(&f, path));
    clip c = clip_of(
        atoi(tsr_tensor_file_meta(f, "w")), atoi(tsr_tensor_file_meta(f, "h")), atoi(tsr_tensor_file_meta(f, "t")));
    tsr_model *m = open_model(config);
    tsr_engine *e = engine();
    cr_expect(encode(e, m, &c, NULL).mode == TSR_MODE_UNTILED);
    const char *const tensor[] = {"mean", "logvar"};
    for (int i = 0; i < 2; i++) {
        const tsr_tensor *t = tsr_tensor_file_find(f, tensor[i]);
        cr_assert(t && t->count == values(&c));
        float *want = malloc(t->count * sizeof *want);
        tsr_tensor_read(t, 0, t->count, want);
        double db = psnr(i ? c.logvar : c.mean, want, t->count);
        cr_expect(db >= 100, "%s: %s %.1f dB", name, tensor[i], db);
        free(want);
    }
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    clip_free(&c);
    tsr_tensor_file_close(&f);
}

Test(encode, golden_one_picture) {
    check_golden("small_encode_1x64x64", &small);
}
Test(encode, golden_5_frames) {
    check_golden("small_encode_5x48x80", &small);
}
Test(encode, golden_13_frames) {
    check_golden("small_encode_13x32x64", &small);
}
Test(encode, golden_full_size) {
    check_golden("full_encode_5x64x64", &(synth_config){.encoder = true});
}

/* ---------------------------------------------------------------- sizes */

/* What the latents would be of the clip filled up by hand. */
Test(encode, odd_sizes_are_filled_up_at_the_edges) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip odd = clip_of(21, 11, 7), full = clip_of(24, 16, 9);
    float *v = (float *)full.planar;
    for (int c = 0; c < 3; c++)
        for (int f = 0; f < 9; f++)
            for (int y = 0; y < 16; y++)
                for (int x = 0; x < 24; x++) {
                    int g = f < 7 ? f : 6, i = y < 11 ? y : 10, j = x < 21 ? x : 20;
                    v[((c * 9 + f) * 16 + y) * 24 + x] = odd.planar[((c * 7 + g) * 11 + i) * 21 + j];
                }
    encode(e, m, &odd, NULL);
    encode(e, m, &full, NULL);
    cr_assert_eq(values(&odd), values(&full));
    cr_expect(memcmp(odd.mean, full.mean, values(&odd) * sizeof(float)) == 0);
    cr_expect(memcmp(odd.logvar, full.logvar, values(&odd) * sizeof(float)) == 0);
    clip_free(&odd);
    clip_free(&full);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

/* ---------------------------------------------------------------- tiles */

/* Each tile by itself as a clip of its own, then added up with the weights of spans and fades in latents. */
static float *by_definition(tsr_engine *e, tsr_model *m, const clip *c, int tile, int overlap) {
    tsr_span y[16], x[16];
    int ys = tsr_spans(c->h, tile, overlap, y, 16), xs = tsr_spans(c->w, tile, overlap, x, 16);
    float *sum = calloc(values(c), sizeof *sum);
    for (int i = 0; i < ys; i++)
        for (int j = 0; j < xs; j++) {
            int h = y[i].end - y[i].begin, w = x[j].end - x[j].begin;
            clip part = clip_of(8 * w, 8 * h, c->frames);
            float *v = (float *)part.planar, wy[64], wx[64];
            for (int k = 0; k < 3 * c->frames; k++)
                for (int r = 0; r < 8 * h; r++)
                    memcpy(v + (k * 8 * h + r) * 8 * w,
                        c->planar + (k * c->height + 8 * y[i].begin + r) * c->width + 8 * x[j].begin,
                        (size_t)(8 * w) * sizeof *v);
            encode(e, m, &part, NULL);
            tsr_fade(y, ys, i, wy);
            tsr_fade(x, xs, j, wx);
            for (int k = 0; k < part.channels * part.t; k++)
                for (int r = 0; r < h; r++)
                    for (int q = 0; q < w; q++)
                        sum[(k * c->h + y[i].begin + r) * c->w + x[j].begin + q] +=
                            part.mean[(k * h + r) * w + q] * wy[r] * wx[q];
            clip_free(&part);
        }
    return sum;
}

Test(encode, tiles_fade_in_latents) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip c = clip_of(104, 72, 9), untiled = clip_of(104, 72, 9);
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.tile_width = p.tile_height = 48;
    p.overlap_width = p.overlap_height = 16;
    tsr_plan_info info = encode(e, m, &c, &p);
    cr_expect(info.mode == TSR_MODE_TILED && info.columns * info.rows > 3);
    float *want = by_definition(e, m, &c, 6, 2);
    double db = psnr(c.mean, want, values(&c));
    cr_expect(db > 120, "%.1f dB", db);
    encode(e, m, &untiled, NULL);
    double seams = psnr(c.mean, untiled.mean, values(&c));
    cr_expect(seams < 80, "tiles make no difference? %.1f dB", seams);
    free(want);
    clip_free(&c);
    clip_free(&untiled);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

/* Caches parked between segments, or all kept: the same latents. */
Test(encode, segments_change_nothing) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip kept = clip_of(96, 64, 17), parked = clip_of(96, 64, 17);
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.tile_width = p.tile_height = 48;
    p.caches = TSR_CACHES_DEVICE;
    encode(e, m, &kept, &p);
    p.caches = TSR_CACHES_HOST;
    tsr_plan *plan = plan_for(e, m, &parked, &p);
    const tsr_plan_info *info = tsr_plan_get_info(plan);
    cr_expect(info->segment >= 1 && info->segment <= 5);
    tsr_plan_destroy(&plan);
    encode(e, m, &parked, &p);
    cr_expect(memcmp(kept.mean, parked.mean, values(&kept) * sizeof(float)) == 0);
    clip_free(&kept);
    clip_free(&parked);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

Test(encode, a_small_budget_makes_tiles) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip c = clip_of(128, 128, 9);
    tsr_plan *whole = plan_for(e, m, &c, NULL);
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    p.budget = tsr_plan_get_info(whole)->bytes.total * 6 / 10;
    p.caches = TSR_CACHES_DEVICE;
    char *text = tsr_plan_text(whole);
    cr_expect(text && strstr(text, "128x128, 9 frames, to 3 latents of 16x16"), "%s", text);
    free(text);
    tsr_plan_destroy(&whole);
    tsr_plan_info info = encode(e, m, &c, &p);
    cr_expect(info.mode == TSR_MODE_TILED && info.bytes.total <= p.budget);
    clip_free(&c);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

/* ---------------------------------------------------------------- stopping */

/* Each allocation in turn finds no memory: a smaller plan begins, before the clip is read. */
Test(encode, shrinks_at_every_allocation) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip whole = clip_of(48, 32, 9);
    tsr_plan_params untiled = TSR_PLAN_PARAMS_DEFAULT;
    untiled.untiled = true;
    int64_t most = encode(e, m, &whole, &untiled).bytes.total;
    int failed = 0;
    for (bool again = true; again;) {
        clip c = clip_of(48, 32, 9);
        tsr_plan *p = plan_for(e, m, &c, &untiled);
        tsr_encode_params q = params_of(&c);
        tsr_result r;
        tsr_mem_fail_at(failed);
        ok(tsr_encode(e, m, p, &q, &r));
        tsr_mem_fail_at(-1);
        again = c.plans > 0;
        cr_assert(c.plans <= 1 && r.frames == c.frames && c.latents == c.t);
        cr_assert(again ? r.planned_bytes < most : r.planned_bytes == most);
        cr_assert_eq(r.peak_bytes, r.planned_bytes);
        cr_assert_gt(psnr(c.mean, whole.mean, values(&c)), 120);
        failed += again;
        tsr_plan_destroy(&p);
        clip_free(&c);
    }
    cr_assert_geq(failed, 6);
    clip_free(&whole);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

Test(encode, stops_where_it_is_told_to) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip c = clip_of(64, 64, 13);
    tsr_plan *p = plan_for(e, m, &c, NULL);
    tsr_encode_params q = params_of(&c);
    c.stop_at = 6;
    fails(tsr_encode(e, m, p, &q, NULL), TSR_ERR_IO, "frame 6 could not be read");
    c.stop_at = c.latents = 0;
    c.share = 0;
    c.cancel = e;
    fails(tsr_encode(e, m, p, &q, NULL), TSR_ERR_CANCELLED, "encode: cancelled");
    c.cancel = NULL;
    c.latents = 0;
    c.share = 0;
    ok(tsr_encode(e, m, p, &q, NULL));
    q.width = 72;
    fails(tsr_encode(e, m, p, &q, NULL), TSR_ERR_ARGUMENT, "plan anew");
    tsr_extent x;
    fails(tsr_encode_extent(m, 0, 8, 1, &x), TSR_ERR_ARGUMENT, "makes no sense");
    tsr_plan_destroy(&p);
    clip_free(&c);
    tsr_model_close(&m);
    m = open_model(&(synth_config){.channels = {32, 32, 32, 32}, .layers = 1, .decoder = true});
    fails(tsr_encode_extent(m, 8, 8, 1, &x), TSR_ERR_UNSUPPORTED, "holds no encoder");
    tsr_model_close(&m);
    tsr_engine_destroy(&e);
}

Test(encode, says_what_is_not_finite_and_hands_it_to_nobody) {
    tsr_model *m = open_model(&small);
    tsr_engine *e = engine();
    clip c = clip_of(16, 16, 5);
    tsr_plan *p;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_encode_params q = params_of(&c);
    for (int i = 16 * 16; i < 5 * 16 * 16; i++) /* the red of later frames: too much for fp16 behind conv_in */
        ((float *)c.planar)[i] *= 1e7f;
    params.precision = TSR_PRECISION_FP16;
    ok(tsr_encode_plan(&p, e, m, &(tsr_extent){2, 2, 2}, &params));
    fails(
        tsr_encode(e, m, p, &q, NULL), TSR_ERR_NOT_FINITE, "encode: latent frame 1 is not finite at channel 0 in fp16");
    cr_expect_eq(c.latents, 1);
    tsr_plan_destroy(&p);
    c.latents = 0;
    c.share = 0;
    encode(e, m, &c, NULL);
    clip_free(&c);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
}

/* ---------------------------------------------------------------- draws */

Test(sample, draws_are_normal_and_repeatable) {
    enum { N = 100000 };
    static float mean[N], logvar[N], a[N], b[N];
    for (int i = 0; i < N; i++) {
        mean[i] = 3;
        logvar[i] = 2 * logf(0.5f);
    }
    tsr_encode_sample(7, 1, N, mean, logvar, a);
    tsr_encode_sample(7, 1, N, mean, logvar, b);
    cr_expect(memcmp(a, b, sizeof a) == 0);
    double m = 0, v = 0, third = 0, fourth = 0, lag = 0;
    for (int i = 0; i < N; i++)
        m += (double)a[i] / N;
    for (int i = 0; i < N; i++) {
        double d = (double)a[i] - m;
        v += d * d / N;
        third += d * d * d / N;
        fourth += d * d * d * d / N;
        lag += i ? d * ((double)a[i - 1] - m) / N : 0;
    }
    cr_expect(fabs(m - 3) < 0.005 && fabs(sqrt(v) - 0.5) < 0.005, "%g, %g", m, sqrt(v));
    cr_expect(fabs(third) < 0.005 && fabs(fourth / (v * v) - 3) < 0.1 && fabs(lag) < 0.003, "%g %g %g", third,
        fourth / v / v, lag);
    tsr_encode_sample(8, 1, N, mean, logvar, b);
    cr_expect(memcmp(a, b, sizeof a) != 0);
    tsr_encode_sample(7, 2, N, mean, logvar, b);
    cr_expect(memcmp(a, b, sizeof a) != 0);
    for (int i = 0; i < N; i++)
        logvar[i] = -INFINITY; /* no spread: the mean */
    tsr_encode_sample(7, 1, N, mean, logvar, b);
    cr_expect(memcmp(mean, b, sizeof b) == 0);
}

/* ---------------------------------------------------------------- files */

enum { C = 16, T = 3, H = 2, W = 5, FRAME = C * H * W };

static float latent_at(int c, int t, int i) {
    return (float)(c * 1000 + t * 100 + i) / 512;
}

static void write_latents(const tsr_latent_writer_params *p) {
    tsr_latent_writer *w;
    ok(tsr_latent_writer_open(&w, p));
    for (int t = 0; t < T; t++) {
        float z[FRAME], mean[FRAME], logvar[FRAME];
        for (int c = 0; c < C; c++)
            for (int i = 0; i < H * W; i++) {
                z[c * H * W + i] = latent_at(c, t, i);
                mean[c * H * W + i] = latent_at(c, t, i) + 1;
                logvar[c * H * W + i] = latent_at(c, t, i) - 9;
            }
        ok(tsr_latent_writer_frame(w, z, mean, logvar));
    }
    ok(tsr_latent_writer_finish(w));
    tsr_latent_writer_close(&w);
}

static tsr_latent_writer_params writer_params(const char *path) {
    return (tsr_latent_writer_params){.path = path,
        .extent = {T, H, W},
        .channels = C,
        .scale = 0.9152,
        .width = 8 * W,
        .height = 8 * H,
        .frames = 9};
}

static void check_latents(const char *path, int crop_width, int crop_height, int crop_frames) {
    tsr_latent *z;
    float out[FRAME];
    ok(tsr_latent_open(&z, path, NULL));
    const tsr_latent_info *i = tsr_latent_get_info(z);
    cr_expect(i->videos == 1 && i->frames == T && i->height == H && i->width == W && i->scale == 0.9152);
    cr_expect(i->crop_width == crop_width && i->crop_height == crop_height && i->crop_frames == crop_frames,
        "%s: %d %d %d", path, i->crop_width, i->crop_height, i->crop_frames);
    for (int t = 0; t < T; t++) {
        ok(tsr_latent_read(z, 0, t, out));
        for (int k = 0; k < H * W; k++)
            for (int c = 0; c < C; c++)
                cr_assert(fabsf(out[k * C + c] - latent_at(c, t, k)) < 1e-5f, "%s: %g", path, (double)out[k * C + c]);
    }
    tsr_latent_close(&z);
}

Test(latent_file, comes_back_in_every_container) {
    const char *const names[] = {"a.latent", "a.safetensors", "a.npy"};
    for (int i = 0; i < 3; i++) {
        tsr_latent_writer_params p = writer_params(temp_path(names[i]));
        write_latents(&p);
        check_latents(p.path, 0, 0, 0);
    }
    tsr_latent_writer_params p = writer_params(temp_path("crop.latent"));
    p.width = 37;
    p.frames = 6;
    write_latents(&p);
    check_latents(p.path, 37, 16, 6);
}

Test(latent_file, statistics_are_unscaled) {
    tsr_tensor_file *f;
    float v[C * T * H * W];
    tsr_latent_writer_params p = writer_params(temp_path("stats.safetensors"));
    p.stats = true;
    write_latents(&p);
    check_latents(p.path, 0, 0, 0);
    ok(tsr_tensor_file_open(&f, p.path));
    cr_expect(tsr_tensor_file_find(f, "latent_format_version_0"));
    const char *const name[] = {"mean", "logvar"};
    for (int k = 0; k < 2; k++) {
        const tsr_tensor *t = tsr_tensor_file_find(f, name[k]);
        char shape[96];
        cr_assert(t);
        cr_expect_str_eq(tsr_shape_text(shape, t->dim, t->ndim), "[1, 16, 3, 2, 5]");
        tsr_tensor_read(t, 0, t->count, v);
        for (int c = 0; c < C; c++)
            for (int i = 0; i < T * H * W; i++)
                cr_assert(v[c * T * H * W + i] == latent_at(c, i / (H * W), i % (H * W)) + (k ? -9 : 1));
    }
    tsr_tensor_file_close(&f);
}

Test(latent_file, refusals) {
    tsr_latent_writer *w;
    tsr_latent_writer_params p = writer_params(temp_path("a.mp4"));
    fails(tsr_latent_writer_open(&w, &p), TSR_ERR_ARGUMENT, "unknown suffix");
    p.path = temp_path("a.npy");
    p.stats = true;
    fails(tsr_latent_writer_open(&w, &p), TSR_ERR_ARGUMENT, "no place for statistics");
    p.stats = false;
    write_latents(&p);
    fails(tsr_latent_writer_open(&w, &p), TSR_ERR_IO, "output exists");
    p.overwrite = true;
    write_latents(&p);
    p.path = temp_path("half.latent");
    ok(tsr_latent_writer_open(&w, &p));
    fails(tsr_latent_writer_finish(w), TSR_ERR_IO, "0 of 3 latents");
    tsr_latent_writer_close(&w);
    cr_expect(access(temp_path("half.latent"), F_OK) != 0 && access(temp_path("half.latent.part"), F_OK) != 0);
}

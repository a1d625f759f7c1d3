/* The modes of fewer bits: how far their pictures are from those of f32, on weights that are random
 * and on weights that were trained; that their plans are exact; how ranges of codes grow; and that
 * sums of products of codes are exact in every tier. */
#include "sanitized.h"
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include "backend/cpu/ref.h"
#include "formats/latent_file.h"
#include "model/quantise.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ok(call) cr_assert_eq((call), TSR_OK, "%s", tsr_last_error())

/* ---------------------------------------------------------------- decoding in one precision after
 * the other */

typedef struct job {
    tsr_model *model;
    tsr_latent *latent;
    tsr_engine *engine;
    float *video; /* [3][frames][height][width] */
    int64_t frames;
} job;

static tsr_status keep(void *user, const tsr_frame *f) {
    job *j = user;
    size_t plane = (size_t)f->width * (size_t)f->height;
    for (int64_t c = 0; c < 3; c++)
        memcpy(j->video + (size_t)(c * j->frames + f->index) * plane, (const float *)f->data + (size_t)c * plane,
            plane * sizeof(float));
    return TSR_OK;
}

static void open_engine(job *j, bool reference) {
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    params.reference = reference;
    ok(tsr_engine_create(&j->engine, &params));
}

static void open_synthetic(job *j, int frames, int h, int w) {
    const char *path = temp_path("small.safetensors");
    *j = (job){0};
    ok(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}));
    ok(tsr_model_open(&j->model, path));
    float *z = synth_latent(16, frames, h, w, 0);
    ok(tsr_latent_from_memory(&j->latent, z, frames, h, w, 16));
    free(z);
}

/* A corner of a clip that a trained model made. */
static void open_demo(job *j, int frames, int h, int w) {
    char path[512];
    tsr_latent *whole;
    tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
    *j = (job){0};
    snprintf(path, sizeof path, "%s/demo-vae.safetensors", getenv("TSR_ASSETS"));
    ok(tsr_model_open(&j->model, path));
    snprintf(path, sizeof path, "%s/spheres.latent", getenv("TSR_ASSETS"));
    ok(tsr_latent_open(&whole, path, &params));
    const tsr_latent_info *i = tsr_latent_get_info(whole);
    size_t c = (size_t)tsr_model_get_info(j->model)->latent_channels;
    float *frame = malloc((size_t)i->height * (size_t)i->width * c * sizeof *frame);
    float *z = malloc((size_t)(frames * h * w) * c * sizeof *z);
    for (int t = 0; t < frames; t++) {
        ok(tsr_latent_read(whole, 0, t, frame));
        for (int y = 0; y < h; y++)
            memcpy(z + (size_t)((t * h + y) * w) * c, frame + (size_t)(y * i->width) * c, (size_t)w * c * sizeof *z);
    }
    ok(tsr_latent_from_memory(&j->latent, z, frames, h, w, (int)c));
    free(z);
    free(frame);
    tsr_latent_close(&whole);
}

static void close_job(job *j) {
    free(j->video);
    tsr_engine_destroy(&j->engine);
    tsr_latent_close(&j->latent);
    tsr_model_close(&j->model);
    cr_assert_eq(tsr_mem_used(), 0);
}

/* Not where a tile is decoded again: that is beside the plan. */
static bool exact_peak = true;

/* The clip in this precision, to be freed; tile 0: untiled. */
static float *decode(job *j, tsr_precision precision, int tile, size_t *n) {
    const tsr_latent_info *i = tsr_latent_get_info(j->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    tsr_plan_params p = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan = NULL;
    tsr_result result;
    p.precision = precision;
    p.budget = 1ll << 32;
    p.tile_width = p.tile_height = tile;
    ok(tsr_plan_create(&plan, j->engine, j->model, &extent, &p));
    const tsr_plan_info *info = tsr_plan_get_info(plan);
    cr_assert_eq(info->precision, precision);
    j->frames = info->frames;
    *n = 3 * (size_t)info->frames * (size_t)info->width * (size_t)info->height;
    j->video = malloc(*n * sizeof *j->video);
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = j};
    ok(tsr_decode(j->engine, j->model, j->latent, plan, &d, &result));
    cr_assert(result.peak_bytes == result.planned_bytes || !exact_peak, "%s: %lld bytes where %lld were planned",
        tsr_precision_name(precision), (long long)result.peak_bytes, (long long)result.planned_bytes);
    tsr_plan_destroy(&plan);
    float *video = j->video;
    j->video = NULL;
    return video;
}

/* Over a range of 2. */
static double psnr(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return 10 * log10(4 * (double)n / sum);
}

typedef struct wanted {
    tsr_precision precision;
    double synthetic, demo; /* dB at least */
} wanted;

static const wanted modes[] = {
    {TSR_PRECISION_FP16, 63, 71},
    {TSR_PRECISION_BF16, 50, 63},
    {TSR_PRECISION_FP8, 29, 59},
    {TSR_PRECISION_INT8, 39, 62},
};

static void check_modes(job *j, bool demo) {
    size_t n;
    float *f32 = decode(j, TSR_PRECISION_F32, 0, &n);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        float *video = decode(j, modes[i].precision, 0, &n);
        double db = psnr(f32, video, n), least = demo ? modes[i].demo : modes[i].synthetic;
        fprintf(stderr, "# %s, %s: %.2f dB\n", demo ? "demo" : "synthetic", tsr_precision_name(modes[i].precision), db);
        cr_expect_geq(db, least, "%s: %.2f dB", tsr_precision_name(modes[i].precision), db);
        cr_expect_leq(db, 120, "%s: nothing was rounded", tsr_precision_name(modes[i].precision));
        free(video);
    }
    free(f32);
}

Test(precision, random_weights) {
    job j;
    open_synthetic(&j, 3, 8, 6);
    open_engine(&j, false);
    check_modes(&j, false);
    close_job(&j);
}

Test(precision, trained_weights) {
    only_as_shipped();
    job j;
    open_demo(&j, 2, 8, 10);
    open_engine(&j, false);
    check_modes(&j, true);
    close_job(&j);
}

/* The tiers choose the same codes but for those on the verge, and their sums are the same. */
Test(precision, the_reference_agrees) {
    only_as_shipped();
    job j;
    size_t n;
    float *video[2];
    open_synthetic(&j, 3, 5, 4);
    for (int i = 0; i < 2; i++) {
        open_engine(&j, i);
        video[i] = decode(&j, TSR_PRECISION_INT8, 0, &n);
        tsr_engine_destroy(&j.engine);
    }
    double db = psnr(video[0], video[1], n);
    cr_expect_geq(db, 45, "%.2f dB", db);
    free(video[0]);
    free(video[1]);
    close_job(&j);
}

/* Caches of codes are parked with their ranges. */
Test(precision, tiles) {
    only_as_shipped();
    job j;
    size_t n;
    open_synthetic(&j, 4, 12, 12);
    open_engine(&j, false);
    float *f32 = decode(&j, TSR_PRECISION_F32, 64, &n), *int8 = decode(&j, TSR_PRECISION_INT8, 64, &n);
    double db = psnr(f32, int8, n);
    cr_expect_geq(db, modes[3].synthetic, "%.2f dB", db);
    free(f32);
    free(int8);
    close_job(&j);
}

/* Random weights of the published model's size: with one plane of codes at the lowest resolution, too, it is 42.3. */
Test(precision, full_size_holds_43) {
    only_as_shipped();
    job j = {0};
    size_t n;
    const char *path = temp_path("full.safetensors");
    ok(synth_model_write(path, &(synth_config){.decoder = true}));
    ok(tsr_model_open(&j.model, path));
    float *z = synth_latent(16, 1, 16, 16, 0);
    ok(tsr_latent_from_memory(&j.latent, z, 1, 16, 16, 16));
    free(z);
    open_engine(&j, false);
    float *f32 = decode(&j, TSR_PRECISION_F32, 0, &n), *int8 = decode(&j, TSR_PRECISION_INT8, 0, &n);
    double db = psnr(f32, int8, n);
    fprintf(stderr, "# full size, int8: %.2f dB\n", db);
    cr_expect(db >= 43 && db < 50, "%.2f dB", db);
    free(f32);
    free(int8);
    close_job(&j);
}

/* ---------------------------------------------------------------- what is not finite */

static struct {
    int count;
    char line[2][512];
} warned;

static void on_warning(void *user, tsr_log_level level, const char *line) {
    (void)user;
    if (level == TSR_LOG_WARN && strstr(line, "not finite") && warned.count++ < 2)
        snprintf(warned.line[warned.count - 1], sizeof warned.line[0], "%s", line);
}

/* The first pixels of the second of three latents are `value`. */
static void open_spoilt(job *j, int side, int pixels, float value) {
    open_synthetic(j, 3, side, side);
    tsr_latent_close(&j->latent);
    float *z = synth_latent(16, 3, side, side, 0);
    for (int i = 0; i < pixels * 16; i++)
        z[side * side * 16 + i] = value;
    ok(tsr_latent_from_memory(&j->latent, z, 3, side, side, 16));
    free(z);
    open_engine(j, false);
    memset(&warned, 0, sizeof warned);
    tsr_log_set(TSR_LOG_WARN, on_warning, NULL);
}

static size_t not_finite(const float *x, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += !isfinite(x[i]);
    return count;
}

/* Too large for 16 bits once it is a stream, and f32 does not mind: the spoilt tile is as f32 has it, those before and
 * beside it are as they were. */
static void decoded_again(tsr_precision precision, float value, int side, int tile) {
    job j;
    size_t n;
    open_spoilt(&j, side, 1, value);
    exact_peak = false;
    float *narrow = decode(&j, precision, tile, &n), *f32 = decode(&j, TSR_PRECISION_F32, tile, &n);
    cr_expect_eq(not_finite(narrow, n), 0);
    cr_expect_eq(warned.count, 1, "%d warnings", warned.count);
    char in[64];
    snprintf(in, sizeof in, "in %s; the tile is decoded in f32", tsr_precision_name(precision));
    cr_expect(strstr(warned.line[0], tile ? "frames 1 to 4, tile 1 of 4" : "frames 1 to 4, tile 1 of 1") &&
                  strstr(warned.line[0], in),
        "%s", warned.line[0]);
    size_t width = 8 * (size_t)side, plane = width * width, frames = n / 3 / plane, equal = 0, rounded = 0;
    for (size_t i = 0; i < n; i++) {
        bool first = i / plane % frames == 0, inside = i % width < 24 && i / width % width < 24; /* and in no seam */
        if (!first && (inside || !tile))
            equal += narrow[i] != f32[i];
        else if (first || i % width >= 64)
            rounded += narrow[i] != f32[i];
    }
    cr_expect_eq(equal, 0, "%zu numbers are not those of f32", equal);
    cr_expect_gt(rounded, n / 16, "the rest stays as it was");
    free(narrow);
    free(f32);
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    close_job(&j);
}

Test(precision, not_finite_is_decoded_again) {
    decoded_again(TSR_PRECISION_FP16, 3e6f, 4, 0);
    decoded_again(TSR_PRECISION_BF16, 1e8f, 4, 0);
}

Test(precision, not_finite_is_decoded_again_in_its_tile) {
    decoded_again(TSR_PRECISION_FP16, 3e6f, 12, 64);
}

/* fp16 cannot hold even a 16th of this stream, which is therefore beyond a million. */
Test(precision, bf16_holds_a_million) {
    job j;
    size_t n;
    open_spoilt(&j, 4, 1, 3e6f / 16);
    exact_peak = false;
    free(decode(&j, TSR_PRECISION_FP16, 0, &n));
    cr_expect_eq(warned.count, 1, "a 16th in fp16: %d warnings", warned.count);
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    close_job(&j);
    open_spoilt(&j, 4, 1, 3e6f);
    exact_peak = true;
    float *bf16 = decode(&j, TSR_PRECISION_BF16, 0, &n), *f32 = decode(&j, TSR_PRECISION_F32, 0, &n);
    cr_expect_eq(warned.count, 0, "bf16: %s", warned.line[0]);
    double db = psnr(bf16, f32, n);
    fprintf(stderr, "# bf16, a million: %.2f dB\n", db);
    cr_expect(db >= 45 && db < 120, "%.2f dB", db);
    free(bf16);
    free(f32);
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    close_job(&j);
}

/* Too large for every precision: the range of codes is no number, and f32 has none either. */
Test(precision, not_finite_in_f32_is_told) {
    job j;
    size_t n;
    open_spoilt(&j, 2, 4, 3.4e38f);
    exact_peak = false;
    float *int8 = decode(&j, TSR_PRECISION_INT8, 0, &n);
    cr_expect_eq(not_finite(int8, n / 27), 0, "the first frame has not seen it");
    cr_expect_gt(not_finite(int8, n), 0);
    cr_expect_eq(warned.count, 3, "%d warnings", warned.count);
    cr_expect(strstr(warned.line[0], "frames 1 to 4, tile 1 of 1") && strstr(warned.line[0], "in int8"), "%s",
        warned.line[0]);
    cr_expect(strstr(warned.line[1], "frames 1 to 4, tile 1 of 1") && strstr(warned.line[1], "in f32, either"), "%s",
        warned.line[1]);
    free(int8);
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    close_job(&j);
}

/* ---------------------------------------------------------------- ranges */

Test(precision, ranges_grow_and_codes_follow) {
    enum { C = 32 };
    double stats[(TSR_GROUPS + C) * 2];
    float gamma[C], beta[C], gain[C];
    tsr_code_range range = {0}, before;
    for (int c = 0; c < C; c++) {
        gamma[c] = gain[c] = 1;
        beta[c] = 0;
        stats[2 * c] = 0;
        stats[2 * c + 1] = 100; /* of 100 numbers: deviation 1 */
    }
    for (int round = 0; round < 4; round++) {
        static const double most[] = {3.2, 12, 5, 12.6};
        for (int c = 0; c < C; c++) {
            stats[(TSR_GROUPS + c) * 2] = -most[round];
            stats[(TSR_GROUPS + c) * 2 + 1] = c == 7 ? most[round] : 1;
        }
        before = range;
        range = tsr_range_choose(stats, 1, 100, C, 1, gamma, beta, gain, before);
        cr_assert(range.scale >= before.scale);
        double high = most[round] / (1 + exp(-most[round]));
        double codes = (high + 0.2785) / (double)range.scale; /* ends are off by half a code at most */
        cr_assert(codes <= 255 && (before.scale == range.scale || codes > 255 * exp2(-1 / 128.0) - 1e-3));
        cr_assert(high / (double)range.scale + range.zero <= 255.5 &&
                  fabs(range.zero * (double)range.scale - 0.2785) <= 0.501 * (double)range.scale);
        cr_assert(round != 2 || (range.scale == before.scale && range.zero == before.zero));
        uint8_t from[256], to[256];
        for (int q = 0; q < 256; q++)
            from[q] = (uint8_t)q;
        tsr_requantise(from, before, to, range, 256);
        for (int q = 0; q < 256 && round; q++) {
            float was = (float)(q - before.zero) * before.scale, is = (float)(to[q] - range.zero) * range.scale;
            cr_assert(fabsf(was - is) <= range.scale * 0.501f, "code %d: %g became %g", q, (double)was, (double)is);
        }
    }
    stats[5] = INFINITY; /* frames that are not finite say so, now and later */
    range = tsr_range_choose(stats, 1, 100, C, 1, gamma, beta, gain, range);
    cr_assert(isnan(range.scale));
    stats[5] = 100;
    cr_assert(isnan(tsr_range_choose(stats, 1, 100, C, 1, gamma, beta, gain, range).scale));
}

/* A range of two planes: codes of twice as many steps. */
Test(precision, two_planes_halve_the_step) {
    enum { C = 32 };
    double stats[(TSR_GROUPS + C) * 2];
    float gamma[C], beta[C] = {0}, gain[C];
    for (int c = 0; c < C; c++) {
        gamma[c] = gain[c] = 1;
        stats[2 * c] = 0;
        stats[2 * c + 1] = 100;
        stats[(TSR_GROUPS + c) * 2] = -3;
        stats[(TSR_GROUPS + c) * 2 + 1] = 5;
    }
    tsr_code_range none = {0}, one = tsr_range_choose(stats, 1, 100, C, 1, gamma, beta, gain, none),
                   two = tsr_range_choose(stats, 1, 100, C, 2, gamma, beta, gain, none);
    cr_assert_eq(two.scale, one.scale / 2);
    cr_assert_eq(two.zero, one.zero, "of each plane");
}

static bool same_rows(const float *two, const float *one, size_t rows, size_t c) {
    for (size_t i = 0; i < rows * 2; i++)
        if (memcmp(two + i * c, one + i / 2 * c, c * sizeof *one) != 0)
            return false;
    return true;
}

/* The convs of the lowest resolution, and only those, read two planes, which have the same weights and gains: so a
 * sum over both is that of one plane times the sum of its codes. */
Test(precision, two_planes_share_their_weights) {
    job j;
    open_synthetic(&j, 1, 4, 4);
    const tsr_half *half = &j.model->vae->decoder;
    uint8_t eight[256];
    float *w[2] = {NULL, NULL}, biases[2][64], scale[2][64], gain[2][128];
    int reads = 0;
    tsr_eight_layers(half, eight, 256);
    for (int i = 0; i < half->layers; i++) {
        cr_assert(eight[i] == 0 || eight[i] == (half->layer[i].level == 0 ? 2 : 1));
        if (eight[i] != 2)
            continue;
        reads++;
        for (int p = 0; p < 2; p++) {
            tsr_kernel k;
            tsr_kernel_describe(&k, half, i, reads % 2 ? TSR_FOLD_NONE : TSR_FOLD_TIME);
            k.cin *= 1 + p;
            w[p] = malloc(tsr_kernel_weights(&k) * sizeof(float));
            ok(tsr_kernel_fold(half, &k, tsr_sgemm_plain, w[p], biases[p]));
            ok(tsr_quantise_kernel(half, &k, TSR_U8, w[p], biases[p], scale[p], gain[p]));
            size_t c = (size_t)half->layer[i].cin, rows = tsr_kernel_weights(&k) / c / 2, n = (size_t)k.cout * 4;
            cr_assert(!p || (same_rows(w[1], w[0], rows, c) && same_rows(gain[1], gain[0], 1, c)));
            cr_assert(!p || (memcmp(biases[0], biases[1], n) == 0 && memcmp(scale[0], scale[1], n) == 0));
        }
        free(w[0]);
        free(w[1]);
    }
    cr_assert_eq(reads, 2 * (2 + 3), "middle and first stage");
    close_job(&j);
}

/* ---------------------------------------------------------------- sums */

static const tsr_kernel one_kernel = {.cin = 64,
    .cout = 64,
    .kt = 3,
    .kh = 3,
    .kw = 3,
    .st = 1,
    .sy = 1,
    .sx = 1,
    .pad_top = 1,
    .pad_left = 1,
    .pad_bottom = 1,
    .pad_right = 1,
    .phases = 1,
    .classes = 1};

/* One convolution of codes with scales of 1 gives the sums themselves, which are small enough for
 * f32 here. */
static void run_sums(const tsr_tier *tier, const uint8_t *codes, const float *weights, float *out) {
    enum { C = 64, H = 5, W = 7, FRAMES = 2 };
    float ones[C], zeros[C] = {0};
    for (int i = 0; i < C; i++)
        ones[i] = 1;
    tsr_kernel kernel = one_kernel;
    tsr_quant quant = {0};
    tsr_buffer buffer[2] = {{.dtype = TSR_U8, .head = 2, .frames = FRAMES, .h = H, .w = W, .c = C, .quant = 0},
        {.dtype = TSR_F32, .frames = FRAMES, .h = H, .w = W, .c = C, .quant = -1}};
    tsr_op op = {.kind = TSR_OP_CONV,
        .cache = -1,
        .in = {0, 0, FRAMES, 0, H},
        .out = {1, 0, FRAMES, 0, H},
        .stats = -1,
        .out_dt = 1};
    tsr_program p = {.ops = 1,
        .op = &op,
        .buffers = 2,
        .buffer = buffer,
        .kernels = 1,
        .kernel = &kernel,
        .quants = 1,
        .quant = &quant};
    const tsr_op_impl *impl = &tier->op[TSR_OP_CONV];
    tsr_code_range range = {1, 37};
    tsr_packed packed = {.kernel = &kernel, .scale = ones, .at = tsr_mem_alloc(tier->kernel_bytes(&kernel, TSR_U8))};
    void *scratch = impl->scratch ? tsr_mem_alloc(impl->scratch(&p, &op)) : NULL;
    tsr_op_io io = {.program = &p,
        .op = &op,
        .in = codes + 2 * H * W * C,
        .out = out,
        .kernel = &packed,
        .range = &range,
        .scratch = scratch};
    ok(tier->pack(&packed, &p, &op, weights, zeros));
    if (impl->bind)
        ok(impl->bind(&io.bound, &p, &op, &packed));
    ok(impl->run(&io));
    if (io.bound)
        impl->unbind(io.bound);
    if (packed.layout)
        tier->unpack(&packed);
    tsr_mem_free(packed.at);
    tsr_mem_free(scratch);
}

Test(precision, sums_are_exact_in_every_tier) {
    enum { IN = 4 * 5 * 7 * 64, WEIGHTS = 64 * 27 * 64, OUT = 2 * 5 * 7 * 64 };
    uint8_t *codes = malloc(IN);
    float *weights = malloc(WEIGHTS * sizeof *weights), *want = malloc(OUT * sizeof *want),
          *have = malloc(OUT * sizeof *have);
    uint32_t bits = 1;
    for (int i = 0; i < IN; i++)
        codes[i] = (uint8_t)((bits = bits * 1664525 + 1013904223) >> 24) | 0xc0; /* large: what saturates shows */
    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)(int)((bits = bits * 1664525 + 1013904223) >> 24) / 2 > 63 ? 127 : -100;
    run_sums(tsr_tier_at(0), codes, weights, want);
    double most = 0;
    for (int i = 0; i < OUT; i++)
        most = fmax(most, fabs((double)want[i]));
    cr_assert(most > 1e5 && most < 0x1p24, "%g", most);
    for (int t = 1; tsr_tier_at(t); t++) {
        const tsr_tier *tier = tsr_tier_at(t);
        if (!tier->kernel_bytes || tier->kernel_bytes(&one_kernel, TSR_U8) == 0)
            continue;
        run_sums(tier, codes, weights, have);
        for (int i = 0; i < OUT; i++)
            cr_assert_eq(
                want[i], have[i], "%s: sum %d is %.1f, not %.1f", tier->name, i, (double)have[i], (double)want[i]);
    }
    free(codes);
    free(weights);
    free(want);
    free(have);
}

/* Whole decodes and encodes, and the stream after every block, against the reference in PyTorch:
 * PSNR over a range of 2 of at least 100 dB, in every tier of the CPU backend. */
#include "direct.h"
#include "sanitized.h"
#include "synthetic.h"
#include "temp.h"

#include "backend/cpu/cpu.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double WANTED = 100; /* dB */

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())

/* ---------------------------------------------------------------- a golden file and what it was
 * made of */

typedef struct golden {
    tsr_tensor_file *file;
    tsr_vae *vae;
    bool encode;
    int steps, h, w;
    float *input; /* [frames][h][w][c] */
} golden;

static const char *data_path(const char *name) {
    static char path[2][1024];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/goldens/%s", getenv("TSR_TEST_DATA"), name);
    return path[turn];
}

static int meta_number(const golden *g, const char *key) {
    const char *text = tsr_tensor_file_meta(g->file, key);
    cr_assert(text, "the golden has no '%s'", key);
    return atoi(text);
}

/* [3][frames][h][w] as [frames][h][w][3] */
static float *channels_last(const float *v, int frames, int h, int w) {
    size_t n = (size_t)frames * (size_t)h * (size_t)w;
    float *out = malloc(3 * n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < 3; c++)
            out[i * 3 + c] = v[c * n + i];
    return out;
}

static void make_input(golden *g, int frames) {
    if (!g->encode) {
        g->input = synth_latent(16, frames, g->h, g->w, 0);
        return;
    }
    float *planar = synth_video(frames, g->h, g->w, 0);
    g->input = channels_last(planar, frames, g->h, g->w);
    free(planar);
}

static void golden_open(golden *g, const char *name) {
    char file[128];
    snprintf(file, sizeof file, "%s.safetensors", name);
    *g = (golden){0};
    ok(tsr_tensor_file_open(&g->file, data_path(file)));
    synth_config config = {.seed = 0};
    sscanf(tsr_tensor_file_meta(g->file, "channels"), "%d,%d,%d,%d", &config.channels[0], &config.channels[1],
        &config.channels[2], &config.channels[3]);
    g->encode = !strcmp(tsr_tensor_file_meta(g->file, "kind"), "encode");
    config.encoder = g->encode;
    config.decoder = !g->encode;
    int frames = meta_number(g, "t");
    g->steps = g->encode ? 1 + (frames - 1) / 4 : frames;
    g->h = meta_number(g, "h");
    g->w = meta_number(g, "w");
    const char *path = temp_path("model.safetensors");
    ok(synth_model_write(path, &config));
    tsr_tensor_file *model;
    ok(tsr_tensor_file_open(&model, path));
    ok(tsr_vae_create(&g->vae, model));
    make_input(g, frames);
}

static void gguf_open(golden *g, const char *name) {
    char file[2][128];
    snprintf(file[0], sizeof file[0], "gguf/%s.safetensors", name);
    snprintf(file[1], sizeof file[1], "gguf/%s.gguf", name);
    *g = (golden){.steps = 2, .h = 5, .w = 6};
    ok(tsr_tensor_file_open(&g->file, data_path(file[0])));
    tsr_tensor_file *model;
    ok(tsr_tensor_file_open(&model, data_path(file[1])));
    ok(tsr_vae_create(&g->vae, model));
    make_input(g, 2);
}

static void golden_close(golden *g) {
    free(g->input);
    tsr_vae_destroy(&g->vae);
    tsr_tensor_file_close(&g->file);
}

/* PSNR over a range of 2. */
static double between(const float *a, const float *b, size_t n) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return squares > 0 ? 10 * log10(4 * (double)n / squares) : INFINITY;
}

/* Of n values against the golden tensor `name`. */
static double psnr(const golden *g, const char *name, const float *have, size_t n) {
    const tsr_tensor *t = tsr_tensor_file_find(g->file, name);
    cr_assert(t, "no tensor %s", name);
    cr_assert_eq(t->count, n, "%s has %zu values, not %zu", name, t->count, n);
    float *want = malloc(n * sizeof *want);
    tsr_tensor_read(t, 0, n, want);
    double db = between(have, want, n);
    free(want);
    return db;
}

/* ---------------------------------------------------------------- the stream after each block */

typedef struct taps {
    const golden *g;
    const direct *d;
    int step;
    struct tap {
        const tsr_tensor *want;
        float *have;
        int64_t frames; /* seen */
    } tap[32];
    int count;
} taps;

/* The tap whose block ends with this layer. */
static struct tap *tap_of(taps *t, const char *layer) {
    static const char *const endings[] = {"", ".conv2", ".to_out", ".conv"};
    for (int i = 0; i < t->count; i++)
        for (size_t j = 0; j < sizeof endings / sizeof *endings; j++) {
            char name[160];
            snprintf(name, sizeof name, "%s%s", t->tap[i].want->name + strlen("tap."), endings[j]);
            if (!strcmp(name, layer))
                return &t->tap[i];
        }
    return NULL;
}

static void copy_frames(taps *t, const tsr_program *p, const tsr_op *op, struct tap *tap) {
    const tsr_buffer *b = &p->buffer[op->out.buf];
    const float *from = tsr_exec_buffer(direct_exec(t->d), p->params.step, op->out.buf);
    int64_t c = tap->want->dim[0], all = tap->want->dim[1], pixels = tap->want->dim[2] * tap->want->dim[3];
    cr_assert(b->c == c && b->h * (int64_t)b->w == pixels, "%s has another shape", tap->want->name);
    for (int i = 0; i < op->out.nt; i++) {
        int f = op->out.t0 + i * op->out_dt;
        int64_t to = direct_step_frame(t->d, t->step, b->frames) + f;
        cr_assert_lt(to, all);
        for (int64_t px = 0; px < pixels; px++)
            for (int64_t ch = 0; ch < c; ch++)
                tap->have[(ch * all + to) * pixels + px] = from[((int64_t)f * pixels + px) * c + ch];
        tap->frames++;
    }
}

static void after_op(void *user, const tsr_program *p, int i, double begin, double end) {
    taps *t = user;
    const tsr_op *op = &p->op[i];
    cr_assert_leq(begin, end);
    if (op->kind == TSR_OP_CONV) {
        struct tap *tap = tap_of(t, p->half->layer[op->layer].name);
        if (tap)
            copy_frames(t, p, op, tap);
    }
    if (op->kind == TSR_OP_STORE)
        t->step++;
}

static void taps_start(taps *t, const golden *g, const direct *d, tsr_backend *b) {
    *t = (taps){.g = g, .d = d};
    for (size_t i = 0; i < tsr_tensor_file_count(g->file); i++) {
        const tsr_tensor *want = tsr_tensor_file_at(g->file, i);
        if (strncmp(want->name, "tap.", 4) == 0)
            t->tap[t->count++] = (struct tap){want, calloc(want->count, sizeof(float)), 0};
    }
    b->on_op = after_op;
    b->on_op_user = t;
}

static void taps_check(taps *t) {
    for (int i = 0; i < t->count; i++) {
        struct tap *tap = &t->tap[i];
        double db = psnr(t->g, tap->want->name, tap->have, tap->want->count);
        cr_expect(tap->frames == tap->want->dim[1], "%s: %d frames seen", tap->want->name, (int)tap->frames);
        cr_expect(db >= WANTED, "%s: %.1f dB", tap->want->name, db);
        free(tap->have);
    }
}

/* ---------------------------------------------------------------- running */

static void check_encoded(const golden *g, float *out, size_t half, const char *name) {
    double mean = psnr(g, "mean", out, half);
    for (size_t i = half; i < 2 * half; i++)
        out[i] = fminf(20, fmaxf(-30, out[i]));
    double logvar = psnr(g, "logvar", out + half, half);
    cr_expect(mean >= WANTED && logvar >= WANTED, "%s: mean %.1f dB, logvar %.1f dB", name, mean, logvar);
}

/* The result, of n numbers; the caller's to free. */
static float *run(const golden *g, const char *name, bool reference, int slice_level, int band, size_t *count) {
    tsr_backend *b;
    direct *d;
    taps t = {0};
    ok(tsr_cpu_create(&b, &(tsr_cpu_params){.reference = reference}));
    direct_params params = {g->encode, g->steps, g->h, g->w, slice_level, .band = band, .page_level = 1};
    ok(direct_create(&d, b, g->encode ? &g->vae->encoder : &g->vae->decoder, &params));
    int c, frames, h, w;
    direct_extent(d, &c, &frames, &h, &w);
    size_t n = *count = (size_t)c * (size_t)frames * (size_t)h * (size_t)w;
    float *out = calloc(n, sizeof *out);
    if (!band)
        taps_start(&t, g, d, b);
    ok(direct_run(d, g->input, out));
    if (g->encode) {
        check_encoded(g, out, n / 2, name);
    } else {
        double db = psnr(g, "video", out, n);
        cr_expect(db >= WANTED, "%s, %s, slice level %d: %.1f dB", name, reference ? "reference" : "fastest",
            slice_level, db);
    }
    if (slice_level == 0 && !band)
        taps_check(&t);
    direct_destroy(&d);
    b->v->destroy(b);
    return out;
}

/* Both tiers; where there are several frames a step, one at a time at the top as well. Exact tiles
 * give what whole frames give. */
static void check(const char *name, bool reference_too) {
    golden g;
    size_t n;
    golden_open(&g, name);
    float *whole = run(&g, name, false, 0, 0, &n);
    free(run(&g, name, false, 2, 0, &n));
    if (reference_too)
        free(run(&g, name, true, 0, 0, &n));
    if (!g.encode) {
        float *bands = run(&g, name, false, 0, 3, &n);
        cr_expect(between(bands, whole, n) >= 110, "%s: %.1f dB between exact tiles and whole frames", name,
            between(bands, whole, n));
        free(bands);
    }
    free(whole);
    golden_close(&g);
}

Test(golden, small_decode_t1) {
    check("small_decode_t1_8x8", true);
}
Test(golden, small_decode_t2) {
    only_as_shipped();
    check("small_decode_t2_6x10", true);
}
Test(golden, small_decode_t5) {
    check("small_decode_t5_5x7", false);
}
Test(golden, small_decode_taps) {
    check("small_decode_t2_4x4_taps", true);
}
Test(golden, wide_decode_t3) {
    check("wide_decode_t3_6x6", false);
}
Test(golden, full_decode_t2) {
    only_as_shipped();
    check("full_decode_t2_8x8", false);
}
Test(golden, small_encode_t1) {
    check("small_encode_1x64x64", true);
}
Test(golden, small_encode_t5) {
    check("small_encode_5x48x80", false);
}
Test(golden, small_encode_t13) {
    only_as_shipped();
    check("small_encode_13x32x64", true);
}
Test(golden, full_encode_t5) {
    only_as_shipped();
    check("full_encode_5x64x64", false);
}

/* A mode of 16 bits: the video, or the mean. */
static void check_rounded(const char *name, tsr_precision precision, double wanted) {
    golden g;
    tsr_backend *b;
    direct *d;
    int c, frames, h, w;
    golden_open(&g, name);
    ok(tsr_cpu_create(&b, &(tsr_cpu_params){0}));
    direct_params params = {.encode = g.encode, .steps = g.steps, .h = g.h, .w = g.w, .precision = precision};
    ok(direct_create(&d, b, g.encode ? &g.vae->encoder : &g.vae->decoder, &params));
    direct_extent(d, &c, &frames, &h, &w);
    size_t n = (size_t)c * (size_t)frames * (size_t)h * (size_t)w;
    float *out = calloc(n, sizeof *out);
    ok(direct_run(d, g.input, out));
    double db = g.encode ? psnr(&g, "mean", out, n / 2) : psnr(&g, "video", out, n);
    cr_log_info("%s in %s: %.1f dB\n", name, tsr_precision_name(precision), db);
    cr_expect(db >= wanted && db < WANTED, "%s in %s: %.1f dB", name, tsr_precision_name(precision), db);
    free(out);
    direct_destroy(&d);
    b->v->destroy(b);
    golden_close(&g);
}

Test(golden, full_decode_t2_in_16_bits) {
    only_as_shipped();
    check_rounded("full_decode_t2_8x8", TSR_PRECISION_FP16, 60);
    check_rounded("full_decode_t2_8x8", TSR_PRECISION_BF16, 50);
}
Test(golden, full_encode_t5_in_bf16) {
    only_as_shipped();
    check_rounded("full_encode_5x64x64", TSR_PRECISION_BF16, 50);
}
Test(golden, small_encode_t13_in_bf16) {
    check_rounded("small_encode_13x32x64", TSR_PRECISION_BF16, 50);
}

static void check_gguf(const char *name) {
    golden g;
    gguf_open(&g, name);
    size_t n;
    free(run(&g, name, false, 0, 0, &n));
    golden_close(&g);
}

Test(golden, gguf_bf16_flat) {
    check_gguf("tiny_bf16_flat_i64");
}
Test(golden, gguf_f16_native) {
    check_gguf("tiny_f16_native");
}
Test(golden, gguf_q4_0_flat) {
    check_gguf("tiny_q4_0_flat_i32");
}
Test(golden, gguf_q5_1_raw) {
    check_gguf("tiny_q5_1_raw");
}
Test(golden, gguf_q8_0_flat) {
    check_gguf("tiny_q8_0_flat_i32");
}

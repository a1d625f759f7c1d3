/*
 * What a GPU has to show, one stage a call: `check` runs them in order and keeps the report.
 *
 *     gpu_check device                what is here, and the way of the slots: a pattern goes there and back
 *     gpu_check goldens PRECISION [NAME]    decodes of small models against the reference's; auto: in each precision
 *     gpu_check graphs                launch graphs against plain launches, to the bit
 *     gpu_check blend                 a decode blended through shared memory against the copied way, to the bit
 *     gpu_check full PRECISION        the full-size model against f32, likewise
 *     gpu_check ops W H               ops of a step at this many output pixels, slowest first; tab-separated, with
 *                                   cuBLAS's rate for the same product last (0: none here)
 *     gpu_check decode PRECISION W H LATENTS [GIB]   steps alone, then whole decodes: speed, planned and real peak
 *
 * Goldens come from TSR_TEST_DATA. Status 0: as wanted, 1: not, 2: the command is wrong, 77: cannot be done here,
 * and a line says why. With --small first, sizes are those that the tests' driver without a GPU can bear.
 */
#include "../direct.h"
#include "../synthetic.h"
#include "../temp.h"
#include "backend/cuda/device.h"
#include "session/steps.h"

#include <tessera/bench.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GOOD = 0, BAD = 1, WRONG = 2, CANNOT = 77 };

static bool small;

static void must(tsr_status status) {
    if (status == TSR_OK)
        return;
    printf("- failed: %s\n", tsr_last_error());
    exit(status == TSR_ERR_UNSUPPORTED ? CANNOT : BAD);
}

static void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void refuse(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("gpu_check: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(WRONG);
}

/* From 0, excluded, to `most`. */
static double number(const char *what, const char *text, double most) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v > 0 && v <= most))
        refuse("%s '%s' is no number up to %g", what, text, most);
    return v;
}

/* A multiple of `unit`. */
static int whole(const char *what, const char *text, int unit, int most) {
    double v = number(what, text, most);
    if (fmod(v, unit) != 0)
        refuse("%s '%s' is no multiple of %d", what, text, unit);
    return (int)v;
}

static tsr_engine *engine(void) {
    tsr_engine *e;
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CUDA;
    must(tsr_engine_create(&e, &params));
    return e;
}

static void print_line(void *user, const char *key, const char *value) {
    (void)user;
    printf("- %s: %s\n", key, value);
}

static int device(void) {
    tsr_engine *e = engine();
    must(tsr_engine_report(e, print_line, NULL));
    bool zero_copy = e->way != TSR_WAY_HOST, waits = !e->lane;
    tsr_engine_destroy(&e);
    if (!zero_copy)
        printf("- no zero-copy here\n");
    else if (waits)
        printf("- zero-copy, yet the host waits\n");
    return zero_copy ? GOOD : CANNOT;
}

/* Without it steps run and slots are looked at from here; only whole decodes are not to be had. */
static bool has_vulkan(tsr_engine *e) {
    tsr_status status = tsr_engine_vulkan(e);
    if (status != TSR_OK)
        printf("- no Vulkan: %s\n", tsr_last_error());
    else
        must(tsr_engine_probe_slots(e));
    return status == TSR_OK;
}

/* ---------------------------------------------------------------- clips */

typedef struct clip {
    struct tsr_model model;
    int steps, h, w;
    float *input, *want, *have; /* want, have: [3][frames][H][W] */
    size_t n, plane;
    int64_t frames;
} clip;

static void open_golden(clip *c, const char *name) {
    char path[1024];
    tsr_tensor_file *file, *weights;
    snprintf(path, sizeof path, "%s/goldens/%s.safetensors", getenv("TSR_TEST_DATA"), name);
    must(tsr_tensor_file_open(&file, path));
    synth_config config = {.decoder = true};
    sscanf(tsr_tensor_file_meta(file, "channels"), "%d,%d,%d,%d", &config.channels[0], &config.channels[1],
        &config.channels[2], &config.channels[3]);
    *c = (clip){.steps = atoi(tsr_tensor_file_meta(file, "t")),
        .h = atoi(tsr_tensor_file_meta(file, "h")),
        .w = atoi(tsr_tensor_file_meta(file, "w"))};
    const char *model = temp_path("model.safetensors");
    must(synth_model_write(model, &config));
    must(tsr_tensor_file_open(&weights, model));
    must(tsr_vae_create(&c->model.vae, weights));
    c->input = synth_latent(16, c->steps, c->h, c->w, 0);
    const tsr_tensor *video = tsr_tensor_file_find(file, "video");
    c->n = video->count;
    c->plane = (size_t)(c->h * c->w) * 64;
    c->frames = (int64_t)(c->n / 3 / c->plane);
    c->want = malloc(c->n * sizeof *c->want);
    c->have = calloc(c->n, sizeof *c->have);
    tsr_tensor_read(video, 0, c->n, c->want);
    tsr_tensor_file_close(&file);
}

static void close_clip(clip *c) {
    free(c->have);
    free(c->want);
    free(c->input);
    tsr_vae_destroy(&c->model.vae);
}

static double psnr(const clip *c) {
    double squares = 0;
    for (size_t i = 0; i < c->n; i++)
        squares += ((double)c->have[i] - (double)c->want[i]) * ((double)c->have[i] - (double)c->want[i]);
    return 10 * log10(4 * (double)c->n / squares);
}

/* c->have = the clip, through the backend alone. TSR_ERR_UNSUPPORTED where the device has not this precision. */
static tsr_status decode_direct(clip *c, tsr_precision precision, int slice_level, bool plain) {
    tsr_backend *b;
    direct *d = NULL;
    direct_params params = {
        .steps = c->steps, .h = c->h, .w = c->w, .precision = precision, .slice_level = slice_level};
    must(tsr_cuda_create(&b, -1));
    b->slabs_on_host = true; /* the slot is looked at from here */
    tsr_status status = direct_create(&d, b, &c->model.vae->decoder, &params);
    if (status == TSR_OK && direct_plan(d)->numerics.precision != precision)
        status = tsr_fail(TSR_ERR_UNSUPPORTED, "not on this GPU");
    if (status == TSR_OK) {
        direct_exec(d)->plain = plain;
        status = direct_run(d, c->input, c->have);
    }
    direct_destroy(&d);
    b->v->destroy(b);
    return status;
}

static const struct {
    tsr_precision precision;
    double least; /* dB of the small models */
} modes[] = {{TSR_PRECISION_FP16, 60}, {TSR_PRECISION_BF16, 50}, {TSR_PRECISION_FP8, 28}, {TSR_PRECISION_INT8, 36}};
enum { MODES = sizeof modes / sizeof *modes };

static bool wanted(int mode, tsr_precision only) {
    return only == TSR_PRECISION_AUTO || only == modes[mode].precision;
}

static int against_golden(const char *name, int slice_level, tsr_precision only) {
    clip c;
    int result = GOOD;
    open_golden(&c, name);
    for (int i = 0; i < MODES; i++) {
        if (!wanted(i, only))
            continue;
        const char *mode = tsr_precision_name(modes[i].precision);
        tsr_status status = decode_direct(&c, modes[i].precision, slice_level, false);
        double db = status == TSR_OK ? psnr(&c) : 0;
        bool bad = status != TSR_OK ? status != TSR_ERR_UNSUPPORTED : !(db >= modes[i].least);
        if (status != TSR_OK)
            printf("- %s %s: %s\n", name, mode, tsr_last_error());
        else
            printf("- %s %s%s: %.1f dB%s\n", name, mode, slice_level ? ", frame by frame" : "", db,
                bad ? ", too little" : "");
        result = bad ? BAD : result;
        fflush(stdout);
    }
    close_clip(&c);
    return result;
}

static int goldens(tsr_precision precision, const char *only) {
    static const char *const name[] = {"small_decode_t2_4x4_taps", "small_decode_t1_8x8", "small_decode_t2_6x10",
        "small_decode_t5_5x7", "wide_decode_t3_6x6"};
    int result = GOOD, done = 0;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        if (only ? strcmp(only, name[i]) == 0 : i == 0 || !small) {
            result |= against_golden(name[i], 0, precision) | (small ? 0 : against_golden(name[i], 2, precision));
            done++;
        }
    if (!done)
        refuse("there is no golden '%s'", only);
    return result;
}

static int graphs(void) {
    clip c;
    int result = GOOD;
    open_golden(&c, "small_decode_t2_4x4_taps");
    for (int i = 0; i < (small ? 1 : MODES); i++) {
        const char *mode = tsr_precision_name(modes[i].precision);
        if (decode_direct(&c, modes[i].precision, 0, false) != TSR_OK)
            continue;
        memcpy(c.want, c.have, c.n * sizeof *c.have);
        must(decode_direct(&c, modes[i].precision, 0, true));
        bool same = memcmp(c.want, c.have, c.n * sizeof *c.have) == 0;
        printf("- graphs and plain launches in %s: %s\n", mode, same ? "the same bits" : "not the same");
        result |= !same;
    }
    close_clip(&c);
    return result;
}

/* ---------------------------------------------------------------- through Vulkan */

static tsr_status keep_frame(void *user, const tsr_frame *f) {
    clip *c = user;
    for (int64_t k = 0; k < 3; k++)
        memcpy(c->have + (size_t)(k * c->frames + f->index) * c->plane, (const float *)f->data + (size_t)k * c->plane,
            c->plane * sizeof(float));
    return TSR_OK;
}

static void decode_whole(clip *c, tsr_engine *e, tsr_precision precision) {
    tsr_plan *plan;
    tsr_latent *latent;
    tsr_result result;
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    params.precision = precision;
    params.untiled = true;
    must(tsr_latent_from_memory(&latent, c->input, c->steps, c->h, c->w, 16));
    must(tsr_plan_create(&plan, e, &c->model, &(tsr_extent){c->steps, c->h, c->w}, &params));
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep_frame, .user = c};
    must(tsr_decode(e, &c->model, latent, plan, &d, &result));
    tsr_plan_destroy(&plan);
    tsr_latent_close(&latent);
}

static int blend(void) {
    clip c;
    tsr_engine *e = engine();
    if (!has_vulkan(e))
        return CANNOT;
    open_golden(&c, "small_decode_t2_4x4_taps");
    tsr_way way = e->way;
    decode_whole(&c, e, TSR_PRECISION_FP16);
    tsr_engine_destroy(&e);
    printf("- blended by Vulkan: %.1f dB\n", psnr(&c));
    if (way == TSR_WAY_HOST) {
        printf("- slots go through host memory here: nothing to compare\n");
        return psnr(&c) >= 60 ? CANNOT : BAD;
    }
    memcpy(c.want, c.have, c.n * sizeof *c.have);
    e = engine();
    e->probed = e->backend->slabs_on_host = true; /* the copied way, though there is a better one */
    decode_whole(&c, e, TSR_PRECISION_FP16);
    tsr_engine_destroy(&e);
    bool same = memcmp(c.want, c.have, c.n * sizeof *c.have) == 0;
    printf("- shared memory and the copied way: %s\n", same ? "the same bits" : "not the same");
    close_clip(&c);
    return same ? GOOD : BAD;
}

static int full(tsr_precision only) {
    clip c;
    int result = GOOD;
    if (small) {
        printf("- the full-size model: hours on a driver without a GPU\n");
        return CANNOT;
    }
    open_golden(&c, "full_decode_t2_8x8");
    tsr_engine *e = engine();
    bool whole = has_vulkan(e);
    for (int i = 0; i < MODES; i++) {
        char why[128];
        tsr_precision p = modes[i].precision;
        tsr_numerics numerics;
        tsr_target target;
        if (!wanted(i, only))
            continue;
        e->backend->v->target(e->backend, &target);
        target.numerics(target.ctx, p, &c.model.vae->decoder, &numerics);
        snprintf(why, sizeof why, "%s", tsr_precision_name(numerics.precision));
        if (numerics.precision != p) {
            printf("- full-size %s: not on this GPU\n", tsr_precision_name(p));
            continue;
        }
        if (whole)
            decode_whole(&c, e, p);
        else
            must(decode_direct(&c, p, 0, false));
        double db = psnr(&c);
        bool bad = !(db >= modes[i].least - 3);
        printf("- full-size %s against f32: %.1f dB%s\n", why, db, bad ? ", too little" : "");
        fflush(stdout);
        result |= bad;
    }
    tsr_engine_destroy(&e);
    close_clip(&c);
    return result;
}

/* ---------------------------------------------------------------- speed */

static tsr_model *speed_model(void) {
    tsr_model *m;
    synth_config config = {.decoder = true};
    if (small)
        config = (synth_config){.decoder = true, .channels = {32, 32}, .layers = 1};
    const char *path = temp_path("speed.safetensors");
    must(synth_model_write(path, &config));
    must(tsr_model_open(&m, path));
    return m;
}

enum { PIXELS = 8, MOST_PIXELS = 1 << 15 }; /* of the published model: a latent's side; a picture's */

/* args: width, height. */
static tsr_extent extent_of(char **args, int latents) {
    int width = whole("width", args[0], PIXELS, MOST_PIXELS), height = whole("height", args[1], PIXELS, MOST_PIXELS);
    if (small)
        return (tsr_extent){1, 1, 2};
    return (tsr_extent){latents, height / PIXELS, width / PIXELS};
}

static void print_op(void *user, const tsr_bench_op *op) {
    (void)user;
    printf("%s\t%s\t%d\t%.6g\t%.6g\t%.6g\t%.6g\n", op->step, op->shape, op->count, op->seconds, op->flops, op->bytes,
        op->ceiling);
}

static int ops(char **args) {
    tsr_bench_params p = TSR_BENCH_PARAMS_DEFAULT;
    p.extent = extent_of(args, 3);
    tsr_model *m = speed_model();
    tsr_engine *e = engine();
    p.plan.untiled = true;
    p.repetitions = small ? 1 : 20;
    must(tsr_bench_ops(e, m, &p, print_op, NULL));
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    return GOOD;
}

typedef struct low { /* the least free memory seen while frames come */
    tsr_backend *b;
    int64_t free;
} low;

static tsr_status look(void *user, const tsr_frame *f) {
    low *l = user;
    int64_t now = l->b->v->memory_free(l->b);
    (void)f;
    l->free = now < l->free ? now : l->free;
    return TSR_OK;
}

/* Seconds of the fastest of some decodes. */
static double fastest_of(tsr_engine *e, tsr_model *m, tsr_latent *latent, tsr_plan *plan, low *l, tsr_result *result) {
    double fastest = INFINITY;
    tsr_decode_params d = {.on_frame = look, .user = l};
    for (int i = 0; i < (small ? 1 : 4); i++) {
        must(tsr_decode(e, m, latent, plan, &d, result));
        fastest = fmin(fastest, result->seconds);
    }
    return fastest;
}

static tsr_precision precision_of(const char *name) {
    for (int i = 0; i < MODES; i++)
        if (strcmp(tsr_precision_name(modes[i].precision), name) == 0)
            return modes[i].precision;
    if (strcmp(name, "auto") != 0)
        refuse("there is no precision '%s' on a GPU; there are auto, fp16, bf16, fp8 and int8", name);
    return TSR_PRECISION_AUTO;
}

static const char *mode_of(const tsr_plan *plan) {
    tsr_mode mode = tsr_plan_get_info(plan)->mode;
    return mode == TSR_MODE_UNTILED ? "untiled" : mode == TSR_MODE_TILED ? "tiled" : "offloaded";
}

/* What the backend does of a decode, with nothing beside it: every step of every tile. */
static void print_steps(tsr_engine *e, const tsr_plan *plan, char **args) {
    const tsr_plan_info *info = tsr_plan_get_info(plan);
    tsr_steps s;
    double fastest = INFINITY, first = tsr_now();
    must(tsr_steps_open(&s, e, plan));
    first = tsr_now() - first;
    for (int run = 0; run < (small ? 1 : 3); run++) {
        double begin = tsr_now();
        for (int t = plan->first_latent; t < plan->end_latent; t++)
            for (int tile = 0; tile < plan->x.tiles * plan->y.tiles; tile++)
                must(tsr_steps_run(&s, tsr_plan_step(plan, t)));
        fastest = fmin(fastest, tsr_now() - begin);
    }
    tsr_steps_close(&s);
    printf("- %s x %s in %s, %s: %.3f s for the steps alone, %.1f TFLOP/s; made ready in %.1f s\n", args[0], args[1],
        tsr_precision_name(info->precision), mode_of(plan), fastest, info->flops / fastest * 1e-12, first);
    fflush(stdout);
}

static int decode(tsr_precision precision, int n, char **args) {
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan;
    tsr_latent *latent;
    tsr_result result = {0};
    tsr_extent x = extent_of(args, whole("number of latents", args[2], 1, 1 << 16));
    params.budget = n > 3 ? (int64_t)(number("GiB", args[3], 1 << 20) * (1 << 30)) : 0;
    tsr_model *m = speed_model();
    tsr_engine *e = engine();
    bool vulkan = has_vulkan(e); /* what it and the context take is no part of the plan */
    int64_t before = e->backend->v->memory_free(e->backend);
    low l = {e->backend, before};
    params.precision = precision;
    must(tsr_plan_create(&plan, e, m, &x, &params));
    if (precision != TSR_PRECISION_AUTO && tsr_plan_get_info(plan)->precision != precision) {
        printf("- %s: not on this GPU\n", tsr_precision_name(precision));
        return CANNOT;
    }
    print_steps(e, plan, args);
    if (!vulkan)
        return CANNOT;
    float *z = synth_latent(16, x.frames, x.height, x.width, 0);
    must(tsr_latent_from_memory(&latent, z, x.frames, x.height, x.width, 16));
    double fastest = fastest_of(e, m, latent, plan, &l, &result);
    tsr_exec *exec;
    must(tsr_engine_prepare(e, plan, &exec));
    exec->plain = true;
    double plain = fastest_of(e, m, latent, plan, &l, &result);
    const tsr_plan_info *info = tsr_plan_get_info(plan);
    double real = (double)(before - l.free), planned = (double)result.planned_bytes;
    if (small)
        printf("- a tiny model and picture, for the way alone:\n");
    printf("- %s x %s in %s, %s: %.2f frames/s, %.1f TFLOP/s (%lld frames in %.3f s)\n", args[0], args[1],
        tsr_precision_name(info->precision), mode_of(plan), (double)result.frames / fastest,
        info->flops / fastest * 1e-12, (long long)result.frames, fastest);
    printf("- %s x %s: %.3f s were foreseen; %.3f s by plain launches instead of graphs\n", args[0], args[1],
        info->seconds, plain);
    printf("- %s x %s peak: planned %.2f GiB, really taken %.2f GiB\n", args[0], args[1], planned / (1 << 30),
        real / (1 << 30));
    tsr_plan_destroy(&plan);
    tsr_latent_close(&latent);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    free(z);
    return small || real <= 1.02 * planned + (64 << 20) ? GOOD : BAD;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* a stage that is ended has said what it saw */
    if (argc > 1 && strcmp(argv[1], "--small") == 0) {
        small = true;
        argc--, argv++;
    }
    const char *stage = argc > 1 ? argv[1] : "";
    if (strcmp(stage, "device") == 0 && argc == 2)
        return device();
    if (strcmp(stage, "goldens") == 0 && (argc == 3 || argc == 4))
        return goldens(precision_of(argv[2]), argc > 3 ? argv[3] : NULL);
    if (strcmp(stage, "graphs") == 0 && argc == 2)
        return graphs();
    if (strcmp(stage, "blend") == 0 && argc == 2)
        return blend();
    if (strcmp(stage, "full") == 0 && argc == 3)
        return full(precision_of(argv[2]));
    if (strcmp(stage, "ops") == 0 && argc == 4)
        return ops(argv + 2);
    if (strcmp(stage, "decode") == 0 && (argc == 6 || argc == 7))
        return decode(precision_of(argv[2]), argc - 3, argv + 3);
    refuse("usage: gpu_check [--small] device|goldens PRECISION [NAME]|graphs|blend|full PRECISION|ops W H|"
           "decode PRECISION W H LATENTS [GIB]");
}

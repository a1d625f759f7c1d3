/* The whole way with the real backend: files of synthetic weights and latents through tsr_decode
 * and the Vulkan blend, against the reference's goldens; and what must not change a result:
 * segments, ranges, where slots lie. */
#include "session/session.h"
#include "synthetic.h"
#include "temp.h"

#include <tessera/bench.h>
#include <tessera/inspect.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    tsr_model *model;
    tsr_latent *latent;
    tsr_engine *engine;
    tsr_plan *plan;
    float *video;   /* [3][frames][height][width], the wanted frames */
    int64_t frames; /* of it */
} job;

static void open_job(job *j, int frames, int height, int width) {
    const char *path = temp_path("small.safetensors");
    cr_assert_eq(synth_model_write(path, &(synth_config){.channels = {32, 32, 64, 64}, .decoder = true}), TSR_OK);
    cr_assert_eq(tsr_model_open(&j->model, path), TSR_OK, "%s", tsr_last_error());
    float *z = synth_latent(16, frames, height, width, 0);
    cr_assert_eq(tsr_latent_from_memory(&j->latent, z, frames, height, width, 16), TSR_OK);
    free(z);
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    cr_assert_eq(tsr_engine_create(&j->engine, &params), TSR_OK, "%s", tsr_last_error());
}

static void close_job(job *j) {
    free(j->video);
    tsr_plan_destroy(&j->plan);
    tsr_engine_destroy(&j->engine);
    tsr_latent_close(&j->latent);
    tsr_model_close(&j->model);
    cr_assert_eq(tsr_mem_used(), 0, "%zu bytes are still in use", tsr_mem_used());
}

static void make_plan(job *j, tsr_plan_params p) {
    const tsr_latent_info *i = tsr_latent_get_info(j->latent);
    tsr_extent extent = {i->frames, i->height, i->width};
    if (!p.precision)
        p.precision = TSR_PRECISION_F32;
    p.budget = 1ll << 32;
    tsr_plan_destroy(&j->plan);
    cr_assert_eq(tsr_plan_create(&j->plan, j->engine, j->model, &extent, &p), TSR_OK, "%s", tsr_last_error());
}

static tsr_plan_params tiles(int width, int height, int overlap_width, int overlap_height) {
    return (tsr_plan_params){
        .tile_width = width, .tile_height = height, .overlap_width = overlap_width, .overlap_height = overlap_height};
}

static tsr_status keep(void *user, const tsr_frame *f) {
    job *j = user;
    size_t plane = (size_t)f->width * (size_t)f->height;
    int64_t at = f->index - j->plan->params.first_frame;
    cr_assert(at >= 0 && at < j->frames && f->bytes == 3 * plane * sizeof(float));
    for (int64_t c = 0; c < 3; c++)
        memcpy(j->video + (size_t)(c * j->frames + at) * plane, (const float *)f->data + (size_t)c * plane,
            plane * sizeof(float));
    return TSR_OK;
}

/* Decodes to j->video. */
static tsr_result run(job *j) {
    const tsr_plan_info *i = tsr_plan_get_info(j->plan);
    int64_t all = 4 * (i->extent.frames - 1) + 1;
    j->frames = (j->plan->params.end_frame ? j->plan->params.end_frame : all) - j->plan->params.first_frame;
    free(j->video);
    j->video = malloc(sizeof(float) * 3 * (size_t)j->frames * (size_t)i->width * (size_t)i->height);
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = j};
    tsr_result result;
    cr_assert_eq(tsr_decode(j->engine, j->model, j->latent, j->plan, &d, &result), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(result.frames, j->frames);
    return result;
}

static double psnr(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum > 0 ? 10 * log10(4 * (double)n / sum) : INFINITY;
}

/* j->video against a golden file's, in dB over a range of 2. */
static double against_golden(const job *j, const char *name) {
    char path[512], shape[96], want[96];
    tsr_tensor_file *f = NULL;
    const tsr_plan_info *i = tsr_plan_get_info(j->plan);
    snprintf(path, sizeof path, "%s/goldens/%s.safetensors", getenv("TSR_TEST_DATA"), name);
    cr_assert_eq(tsr_tensor_file_open(&f, path), TSR_OK, "%s", tsr_last_error());
    const tsr_tensor *t = tsr_tensor_file_find(f, "video");
    cr_assert(t);
    int64_t dim[] = {3, j->frames, i->height, i->width};
    cr_assert_str_eq(tsr_shape_text(shape, t->dim, t->ndim), tsr_shape_text(want, dim, 4));
    float *golden = malloc(t->count * sizeof *golden);
    tsr_tensor_read(t, 0, t->count, golden);
    double db = psnr(j->video, golden, t->count);
    free(golden);
    tsr_tensor_file_close(&f);
    return db;
}

static void golden(const char *name, int frames, int height, int width, tsr_plan_params p, int tiles_expected) {
    job j = {0};
    open_job(&j, frames, height, width);
    make_plan(&j, p);
    const tsr_plan_info *i = tsr_plan_get_info(j.plan);
    cr_assert_eq(i->columns * i->rows, tiles_expected, "%d x %d tiles", i->columns, i->rows);
    tsr_result result = run(&j);
    cr_assert_eq(result.peak_bytes, result.planned_bytes, "%lld bytes where %lld were planned",
        (long long)result.peak_bytes, (long long)result.planned_bytes);
    double db = against_golden(&j, name);
    cr_assert_geq(db, 100, "%s: %.1f dB", name, db);
    close_job(&j);
}

Test(golden, tiled_t2_12x20) {
    golden("small_tiled_t2_12x20", 2, 12, 20, tiles(64, 64, 16, 16), 3 * 2);
}

Test(golden, tiled_t1_19x23) {
    golden("small_tiled_t1_19x23", 1, 19, 23, tiles(72, 100, 24, 31), 4 * 2);
}

Test(golden, untiled_t2_6x10) {
    golden("small_decode_t2_6x10", 2, 6, 10, (tsr_plan_params){.untiled = true}, 1);
}

Test(golden, untiled_t5_5x7) {
    golden("small_decode_t5_5x7", 5, 5, 7, (tsr_plan_params){.untiled = true}, 1);
}

/* The same latent every way: what is expected equal is equal to the bit. */
Test(same, segments_ranges_and_copies) {
    job j = {0};
    open_job(&j, 4, 4, 6);
    make_plan(&j, tiles(32, 24, 8, 8));
    cr_assert_gt(tsr_plan_get_info(j.plan)->columns, 1);
    run(&j);
    size_t plane = (size_t)j.plan->info.width * (size_t)j.plan->info.height, n = 3 * 13 * plane;
    float *whole = j.video;
    j.video = NULL;

    for (int k = 1; k <= 3; k += 2) { /* each tile's caches parked between segments of k latents */
        make_plan(&j, tiles(32, 24, 8, 8));
        tsr_plan *p = j.plan;
        p->segment = k;
        p->cache_sets = 1;
        p->parked_sets = p->y.tiles * p->x.tiles;
        p->frames_in_flight = 4 * k;
        run(&j);
        cr_assert(memcmp(j.video, whole, n * sizeof(float)) == 0, "segments of %d differ", k);
    }
    static const int range[][2] = {{0, 3}, {6, 13}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        tsr_plan_params p = tiles(32, 24, 8, 8);
        p.first_frame = range[i][0];
        p.end_frame = range[i][1];
        make_plan(&j, p);
        run(&j);
        for (int64_t c = 0; c < 3; c++)
            cr_assert(memcmp(j.video + (size_t)(c * j.frames) * plane, whole + (size_t)(c * 13 + p.first_frame) * plane,
                          (size_t)j.frames * plane * sizeof(float)) == 0,
                "frames %d:%d differ", p.first_frame, p.end_frame);
    }
    free(whole);
    close_job(&j);
}

/* A range far inside a long video begins a look-back before it, and is the same to the bit. */
Test(same, a_range_of_a_long_video) {
    job j = {0};
    open_job(&j, 44, 1, 1);
    make_plan(&j, (tsr_plan_params){.untiled = true});
    run(&j);
    float *whole = j.video;
    j.video = NULL;
    make_plan(&j, (tsr_plan_params){.untiled = true, .first_frame = 170});
    cr_assert_gt(j.plan->first_latent, 0);
    run(&j);
    for (size_t c = 0; c < 3; c++)
        cr_assert(memcmp(j.video + c * 3 * 64, whole + (c * 173 + 170) * 64, 3 * 64 * sizeof(float)) == 0);
    free(whole);
    close_job(&j);
}

/* A decode that goes on at `first`, its frames compared with those of the whole. */
static void go_on(job *j, const float *whole, int first) {
    const tsr_plan_info *i = tsr_plan_get_info(j->plan);
    int64_t all = 4 * (i->extent.frames - 1) + 1;
    size_t plane = (size_t)i->width * (size_t)i->height;
    tsr_decode_params d = {.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep, .user = j, .first_frame = first};
    tsr_result result;
    cr_assert_eq(tsr_decode(j->engine, j->model, j->latent, j->plan, &d, &result), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(result.frames, all - first);
    for (int64_t c = 0; c < 3; c++) {
        size_t at = (size_t)(c * all + first) * plane;
        cr_assert(memcmp(j->video + at, whole + at, (size_t)(all - first) * plane * sizeof(float)) == 0,
            "%s differs from frame %d on", tsr_precision_name(i->precision), first);
    }
}

Test(same, going_on_where_a_decode_ended) {
    static const tsr_precision precision[] = {TSR_PRECISION_F32, TSR_PRECISION_BF16, TSR_PRECISION_INT8};
    static const int first[] = {159, 172};
    job j = {0};
    open_job(&j, 44, 1, 2);
    for (int k = 0; k < 3; k++) {
        tsr_plan_params p = k == 1 ? tiles(8, 8, 0, 0) : (tsr_plan_params){.untiled = true};
        p.precision = precision[k];
        make_plan(&j, p);
        if (!p.untiled) {
            cr_assert_gt(j.plan->info.columns, 1);
            j.plan->segment = 3;
            j.plan->cache_sets = 1;
            j.plan->parked_sets = j.plan->info.columns;
            j.plan->frames_in_flight = 12;
        }
        run(&j);
        size_t bytes = sizeof(float) * 3 * (size_t)j.frames * (size_t)j.plan->info.width * 8;
        float *whole = malloc(bytes);
        memcpy(whole, j.video, bytes);
        for (size_t i = 0; i < sizeof first / sizeof *first; i++)
            go_on(&j, whole, first[i]);
        free(whole);
        cr_assert_eq(tsr_plan_begin(j.plan, 172) > 0, precision[k] != TSR_PRECISION_INT8);
    }
    tsr_decode_params d = {.first_frame = 173};
    cr_assert_eq(tsr_decode(j.engine, j.model, j.latent, j.plan, &d, NULL), TSR_ERR_ARGUMENT);
    close_job(&j);
}

/* ---------------------------------------------------------------- inspect and bench */

typedef struct facts {
    char text[1 << 16];
    size_t n;
} facts;

static void add_fact(void *user, const char *section, const char *key, const char *value) {
    facts *f = user;
    f->n += (size_t)snprintf(f->text + f->n, sizeof f->text - f->n, "%s|%s|%s\n", section, key, value);
    cr_assert_lt(f->n, sizeof f->text);
}

static void expect_fact(const facts *f, const char *line) {
    cr_assert(strstr(f->text, line), "no line \"%s\" in:\n%s", line, f->text);
}

Test(inspect, tells_models_latents_and_others_apart) {
    static facts f;
    char path[512];
    snprintf(path, sizeof path, "%s/demo-vae.safetensors", getenv("TSR_ASSETS"));
    cr_assert_eq(tsr_inspect(path, add_fact, &f), TSR_OK, "%s", tsr_last_error());
    expect_fact(&f, "file|container|safetensors\n");
    expect_fact(&f, "file|holds|model\n");
    expect_fact(&f, "model|widths|128, 64, 64, 128\n");
    expect_fact(&f, "model|latent channels|16\n");
    expect_fact(&f, "tensors|decoder.conv_in.weight|F16 [128, 16, 3, 3, 3]\n");

    f = (facts){0};
    snprintf(path, sizeof path, "%s/spheres.latent", getenv("TSR_ASSETS"));
    cr_assert_eq(tsr_inspect(path, add_fact, &f), TSR_OK, "%s", tsr_last_error());
    expect_fact(&f, "file|holds|latent\n");
    expect_fact(&f, "latent|latents|8 frames of 56x32, 16 channels\n");
    expect_fact(&f, "latent|decodes to|29 frames of 448x256\n");
    expect_fact(&f, "latent|scale|0.9152\n");

    f = (facts){0};
    static const float numbers[6];
    tsr_tensor t = {
        .name = "x", .dtype = TSR_F32, .ndim = 2, .dim = {2, 3}, .count = 6, .data = numbers, .bytes = sizeof numbers};
    cr_assert_eq(tsr_safetensors_write(temp_path("other.safetensors"), &t, 1, NULL, 0), TSR_OK);
    cr_assert_eq(tsr_inspect(temp_path("other.safetensors"), add_fact, &f), TSR_OK);
    expect_fact(&f, "file|holds|no model (");
    expect_fact(&f, "tensors|x|F32 [2, 3]\n");

    cr_assert_eq(tsr_inspect(temp_path("no-such-file"), add_fact, &f), TSR_ERR_IO);
}

typedef struct op_sums {
    int shapes, ops, ceilings, copies;
    double share, flops, last_seconds;
    const char *step;
    bool disorder;
} op_sums;

static void add_op(void *user, const tsr_bench_op *op) {
    op_sums *s = user;
    if (s->step && strcmp(s->step, op->step) == 0 && op->seconds > s->last_seconds)
        s->disorder = true;
    s->step = op->step[0] == 'f' ? "first" : op->step[0] == 's' ? "second" : "later";
    s->last_seconds = op->seconds;
    s->shapes++;
    s->ops += op->count;
    s->share += op->share;
    s->flops += op->flops;
    s->ceilings += op->ceiling > 0;
    s->copies += op->copy > 0;
    cr_assert(op->copy > 0 ? op->flops == 0 : op->flops > 0, "%s", op->shape);
}

static void see_decode(void *user, const tsr_bench_decode *d) {
    *(int64_t *)user = d->result.frames;
    cr_assert(d->fastest <= d->result.seconds && d->result.seconds <= d->slowest && d->cold > 0);
    cr_assert_eq(d->plan->frames, d->result.frames);
}

Test(bench, accounts_for_every_op) {
    job j = {0};
    open_job(&j, 3, 2, 2);
    tsr_bench_params p = {
        .extent = {3, 2, 2}, .plan = {.precision = TSR_PRECISION_F32, .untiled = true}, .repetitions = 2};
    make_plan(&j, p.plan);
    int ops = 0;
    double flops = 0;
    for (int s = 0; s < TSR_STEP_COUNT; s++) {
        ops += j.plan->program[s]->ops;
        flops += tsr_program_flops(j.plan->program[s]);
    }
    op_sums sums = {0};
    cr_assert_eq(tsr_bench_ops(j.engine, j.model, &p, add_op, &sums), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(sums.ops, ops);
    cr_assert_lt(fabs(sums.share - 3), 1e-6, "the shares of three steps sum to %g", sums.share);
    cr_assert_lt(fabs(sums.flops - flops), 1e-6 * flops);
    cr_assert(sums.shapes < ops && !sums.disorder);
    cr_assert(sums.ceilings > 0 && sums.copies > 0);
    int64_t frames = 0;
    cr_assert_eq(tsr_bench_decodes(j.engine, j.model, &p, see_decode, &frames), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(frames, 9);
    p.repetitions = 0;
    cr_assert_eq(tsr_bench_decodes(j.engine, j.model, &p, see_decode, &frames), TSR_ERR_ARGUMENT);
    close_job(&j);
}

/* The CUDA backend from end to end on a driver without a GPU (fake/): decodes against the reference in PyTorch, graphs
 * against plain launches, memory that another API maps, and every call of the driver failing once. */
#include "fake_help.h"

#include "../direct.h"
#include "backend/cuda/device.h"

#include <sys/mman.h>

TestSuite(cuda_backend, .init = open_fake);

/* ---------------------------------------------------------------- what there is to run on */

static void refused(fake_cuda_config config, int index, tsr_status status, const char *because) {
    tsr_backend *b = NULL;
    fake.setup(&config);
    cr_assert_eq(tsr_cuda_create(&b, index), status);
    cr_assert_null(b);
    cr_assert(strstr(tsr_last_error(), because), "%s", tsr_last_error());
    nothing_is_left();
}

Test(cuda_backend, an_old_driver) {
    fake_cuda_config c = ADA;
    c.version = 12080;
    refused(c, -1, TSR_ERR_UNSUPPORTED, "CUDA 12.8; update it to CUDA 13 (r580)");
}
Test(cuda_backend, no_device) {
    fake_cuda_config c = ADA;
    c.devices = 0;
    refused(c, -1, TSR_ERR_UNSUPPORTED, "no NVIDIA GPU");
}
Test(cuda_backend, an_old_device) {
    fake_cuda_config c = ADA;
    c.major = 7, c.minor = 5;
    refused(c, -1, TSR_ERR_UNSUPPORTED, "sm_75 is too old");
}
Test(cuda_backend, a_device_that_is_not_there) {
    refused(ADA, 3, TSR_ERR_ARGUMENT, "no device 3");
}

Test(cuda_backend, automatic_precision_follows_the_hardware) {
    static const struct {
        int major, minor;
        tsr_precision best;
    } cases[] = {{8, 0, TSR_PRECISION_INT8}, {8, 6, TSR_PRECISION_INT8}, {8, 9, TSR_PRECISION_INT8},
        {9, 0, TSR_PRECISION_INT8}, {12, 0, TSR_PRECISION_INT8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_cuda_config c = ADA;
        c.major = cases[i].major, c.minor = cases[i].minor;
        fake.setup(&c);
        tsr_backend *b;
        char why[128] = "";
        ok(tsr_cuda_create(&b, -1));
        cr_assert_eq(b->v->best(b, NULL, why), cases[i].best);
        cr_assert(strstr(why, "sm_"), "%s", why);
        b->v->destroy(b);
        nothing_is_left();
    }
}

/* ---------------------------------------------------------------- decoding */

/* malloc'd: the clip, through a device of these properties. */
static float *decode(const clip *c, const fake_cuda_config *config, direct_params params, bool plain) {
    tsr_backend *b;
    direct *d;
    params.steps = c->steps, params.h = c->h, params.w = c->w;
    fake.setup(config);
    ok(tsr_cuda_create(&b, -1));
    ok(direct_create(&d, b, &c->vae->decoder, &params));
    cr_assert_eq(direct_plan(d)->numerics.precision, params.precision);
    direct_exec(d)->plain = plain;
    float *out = calloc(c->n, sizeof *out);
    fake.settled(1);
    ok(direct_run(d, c->input, out));
    fake.settled(0);
    fake_cuda_counts seen = counted();
    cr_assert_eq(seen.graphs, plain ? 0 : c->steps);
    cr_assert_leq(seen.built, plain ? 0 : c->steps < 3 ? c->steps : 3);
    cr_assert_gt(seen.launches, 0);
    direct_destroy(&d);
    b->v->destroy(b);
    nothing_is_left();
    return out;
}

/* ---------------------------------------------------------------- failing calls */

/* All that a program does with the backend; false where something failed. */
static bool whole_life(const clip *c, float *out, char *parked) {
    tsr_backend *b = NULL;
    direct *d = NULL;
    direct_params params = {.steps = c->steps, .h = c->h, .w = c->w, .precision = TSR_PRECISION_FP16};
    if (tsr_cuda_create(&b, -1) != TSR_OK)
        return false;
    bool good = direct_create(&d, b, &c->vae->decoder, &params) == TSR_OK && direct_run(d, c->input, out) == TSR_OK &&
                (c->steps == 1 || (b->v->park(b, direct_exec(d), 0, parked) == TSR_OK &&
                                      b->v->unpark(b, direct_exec(d), 0, parked) == TSR_OK));
    direct_destroy(&d);
    b->v->destroy(b);
    return good;
}

/* Some calls may fail unseen: those that free, and those whose answer only reports. Every other one is an error of one
 * line, and nothing is left behind. */
static void fail_calls(int steps, int from_end, int stride) {
    clip c;
    open_tiny(&c, steps);
    float *out = malloc(c.n * sizeof *out);
    char *parked = malloc(1 << 20);
    cr_assert(whole_life(&c, out, parked), "%s", tsr_last_error());
    int calls = counted().calls, errors = 0, n = 0;
    for (int at = from_end ? calls - from_end : 0; at < calls; at += stride, n++) {
        fake.setup(&ADA);
        fake.fail_at(at);
        bool good = whole_life(&c, out, parked);
        const char *error = tsr_last_error();
        cr_assert(good || strstr(error, "cuda: "), "call %d: %s", at, error);
        cr_assert(good || !strchr(error, '\n'), "call %d: %s", at, error);
        cr_assert(!good || !counted().failures, "call %d failed and nobody said so", at);
        errors += !good;
        fake.fail_at(-1);
        nothing_is_left();
    }
    printf("# %d of %d calls failed, %d of them seen\n", n, calls, errors);
    cr_assert_gt(errors, 0);
    free(parked);
    free(out);
    close_clip(&c);
}

/* ---------------------------------------------------------------- the tests */

#ifndef LONG
static struct {
    char name[128], text[1024];
    int reads, writes;
} folder; /* the cache folder's only file */

static char *kept(const char *name) {
    folder.reads++;
    return *folder.text && strcmp(name, folder.name) == 0 ? strdup(folder.text) : NULL;
}
static void keep(const char *name, const char *text) {
    folder.writes++;
    snprintf(folder.name, sizeof folder.name, "%s", name);
    snprintf(folder.text, sizeof folder.text, "%s", text);
}

/* Launches that preparing a plan took. */
static int launches_of_preparing(const fake_cuda_config *config, tsr_precision precision, const clip *c) {
    tsr_backend *b;
    direct *d;
    fake.setup(config);
    ok(tsr_cuda_create(&b, -1));
    b->kept = kept;
    b->keep = keep;
    ok(direct_create(
        &d, b, &c->vae->decoder, &(direct_params){.steps = c->steps, .h = c->h, .w = c->w, .precision = precision}));
    int n = counted().launches;
    direct_destroy(&d);
    b->v->destroy(b);
    nothing_is_left();
    return n;
}

/* The fake GPU takes as long as a launch has blocks: larger tiles win, where they are fewer. */
static void tunes(int major, int minor, tsr_precision precision, const char *found) {
    clip c;
    fake_cuda_config config = ADA;
    config.major = major, config.minor = minor;
    memset(&folder, 0, sizeof folder);
    open_tiny(&c, 2);
    c.h = 8, c.w = 3; /* 16 rows, then 8: two tiles or one */
    cr_assert_gt(launches_of_preparing(&config, precision, &c), 0);
    cr_assert(strstr(folder.text, found), "%s", folder.text);
    cr_assert(strstr(folder.name, "tiles-") == folder.name && !strpbrk(folder.name, " /"), "%s", folder.name);
    cr_assert_eq(launches_of_preparing(&config, precision, &c), 0); /* known now */
    cr_assert_eq(folder.writes, 1);
    snprintf(folder.text, sizeof folder.text, "tessera tiles 1\nF16 3x3 K11\nU8 3x3 nonsense\n\n%s", "E4M3 3x3");
    launches_of_preparing(&config, precision, &c); /* what makes no sense is no choice */
    close_clip(&c);
}

/* What the CPU's plain tier makes of the clip in f32. */
static void reference(clip *c) {
    tsr_backend *b;
    direct *d;
    c->want = calloc(c->n, sizeof *c->want);
    ok(tsr_cpu_create(&b, &(tsr_cpu_params){.reference = true}));
    ok(direct_create(&d, b, &c->vae->decoder, &(direct_params){.steps = c->steps, .h = c->h, .w = c->w}));
    ok(direct_run(d, c->input, c->want));
    direct_destroy(&d);
    b->v->destroy(b);
}

/* Plain launches, and heads joined as where other caches live on the host: those on the device are copied there. */
Test(cuda_backend, every_way_gives_the_same_bits) {
    clip c;
    open_tiny(&c, 3);
    reference(&c);
    direct_params params = {.precision = TSR_PRECISION_INT8};
    float *graphs = decode(&c, &ADA, params, false), *plain = decode(&c, &ADA, params, true);
    double db = psnr(&c, graphs);
    printf("# int8: %.1f dB\n", db);
    cr_expect_geq(db, 38.0, "int8: %.1f dB", db);
    cr_expect_arr_eq(plain, graphs, c.n * sizeof *plain);
    params.join_heads = true;
    float *joined = decode(&c, &ADA, params, false);
    cr_expect_arr_eq(joined, graphs, c.n * sizeof *joined);
    free(joined);
    free(plain);
    free(graphs);
    close_clip(&c);
}

static void keep_slots(void *user, const char *key, const char *value) {
    if (strcmp(key, "slots") == 0)
        snprintf(user, 384, "%s", value);
}

/* A whole program's way to a golden, with a Vulkan that runs elsewhere: slots go through host memory, and the report
 * says so. */
Test(cuda_backend, decode_blended_by_another_device) {
    clip c;
    char slots[384] = "";
    tsr_engine *e;
    tsr_plan *plan;
    tsr_latent *latent;
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    open_golden(&c, "small_decode_t2_4x4_taps");
    struct tsr_model m = {c.vae};
    ok(tsr_latent_from_memory(&latent, c.input, c.steps, c.h, c.w, 16));
    ok(tsr_engine_create(&e, &params));
    cr_assert_str_eq(e->backend->v->name, "cuda");
    ok(tsr_engine_report(e, keep_slots, slots));
    cr_assert(strstr(slots, "host pages") && strstr(slots, "another device"), "%s", slots);
    ok(tsr_plan_create(&plan, e, &m, &(tsr_extent){c.steps, c.h, c.w},
        &(tsr_plan_params){
            .precision = TSR_PRECISION_FP16, .overlap_width = -1, .overlap_height = -1, .untiled = true}));
    shown s = {calloc(c.n, sizeof(float)), (size_t)(c.h * c.w) * 64, 5};
    tsr_result result;
    ok(tsr_decode(e, &m, latent, plan,
        &(tsr_decode_params){.pixels = TSR_PIXELS_RGB_F32, .on_frame = keep_frame, .user = &s}, &result));
    cr_assert_eq(result.frames, s.frames);
    double db = psnr(&c, s.video);
    cr_assert_geq(db, 60.0, "%.1f dB", db);
    free(s.video);
    tsr_plan_destroy(&plan);
    tsr_engine_destroy(&e);
    tsr_latent_close(&latent);
    close_clip(&c);
    nothing_is_left();
}

/* Exported memory as the importer, a copy and the host's view of the device see it. */
Test(cuda_backend, slots_are_read_back) {
    tsr_backend *b;
    tsr_slab slab = {.handle = TSR_NO_HANDLE};
    char back[64];
    ok(tsr_cuda_create(&b, -1));
    ok(b->v->slab_alloc(b, 5000, &slab));
    cr_assert_eq(slab.kind, TSR_SLAB_EXPORTED);
    cr_assert_eq(slab.export_bytes, (size_t)2 << 20);
    char *importer = mmap(NULL, slab.export_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, slab.handle, 0);
    cr_assert_neq(importer, MAP_FAILED);
    for (int i = 0; i < 64; i++)
        importer[4000 + i] = (char)(i * 3);
    ok(b->v->slab_read(b, &slab, 4000, sizeof back, back));
    cr_assert_arr_eq(back, importer + 4000, sizeof back);
    munmap(importer, slab.export_bytes);
    b->v->slab_free(b, &slab);
    b->v->destroy(b);
    nothing_is_left();
}

/* Everything is taken on the device that was asked for; the driver refuses memory of another one. */
Test(cuda_backend, the_second_of_two_devices) {
    clip c;
    life l;
    fake_cuda_config config = ADA;
    config.devices = 2;
    open_tiny(&c, 1);
    float *first = calloc(c.n, sizeof *first), *second = calloc(c.n, sizeof *second);
    for (int i = 0; i < 2; i++) {
        tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
        params.device = TSR_DEVICE_CUDA, params.device_index = i;
        fake.setup(&config);
        l = (life){.model = {c.vae}};
        ok(tsr_latent_from_memory(&l.latent, c.input, c.steps, c.h, c.w, 16));
        ok(tsr_engine_create(&l.e, &params));
        cr_assert_eq(l.e->backend->uuid[0], 'f' + i);
        ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
        ok(decode_life(&l, &c, i ? second : first));
        close_life(&l);
        nothing_is_left();
    }
    cr_assert_arr_eq(second, first, c.n * sizeof *first);
    free(second);
    free(first);
    close_clip(&c);
}

typedef struct preparing {
    life *l;
    atomic_bool done;
} preparing;
static void *make_ready(void *arg) {
    preparing *p = arg;
    tsr_exec *exec;
    tsr_engine_prepare(p->l->e, p->l->plan, &exec);
    atomic_store(&p->done, true);
    return NULL;
}

/* While much is pinned the driver tells nobody what is free; the window asks all the same, and does not wait. */
Test(cuda_backend, memory_is_told_while_memory_is_pinned) {
    clip c;
    life l;
    preparing p = {.l = &l};
    pthread_t thread;
    tsr_target t = {0};
    fake_cuda_config config = ADA;
    config.pin_ms = 300;
    open_tiny(&c, 2);
    ok(start_life(&l, &c, &config));
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
    cr_assert_eq(pthread_create(&thread, NULL, make_ready, &p), 0);
    while (!counted().pinning && !atomic_load(&p.done))
        ;
    l.e->backend->v->target(l.e->backend, &t);
    pthread_join(thread, NULL);
    cr_assert_eq(counted().stalled, 0);
    cr_assert_eq(t.memory_total, (int64_t)ADA.memory);
    cr_assert(t.memory_free > t.memory_total - (64 << 20) && t.memory_free < t.memory_total);
    close_life(&l);
    close_clip(&c);
    nothing_is_left();
}

typedef struct asked {
    tsr_target target;
    const tsr_half *half;
    tsr_numerics n;
} asked;
static void *ask(void *arg) {
    asked *a = arg;
    a->target.numerics(a->target.ctx, TSR_PRECISION_INT8, a->half, &a->n);
    return NULL;
}

/* The window plans on two threads at once: what one was told of its half stays while the other asks about another. */
Test(cuda_backend, threads_plan_at_once) {
    clip c;
    tsr_backend *b;
    asked here, there;
    pthread_t thread;
    model(&c, &(synth_config){.encoder = true, .decoder = true, .channels = {128, 256}, .layers = 1});
    ok(tsr_cuda_create(&b, -1));
    b->v->target(b, &here.target);
    there.target = here.target;
    here.half = &c.vae->encoder;
    there.half = &c.vae->decoder;
    ask(&here);
    uint8_t *told = malloc((size_t)here.half->layers);
    memcpy(told, here.n.eight, (size_t)here.half->layers);
    cr_assert_eq(pthread_create(&thread, NULL, ask, &there), 0);
    pthread_join(thread, NULL);
    cr_assert_arr_eq(here.n.eight, told, (size_t)here.half->layers);
    free(told);
    b->v->destroy(b);
    tsr_vae_destroy(&c.vae);
    nothing_is_left();
}

/* What is ready to run goes before another plan is made ready: its memory is free for that one. */
Test(cuda_backend, a_plan_finds_what_the_last_one_holds) {
    clip c;
    life l;
    open_tiny(&c, 2);
    float *out = calloc(c.n, sizeof *out);
    ok(start_life(&l, &c, &ADA));
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_AUTO));
    int64_t budget = tsr_plan_get_info(l.plan)->budget;
    ok(decode_life(&l, &c, out));
    cr_assert_gt(l.e->exec_bytes.device, 1 << 20);
    tsr_plan *first = l.plan;
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_AUTO));
    /* Less only by what the driver rounds up to. */
    cr_expect_lt(budget - tsr_plan_get_info(l.plan)->budget, 4 << 20);
    tsr_plan_destroy(&first);
    close_life(&l);
    free(out);
    close_clip(&c);
    nothing_is_left();
}

/* Weights stay where the next plan has the same: another place for caches, and tiles; not with another precision. */
Test(cuda_backend, weights_stay_from_plan_to_plan) {
    clip c;
    life l, fresh;
    tsr_exec *x;
    open_tiny(&c, 3);
    float *turned = calloc(c.n, sizeof *turned), *anew = calloc(c.n, sizeof *anew);
    ok(start_life(&l, &c, &ADA));
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_AUTO));
    ok(decode_life(&l, &c, turned));
    tsr_plan *first = l.plan;
    ok(plan_life(&l, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
    int before = counted().calls;
    ok(tsr_engine_prepare(l.e, l.plan, &x));
    int turning = counted().calls - before;
    ok(decode_life(&l, &c, turned));
    tsr_plan *second = l.plan;
    ok(plan_life(&l, &c, TSR_PRECISION_FP16, TSR_CACHES_HOST));
    before = counted().calls;
    ok(tsr_engine_prepare(l.e, l.plan, &x));
    cr_expect_gt(counted().calls - before, turning + 2 * l.plan->weights, "%d calls", turning);
    tsr_plan_destroy(&second);
    tsr_plan_destroy(&first);
    close_life(&l);
    nothing_is_left();
    ok(start_life(&fresh, &c, &ADA));
    ok(plan_life(&fresh, &c, TSR_PRECISION_INT8, TSR_CACHES_HOST));
    ok(decode_life(&fresh, &c, anew));
    cr_expect_arr_eq(turned, anew, c.n * sizeof *anew);
    close_life(&fresh);
    free(anew);
    free(turned);
    close_clip(&c);
}

Test(cuda_backend, f32_is_refused) {
    clip c;
    life l;
    open_tiny(&c, 1);
    ok(start_life(&l, &c, &ADA));
    cr_assert_eq(plan_life(&l, &c, TSR_PRECISION_F32, TSR_CACHES_AUTO), TSR_ERR_UNSUPPORTED);
    cr_assert(strstr(tsr_last_error(), "no f32 on Fake GPU"), "%s", tsr_last_error());
    close_life(&l);
    nothing_is_left();
    close_clip(&c);
}

Test(cuda_backend, too_little_memory) {
    clip c;
    tsr_backend *b;
    direct *d = NULL;
    fake_cuda_config config = ADA;
    config.memory = (size_t)2 << 20;
    open_tiny(&c, 1);
    fake.setup(&config);
    ok(tsr_cuda_create(&b, -1));
    direct_params params = {.steps = 1, .h = 1, .w = 2, .precision = TSR_PRECISION_FP16};
    cr_assert_eq(direct_create(&d, b, &c.vae->decoder, &params), TSR_ERR_MEMORY);
    cr_assert(strstr(tsr_last_error(), "taking memory"), "%s", tsr_last_error());
    b->v->destroy(b);
    nothing_is_left();
    close_clip(&c);
}

Test(cuda_backend, tiles_are_measured_once) {
    tunes(8, 9, TSR_PRECISION_INT8, "U8 3x3 K33T\n");
    tunes(9, 0, TSR_PRECISION_FP8, "E4M3 3x3 K33H\n");
}

/* By a cuBLAS that only looks at what it is asked. */
Test(cuda_backend, products_of_every_precision_are_timed) {
    tsr_backend *b;
    ok(tsr_cuda_create(&b, -1));
    for (tsr_precision p = TSR_PRECISION_F32; p <= TSR_PRECISION_INT8; p++) {
        double rate = b->v->gemm_rate(b, p, 1 << 12, 128, 1152);
        cr_expect_eq(rate > 0, p != TSR_PRECISION_F32, "%s: %g", tsr_precision_name(p), rate);
    }
    fake_cuda_config config = ADA;
    config.memory = (size_t)64 << 20;
    fake.reconfigure(&config);
    cr_assert_eq(b->v->gemm_rate(b, TSR_PRECISION_FP16, 1 << 28, 128, 1152), 0);
    b->v->destroy(b);
    nothing_is_left();
}

Test(cuda_backend, any_call_may_fail) {
    fail_calls(1, 0, 7);
}
Test(cuda_backend, later_steps_may_fail) {
    fail_calls(2, 45, 9);
}
#else
static void check(const char *name, tsr_precision precision, double wanted, int slice_level, int exports) {
    clip c;
    fake_cuda_config config = ADA;
    config.exports = exports;
    open_golden(&c, name);
    float *out = decode(&c, &config, (direct_params){.precision = precision, .slice_level = slice_level}, false);
    double db = psnr(&c, out);
    printf("# %s %s slice level %d: %.1f dB\n", name, tsr_precision_name(precision), slice_level, db);
    cr_expect(db >= wanted, "%s in %s: %.1f dB", name, tsr_precision_name(precision), db);
    free(out);
    close_clip(&c);
}

Test(cuda_backend_long, every_call_may_fail, .init = open_fake) {
    fail_calls(1, 0, 1);
}
Test(cuda_backend_long, every_call_of_a_clip_may_fail, .init = open_fake) {
    fail_calls(2, 0, 7);
}
Test(cuda_backend_long, t2_int8, .init = open_fake) {
    check("small_decode_t2_4x4_taps", TSR_PRECISION_INT8, 38, 0, 0);
}
Test(cuda_backend_long, t2_fp8, .init = open_fake) {
    check("small_decode_t2_4x4_taps", TSR_PRECISION_FP8, 30, 0, 0);
}
Test(cuda_backend_long, t2_bf16, .init = open_fake) {
    check("small_decode_t2_4x4_taps", TSR_PRECISION_BF16, 50, 0, 0);
}
Test(cuda_backend_long, t5_int8, .init = open_fake) {
    check("small_decode_t5_5x7", TSR_PRECISION_INT8, 38, 2, 1);
}
Test(cuda_backend_long, t5, .init = open_fake) {
    check("small_decode_t5_5x7", TSR_PRECISION_FP8, 30, 0, 1);
}
Test(cuda_backend_long, t5_frame_by_frame, .init = open_fake) {
    check("small_decode_t5_5x7", TSR_PRECISION_FP16, 60, 2, 1);
}
Test(cuda_backend_long, t2_frame_by_frame, .init = open_fake) {
    check("small_decode_t2_4x4_taps", TSR_PRECISION_FP8, 30, 2, 1);
}
Test(cuda_backend_long, t2_small, .init = open_fake) {
    check("small_decode_t2_4x4_taps", TSR_PRECISION_FP16, 60, 0, 1);
}
Test(cuda_backend_long, t1, .init = open_fake) {
    check("small_decode_t1_8x8", TSR_PRECISION_BF16, 50, 0, 1);
}
Test(cuda_backend_long, t2, .init = open_fake) {
    check("small_decode_t2_6x10", TSR_PRECISION_FP16, 60, 0, 1);
}
Test(cuda_backend_long, fp8_by_warpgroups, .init = open_fake) {
    clip c;
    fake_cuda_config config = ADA;
    config.major = 9, config.minor = 0;
    open_golden(&c, "small_decode_t2_4x4_taps");
    float *out = decode(&c, &config, (direct_params){.precision = TSR_PRECISION_FP8}, false);
    double db = psnr(&c, out);
    cr_expect_geq(db, 30.0, "%.1f dB", db);
    free(out);
    close_clip(&c);
}
#endif

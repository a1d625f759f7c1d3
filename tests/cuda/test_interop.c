/* Slots on their way from CUDA to Vulkan: CUDA is the driver without a GPU, Vulkan Mesa's in software, and the memory
 * they share is the same. Every way gives the bits that the copy gives; what fails falls to the next way and says so.
 * */
#include "lend.h"

#include "backend/cuda/device.h"
#include "session/cache_folder.h"

#include <tessera/preview.h>

#ifdef LONG
#include <malloc.h>
#endif

static fake_cuda_config shared; /* a device that Vulkan knows too */

static void begin(void) {
    open_fake();
    learn_vulkan();
    shared = ADA;
    shared.uuid = lent.uuid;
    shared.mark = lent.mark;
}
TestSuite(cuda_interop, .init = begin);

typedef struct told {
    char slots[640], timelines[640];
} told;

static void keep_told(void *user, const char *key, const char *value) {
    told *t = user;
    if (strcmp(key, "slots") == 0)
        snprintf(t->slots, sizeof t->slots, "%s", value);
    if (strcmp(key, "slot timelines") == 0)
        snprintf(t->timelines, sizeof t->timelines, "%s", value);
}

static tsr_status open_life(life *l, const clip *c, const fake_cuda_config *config, bool lend) {
    tsr_status status = start_life(l, c, config);
    if (status == TSR_OK && lend)
        lend_timelines(l->e);
    return status == TSR_OK ? plan_life(l, c, TSR_PRECISION_FP16, TSR_CACHES_AUTO) : status;
}

/* What the engine of such a device says of the way it found. */
static inline void way_of(fake_cuda_config config, bool lend, told *t, tsr_way way) {
    clip c;
    life l;
    open_tiny(&c, 1);
    ok(open_life(&l, &c, &config, lend));
    ok(tsr_engine_report(l.e, keep_told, t));
    cr_assert_eq(l.e->way, way, "%s", t->slots);
    close_life(&l);
    nothing_is_left();
    close_clip(&c);
}

/* A decode on such a device, equal to the bit to one through host memory: what the driver saw of it. */
static fake_cuda_counts same_bits(fake_cuda_config config, bool lend) {
    clip c;
    life l;
    tsr_exec *exec;
    fake_cuda_config elsewhere = config;
    open_tiny(&c, 3);
    float *want = calloc(c.n, sizeof *want), *have = calloc(c.n, sizeof *have);
    elsewhere.uuid = NULL;
    ok(open_life(&l, &c, &elsewhere, false));
    ok(decode_life(&l, &c, want));
    close_life(&l);
    nothing_is_left();

    ok(open_life(&l, &c, &config, lend));
    ok(tsr_engine_probe_slots(l.e));
    ok(tsr_engine_prepare(l.e, l.plan, &exec));
    fake_cuda_counts before = counted();
    ok(decode_life(&l, &c, have));
    fake_cuda_counts after = counted();
    cr_assert_arr_eq(have, want, c.n * sizeof *have);
    close_life(&l);
    nothing_is_left();
    free(have);
    free(want);
    close_clip(&c);
    after.waits -= before.waits;
    after.signals -= before.signals;
    after.awaited -= before.awaited;
    return after;
}

static inline void has(const char *text, const char *part) {
    cr_assert(strstr(text, part), "'%s' does not say '%s'", text, part);
}

#ifndef LONG
/* The way it is meant: the host waits for no step, and a slot that is read goes back by the other timeline. What is
 * left are the ends: of the run, and of the slab. */
Test(cuda_interop, the_host_waits_for_no_step) {
    fake_cuda_counts seen = same_bits(shared, true);
    cr_assert_eq(seen.signals, 3);
    cr_assert_eq(seen.awaited, 1, "%d waits of the third step for its slot of two", seen.awaited);
    cr_assert_leq(seen.waits, 2, "%d waits of the host", seen.waits);
}

Test(cuda_interop, ways_and_what_is_said_of_them) {
    told t = {0};
    way_of(shared, true, &t, TSR_WAY_EXPORTED);
    has(t.slots, "the GPU's backend exports and Vulkan imports: a pattern went there and back");
    has(t.timelines, "the host waits for neither");

    way_of(shared, false, &t, TSR_WAY_EXPORTED);
    has(t.slots, "the GPU's backend exports");
    has(t.timelines, "the host waits for a step before it is blended: vulkan: ");

    fake_cuda_config config = shared;
    config.exports = 0;
    way_of(config, true, &t, TSR_WAY_IMPORTED);
    has(t.slots, "Vulkan exports and the GPU's backend imports: a pattern went there and back");
    has(t.slots, "exports no memory");
    has(t.timelines, "the host waits for neither");

    config.no_imports = 1;
    way_of(config, true, &t, TSR_WAY_HOST);
    has(t.slots, "host pages");
    has(t.slots, "exported by the backend: ");
    has(t.slots, "exported by Vulkan: cuda: importing Vulkan's memory");

    config = shared;
    config.other_memory = 1; /* an import that succeeds and shows other memory is caught by the pattern */
    way_of(config, true, &t, TSR_WAY_IMPORTED);
    has(t.slots, "Vulkan does not see what the GPU's backend wrote");

    config = shared;
    config.uuid = NULL; /* of a GPU that Vulkan's only device, Mesa in software, is not */
    way_of(config, true, &t, TSR_WAY_HOST);
    has(t.slots, "host pages");
    has(t.slots, "Vulkan runs on another device, ");
    has(t.slots, ": no Vulkan driver here knows the GPU");
    has(t.timelines, "slots are not in device memory");

    config = shared;
    config.drop_signals = 1;
    way_of(config, true, &t, TSR_WAY_EXPORTED);
    has(t.timelines, "did not reach Vulkan");
}

/* Slots are counted as they were asked for, wherever they lie. */
Test(cuda_interop, slabs_of_every_way_are_counted) {
    clip c;
    life l;
    fake_cuda_config config[3] = {shared, shared, shared};
    const tsr_slab_kind kind[3] = {TSR_SLAB_EXPORTED, TSR_SLAB_IMPORTED, TSR_SLAB_HOST};
    config[1].exports = config[2].exports = 0;
    config[2].no_imports = 1;
    open_tiny(&c, 1);
    for (int i = 0; i < 3; i++) {
        tsr_slab slab = {.handle = TSR_NO_HANDLE};
        ok(open_life(&l, &c, &config[i], false));
        ok(tsr_engine_probe_slots(l.e));
        size_t used = tsr_mem_used();
        ok(tsr_engine_slab_alloc(l.e, 5000, &slab));
        cr_assert_eq(slab.kind, kind[i]);
        cr_assert_eq(tsr_mem_used(), used + 5000, "%zu bytes", tsr_mem_used() - used);
        tsr_engine_slab_free(l.e, &slab);
        cr_assert_eq(tsr_mem_used(), used);
        close_life(&l);
        nothing_is_left();
    }
    close_clip(&c);
}

/* A rough map as if it had been fitted before: fitting decodes. */
static void keep_map(const tsr_model *m) {
    uint64_t key;
    char name[48], text[256] = "16\n";
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1);
    ok(tsr_model_key(m, &key));
    snprintf(name, sizeof name, "rough-%016llx", (unsigned long long)key);
    for (int i = 0; i < 3 * 17; i++)
        strcat(text, "0.5 ");
    tsr_cache_write(name, text);
}

/* Until that is so and nothing is blended. */
static void await(tsr_preview *p, tsr_preview_state state, int whole) {
    const tsr_preview_info *info = tsr_preview_get_info(p);
    while (info->state != state || info->whole < whole || (info->blending && state != TSR_PREVIEW_DECODING)) {
        ok(tsr_preview_poll(p));
        cr_assert_neq(info->state, TSR_PREVIEW_FAILED, "%s", info->error);
        usleep(1000);
    }
}

/* A window that looks at a clip on such a device; the plan is ready to run. */
static tsr_preview *open_window(life *l, const clip *c, const fake_cuda_config *config) {
    tsr_preview *p;
    tsr_exec *exec;
    ok(start_life(l, c, config));
    keep_map(&l->model);
    ok(tsr_preview_create(&p, l->e, &(tsr_preview_params)TSR_PREVIEW_PARAMS_DEFAULT));
    ok(plan_life(l, c, TSR_PRECISION_FP16, TSR_CACHES_AUTO));
    ok(tsr_engine_prepare(l->e, l->plan, &exec));
    ok(tsr_preview_open(p, &l->model, l->latent, 0));
    return p;
}

static void check_frames(tsr_preview *p, const clip *c, const float *want) {
    const int64_t frames = 1 + 2 * (c->steps - 1);
    const size_t plane = c->n / 3 / (size_t)frames;
    tsr_frame frame;
    for (int64_t f = 0; f < frames; f++) {
        ok(tsr_preview_pixels(p, f, TSR_PIXELS_RGB_F32, false, &frame));
        for (int64_t k = 0; k < 3; k++)
            cr_expect_arr_eq((const float *)frame.data + (size_t)k * plane, want + (size_t)(k * frames + f) * plane,
                plane * sizeof *want, "frame %d", (int)f);
    }
}

static void close_window(life *l, tsr_preview **p) {
    tsr_preview_destroy(p);
    close_life(l);
    nothing_is_left();
}

/* What a window shows of a decode on such a device is what a render writes. It runs graphs, and the host waits for
 * steps, not for ops. */
static void window_shows(const clip *c, const float *want, fake_cuda_config config, tsr_way way) {
    life l;
    tsr_preview *p = open_window(&l, c, &config);
    cr_assert_eq(l.e->way, way);
    fake_cuda_counts before = counted();
    ok(tsr_preview_start(p, &l.plan, false));
    await(p, TSR_PREVIEW_DONE, 0);
    fake_cuda_counts after = counted();
    cr_assert_eq(after.graphs - before.graphs, c->steps);
    cr_assert_leq(after.waits - before.waits, c->steps, "%d waits of the host", after.waits - before.waits);
    cr_assert_gt(after.waits, before.waits);
    cr_assert_eq(after.spins, before.spins, "%d waits keep a core busy", after.spins - before.spins);
    cr_assert_eq(tsr_preview_get_info(p)->share, 1);
    check_frames(p, c, want);
    close_window(&l, &p);
}

/* malloc'd: a render on such a device. */
static float *rendered(const clip *c, const fake_cuda_config *config) {
    life l;
    float *out = calloc(c->n, sizeof *out);
    ok(open_life(&l, c, config, false));
    ok(decode_life(&l, c, out));
    close_life(&l);
    return out;
}

/* One GPU decodes and another presents: slots go through host pages. Then one that does both. */
Test(cuda_interop, a_window_on_another_device_shows_the_same) {
    clip c;
    fake_cuda_config elsewhere = shared;
    elsewhere.uuid = NULL;
    open_tiny(&c, 2);
    float *want = rendered(&c, &elsewhere);
    window_shows(&c, want, elsewhere, TSR_WAY_HOST);
    window_shows(&c, want, shared, TSR_WAY_EXPORTED);
    free(want);
    close_clip(&c);
}

/* Given up in the middle, no step is begun any more; and another plan in the middle of one shows only its own. */
Test(cuda_interop, a_window_gives_up_between_steps) {
    enum { STEPS = 8 };
    clip c;
    life l;
    open_tiny(&c, STEPS);
    float *want = rendered(&c, &shared);
    tsr_preview *p = open_window(&l, &c, &shared);
    for (int i = 0; i < 2; i++) {
        if (!l.plan)
            ok(plan_life(&l, &c, TSR_PRECISION_FP16, TSR_CACHES_AUTO));
        int begun = counted().graphs;
        ok(tsr_preview_start(p, &l.plan, false));
        await(p, TSR_PREVIEW_DECODING, 3);
        if (i % 2)
            continue; /* the next plan interrupts it */
        tsr_preview_stop(p);
        int when_stopped = counted().graphs;
        await(p, TSR_PREVIEW_IDLE, 0);
        cr_assert_leq(counted().graphs, when_stopped + 1);
        cr_assert_lt(when_stopped - begun, STEPS - 1);
    }
    ok(plan_life(&l, &c, TSR_PRECISION_FP16, TSR_CACHES_AUTO));
    ok(tsr_preview_start(p, &l.plan, false));
    await(p, TSR_PREVIEW_DONE, 0);
    check_frames(p, &c, want);
    close_window(&l, &p);
    free(want);
    close_clip(&c);
}

/* A kernel faults while Vulkan waits for its step. */
Test(cuda_interop, a_step_that_fails_on_the_device_lets_vulkan_go) {
    clip c;
    life l;
    open_tiny(&c, 4);
    float *out = calloc(c.n, sizeof *out);
    ok(open_life(&l, &c, &shared, true));
    ok(tsr_engine_probe_slots(l.e));
    cr_assert(l.e->lane);
    fake_cuda_config faulty = shared;
    faulty.fault_launch = 60; /* in the second step */
    fake.reconfigure(&faulty);
    cr_assert_eq(decode_life(&l, &c, out), TSR_ERR_DEVICE);
    has(tsr_last_error(), "cuda: ");
    cr_assert(!strchr(tsr_last_error(), '\n'));
    close_life(&l);
    cr_assert_eq(counted().live, 0);
    free(out);
    close_clip(&c);
}

/* Calls of the driver fail while the ways are tried: another way is found or one error said, and nothing is left. */
Test(cuda_interop, any_call_of_the_probe_may_fail) {
    clip c;
    life l;
    told t;
    int found[3] = {0};
    open_tiny(&c, 1);
    ok(open_life(&l, &c, &shared, true));
    int first = counted().calls;
    ok(tsr_engine_probe_slots(l.e));
    int last = counted().calls;
    close_life(&l);
    for (int at = first; at < last; at += 2) {
        ok(open_life(&l, &c, &shared, true));
        fake.fail_at(at - counted().calls);
        ok(tsr_engine_report(l.e, keep_told, &t));
        fake.fail_at(-1);
        cr_assert(t.slots[0] && !strchr(t.slots, '\n'), "call %d: %s", at, t.slots);
        found[l.e->way]++;
        close_life(&l);
        nothing_is_left();
    }
    printf("# %d calls: %d ways stay the best, %d fall to the second, %d to the host\n", last - first,
        found[TSR_WAY_EXPORTED], found[TSR_WAY_IMPORTED], found[TSR_WAY_HOST]);
    cr_assert_gt(found[TSR_WAY_EXPORTED], 0);
    close_clip(&c);
}

#else
Test(cuda_interop, exported_while_the_host_waits) {
    fake_cuda_counts seen = same_bits(shared, false);
    cr_assert_eq(seen.signals, 0);
    cr_assert_geq(seen.waits, 3);
}

Test(cuda_interop, imported_where_cuda_exports_nothing) {
    shared.exports = 0;
    fake_cuda_counts seen = same_bits(shared, true);
    cr_assert_leq(seen.waits, 2, "%d waits of the host", seen.waits);
}

/* Every so-manyth call fails: the right bits by another way, or one error; and nothing is left. */
Test(cuda_interop, every_call_may_fail) {
    clip c;
    life l;
    open_tiny(&c, 3);
    float *want = calloc(c.n, sizeof *want), *have = calloc(c.n, sizeof *have);
    ok(open_life(&l, &c, &shared, true));
    ok(decode_life(&l, &c, want));
    close_life(&l);
    int calls = counted().calls, errors = 0, n = 0;
    for (int at = 0; at < calls; at += 7, n++) {
        memset(have, 0, c.n * sizeof *have);
        fake.setup(&shared);
        fake.fail_at(at);
        bool good = open_life(&l, &c, NULL, false) == TSR_OK;
        if (good)
            lend_timelines(l.e);
        good = good && decode_life(&l, &c, have) == TSR_OK;
        const char *error = tsr_last_error();
        cr_assert(good || (strstr(error, "cuda: ") && !strchr(error, '\n')), "call %d: %s", at, error);
        cr_assert(!good || memcmp(have, want, c.n * sizeof *have) == 0, "call %d failed and the frames are others", at);
        errors += !good;
        fake.fail_at(-1);
        close_life(&l);
        nothing_is_left();
    }
    printf("# %d of %d calls failed, %d of them ended the run\n", n, calls, errors);
    cr_assert_gt(errors, 0);
    free(have);
    free(want);
    close_clip(&c);
}

/* Hundreds of steps leave no more behind than tens: graphs with transfers of caches, and in turns plain launches with
 * a stream for each direction. */
Test(cuda_interop, nothing_grows) {
    clip c;
    life l;
    tsr_exec *exec;
    size_t before = 0;
    open_tiny(&c, 4);
    float *out = calloc(c.n, sizeof *out);
    ok(start_life(&l, &c, &shared));
    lend_timelines(l.e);
    ok(plan_life(&l, &c, TSR_PRECISION_FP16, TSR_CACHES_HOST));
    ok(tsr_engine_probe_slots(l.e));
    ok(tsr_engine_prepare(l.e, l.plan, &exec));
    cr_assert(exec->away && exec->copies[TSR_CUDA_IN] && exec->copies[TSR_CUDA_OUT]);
    for (int run = 0; run < 250; run++) {
        exec->plain = run % 2;
        ok(decode_life(&l, &c, out));
        size_t held = mallinfo2().uordblks;
        before = run == 10 ? held : before;
        cr_assert(
            run < 10 || held < before + (256 << 10), "run %d holds %zu bytes, run 10 held %zu", run, held, before);
    }
    fake_cuda_counts seen = counted();
    cr_assert(seen.graphs == 125 * c.steps && seen.built == 3, "%d graphs, %d built", seen.graphs, seen.built);
    close_life(&l);
    nothing_is_left();
    free(out);
    close_clip(&c);
}
#endif

/* The pump, proved apart from arithmetic: a fake backend fills slots with numbers that say where
 * and when they are, real plans cut the tiles, the real Vulkan blend puts them together. */
#include "fake_rig.h"
#include "sanitized.h"

#include <cjson/cJSON.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- frames */

Test(frames, untiled) {
    rig r = {0};
    open_rig(&r, 5, 6, 7);
    make_plan(&r, &(tsr_plan_params){.budget = 1ll << 30, .untiled = true});
    cr_assert_eq(r.plan->info.mode, TSR_MODE_UNTILED);
    expect_video(&r, 17);
    cr_assert_eq(r.counts.steps, 5);
    close_rig(&r);
}

Test(frames, one_picture) {
    rig r = {0};
    open_rig(&r, 1, 9, 11);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    expect_video(&r, 1);
    close_rig(&r);
}

Test(frames, tiles_meet_without_a_seam) {
    rig r = {0};
    open_rig(&r, 3, 11, 13);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    cr_assert_gt(r.plan->y.tiles, 1);
    cr_assert_gt(r.plan->x.tiles, 1);
    expect_video(&r, 9);
    close_rig(&r);
}

Test(frames, segments_park_each_tiles_caches) {
    for (int k = 1; k <= 4; k++) {
        rig r = {0};
        open_rig(&r, 7, 6, 9);
        tsr_plan_params p = tiled();
        make_plan(&r, &p);
        int tiles = r.plan->y.tiles * r.plan->x.tiles, segments = (7 + k - 1) / k;
        cr_assert_gt(tiles, 1);
        cut_segments(r.plan, k);
        expect_video(&r, 25);
        cr_assert_eq(r.counts.parks, tiles * (segments - 1));
        cr_assert_eq(r.counts.unparks, tiles * (segments - 1));
        close_rig(&r);
    }
}

Test(frames, ranges_keep_their_numbers) {
    static const int range[][2] = {{0, 1}, {0, 5}, {1, 2}, {3, 11}, {16, 17}, {5, 0}, {12, 17}};
    rig r = {0};
    open_rig(&r, 5, 6, 9);
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        for (int tiles = 0; tiles < 2; tiles++) {
            tsr_plan_params p = tiles ? tiled() : untiled();
            p.first_frame = range[i][0];
            p.end_frame = range[i][1];
            make_plan(&r, &p);
            expect_video(&r, (range[i][1] ? range[i][1] : 17) - range[i][0]);
        }
    }
    close_rig(&r);
}

/* A plan that begins inside the video: its first latent gives one frame, in the place of its last,
 * which is dropped. */
Test(frames, a_plan_may_begin_late) {
    rig r = {0};
    open_rig(&r, 60, 2, 2);
    tsr_plan_params p = untiled();
    p.first_frame = 233;
    make_plan(&r, &p);
    cr_assert_gt(r.plan->first_latent, 0);
    expect_video(&r, 237 - 233);
    close_rig(&r);
}

Test(frames, asynchronous_backends_are_waited_for) {
    rig r = {.fake = {.asynchronous = true, .op_us = 200}};
    open_rig(&r, 4, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    expect_video(&r, 13);
    expect_video(&r, 13);
    close_rig(&r);
}

Test(frames, slots_are_copied_where_import_is_refused) {
    rig r = {0};
    open_rig(&r, 3, 6, 9);
    r.engine->params.no_host_import = true;
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    expect_video(&r, 9);
    close_rig(&r);
}

/* A slow writer holds the others back; nothing is lost and nothing grows. */
Test(frames, a_slow_writer_is_waited_for) {
    rig r = {0};
    open_rig(&r, 6, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1, .sleep_us = 20000};
    tsr_result result;
    cr_assert_eq(decode(&r, &w, NULL, &result), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(w.frames, 21);
    cr_assert(!w.backwards);
    cr_assert_geq(result.write, 21 * 0.02);
    cr_assert_leq(w.calls, 3 + result.seconds / 0.1, "%d calls in %g s", w.calls, result.seconds);
    cr_assert_geq(w.calls, 3);
    close_rig(&r);
}

/* ---------------------------------------------------------------- stopping */

typedef struct late_cancel {
    tsr_engine *engine;
    int us;
} late_cancel;

static void *cancel_later(void *arg) {
    late_cancel *c = arg;
    usleep((useconds_t)c->us);
    tsr_cancel(c->engine);
    return NULL;
}

static void cancel_often(bool asynchronous) {
    rig r = {.fake = {.asynchronous = asynchronous, .op_us = 100}};
    open_rig(&r, 5, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    cut_segments(r.plan, 2);
    expect_video(&r, 17);
    int cancelled = 0;
    for (int i = 0; i < 25; i++) {
        watch w = {.fail_at = -1};
        late_cancel c = {r.engine, (i * 7919) % 25 * 2000};
        pthread_t t;
        pthread_create(&t, NULL, cancel_later, &c);
        tsr_status status = decode(&r, &w, NULL, NULL);
        pthread_join(t, NULL);
        cr_assert(status == TSR_OK || status == TSR_ERR_CANCELLED, "status %d: %s", status, tsr_last_error());
        cr_assert(!w.backwards && w.worst < 2e-6);
        cancelled += status == TSR_ERR_CANCELLED;
    }
    cr_assert_gt(cancelled, 0);
    expect_video(&r, 17); /* as if nothing had been */
    close_rig(&r);
}

Test(stop, cancel_at_any_moment) {
    cancel_often(false);
}

Test(stop, cancel_at_any_moment_asynchronous) {
    cancel_often(true);
}

Test(stop, cancel_waits_for_no_more_than_an_op) {
    rig r = {.fake = {.op_us = 20000}};
    open_rig(&r, 40, 2, 2);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    late_cancel c = {r.engine, 300000};
    pthread_t t;
    double begin = tsr_now();
    pthread_create(&t, NULL, cancel_later, &c);
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_CANCELLED);
    pthread_join(t, NULL);
    cr_assert_lt(tsr_now() - begin, 5, "the whole takes 6.4 s");
    cr_assert_str_eq(tsr_last_error(), "decode: cancelled");
    close_rig(&r);
}

Test(stop, a_failing_callback_says_why) {
    rig r = {0};
    open_rig(&r, 5, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    for (int64_t at = 0; at < 17; at += 4) {
        watch w = {.fail_at = at};
        cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_IO);
        char want[64];
        snprintf(want, sizeof want, "the disk of frame %d is full", (int)at);
        cr_assert_str_eq(tsr_last_error(), want);
        cr_assert_eq(w.frames, at);
    }
    close_rig(&r);
}

static tsr_status silent_failure(void *user, const tsr_frame *f) {
    (void)user;
    return f->index == 1 ? TSR_ERR_UNSUPPORTED : TSR_OK;
}

Test(stop, a_callback_that_fails_without_a_word) {
    rig r = {0};
    open_rig(&r, 2, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    tsr_decode_params d = {.on_frame = silent_failure};
    cr_assert_eq(tsr_decode(r.engine, r.model, r.latent, r.plan, &d, NULL), TSR_ERR_UNSUPPORTED);
    cr_assert_str_eq(tsr_last_error(), "decode: the frame callback stopped at frame 1");
    close_rig(&r);
}

Test(stop, a_failing_step_reaches_the_caller) {
    rig r = {0};
    open_rig(&r, 5, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    int steps = 5 * r.plan->y.tiles * r.plan->x.tiles;
    for (int n = 1; n <= steps; n += 3) {
        watch w = {.fail_at = -1};
        r.counts.steps = 0;
        r.fake.fail_step = n;
        cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_DEVICE);
        char want[64];
        snprintf(want, sizeof want, "fake: step %d broke; mend it", n);
        cr_assert_str_eq(tsr_last_error(), want);
        cr_assert(!w.backwards);
    }
    r.fake.fail_step = 0;
    expect_video(&r, 17);
    close_rig(&r);
}

Test(stop, other_stages_that_fail) {
    rig r = {.fake = {.fail_prepare = true}};
    open_rig(&r, 2, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_MEMORY);
    cr_assert(strstr(tsr_last_error(), "fake: no memory for weights"), "%s", tsr_last_error());
    r.fake = (fake_params){.fail_slab = true};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_MEMORY);
    cr_assert(strstr(tsr_last_error(), "fake: no memory for slots"), "%s", tsr_last_error());
    r.fake = (fake_params){0};
    expect_video(&r, 5);
    close_rig(&r);
}

Test(stop, no_vulkan_device) {
    rig r = {.fake = {.op_us = 1000}};
    open_rig(&r, 40, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    r.engine->params.vulkan_index = 999;
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_ARGUMENT);
    cr_assert_lt(r.counts.steps, 40, "the decode stage stops when another fails");
    r.engine->params.vulkan_index = -1;
    expect_video(&r, 157);
    close_rig(&r);
}

Test(stop, a_lane_that_fails) {
    rig r = {.fake = {.asynchronous = true, .fail_wait = true}};
    open_rig(&r, 3, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_DEVICE);
    cr_assert_str_eq(tsr_last_error(), "fake: the lane broke");
    close_rig(&r);
}

/* ---------------------------------------------------------------- what else it promises */

Test(session, a_plan_stays_ready) {
    rig r = {0};
    open_rig(&r, 2, 4, 4);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    expect_video(&r, 5);
    expect_video(&r, 5);
    cr_assert_eq(r.counts.prepares, 1);
    cr_assert_eq(r.counts.execs, 1);
    tsr_plan *other = NULL;
    tsr_extent extent = {2, 4, 4};
    cr_assert_eq(tsr_plan_create(&other, r.engine, r.model, &extent, &p), TSR_OK);
    tsr_plan_destroy(&other);
    cr_assert_eq(r.counts.execs, 1, "another plan's end is not this one's");
    make_plan(&r, &p);
    cr_assert_eq(r.counts.execs, 0, "a plan's end frees what was ready");
    expect_video(&r, 5);
    cr_assert_eq(r.counts.prepares, 2);
    tsr_engine_destroy(&r.engine); /* the plan keeps it */
    cr_assert_eq(r.counts.execs, 1);
    close_rig(&r);
}

Test(session, arguments_are_checked) {
    rig r = {0}, other = {0};
    open_rig(&r, 2, 4, 4);
    open_rig(&other, 2, 4, 5);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    tsr_decode_params d = TSR_DECODE_PARAMS_DEFAULT;
    cr_assert_eq(tsr_decode(r.engine, other.model, r.latent, r.plan, &d, NULL), TSR_ERR_ARGUMENT);
    cr_assert_eq(tsr_decode(r.engine, r.model, other.latent, r.plan, &d, NULL), TSR_ERR_ARGUMENT);
    d.video = 1;
    cr_assert_eq(tsr_decode(r.engine, r.model, r.latent, r.plan, &d, NULL), TSR_ERR_ARGUMENT);
    d.video = 0;
    cr_assert_eq(tsr_decode(r.engine, r.model, r.latent, r.plan, &d, NULL), TSR_OK, "%s", tsr_last_error());
    tsr_latent_close(&other.latent);
    tsr_engine_destroy(&other.engine);
    tsr_model_close(&other.model);
    close_rig(&r);
}

static void count_lines(void *user, const char *key, const char *value) {
    int *seen = user;
    cr_assert(*key && *value);
    seen[0]++;
    seen[1] += strcmp(key, "fake") == 0;
    seen[2] += strcmp(key, "slots") == 0 && strncmp(value, "host pages", 10) == 0;
    seen[3] += strcmp(key, "Vulkan device") == 0;
}

Test(session, report_has_backend_vulkan_and_slots) {
    rig r = {0};
    open_rig(&r, 1, 2, 2);
    int seen[4] = {0};
    r.engine->params.vulkan_index = 999; /* what is missing is reported, too */
    cr_assert_eq(tsr_engine_report(r.engine, count_lines, seen), TSR_OK);
    cr_assert(seen[0] == 2 && seen[1] == 1 && seen[2] == 0);
    r.engine->params.vulkan_index = -1;
    memset(seen, 0, sizeof seen);
    cr_assert_eq(tsr_engine_report(r.engine, count_lines, seen), TSR_OK);
    cr_assert(seen[0] > 3 && seen[1] == 1 && seen[2] == 1 && seen[3] == 1);
    close_rig(&r);
}

/* A latent with a hole is found on the way in, and the message reaches the caller. */
Test(session, latents_that_are_no_numbers) {
    rig r = {0};
    open_rig(&r, 3, 2, 2);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    tsr_latent_close(&r.latent);
    static float z[3 * 2 * 2 * 16] = {[2 * 64 + 7] = NAN};
    cr_assert_eq(tsr_latent_from_memory(&r.latent, z, 3, 2, 2, 16), TSR_OK);
    watch w = {.fail_at = -1};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_FORMAT);
    cr_assert(strstr(tsr_last_error(), "frame 2"), "%s", tsr_last_error());
    r.counts.wrong[0] = 0; /* the fake knows no latents of zeros */
    tsr_latent_close(&r.latent);
    r.latent = fake_latent(3, 2, 2);
    expect_video(&r, 9);
    close_rig(&r);
}

static char *slurp(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 22);
    cr_assert(f && text);
    cr_assert_lt(fread(text, 1, (1 << 22) - 1, f), (1 << 22) - 1);
    fclose(f);
    return text;
}

static int count_of(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

Test(session, trace_is_json_and_names_every_step) {
    rig r = {0};
    open_rig(&r, 3, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    int tiles = r.plan->y.tiles * r.plan->x.tiles;
    watch w = {.fail_at = -1};
    const char *path = temp_path("trace.json"), *part = temp_path("trace.json.part");
    cr_assert_eq(decode(&r, &w, path, NULL), TSR_OK, "%s", tsr_last_error());
    cr_assert_neq(access(part, F_OK), 0);
    char *text = slurp(path);
    cJSON *json = cJSON_Parse(text), *event;
    cr_assert(json);
    int steps = 0, blends = 0, writes = 0, threads = 0;
    cJSON_ArrayForEach(event, cJSON_GetObjectItem(json, "traceEvents")) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(event, "name"));
        const cJSON *dur = cJSON_GetObjectItem(event, "dur");
        cr_assert(name && (!dur || dur->valuedouble >= 0));
        steps += strncmp(name, "tile ", 5) == 0;
        blends += strncmp(name, "blend tile ", 11) == 0;
        writes += strncmp(name, "write frame ", 12) == 0;
        threads += strcmp(name, "thread_name") == 0;
    }
    cr_assert_eq(steps, 3 * tiles);
    cr_assert_eq(blends, 3 * tiles);
    cr_assert_eq(writes, 9);
    cr_assert_eq(threads, 3);
    cJSON_Delete(json);
    free(text);
    cut_segments(r.plan, 1); /* every tile's caches are parked twice and brought back twice */
    cr_assert_eq(decode(&r, &w, path, NULL), TSR_OK, "%s", tsr_last_error());
    text = slurp(path);
    for (int t = 0; t < tiles; t++) {
        char name[64];
        snprintf(name, sizeof name, "\"park caches of tile %d, ", t);
        cr_assert_eq(count_of(text, name), 2, "%s", name);
        snprintf(name, sizeof name, "\"bring back caches of tile %d, ", t);
        cr_assert_eq(count_of(text, name), 2, "%s", name);
    }
    free(text);

    w.fail_at = 3; /* the trace of a failed run is whole, too */
    cr_assert_eq(decode(&r, &w, path, NULL), TSR_ERR_IO);
    cr_assert_str_eq(tsr_last_error(), "the disk of frame 3 is full");
    text = slurp(path);
    cr_assert((json = cJSON_Parse(text)) != NULL);
    cJSON_Delete(json);
    free(text);

    r.counts.steps = 0;
    cr_assert_eq(decode(&r, &w, temp_path("no/such/folder/t.json"), NULL), TSR_ERR_IO);
    cr_assert_eq(r.counts.steps, 0, "nothing is decoded for a trace that cannot be written");
    close_rig(&r);
}

/* The real backend's plain C tier under the same threads: what the thread sanitizer looks at. */
Test(session, plain_c_tier_twice_the_same) {
    only_as_shipped();
    rig r = {0};
    open_rig(&r, 2, 2, 3);
    tsr_engine_destroy(&r.engine);
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    params.device = TSR_DEVICE_CPU;
    params.reference = true;
    params.threads = 2;
    cr_assert_eq(tsr_engine_create(&r.engine, &params), TSR_OK, "%s", tsr_last_error());
    tsr_latent_close(&r.latent);
    float *z = synth_latent(16, 2, 2, 3, 0);
    cr_assert_eq(tsr_latent_from_memory(&r.latent, z, 2, 2, 3, 16), TSR_OK);
    free(z);
    tsr_plan_params p = {.precision = TSR_PRECISION_F32, .budget = 1ll << 30, .tile_width = 16, .tile_height = 16};
    make_plan(&r, &p);
    cr_assert_gt(r.plan->x.tiles, 1);
    watch first = {.fail_at = -1}, second = {.fail_at = -1};
    tsr_result result;
    cr_assert_eq(decode(&r, &first, NULL, &result), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(decode(&r, &second, NULL, NULL), TSR_OK, "%s", tsr_last_error());
    cr_assert_eq(first.frames, 5);
    cr_assert(first.worst == second.worst && first.worst > 0, "%.9g, then %.9g", first.worst, second.worst);
    cr_assert_eq(result.peak_bytes, result.planned_bytes);
    close_rig(&r);
}

Test(session, validation_has_nothing_to_say) {
    rig r = {0};
    open_rig(&r, 4, 6, 9);
    r.engine->params.validation = true;
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    cut_segments(r.plan, 2);
    expect_video(&r, 13);
    expect_video(&r, 13);
    cr_assert_eq(tsr_vk_validation_messages(r.engine->vk), 0);
    close_rig(&r);
}

Test(session, length_takes_no_memory) {
    int64_t peak[2];
    for (int i = 0; i < 2; i++) {
        rig r = {0};
        open_rig(&r, i ? 23 : 5, 3, 4);
        tsr_plan_params p = untiled();
        make_plan(&r, &p);
        watch w = {.fail_at = -1};
        tsr_result result;
        cr_assert_eq(decode(&r, &w, NULL, &result), TSR_OK);
        peak[i] = result.peak_bytes;
        close_rig(&r);
    }
    cr_assert_eq(peak[0], peak[1], "%lld bytes, %lld for the longer", (long long)peak[0], (long long)peak[1]);
}

Test(session, peak_is_what_was_planned) {
    rig r = {0};
    open_rig(&r, 5, 6, 9);
    tsr_plan_params p = tiled();
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    tsr_result first, second;
    cr_assert_eq(decode(&r, &w, NULL, &first), TSR_OK);
    cr_assert_eq(decode(&r, &w, NULL, &second), TSR_OK);
    cr_assert_eq(first.planned_bytes, r.plan->info.bytes.total);
    cr_assert_eq(first.peak_bytes, second.peak_bytes, "a plan that stays ready is counted");
    cr_assert_geq(first.peak_bytes, (int64_t)((size_t)r.plan->slots * r.plan->slot_bytes));
    close_rig(&r);
}

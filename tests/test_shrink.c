/* Memory that runs short although the plan said it would do: a smaller plan goes on after the last frame given out. */
#include "fake_rig.h"

static tsr_plan_params roomy(void) {
    return (tsr_plan_params){.budget = 1ll << 30, .overlap_width = -1, .overlap_height = -1};
}

static int64_t total(const rig *r) {
    return r->plan->info.bytes.total;
}

/* Each allocation of a decode in turn fails once. */
static void fail_every_allocation(tsr_plan_params params, int segment) {
    rig r = {0};
    open_rig(&r, 4, 6, 9);
    int failed = 0, plans = 1;
    for (int n = 0; plans && n < 50; n++) {
        make_plan(&r, &params);
        if (segment)
            cut_segments(r.plan, segment);
        watch w = {.fail_at = -1};
        tsr_mem_fail_at(n);
        tsr_result result = expect_video_seen(&r, &w, 13);
        tsr_mem_fail_at(-1);
        plans = w.plans;
        cr_assert_leq(plans, 1, "it failed once only");
        cr_assert(result.planned_bytes > 0 && (segment || result.planned_bytes <= total(&r)));
        failed += plans;
    }
    cr_assert(failed >= 2 && !plans, "%d allocations failed", failed);
    close_rig(&r);
}

Test(shrink, at_every_allocation_untiled) {
    fail_every_allocation(roomy(), 0);
}

Test(shrink, at_every_allocation_in_segments) {
    fail_every_allocation(tiled(), 2);
}

/* Less memory is there than anybody knows: plan by plan until one does, down to the smallest. */
Test(shrink, until_it_fits) {
    rig r = {0};
    open_rig(&r, 5, 12, 14);
    tsr_plan_params p = roomy();
    make_plan(&r, &p);
    int64_t all = total(&r);
    cr_assert_eq(r.plan->info.mode, TSR_MODE_UNTILED);
    tsr_plan *least = NULL, *next = NULL;
    int levels = 0;
    for (const tsr_plan *now = r.plan; tsr_plan_smaller(&next, now, 0) == TSR_OK; now = least, levels++) {
        cr_assert_lt(next->info.bytes.total, now->info.bytes.total);
        tsr_plan_destroy(&least);
        least = next;
    }
    cr_assert(least && levels >= 3 && least->info.mode == TSR_MODE_TILED);
    int64_t smallest = least->info.bytes.total;
    tsr_plan_destroy(&least);
    int most_plans = 0;
    for (int64_t most = all; most >= smallest; most -= most / 12) {
        r.fake.most = most;
        make_plan(&r, &p);
        watch w = {.fail_at = -1};
        expect_video_seen(&r, &w, 17);
        cr_assert((w.plans > 0) == (most < all));
        most_plans = w.plans > most_plans ? w.plans : most_plans;
    }
    cr_assert_geq(most_plans, 2);
    r.fake.most = smallest - 1;
    make_plan(&r, &p);
    watch w = {.fail_at = -1};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_MEMORY);
    char need[64];
    snprintf(need, sizeof need, "(%lld bytes)", (long long)smallest);
    cr_assert(strstr(tsr_last_error(), need), "%s", tsr_last_error());
    cr_assert_eq(w.frames, 0);
    close_rig(&r);
}

/* What the user fixed stays fixed. */
Test(shrink, not_into_tiles_where_they_are_forbidden) {
    rig r = {0};
    open_rig(&r, 3, 12, 14);
    tsr_plan_params p = untiled();
    make_plan(&r, &p);
    r.fake.most = 1;
    watch w = {.fail_at = -1};
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_ERR_MEMORY);
    cr_assert(strstr(tsr_last_error(), "allow tiles"), "%s", tsr_last_error());
    close_rig(&r);
}

/* A callback that has no memory may have kept half a frame: it is not called again. */
static tsr_status no_memory(void *user, const tsr_frame *f) {
    ++*(int *)user;
    return f->index == 2 ? tsr_fail(TSR_ERR_MEMORY, "the callback has no memory") : TSR_OK;
}

Test(shrink, not_where_the_callback_fails) {
    rig r = {0};
    open_rig(&r, 3, 4, 4);
    tsr_plan_params p = roomy();
    make_plan(&r, &p);
    int calls = 0;
    tsr_decode_params d = {.on_frame = no_memory, .user = &calls};
    cr_assert_eq(tsr_decode(r.engine, r.model, r.latent, r.plan, &d, NULL), TSR_ERR_MEMORY);
    cr_assert_str_eq(tsr_last_error(), "the callback has no memory");
    cr_assert_eq(calls, 3);
    close_rig(&r);
}

/* Other programs take the memory while the decode runs, from frame `at` on, until so many smaller plans have followed.
 * Returns how many did. */
static int fall(bool asynchronous, int stays, int64_t at, int latents, tsr_plan_params params) {
    rig r = {.fake = {.asynchronous = asynchronous, .op_us = 2000, .total = 1ll << 30}};
    atomic_store(&r.fake.left, r.fake.total);
    open_rig(&r, latents, 12, 14);
    make_plan(&r, &params);
    watch w = {.fail_at = -1, .fall = &r.fake, .fall_at = at, .stays = stays};
    expect_video_seen(&r, &w, 4 * (latents - 1) + 1);
    close_rig(&r);
    return w.plans;
}

static tsr_plan_params no_budget(bool untiled) {
    return (tsr_plan_params){.overlap_width = -1, .overlap_height = -1, .untiled = untiled};
}

Test(shrink, when_memory_falls_while_it_runs) {
    cr_assert_eq(fall(false, 1, 5, 25, no_budget(false)), 1);
    cr_assert_eq(fall(true, 1, 9, 20, no_budget(false)), 1);
}

Test(shrink, again_when_memory_stays_short) {
    cr_assert_eq(fall(false, 2, 0, 20, no_budget(false)), 2);
}

Test(shrink, goes_on_where_no_plan_is_smaller) {
    tsr_plan_params params = no_budget(false);
    params.tile_width = params.tile_height = 8;
    params.overlap_width = params.overlap_height = 0;
    rig r = {.fake = {.total = 1ll << 30, .op_us = 500}};
    atomic_store(&r.fake.left, r.fake.total);
    open_rig(&r, 1, 6, 7);
    make_plan(&r, &params);
    atomic_store(&r.fake.left, 0);
    watch w = {.fail_at = -1};
    tsr_result result = expect_video_seen(&r, &w, 1);
    cr_assert(w.plans == 0 && result.planned_bytes == total(&r));
    close_rig(&r);
}

Test(shrink, not_below_a_budget_that_was_given) {
    cr_assert_eq(fall(false, 1, 0, 8, roomy()), 0);
}

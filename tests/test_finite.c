/* Tiles whose numbers are not finite: decoded again in f32, with caches that follow, and never without a word. */
#include "fake_rig.h"

static struct {
    int count;
    char first[512], last[512];
} warned;

static void on_warning(void *user, tsr_log_level level, const char *line) {
    (void)user;
    if (level != TSR_LOG_WARN)
        return;
    snprintf(warned.last, sizeof warned.last, "%s", line);
    if (warned.count++ == 0)
        snprintf(warned.first, sizeof warned.first, "%s", line);
}

/* The tile at the given place in the list spoils from latent `from` (from 1). */
static void spoil(rig *r, int tile, int from) {
    const tsr_plan *p = r->plan;
    r->fake.spoil_latent = from;
    r->fake.spoil_y = p->y.latent[tile / p->x.tiles].begin;
    r->fake.spoil_x = p->x.latent[tile % p->x.tiles].begin;
    memset(&warned, 0, sizeof warned);
    tsr_log_set(TSR_LOG_WARN, on_warning, NULL);
}

static tsr_plan_params in_int8(tsr_plan_params p) {
    p.precision = TSR_PRECISION_INT8;
    return p;
}

Test(not_finite, is_decoded_again_in_f32) {
    for (int k = 1; k <= 7; k += 2) { /* whole tiles, and tiles by turns */
        rig r = {0};
        open_rig(&r, 7, 6, 9);
        tsr_plan_params p = in_int8(tiled());
        make_plan(&r, &p);
        cut_segments(r.plan, k);
        spoil(&r, 1, 4);
        expect_video(&r, 25);
        cr_expect_eq(warned.count, 1, "%d warnings", warned.count);
        char want[128];
        snprintf(want, sizeof want, "frames 9 to 12, tile 2 of %d:", r.plan->y.tiles * r.plan->x.tiles);
        cr_expect(strstr(warned.first, want) && strstr(warned.first, "in int8; the tile is decoded in f32"), "%s",
            warned.first);
        cr_expect_eq(r.counts.steps_f32, 3 + 4, "three to remember, four to see: %d", r.counts.steps_f32);
        close_rig(&r);
    }
}

/* Two tiles take turns in f32; the second joins later. */
Test(not_finite, tiles_in_f32_keep_their_caches) {
    rig r = {0};
    open_rig(&r, 6, 6, 5); /* one column */
    tsr_plan_params p = in_int8(tiled());
    make_plan(&r, &p);
    cr_assert(r.plan->y.tiles > 1 && r.plan->x.tiles == 1);
    cut_segments(r.plan, 1);
    spoil(&r, 0, 2);
    r.fake.spoil_y = -1; /* every tile */
    expect_video(&r, 21);
    cr_expect_eq(warned.count, r.plan->y.tiles, "%d warnings", warned.count);
    cr_expect_eq(r.counts.steps_f32, r.plan->y.tiles * 6, "%d", r.counts.steps_f32);
    close_rig(&r);
}

/* Only as much of a long video runs again as the tile can see. */
Test(not_finite, looks_back_as_far_as_causality_sees) {
    rig r = {0};
    open_rig(&r, 60, 2, 2);
    tsr_plan_params p = in_int8(untiled());
    make_plan(&r, &p);
    int back = tsr_lookback(r.plan->half);
    cr_assert(back > 2 && back < 50);
    spoil(&r, 0, 55);
    expect_video(&r, 237);
    cr_expect_eq(r.counts.steps_f32, back + 6, "%d", r.counts.steps_f32);
    close_rig(&r);
}

Test(not_finite, in_f32_too_is_said) {
    rig r = {0};
    watch w = {.fail_at = -1};
    open_rig(&r, 3, 4, 4);
    tsr_plan_params p = in_int8(untiled());
    make_plan(&r, &p);
    spoil(&r, 0, 2);
    r.fake.spoil_f32 = true;
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_OK, "%s", tsr_last_error());
    cr_expect_eq(w.frames, 9);
    cr_expect_eq(warned.count, 3, "one turn to f32, two slots: %d warnings", warned.count);
    cr_expect(
        strstr(warned.last, "frames 5 to 8, tile 1 of 1:") && strstr(warned.last, "in f32, either"), "%s", warned.last);
    close_rig(&r);
}

Test(not_finite, no_room_for_f32_is_said) {
    rig r = {0};
    watch w = {.fail_at = -1};
    open_rig(&r, 3, 4, 4);
    tsr_plan_params p = in_int8(untiled());
    make_plan(&r, &p);
    p.budget = r.plan->info.bytes.total + 4096;
    make_plan(&r, &p);
    spoil(&r, 0, 2);
    cr_assert_eq(decode(&r, &w, NULL, NULL), TSR_OK, "%s", tsr_last_error());
    cr_expect_eq(w.frames, 9);
    cr_expect_eq(warned.count, 2, "%d warnings", warned.count);
    cr_expect(strstr(warned.first, "does not work (plan: ") && strstr(warned.first, "use --precision f32"), "%s",
        warned.first);
    close_rig(&r);
}

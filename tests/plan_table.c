/* Prints the tables of docs/memory.md: what the published decoder takes, planned for a device of plain arithmetic. */
#include "shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIB (1024.0 * 1024 * 1024)

static const struct {
    const char *name;
    int w, h;
} sizes[] = {{"720p", 160, 90}, {"1080p", 240, 136}, {"4K", 480, 270}, {"8K", 960, 540}};
static const tsr_precision precisions[] = {TSR_PRECISION_F32, TSR_PRECISION_FP16, TSR_PRECISION_INT8};

/* A card of the middle: rates as docs/memory.md states them. */
static tsr_target card(void) {
    tsr_target t = shapes_target();
    t.join_heads = false;
    t.streams = true;
    t.norm_in_place = true;
    t.flops_f32 = 40e12;
    t.flops_16 = 90e12;
    t.flops_8 = 300e12;
    t.bandwidth = 800e9;
    t.link_bandwidth = 50e9;
    return t;
}

static tsr_plan *plan(const tsr_vae *v, const tsr_target *t, int size, int latents, const tsr_plan_params *params) {
    tsr_plan *p;
    tsr_extent e = {latents, sizes[size].h, sizes[size].w};
    return tsr_plan_make(&p, &v->decoder, t, &e, params) == TSR_OK ? p : NULL;
}

static int64_t bytes_named(void) {
    const char *at = strchr(tsr_last_error(), '(');
    return at ? atoll(at + 1) : 0;
}

/* Untiled with all on the device, by how finely a step is sliced: each row is what one byte less leads to. */
static void resident(const tsr_vae *v) {
    tsr_target t = card();
    t.streams = false;
    printf("| size | precision | frame by frame from level | arena | bound | caches | total | time of 9 frames "
           "|\n|---|---|---|---|---|---|---|---|\n");
    for (int s = 0; s < 3; s++)
        for (int k = 0; k < 3; k++) {
            tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
            params.precision = precisions[k];
            params.untiled = true;
            double whole = 0;
            for (tsr_plan *p; (p = plan(v, &t, s, 3, &params)); tsr_plan_free(&p)) {
                const tsr_plan_bytes *b = &p->info.bytes;
                char level[16] = "-";
                if (p->slice_level < v->decoder.levels)
                    snprintf(level, sizeof level, "%d", p->slice_level);
                whole = whole > 0 ? whole : p->info.seconds;
                printf("| %s | %s | %s | %.2f | %.2f | %.2f | %.2f | %.0f%% |\n", sizes[s].name,
                    tsr_precision_name(params.precision), level, (double)b->arena / GIB, (double)p->arena_bound / GIB,
                    (double)b->caches / GIB, (double)b->total / GIB, 100 * p->info.seconds / whole);
                params.budget = b->total - 1;
            }
        }
}

/* The least that a seamless decode takes, all caches on the host; single pictures; the smallest tile. */
static void least(const tsr_vae *v) {
    tsr_target t = card();
    printf("\n| size | precision | one picture | video, least seamless | of that arena | host | smallest tile "
           "|\n|---|---|---|---|---|---|---|\n");
    for (int s = 0; s < 4; s++)
        for (int k = 0; k < 3; k++) {
            tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
            params.precision = precisions[k];
            tsr_plan *one = plan(v, &t, s, 1, &params);
            params.budget = 1;
            plan(v, &t, s, 3, &params);
            int64_t tile = bytes_named();
            params.untiled = true;
            plan(v, &t, s, 3, &params);
            params.budget = bytes_named();
            tsr_plan *p = plan(v, &t, s, 3, &params);
            if (one && p)
                printf("| %s | %s | %.2f | %.2f | %.2f | %.2f | %.2f |\n", sizes[s].name,
                    tsr_precision_name(params.precision), (double)one->info.bytes.total / GIB,
                    (double)p->info.bytes.total / GIB, (double)p->info.bytes.arena / GIB,
                    (double)p->info.bytes.host / GIB, (double)tile / GIB);
            tsr_plan_free(&one);
            tsr_plan_free(&p);
        }
}

/* What is chosen for a video of 33 frames under budgets that cards have. */
static void chosen(const tsr_vae *v) {
    tsr_target t = card();
    static const double budgets[] = {6, 8, 12, 13, 16, 24, 32};
    printf(
        "\n| size | precision | budget | chosen | device | host | seconds a frame |\n|---|---|---|---|---|---|---|\n");
    for (int s = 0; s < 4; s++)
        for (int k = 1; k < 3; k++)
            for (int b = 0; b < 7; b++) {
                tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
                params.precision = precisions[k];
                params.budget = (int64_t)(budgets[b] * GIB);
                tsr_plan *p = plan(v, &t, s, 9, &params);
                if (!p)
                    continue;
                const tsr_plan_info *i = &p->info;
                char what[64] = "untiled", level[32] = "";
                if (i->mode == TSR_MODE_TILED)
                    snprintf(
                        what, sizeof what, "%dx%d tiles of %dx%d", i->columns, i->rows, i->tile_width, i->tile_height);
                if (i->mode == TSR_MODE_OFFLOADED)
                    snprintf(what, sizeof what, "untiled, streamed");
                if (p->slice_level < v->decoder.levels)
                    snprintf(level, sizeof level, ", slices from %d", p->slice_level);
                printf("| %s | %s | %.0f | %s%s | %.1f | %.1f | %.2f |\n", sizes[s].name,
                    tsr_precision_name(params.precision), budgets[b], what, level, (double)i->bytes.total / GIB,
                    (double)i->bytes.host / GIB, i->seconds / i->frames);
                tsr_plan_free(&p);
            }
}

int main(void) {
    tsr_vae *v = shapes_vae(&(synth_config){.decoder = true});
    resident(v);
    least(v);
    chosen(v);
    tsr_vae_destroy(&v);
    return 0;
}

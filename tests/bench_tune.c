/* The search of tsr_tune against measuring every size: how much sooner it ends, what both choices take. Usage:
 * bench_tune [MODEL [ROWS COLUMNS FRAMES]], in latents. */
#include "temp.h"

#include "session/steps.h"

#include <tessera/tune.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void count(void *flops, const tsr_program *p, int op, double begin, double end) {
    (void)begin;
    (void)end;
    *(double *)flops += tsr_op_flops(p, &p->op[op]);
}

/* *flops: what it ran, which no other program on the machine changes. */
static tsr_tune_table *tune(tsr_engine *e, tsr_model *m, tsr_extent extent, bool exhaustive, double *flops) {
    tsr_tune_table *t;
    tsr_tune_params p = TSR_TUNE_PARAMS_DEFAULT;
    p.extent = extent;
    p.exhaustive = exhaustive;
    *flops = 0;
    e->backend->on_op = count;
    e->backend->on_op_user = flops;
    tsr_status status = tsr_tune(&t, e, m, &p);
    e->backend->on_op = NULL;
    if (status == TSR_OK)
        return t;
    fprintf(stderr, "%s\n", tsr_last_error());
    exit(1);
}

/* One tile of a size through its first two steps, for all tiles and steps. */
static double run_once(tsr_engine *e, tsr_model *m, tsr_extent extent, const tsr_tune_point *p) {
    tsr_plan_params params = TSR_PLAN_PARAMS_DEFAULT;
    tsr_plan *plan;
    tsr_steps steps = {0};
    double took[TSR_STEP_COUNT] = {0};
    params.untiled = p->mode != TSR_MODE_TILED;
    params.tile_width = params.untiled ? 0 : p->tile_width;
    params.tile_height = params.untiled ? 0 : p->tile_height;
    tsr_status status = tsr_plan_create(&plan, e, m, &extent, &params);
    if (status == TSR_OK)
        status = tsr_steps_open(&steps, e, plan);
    for (tsr_step s = TSR_STEP_FIRST; status == TSR_OK && s <= TSR_STEP_SECOND && plan->program[s]; s++) {
        double begin = tsr_now();
        status = tsr_steps_run(&steps, s);
        took[s] = tsr_now() - begin;
    }
    if (status != TSR_OK) {
        fprintf(stderr, "%s\n", tsr_last_error());
        exit(1);
    }
    tsr_steps_close(&steps);
    tsr_plan_destroy(&plan);
    return p->columns * p->rows * (took[TSR_STEP_FIRST] + (extent.frames - 1) * took[TSR_STEP_SECOND]);
}

/* Both choices in turn, the quickest of three each: what else the machine does hits both alike. */
static void compare(const char *what, tsr_engine *e, tsr_model *m, tsr_extent extent, const tsr_tune_point *all,
    const tsr_tune_point *found) {
    double least = INFINITY, got = INFINITY;
    bool same = all->tile_width == found->tile_width && all->tile_height == found->tile_height;
    for (int round = 0; !same && round < 3; round++) {
        least = fmin(least, run_once(e, m, extent, all));
        got = fmin(got, run_once(e, m, extent, found));
    }
    printf("%-14s search %dx%d, exhaustive %dx%d: ", what, found->tile_width, found->tile_height, all->tile_width,
        all->tile_height);
    printf(same ? "the same\n" : "%.2f s and %.2f s, %+.1f%%\n", got, least, 100 * (got / least - 1));
}

int main(int argc, char **argv) {
    char demo[4096];
    snprintf(demo, sizeof demo, "%s/demo-vae.safetensors", getenv("TSR_ASSETS") ? getenv("TSR_ASSETS") : "assets");
    tsr_extent extent = {3, 32, 56};
    tsr_engine_params params = TSR_ENGINE_PARAMS_DEFAULT;
    tsr_model *m;
    tsr_engine *e;
    setenv("XDG_CACHE_HOME", temp_path("cache"), 1); /* what is found here is not for plans to come */
    if (argc > 4)
        extent = (tsr_extent){.height = atoi(argv[2]), .width = atoi(argv[3]), .frames = atoi(argv[4])};
    if (tsr_model_open(&m, argc > 1 ? argv[1] : demo) != TSR_OK || tsr_engine_create(&e, &params) != TSR_OK) {
        fprintf(stderr, "%s\n", tsr_last_error());
        return 1;
    }
    double some, most;
    tsr_tune_table *found = tune(e, m, extent, false, &some), *all = tune(e, m, extent, true, &most);
    printf("%d sizes; search %.1f s, exhaustive %.1f s: %.2f of it, %.2f of its FLOPs\n", all->points, found->seconds,
        all->seconds, found->seconds / all->seconds, some / most);
    compare("best", e, m, extent, &all->point[all->best], &found->point[found->best]);
    compare("best of tiles", e, m, extent, &all->point[all->best_tiled], &found->point[found->best_tiled]);
    tsr_tune_free(&found);
    tsr_tune_free(&all);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    return 0;
}

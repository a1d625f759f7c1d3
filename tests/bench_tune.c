/* The search of tsr_tune against measuring every size: how much sooner it ends, how good its choice is by the numbers
 * of the exhaustive run. Usage: bench_tune [MODEL [ROWS COLUMNS FRAMES]], in latents. */
#include "temp.h"

#include <tessera/tune.h>

#include <stdio.h>
#include <stdlib.h>

static tsr_tune_table *tune(tsr_engine *e, tsr_model *m, tsr_extent extent, bool exhaustive) {
    tsr_tune_table *t;
    tsr_tune_params p = TSR_TUNE_PARAMS_DEFAULT;
    p.extent = extent;
    p.exhaustive = exhaustive;
    if (tsr_tune(&t, e, m, &p) == TSR_OK)
        return t;
    fprintf(stderr, "%s\n", tsr_last_error());
    exit(1);
}

/* What the exhaustive run measured for a size that the search chose. */
static double seconds_of(const tsr_tune_table *all, const tsr_tune_point *p) {
    for (int i = 0; i < all->points; i++)
        if (all->point[i].tile_width == p->tile_width && all->point[i].tile_height == p->tile_height)
            return all->point[i].seconds;
    return 0;
}

static void compare(const char *what, const tsr_tune_table *all, int best, const tsr_tune_table *found, int choice) {
    double least = all->point[best].seconds, got = seconds_of(all, &found->point[choice]);
    printf("%-16s search %dx%d, exhaustive %dx%d: %.1f%% slower\n", what, found->point[choice].tile_width,
        found->point[choice].tile_height, all->point[best].tile_width, all->point[best].tile_height,
        100 * (got / least - 1));
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
    tsr_tune_table *found = tune(e, m, extent, false), *all = tune(e, m, extent, true);
    printf("%d sizes; search %.1f s, exhaustive %.1f s: %.2f of it\n", all->points, found->seconds, all->seconds,
        found->seconds / all->seconds);
    compare("best", all, all->best, found, found->best);
    compare("best of tiles", all, all->best_tiled, found, found->best_tiled);
    tsr_tune_free(&found);
    tsr_tune_free(&all);
    tsr_engine_destroy(&e);
    tsr_model_close(&m);
    return 0;
}

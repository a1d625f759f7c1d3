/*
 * Tune: which tile size is fastest here. Tiles of many sizes are planned, the promising ones are run on noise (speed
 * does not depend on what is decoded), one tile of each: first its first step, a tenth of a later one's work, then of
 * the best few both. What the whole video would take follows from the number of tiles and steps. The best is kept for
 * this device, model and precision; plans that have to be tiled, and whose tile size is left open, use it from then on.
 */
#ifndef TESSERA_TUNE_H
#define TESSERA_TUNE_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One way to decode the video within the budget. */
typedef struct tsr_tune_point {
    tsr_mode mode;
    int tile_width, tile_height, overlap_width, overlap_height; /* output pixels; the frame itself where untiled */
    int columns, rows;
    double predicted;      /* seconds of the whole video, by the plan's roofline */
    double expected;       /* the same, from its first step and what those measured took of theirs; 0: it was not run */
    double seconds;        /* the same as measured, blending and files not included, at best; 0: not measured */
    double ms_per_mpx;     /* of those seconds, else of those expected, for a million pixels of output */
    int runs;              /* how often it was measured: 0 where no more than the first step was run */
    int64_t planned_bytes; /* device memory */
    int64_t peak_bytes;    /* really allocated while it was measured; frames in flight as planned */
} tsr_tune_point;

typedef struct tsr_tune_table {
    int points;
    tsr_tune_point *point;     /* by tile area, largest first */
    int best, best_tiled;      /* of those measured; -1: none */
    int width, height, frames; /* of the output */
    tsr_precision precision;
    const char *device;
    double seconds; /* that the tuning took */
} tsr_tune_table;

typedef struct tsr_tune_params {
    tsr_extent extent;    /* latents of the video */
    tsr_plan_params plan; /* as for tsr_plan_create; tile sizes are ignored */
    bool exhaustive;      /* measure every size, not only those that may win: to judge the search by */
    /* On the caller's thread, after every first step and every measurement of point i, with i < 0 before the first.
     * False: enough; what was measured so far stays in the table, nothing is kept. May be NULL. */
    bool (*on_point)(void *user, const tsr_tune_table *table, int i);
    void *user;
} tsr_tune_params;
#define TSR_TUNE_PARAMS_DEFAULT                                                                                        \
    { .plan = TSR_PLAN_PARAMS_DEFAULT }

/* *out is to be freed with tsr_tune_free, also where TSR_ERR_CANCELLED says that on_point or tsr_cancel() stopped it;
 * after any other failure it is NULL. TSR_ERR_BUDGET where nothing fits. */
TSR_API tsr_status tsr_tune(tsr_tune_table **out, tsr_engine *e, tsr_model *m, const tsr_tune_params *params);
TSR_API void tsr_tune_free(tsr_tune_table **table);

#ifdef __cplusplus
}
#endif
#endif

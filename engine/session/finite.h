/*
 * Tiles whose numbers leave the range of the plan's precision. NaN and infinity are counted where a
 * slot is stored; the slot is decoded again, in f32, before anybody sees it.
 *
 * What the tile remembers of earlier frames is spoilt by then. So it is run again from as far back
 * as causality sees, which is exact, and stays in f32 to the end of the video. What f32 takes is
 * taken beside the plan's memory when it is first needed, within what the budget leaves.
 */
#ifndef TSR_FINITE_H
#define TSR_FINITE_H

#include "session/session.h"

typedef struct tsr_finite {
    tsr_engine *e;
    const tsr_plan *plan;
    int first_latent; /* of the run */
    /* Puts latent t of a tile, [h][w][c], where every step's args->input points. */
    tsr_status (*load)(void *ctx, int tile, int t);
    void *ctx;

    /* Of its own; zeros at first. */
    tsr_plan *f32; /* of one tile */
    tsr_exec *exec;
    bool *in_f32;  /* [tiles] */
    char **parked; /* [tiles]: caches of a tile in f32 that exec does not hold, f32->cache_bytes;
                      NULL: none */
    int holds;     /* the tile whose caches exec holds */
    bool gave_up;  /* f32 is not to be had; it was said */
} tsr_finite;

/* Latent t of a tile, which is loaded, to the slot of args: by `exec` in the plan's precision, or
 * in f32. Steps of a tile come in order. Says which frames and tile it is about where numbers are
 * not finite. */
tsr_status tsr_finite_step(tsr_finite *f, tsr_exec *exec, int tile, int t, tsr_step_args *args);
void tsr_finite_release(tsr_finite *f);

#endif

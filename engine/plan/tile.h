/* One tile of a shape: its programs, what they take, and where their buffers, kernels and caches lie. */
#ifndef TSR_TILE_H
#define TSR_TILE_H

#include "plan/plan.h"
#include "plan/recipe.h"

/* What is to be planned; the same for all candidates. */
typedef struct tsr_task {
    const tsr_half *half;
    const tsr_target *target;
    tsr_plan_params params;   /* end_frame resolved */
    const tsr_recipe *recipe; /* NULL: the best is to be chosen */
    tsr_extent extent;
    tsr_numerics numerics;
    uint8_t *eight; /* the numerics', where a mix narrows what the backend would do */
    int first_latent, end_latent;
    int latents;                 /* end - first */
    int wanted;                  /* output frames that leave; of an encoder, latents */
    int outputs;                 /* of them from every step but the first */
    int64_t budget, host_budget; /* bytes; INT64_MAX: none */
    int64_t slack;               /* of the budget, for what packing adds to the lower bound */
    int64_t frame_bytes;
    tsr_dtype frame_dtype;
    int64_t weight_bytes;
} tsr_task;

/* How a tile is run: its shape, how finely a step is sliced, and where caches live. */
typedef struct tsr_shape {
    int h, w;                          /* latents */
    int slice_level, band, page_level; /* as in tsr_program_params */
    bool stream;           /* caches live on the host: as few as leave the rest and the arena within `room` */
    int64_t room, reserve; /* bytes; reserve: what of the room is kept for transfers in flight */
} tsr_shape;

typedef struct tsr_tile_cost {
    int64_t arena, cache, slot, host; /* bytes; the arena's is the lower bound; cache: on the device */
    double seconds;                   /* of all its latents, as if all were like the last: for comparing */
} tsr_tile_cost;

/* How many times a step is run; 0: the task has none of the kind. */
int tsr_task_steps(const tsr_task *t, tsr_step step);
/* One slot is written while another is blended; an encoder blends at once. */
static inline int tsr_task_slots(const tsr_task *t) {
    return t->half->encodes ? 1 : 2;
}
/* Bytes of host memory beside caches, with tiles of h x w latents: a latent and a tile of it; of an encoder the frames
 * of a segment, one as it comes, what a step reads of a tile, and its slot where that is no host memory. */
int64_t tsr_task_host(const tsr_task *t, int h, int w, int segment);
/* The weight block's bytes, which no shape changes. */
tsr_status tsr_task_weights(const tsr_task *t, int64_t *bytes);
/* Fills *out from the step that takes most; sizes that overflow are INT64_MAX, which fits nothing. */
tsr_status tsr_tile_measure(const tsr_task *t, tsr_shape s, tsr_tile_cost *out);
/* Makes the programs and lays everything out: the plan's programs, weights, arena and caches; info.flops and
 * info.seconds become those of one tile. */
tsr_status tsr_tile_lay_out(const tsr_task *t, tsr_shape s, tsr_plan *p);

/* Sums and products that stop at INT64_MAX. Nothing here is negative. */
int64_t tsr_sat_add(int64_t a, int64_t b);
int64_t tsr_sat_mul(int64_t a, int64_t b);

#endif

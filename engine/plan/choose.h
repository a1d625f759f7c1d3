/* Which way to decode: untiled where that fits, else the tiles that cost least. */
#ifndef TSR_CHOOSE_H
#define TSR_CHOOSE_H

#include "plan/tile.h"

/* How an axis is cut: what tsr_spans is given, and what comes out. Latents. */
typedef struct tsr_cut {
    int tile, overlap;
    int length, count;
} tsr_cut;

typedef struct tsr_choice {
    tsr_cut y, x; /* of the chosen candidate, the first */
    int candidates;
    tsr_candidate candidate[TSR_MOST_CANDIDATES];
} tsr_choice;

/* How a candidate runs its tiles. */
static inline tsr_shape tsr_candidate_shape(const tsr_candidate *c) {
    return (tsr_shape){c->tile_h, c->tile_w, c->slice_level, c->band, c->page_level, c->mode == TSR_MODE_OFFLOADED,
        c->room, c->reserve};
}

/* The best first, or what the task's recipe says; where none fits, by what is known before packing, the one that needs
 * least. */
tsr_status tsr_choose(const tsr_task *t, tsr_choice *out);
/* Whether these bytes fit the task's budgets, with so much to spare. */
bool tsr_choose_fits(const tsr_task *t, const tsr_plan_bytes *b, int64_t slack);
/* TSR_ERR_BUDGET, naming the bytes that this candidate needs. */
tsr_status tsr_choose_refuse(const tsr_task *t, const tsr_candidate *c);

#endif

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
    tsr_cut y, x;            /* of the chosen candidate, the first */
    int candidates;
    tsr_candidate candidate[TSR_MOST_CANDIDATES];
} tsr_choice;

/* TSR_ERR_BUDGET names the bytes that would be needed. */
tsr_status tsr_choose(const tsr_task *t, tsr_choice *out);

#endif

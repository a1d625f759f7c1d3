/* Runs a whole clip through a backend untiled, by a plan made by hand: every buffer has a place of
 * its own, so a test may look into them; and there are plans for the encoder. */
#ifndef TSR_TESTS_DIRECT_H
#define TSR_TESTS_DIRECT_H

#include "backend/backend.h"

typedef struct direct_params {
    bool encode;
    int steps;               /* latents in all */
    int h, w;                /* of the input: latents, or pixels */
    int slice_level;         /* 0: never one frame at a time; else from this level on */
    tsr_precision precision; /* AUTO: f32 */
    int band, page_level;    /* as in tsr_program_params; band 0: whole frames */
    bool join_heads;         /* also where the backend would not need it */
} direct_params;

typedef struct direct direct;
tsr_status direct_create(direct **out, tsr_backend *b, const tsr_half *half, const direct_params *params);
void direct_destroy(direct **d);
const tsr_plan *direct_plan(const direct *d);
tsr_exec *direct_exec(const direct *d);
/* input: f32 [frames][h][w][c]. out: f32 [channels][frames][height][width]. */
tsr_status direct_run(direct *d, const float *input, float *out);
/* Of the clip: what out holds. */
void direct_extent(const direct *d, int *channels, int *frames, int *height, int *width);
int direct_step_frame(
    const direct *d, int step, int per_step); /* first frame of a step where later steps have per_step */

#endif

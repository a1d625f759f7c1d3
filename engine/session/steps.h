/* Steps of one tile of a plan, run one at a time on noise: what bench and tune time. */
#ifndef TSR_STEPS_H
#define TSR_STEPS_H

#include "session/session.h"

typedef struct tsr_steps {
    tsr_engine *e;
    const tsr_plan *plan;
    tsr_exec *exec;
    tsr_slab slab;
    float *input;   /* [tile rows][tile columns][latent channels] */
    int64_t others; /* counted bytes that are not this plan's */
} tsr_steps;

/* n values in [-1.7, 1.7): unit variance, as latents have. malloc'd; NULL: no memory. */
float *tsr_noise(size_t n);
double tsr_median(double *v, int n); /* sorts v */

/* Makes the plan ready, takes its slots and begins to watch the peak of counted memory. A plan that was ready has to
 * live until this returns. *s is to be closed after a failure, too. */
tsr_status tsr_steps_open(tsr_steps *s, tsr_engine *e, const tsr_plan *plan);
/* Returns when the step is done. */
tsr_status tsr_steps_run(tsr_steps *s, tsr_step step);
void tsr_steps_close(tsr_steps *s);

#endif

/* Plans in words. */
#ifndef TSR_DESCRIBE_H
#define TSR_DESCRIBE_H

#include "plan/plan.h"

/* Writes plan->why and plan->runner_up, one line each. */
void tsr_plan_explain(tsr_plan *p);
/* Fills numbers: which layers are computed in which precision, and why. */
void tsr_plan_name_numbers(tsr_plan *p);
/* "untiled, frame by frame from level 2", "2x3 tiles of 704x544, overlap 64x64". */
const char *tsr_candidate_text(char buf[128], const tsr_plan *p, const tsr_candidate *c);

#endif

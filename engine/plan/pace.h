/* How long things take on a target, by the roofline: for comparing plans. */
#ifndef TSR_PACE_H
#define TSR_PACE_H

#include "plan/plan.h"

/* Whichever of arithmetic and traffic takes longer, and starting. */
double tsr_op_seconds(const tsr_target *target, const tsr_program *p, const tsr_op *op);
double tsr_program_seconds(const tsr_target *target, const tsr_program *p);
/* Of bytes to or from the host. */
double tsr_link_seconds(const tsr_target *target, double bytes);

#endif

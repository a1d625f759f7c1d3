/* How fast this CPU is, for the planner. */
#ifndef TSR_RATES_H
#define TSR_RATES_H

#include "backend/cpu/cpu.h"

/* FLOP/s of the fastest tier's plain matrix product [m][k] x [k][n], of f32 or of codes, measured now; 0: no memory, or
 * no product of codes. */
double tsr_cpu_gemm_rate(const tsr_cpu *cpu, bool codes, int m, int n, int k);
/* Sets cpu->gemm and cpu->bandwidth where they are not set: as kept for this CPU, number of threads and tier, so that
 * the same video gets the same plan at every start; measured, and kept, where nothing is or it is older than an hour.
 * What was measured while others had the machine is too low and nothing makes it too high, so the old stays unless the
 * new is better by a tenth. */
void tsr_cpu_find_rates(tsr_cpu *cpu);

#endif

/* Ops of a step as bench shows them. */
#ifndef TSR_BENCH_OPS_H
#define TSR_BENCH_OPS_H

#include "model/program.h"

#include <tessera/bench.h>

/* Reports each shape of the program once, the slowest first: seconds() of every op, for products ceiling() in FLOP/s,
 * and for ops that multiply nothing copy() in bytes/s (NULL: unknown). */
tsr_status tsr_bench_report_step(const tsr_program *p,
    double (*seconds)(void *ctx, const tsr_program *p, const tsr_op *op),
    double (*ceiling)(void *ctx, const tsr_program *p, const tsr_op *op),
    double (*copy)(void *ctx, const tsr_program *p, const tsr_op *op), void *ctx,
    void (*on_op)(void *user, const tsr_bench_op *op), void *user);

#endif

/* The CPU backend's own records. */
#ifndef TSR_CPU_H
#define TSR_CPU_H

#include "backend/backend.h"
#include "backend/ops.h"

typedef struct tsr_cpu {
    tsr_backend base;
    int tiers;              /* the first so many are used */
    double gemm, bandwidth; /* FLOP/s, bytes/s, found when first asked for (rates.h); 0 before */
} tsr_cpu;

typedef struct tsr_bound_op {
    const tsr_tier *tier;
    tsr_op_io io; /* all but slot, input and, of caches, the set */
} tsr_bound_op;

typedef struct tsr_cpu_stream tsr_cpu_stream; /* stream.h */

struct tsr_exec {
    const tsr_plan *plan;
    char *weights, *arena, *host;          /* the plan's blocks */
    char *caches;                          /* in the arena's block, behind it */
    tsr_packed *packed;                    /* [plan->weights] */
    tsr_code_range *range[TSR_STEP_COUNT]; /* [buffers of the program]: of the u8 codes that lie there */
    const tsr_tier **packed_by;            /* [plan->weights] */
    tsr_bound_op *op[TSR_STEP_COUNT];      /* [ops of the program] */
    tsr_cpu_stream *stream;                /* NULL: no cache lives on the host */
    atomic_llong not_finite;               /* of the step in hand: NaN and infinite numbers stored */
};

tsr_status tsr_exec_create(tsr_exec **out, tsr_cpu *cpu, const tsr_plan *plan);
void tsr_exec_destroy(tsr_exec **x);
/* Makes *x, of another plan of the same half, ready to run this one; kernels that are packed alike stay. NULL on
 * failure. */
tsr_status tsr_exec_turn(tsr_exec **x, tsr_cpu *cpu, const tsr_plan *plan);
tsr_status tsr_exec_step(tsr_exec *x, tsr_cpu *cpu, const tsr_step_args *args);
/* weights.c: the weight block is the same but for how kernels lie in their places. */
bool tsr_exec_same_weights(const tsr_plan *a, const tsr_plan *b);
/* Folds and packs the weights; again: only what does not lie there as it should, from a plan of the same weights. */
tsr_status tsr_exec_pack(tsr_exec *x, int tiers, bool again);
/* Kernels of u8 inputs have their gain [cin] at the end of their block. */
float *tsr_exec_gain(const tsr_exec *x, int weight);
/* Rounds what an op wrote to the numbers of the buffer's `rounded`. */
void tsr_cpu_round(const tsr_program *p, const tsr_op *op, void *out);
/* Frame 0 of a program's buffer, for tests: holds what the op in hand left there. */
const void *tsr_exec_buffer(const tsr_exec *x, tsr_step step, int buffer);

#endif

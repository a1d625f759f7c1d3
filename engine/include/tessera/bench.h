/*
 * Bench: how fast the ops of a model and whole decodes are here. Inputs are noise: speed does not
 * depend on them. Every number is measured in the call; medians over the repetitions.
 */
#ifndef TESSERA_BENCH_H
#define TESSERA_BENCH_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_bench_params {
    tsr_extent extent;    /* latents of the video */
    tsr_plan_params plan; /* as for tsr_plan_create */
    int repetitions;      /* of everything; at least 1 */
} tsr_bench_params;
#define TSR_BENCH_PARAMS_DEFAULT                                                                   \
    { .extent = {2, 16, 16}, .plan = TSR_PLAN_PARAMS_DEFAULT, .repetitions = 3 }

/* All ops of one shape in one kind of step of one tile. */
typedef struct tsr_bench_op {
    const char *step;  /* "first", "second", "later" */
    const char *shape; /* "conv 3x3x3 256->256 @ 4x64x64" */
    int count;         /* ops of that shape in the step */
    double seconds;    /* of all of them together */
    double share;      /* of the step's time, 0..1 */
    double flops;      /* of all of them together; 0 for ops that are bound by memory */
    double bytes;      /* they read and write */
    double ceiling; /* FLOP/s of the device's plain matrix product of the same sizes; 0: unknown, or
                       no product */
} tsr_bench_op;

/* One whole decode, without the first, which warms up. */
typedef struct tsr_bench_decode {
    const tsr_plan_info *plan;
    tsr_result result; /* of the repetition with the median time */
    double cold;       /* seconds of the first one, preparation included */
    double fastest, slowest;
} tsr_bench_decode;

/* Runs every kind of step that the video has on one tile of its plan and reports each shape once,
 * the slowest first within a step. The strings are valid during the call. */
TSR_API tsr_status tsr_bench_ops(tsr_engine *e, tsr_model *m, const tsr_bench_params *params,
    void (*on_op)(void *user, const tsr_bench_op *op), void *user);
/* Decodes a video of noise repetitions + 1 times, the frames going nowhere. The result's plan is
 * valid until the callback returns. */
TSR_API tsr_status tsr_bench_decodes(tsr_engine *e, tsr_model *m, const tsr_bench_params *params,
    void (*on_decode)(void *user, const tsr_bench_decode *decode), void *user);

#ifdef __cplusplus
}
#endif
#endif

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
#define TSR_BENCH_PARAMS_DEFAULT                                                                                       \
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
    double ceiling;    /* FLOP/s of the device's plain matrix product of the same sizes; 0: unknown, or
                          no product */
    double copy;       /* bytes/s of a plain copy of as many bytes as one of them reads and writes, by the same threads:
                          for ops that are bound by memory; 0: unknown */
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

/* ---------------------------------------------------------------- cards that are not here */

/* A card by its figures; engine/session/roofline.c says where they come from. */
typedef struct tsr_card {
    const char *name, *text;  /* "5090"; in words */
    double rate16, int8, fp8; /* dense FLOP/s of its best instructions, f32 or s32 sums; fp8: 0 where it has none */
    double bandwidth;         /* bytes/s */
    int64_t memory;           /* bytes */
    double efficiency;        /* share of its rates that convolutions are assumed to reach */
} tsr_card;
#define TSR_CARD_BANDWIDTH 0.85 /* share of its bandwidth that is assumed */
#define TSR_CARD_LAUNCH 3e-6    /* seconds that are assumed from one launch of a graph to the next */

/* A decode as it is predicted; the plan is valid until the callback returns. */
typedef struct tsr_card_decode {
    const tsr_plan_info *plan;
    double seconds, per_frame; /* of the whole; of a frame of the last step: bound by compute and memory alone */
} tsr_card_decode;

/* "5070 Ti", "5090", "4090", "3090", "H100", "H200", in any spelling; NULL: not one of them. */
TSR_API const tsr_card *tsr_card_find(const char *name);
/* As tsr_bench_ops and tsr_bench_decodes, predicted for a card by a roofline: needs no device. Ceilings are the card's
 * rates. */
TSR_API tsr_status tsr_bench_card(tsr_model *m, const tsr_bench_params *params, const tsr_card *card,
    void (*on_op)(void *user, const tsr_bench_op *op), void (*on_decode)(void *user, const tsr_card_decode *decode),
    void *user);

#ifdef __cplusplus
}
#endif
#endif

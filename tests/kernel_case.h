/*
 * One op with inputs of its own, as kernelcheck runs it: a program of two buffers and an op, in
 * memory with guard bytes around every piece, and the running of it by one tier.
 */
#ifndef TSR_TESTS_KERNEL_CASE_H
#define TSR_TESTS_KERNEL_CASE_H

#include "backend/cpu/ref.h"
#include "kernel_spec.h"

const char *spec_text(char buf[160], const spec *s);

/* What the inputs are like. */
typedef enum fill {
    FILL_RANDOM,
    FILL_OUTLIERS,
    FILL_LARGE,
    FILL_TINY,
    FILL_ZERO,
    FILL_OFFSET,
    FILL_NOT_FINITE,
    FILL_SCORES, /* ATTENTION: scores that are infinite; else random */
    FILLS
} fill;
extern const char *const fill_name[FILLS];
extern uint64_t case_seed; /* of the inputs to come */

typedef struct guarded {
    char *block, *at;
    size_t bytes;
} guarded;

enum { IN, OUT, STATS, BUFFERS };
enum { BEFORE = 1, AFTER = 1 }; /* frames of a buffer that the op has nothing to do with */

typedef struct world { /* inputs, and what one tier makes of them */
    const spec *s;
    tsr_op op;
    tsr_buffer buffer[BUFFERS];
    tsr_kernel kernel;
    tsr_cache cache;
    tsr_quant quant[2];
    tsr_program program;
    tsr_code_range range; /* of the codes in IN, or as the op chose it for OUT */
    guarded in, out, stats, cached, input, slot, affine, weights, biases, scales;
} world;

enum { GUARDS = 10 };

void world_describe(world *v, const spec *s); /* without memory: for asking tiers whether they can */
void world_new(world *v, const spec *s, fill f);
void world_copy(world *v, world *from); /* the same inputs in memory of their own */
void world_free(world *v);
size_t frame_bytes(const tsr_buffer *b);
int rows_summed(const spec *s);            /* of a picture, by its statistics */
bool has_range(const world *v, int which); /* u8 codes whose range is chosen while decoding */

typedef struct bound {
    const tsr_tier *tier;
    tsr_op_io io;
    tsr_packed packed;
    guarded kernel, scratch;
} bound;

const tsr_op_impl *impl_of(const tsr_tier *t, const world *v);
bool tier_runs(const tsr_tier *t, const world *v);
tsr_status bound_new(bound *b, const tsr_tier *t, world *v);
void bound_free(bound *b);
/* Runs the op once; what is wrong but numbers, or NULL. */
const char *run_once(const tsr_tier *t, world *v);

#endif

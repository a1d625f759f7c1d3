/* A step's list of launches while it is filled: bind.c, and bind_cache.c for what is remembered between steps. */
#ifndef TSR_CUDA_BIND_H
#define TSR_CUDA_BIND_H

#include "backend/cuda/device.h"
#include "plan/moves.h"

typedef struct tsr_binder {
    tsr_exec *x;
    const tsr_program *p;
    tsr_step kind;
    int op;
    /* Caches on the host: of the step's transfers (plan/moves.h) the one that comes next; where in the list that of
     * each op ends; that of the last one out of each cache; those that the next launch has to wait for, -1: none. */
    tsr_moves moves;
    int next_move;
    int *transfer, *saved; /* [ops], [caches] */
    int awaits[TSR_CUDA_CHAINS];
} tsr_binder;

/* Adds a launch, or a copy, or NULL where memory ends: tsr_bind_no_memory(). The list may move. */
tsr_cuda_launch *tsr_bind_add(tsr_binder *b);
tsr_cuda_launch *tsr_bind_pass(tsr_binder *b, tsr_cuda_pass pass, unsigned gx, unsigned gy, unsigned shared);
tsr_status tsr_bind_no_memory(void);
unsigned tsr_bind_blocks(int64_t n, int64_t each);

void *tsr_bind_pointer(CUdeviceptr at);
size_t tsr_bind_frame_bytes(const tsr_buffer *b);
void *tsr_bind_frame(const tsr_binder *b, int buffer, int f); /* frame f of a buffer of the program */

/* bind_cache.c */

size_t tsr_bind_codes_bytes(const tsr_cache *c); /* its frames, without the range beside u8 codes */
/* NORM to u8: chooses the range and fills in what the norm needs of it; codes that the conv reads from the cache itself
 * follow the range. */
tsr_status tsr_bind_range(tsr_binder *b, const tsr_op *op, tsr_norm_args *norm);
tsr_status tsr_bind_load(tsr_binder *b, const tsr_op *op);
tsr_status tsr_bind_save(tsr_binder *b, const tsr_op *op);
void tsr_bind_await_nothing(int awaits[TSR_CUDA_CHAINS]);
/* What of the step's transfers is due before the binder's op. */
tsr_status tsr_bind_moves(tsr_binder *b);

#endif

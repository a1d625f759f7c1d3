/*
 * How a plan whose caches live on the host is run, the same on every backend: the transfers of a step, in order.
 *
 * A backend walks through the list beside its ops. Transfers run beside the ops, in the order in which they begin
 * (those of one direction at least); what the list calls done has to be waited for. A step that ends before its end
 * leaves its transfers to the next one, which waits for them all.
 *
 * What a cache's u8 codes stand for is not moved: the backend keeps the tsr_code_range of every cache from the op that
 * saves it. When the codes of a CACHE_LOAD are there, they become codes of the range that the norm before has chosen.
 */
#ifndef TSR_MOVES_H
#define TSR_MOVES_H

#include "plan/plan.h"

/* In the order in which they come where several are before the same op. */
typedef enum tsr_move_kind {
    TSR_MOVE_OUT_DONE, /* the transfer out has to be done: its buffer's memory is used again */
    TSR_MOVE_IN,       /* the transfer in begins; what last saved the cache has to be done */
    TSR_MOVE_IN_DONE,  /* the op is the load: the transfer in has to be done */
    TSR_MOVE_OUT,      /* the op is the save, which is nothing else: the transfer out begins */
} tsr_move_kind;

typedef struct tsr_move {
    tsr_move_kind kind;
    int before; /* op; the number of ops: before the next step's op 0 */
    int op;     /* the CACHE_LOAD or CACHE_SAVE whose transfer it is */
} tsr_move;

typedef struct tsr_moves {
    int n;
    tsr_move *move; /* in order */
} tsr_moves;

/* Of a step of the plan; none where no cache lives on the host. */
tsr_status tsr_moves_create(tsr_moves *out, const tsr_plan *p, tsr_step step);
void tsr_moves_destroy(tsr_moves *m);

/* What a CACHE_LOAD or CACHE_SAVE of whole frames copies. */
typedef struct tsr_move_span {
    size_t arena, host; /* offsets in the arena and in the host block */
    size_t bytes;
    int times; /* saved so often, one behind the other on the host: a frame that fills the whole cache */
} tsr_move_span;
tsr_move_span tsr_move_span_of(const tsr_plan *p, tsr_step step, int op);

#endif

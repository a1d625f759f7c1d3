/* What the stages of a decode share: bounded rings between threads, and the first failure, which
 * stops them all. */
#ifndef TSR_FLOW_H
#define TSR_FLOW_H

#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct tsr_flow {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything below, or any ring */
    bool stopped;
    tsr_status status; /* of the stage that failed first */
    char message[1024];
    atomic_bool *cancel; /* raised as well, for whoever works without the lock */
} tsr_flow;

tsr_status tsr_flow_init(tsr_flow *f, atomic_bool *cancel);
void tsr_flow_destroy(tsr_flow *f);
/* Stops every stage; the first call's status and the calling thread's tsr_last_error() are kept. */
void tsr_flow_fail(tsr_flow *f, tsr_status status);
bool tsr_flow_stopped(tsr_flow *f);

/* A ring with one producer and one consumer. Places are numbered 0 .. size-1 in turn; whoever holds
 * one may use what lies there without the lock. */
typedef struct tsr_ring {
    tsr_flow *flow;
    int size;
    int64_t filled, emptied;
    bool closed;
} tsr_ring;

/* Called about 20 times a second while its thread waits; may be NULL. */
typedef void (*tsr_tick_fn)(void *ctx);

/* The producer's: a place to fill, once there is one; -1 where the flow stopped. */
int tsr_ring_reserve(tsr_ring *r, tsr_tick_fn tick, void *ctx);
void tsr_ring_commit(tsr_ring *r);
void tsr_ring_close(tsr_ring *r); /* nothing more will come */
/* The consumer's: the next filled place; -1 where the flow stopped, or the ring is closed and
 * empty. */
int tsr_ring_next(tsr_ring *r);
void tsr_ring_release(tsr_ring *r);
/* Waits until the ring is closed and empty (true) or the flow stopped (false). */
bool tsr_ring_drained(tsr_ring *r, tsr_tick_fn tick, void *ctx);

#endif

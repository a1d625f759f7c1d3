#include "session/flow.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* One lock and one condition for all rings of a decode: they change a few times a frame, each
 * change wakes at most three threads. */

enum { TICK_MS = 50 };

tsr_status tsr_flow_init(tsr_flow *f, atomic_bool *cancel) {
    *f = (tsr_flow){.cancel = cancel};
    pthread_condattr_t clock;
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&f->changed, &clock);
    pthread_condattr_destroy(&clock);
    if (failed) {
        pthread_mutex_destroy(&f->lock);
        return tsr_fail(TSR_ERR_MEMORY, "decode: no condition variable to be had: %s", strerror(failed));
    }
    return TSR_OK;
}

void tsr_flow_destroy(tsr_flow *f) {
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
}

void tsr_flow_fail(tsr_flow *f, tsr_status status) {
    pthread_mutex_lock(&f->lock);
    if (!f->stopped) {
        f->stopped = true;
        f->status = status;
        snprintf(f->message, sizeof f->message, "%s", tsr_last_error());
        atomic_store(f->cancel, true);
        pthread_cond_broadcast(&f->changed);
    }
    pthread_mutex_unlock(&f->lock);
}

bool tsr_flow_stopped(tsr_flow *f) {
    pthread_mutex_lock(&f->lock);
    bool stopped = f->stopped;
    pthread_mutex_unlock(&f->lock);
    return stopped;
}

/* With the lock held: waits for a change. A thread with a tick wakes now and then for it. */
static void wait_change(tsr_flow *f, tsr_tick_fn tick, void *ctx) {
    if (!tick) {
        pthread_cond_wait(&f->changed, &f->lock);
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&f->changed, &f->lock, &until);
    pthread_mutex_unlock(&f->lock);
    tick(ctx);
    pthread_mutex_lock(&f->lock);
}

int tsr_ring_reserve(tsr_ring *r, tsr_tick_fn tick, void *ctx) {
    tsr_flow *f = r->flow;
    pthread_mutex_lock(&f->lock);
    while (!f->stopped && r->filled - r->emptied == r->size)
        wait_change(f, tick, ctx);
    int place = f->stopped ? -1 : (int)(r->filled % r->size);
    pthread_mutex_unlock(&f->lock);
    return place;
}

void tsr_ring_commit(tsr_ring *r) {
    pthread_mutex_lock(&r->flow->lock);
    r->filled++;
    pthread_cond_broadcast(&r->flow->changed);
    pthread_mutex_unlock(&r->flow->lock);
}

void tsr_ring_close(tsr_ring *r) {
    pthread_mutex_lock(&r->flow->lock);
    r->closed = true;
    pthread_cond_broadcast(&r->flow->changed);
    pthread_mutex_unlock(&r->flow->lock);
}

int tsr_ring_next(tsr_ring *r) {
    tsr_flow *f = r->flow;
    pthread_mutex_lock(&f->lock);
    while (!f->stopped && !r->closed && r->filled == r->emptied)
        wait_change(f, NULL, NULL);
    int place = f->stopped || r->filled == r->emptied ? -1 : (int)(r->emptied % r->size);
    pthread_mutex_unlock(&f->lock);
    return place;
}

void tsr_ring_release(tsr_ring *r) {
    pthread_mutex_lock(&r->flow->lock);
    r->emptied++;
    pthread_cond_broadcast(&r->flow->changed);
    pthread_mutex_unlock(&r->flow->lock);
}

bool tsr_ring_drained(tsr_ring *r, tsr_tick_fn tick, void *ctx) {
    tsr_flow *f = r->flow;
    pthread_mutex_lock(&f->lock);
    while (!f->stopped && !(r->closed && r->filled == r->emptied))
        wait_change(f, tick, ctx);
    bool drained = !f->stopped;
    pthread_mutex_unlock(&f->lock);
    return drained;
}

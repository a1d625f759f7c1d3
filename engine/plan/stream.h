/*
 * Caches that live on the host: which, and when they move. Only programs with joined heads stream: a cache is
 * transferred straight into the head of the buffer that its conv reads, and back out of the same buffer.
 */
#ifndef TSR_STREAM_H
#define TSR_STREAM_H

#include "plan/pack.h"
#include "plan/plan.h"

/* Bytes alive at each op: out[ops]. */
void tsr_stream_profile(const tsr_life *life, int n, int ops, size_t align, int64_t *out);
/* Chooses as few transfers as make arena and resident caches fit into `room` (all: every cache): on_host[caches].
 * Returns the bytes of the caches that stay, or -1 where even the arena alone does not fit. `profile` is of the
 * program without prefetching. */
int64_t tsr_stream_pick(
    const tsr_program *p, size_t align, const int64_t *profile, int64_t room, bool all, bool *on_host);
/* Starts transfers in as early and ends transfers out as late as `limit` bytes of arena allow: move_at[ops] as in
 * tsr_plan, and the lives that follow. */
void tsr_stream_schedule(const tsr_program *p, size_t align, const bool *on_host, int64_t limit, int64_t *profile,
    tsr_life *life, int *move_at);
/* Seconds of a step: compute and one transfer each way at a time, waiting for each other where they must. */
double tsr_stream_seconds(const tsr_target *t, const tsr_program *p, const bool *on_host, const int *move_at);

#endif

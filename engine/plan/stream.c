#include "plan/stream.h"
#include "plan/pace.h"

#include <stdlib.h>
#include <string.h>

void tsr_stream_profile(const tsr_life *life, int n, int ops, size_t align, int64_t *out) {
    memset(out, 0, (size_t)ops * sizeof *out);
    for (int i = 0; i < n; i++) {
        const tsr_life *l = &life[i];
        for (int op = l->first; op <= l->last; op++)
            out[op] += (int64_t)(tsr_align(l->bytes, align) - l->lead);
        for (int op = l->lead_first; l->lead && op <= l->last; op++)
            out[op] += (int64_t)l->lead;
    }
}

static bool loads(const tsr_op *op, const bool *on_host) {
    return op->kind == TSR_OP_CACHE_LOAD && on_host[op->cache];
}

static bool saves(const tsr_op *op, const bool *on_host) {
    return op->kind == TSR_OP_CACHE_SAVE && on_host[op->cache];
}

/* ---------------------------------------------------------------- which */

/* Loads of a cache in a step: what a byte of it costs on the link. */
static int times_loaded(const tsr_program *p, int cache) {
    int n = 0;
    for (int i = 0; i < p->ops; i++)
        n += p->op[i].kind == TSR_OP_CACHE_LOAD && p->op[i].cache == cache;
    return n;
}

/* Of the caches on this side, the one that is loaded least (or most); the largest of those. */
static int next_cache(
    const tsr_program *p, const bool *on_host, bool side, const int *times, bool most, int64_t at_most) {
    int best = -1;
    for (int i = 0; i < p->caches; i++) {
        if (on_host[i] != side || (int64_t)p->cache[i].bytes > at_most)
            continue;
        int d = best < 0 ? 0 : most ? times[best] - times[i] : times[i] - times[best];
        if (best < 0 || d < 0 || (d == 0 && p->cache[i].bytes > p->cache[best].bytes))
            best = i;
    }
    return best;
}

int64_t tsr_stream_pick(
    const tsr_program *p, size_t align, const int64_t *profile, int64_t room, bool all, bool *on_host) {
    int64_t peak = 0, resident = 0;
    for (int i = 0; i < p->ops; i++)
        peak = profile[i] > peak ? profile[i] : peak;
    int *times = malloc((size_t)p->caches * sizeof *times);
    if (peak > room || !times) {
        free(times);
        return -1;
    }
    for (int i = 0; i < p->caches; i++) {
        times[i] = times_loaded(p, i);
        on_host[i] = all;
        resident += all ? 0 : (int64_t)tsr_align(p->cache[i].bytes, align);
    }
    while (peak + resident > room) { /* ends: without caches it fits */
        int i = next_cache(p, on_host, false, times, false, INT64_MAX);
        on_host[i] = true;
        resident -= (int64_t)tsr_align(p->cache[i].bytes, align);
    }
    for (int i; !all;) { /* the last one out may have been large: bring back what fits */
        int64_t spare = room - peak - resident - (int64_t)align;
        if (spare <= 0 || (i = next_cache(p, on_host, true, times, true, spare)) < 0)
            break;
        on_host[i] = false;
        resident += (int64_t)tsr_align(p->cache[i].bytes, align);
    }
    free(times);
    return resident;
}

/* ---------------------------------------------------------------- when */

/* Moves a transfer in from op `load` down to as early as fits; not before `earliest`. */
static int begin_early(int64_t *profile, int64_t bytes, int64_t limit, int load, int earliest) {
    int at = load;
    while (at > earliest && profile[at - 1] + bytes <= limit)
        profile[--at] += bytes;
    return at;
}

/* The op before which a transfer out must be done: at most `latest`. */
static int end_late(int64_t *profile, int64_t bytes, int64_t limit, int last, int latest) {
    int at = last + 1;
    while (at < latest && profile[at] + bytes <= limit)
        profile[at++] += bytes;
    return at;
}

void tsr_stream_schedule(const tsr_program *p, size_t align, const bool *on_host, int64_t limit, int64_t *profile,
    tsr_life *life, int *move_at) {
    int before = 0; /* the load before: one transfer is in flight while another is used */
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        move_at[i] = -1;
        if (loads(op, on_host)) {
            tsr_life *l = &life[op->out.buf];
            int earliest = before;
            for (int k = i - 1; k >= earliest; k--) /* what the step itself saved has to be there */
                if (saves(&p->op[k], on_host) && p->op[k].cache == op->cache)
                    earliest = k + 1;
            move_at[i] = l->lead_first = begin_early(profile, (int64_t)l->lead, limit, i, earliest);
            before = i;
        } else if (saves(op, on_host)) {
            tsr_life *l = &life[op->in.buf];
            int latest = i + 1;
            while (latest < p->ops && !saves(&p->op[latest], on_host))
                latest++;
            int last = l->last;
            move_at[i] = end_late(profile, (int64_t)tsr_align(l->bytes, align), limit, last, latest);
            l->last = move_at[i] - 1;
        }
    }
}

double tsr_stream_seconds(const tsr_target *t, const tsr_program *p, const bool *on_host, const int *move_at) {
    double now = 0, in_free = 0, out_free = 0;
    double *done = calloc((size_t)p->ops + (size_t)p->caches + 1, sizeof *done); /* of transfers; then [caches] out */
    if (!done)
        return 0;
    double *saved = done + p->ops;
    for (int i = 0; i < p->ops; i++) {
        const tsr_op *op = &p->op[i];
        for (int k = 0; k < p->ops; k++) { /* what has to be done, and what may begin, before this op */
            if (move_at[k] != i)
                continue;
            double seconds = tsr_link_seconds(t, (double)p->cache[p->op[k].cache].bytes);
            if (k < i && done[k] > now)
                now = done[k];
            if (k >= i) {
                double begin = in_free > now ? in_free : now;
                begin = saved[p->op[k].cache] > begin ? saved[p->op[k].cache] : begin;
                in_free = done[k] = begin + seconds;
            }
        }
        if (loads(op, on_host)) {
            now = done[i] > now ? done[i] : now;
        } else if (saves(op, on_host)) {
            out_free = done[i] =
                (out_free > now ? out_free : now) + tsr_link_seconds(t, (double)p->cache[op->cache].bytes);
            saved[op->cache] = done[i];
        } else {
            now += tsr_op_seconds(t, p, op);
        }
    }
    double end = out_free > in_free ? out_free : in_free; /* what the link still does bounds the pace of steps */
    end = now > end ? now : end;
    free(done);
    return end;
}

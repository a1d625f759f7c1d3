#include "plan/pack.h"

#include <stdlib.h>
#include <string.h>

/* Finding the smallest block is NP-hard. Greedy placement, large buffers first into the tightest hole, nearly always
 * meets the bound for networks, whose peak is a few wide layers; where it does not, the buffer on top of the heap is
 * the one that came too late, so it goes first in the next round. */

size_t tsr_pack_bound(const tsr_life *life, int n, size_t align) {
    size_t most = 0, live = 0, all = 0, rounded;
    int ops = 0;
    for (int i = 0; i < n; i++) { /* after this, no sum of some of them overflows */
        if (!tsr_add(life[i].bytes, align - 1, &rounded) || !tsr_add(all, rounded, &all))
            return SIZE_MAX;
        if (life[i].last >= ops)
            ops = life[i].last + 1;
    }
    size_t *change = calloc((size_t)ops + 1, sizeof *change); /* of the live bytes at each op, modulo 2^64 */
    if (!change)
        return SIZE_MAX;
    for (int i = 0; i < n; i++) {
        size_t bytes = tsr_align(life[i].bytes, align);
        change[life[i].first] += bytes - life[i].lead;
        change[life[i].last + 1] -= bytes;
        if (life[i].lead)
            change[life[i].lead_first] += life[i].lead;
    }
    for (int op = 0; op < ops; op++) {
        live += change[op];
        most = live > most ? live : most;
    }
    free(change);
    return most;
}

typedef struct range { /* places (low, high) that a buffer cannot take */
    size_t low, high;
} range;

typedef struct packer {
    const tsr_life *life;
    size_t align;
    int *order; /* [n] in which buffers are placed; those without bytes are not */
    int n;
    size_t *at;   /* [n] */
    range *taken; /* [4 n] scratch */
} packer;

static size_t bytes_of(const packer *p, int i) {
    return tsr_align(p->life[i].bytes, p->align);
}

typedef struct part { /* the lead or the rest of a buffer: offset, bytes, lifetime */
    size_t at, bytes;
    int first, last;
} part;

static int parts_of(const packer *p, int i, part out[2]) {
    const tsr_life *l = &p->life[i];
    int n = 0;
    if (l->lead)
        out[n++] = (part){0, l->lead, l->lead_first, l->last};
    if (bytes_of(p, i) > l->lead)
        out[n++] = (part){l->lead, bytes_of(p, i) - l->lead, l->first, l->last};
    return n;
}

static int born(const tsr_life *l) {
    return l->lead && l->lead_first < l->first ? l->lead_first : l->first;
}

/* The places of buffer i that placed buffer j rules out, sorted into p->taken. */
static int rule_out(const packer *p, int i, int j, int taken) {
    part a[2], b[2];
    if (born(&p->life[i]) > p->life[j].last || born(&p->life[j]) > p->life[i].last)
        return taken;
    int as = parts_of(p, i, a), bs = parts_of(p, j, b);
    for (int k = 0; k < as * bs; k++) {
        const part *mine = &a[k / bs], *its = &b[k % bs];
        if (mine->last < its->first || its->last < mine->first)
            continue;
        size_t begin = p->at[j] + its->at, end = begin + its->bytes, reach = mine->at + mine->bytes;
        if (end <= mine->at)
            continue;
        range r = {begin > reach ? begin - reach : 0, end - mine->at};
        if (begin < reach) /* even place 0 */
            r.low = SIZE_MAX;
        int to = taken++;
        for (; to > 0 && p->taken[to - 1].low + 1 > r.low + 1; to--) /* SIZE_MAX first */
            p->taken[to] = p->taken[to - 1];
        p->taken[to] = r;
    }
    return taken;
}

/* The tightest hole for buffer i among the placed ones it lives with, or above them. */
static size_t place(const packer *p, int i, int placed) {
    size_t best = SIZE_MAX, best_room = SIZE_MAX, from = 0;
    int taken = 0;
    for (int k = 0; k < placed; k++)
        taken = rule_out(p, i, p->order[k], taken);
    for (int k = 0; k < taken; k++) {
        const range *r = &p->taken[k];
        if (r->low != SIZE_MAX && from <= r->low && r->low - from < best_room)
            best = from, best_room = r->low - from;
        if (r->high > from)
            from = tsr_align(r->high, p->align);
    }
    return best == SIZE_MAX ? from : best;
}

static size_t place_all(packer *p) {
    size_t bytes = 0;
    for (int k = 0; k < p->n; k++) {
        int i = p->order[k];
        p->at[i] = place(p, i, k);
        if (p->at[i] + bytes_of(p, i) > bytes)
            bytes = p->at[i] + bytes_of(p, i);
    }
    return bytes;
}

typedef enum order_by { BY_BYTES, BY_AREA, BY_LENGTH, BY_TIME, ORDERS } order_by;

static double key(const tsr_life *l, order_by by) {
    double length = l->last - l->first + 1;
    return by == BY_BYTES  ? (double)l->bytes
           : by == BY_AREA ? (double)l->bytes * length
           : by == BY_TIME ? -l->first
                           : length;
}

/* Orders those that have bytes. */
static void sort(packer *p, order_by by, int n) {
    p->n = 0;
    for (int i = 0; i < n; i++) {
        if (!p->life[i].bytes)
            continue;
        int to = p->n++;
        double mine = key(&p->life[i], by);
        for (; to > 0 && key(&p->life[p->order[to - 1]], by) < mine; to--)
            p->order[to] = p->order[to - 1];
        p->order[to] = i;
    }
}

/* Moves the topmost buffer to the front of the order. */
static void promote(packer *p, size_t top) {
    int k = 0;
    while (p->at[p->order[k]] + bytes_of(p, p->order[k]) != top)
        k++;
    int i = p->order[k];
    memmove(p->order + 1, p->order, (size_t)k * sizeof *p->order);
    p->order[0] = i;
}

tsr_status tsr_pack(const tsr_life *life, int n, size_t align, int effort, size_t enough, size_t *at, size_t *bytes) {
    size_t bound = tsr_pack_bound(life, n, align), best = SIZE_MAX;
    if (bound == SIZE_MAX)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "plan: the sizes of a step's buffers overflow; the picture is too large");
    if (enough < bound)
        enough = bound;
    packer p = {life, align, malloc(((size_t)n + 1) * sizeof *p.order), 0, calloc((size_t)n + 1, sizeof *p.at),
        malloc((4 * (size_t)n + 1) * sizeof *p.taken)};
    if (!p.order || !p.at || !p.taken) {
        free(p.order), free(p.at), free(p.taken);
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    }
    for (order_by by = 0; by < ORDERS && best > enough; by++) {
        sort(&p, by, n);
        for (int round = 0; round <= effort && best > enough; round++) {
            size_t now = place_all(&p);
            if (now < best) {
                best = now;
                memcpy(at, p.at, (size_t)n * sizeof *at);
            }
            if (p.n)
                promote(&p, now);
        }
    }
    *bytes = best;
    free(p.order), free(p.at), free(p.taken);
    return TSR_OK;
}

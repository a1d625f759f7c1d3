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
        change[life[i].first] += tsr_align(life[i].bytes, align);
        change[life[i].last + 1] -= tsr_align(life[i].bytes, align);
    }
    for (int op = 0; op < ops; op++) {
        live += change[op];
        most = live > most ? live : most;
    }
    free(change);
    return most;
}

typedef struct packer {
    const tsr_life *life;
    size_t align;
    int n;
    int *order;  /* [n] in which buffers are placed */
    int *placed; /* [n] those placed so far, by offset */
    size_t *at;  /* [n] */
} packer;

static size_t bytes_of(const packer *p, int i) {
    return tsr_align(p->life[i].bytes, p->align);
}

/* The tightest hole for buffer i among the placed ones it lives with, or on top of them. */
static size_t place(const packer *p, int i, int placed) {
    size_t need = bytes_of(p, i), top = 0, best = SIZE_MAX, best_hole = SIZE_MAX;
    for (int k = 0; k < placed; k++) {
        int j = p->placed[k];
        if (p->life[j].last < p->life[i].first || p->life[i].last < p->life[j].first)
            continue;
        if (p->at[j] > top) {
            size_t hole = p->at[j] - top;
            if (hole >= need && hole < best_hole)
                best = top, best_hole = hole;
        }
        size_t end = p->at[j] + bytes_of(p, j);
        if (end > top)
            top = end;
    }
    return best == SIZE_MAX ? top : best;
}

static size_t place_all(packer *p) {
    size_t bytes = 0;
    for (int k = 0; k < p->n; k++) {
        int i = p->order[k], to = k;
        p->at[i] = place(p, i, k);
        for (; to > 0 && p->at[p->placed[to - 1]] > p->at[i]; to--)
            p->placed[to] = p->placed[to - 1];
        p->placed[to] = i;
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

static void sort(packer *p, order_by by) {
    for (int k = 0; k < p->n; k++) {
        int to = k;
        double mine = key(&p->life[k], by);
        for (; to > 0 && key(&p->life[p->order[to - 1]], by) < mine; to--)
            p->order[to] = p->order[to - 1];
        p->order[to] = k;
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

tsr_status tsr_pack(const tsr_life *life, int n, size_t align, int effort, size_t *at, size_t *bytes) {
    size_t bound = tsr_pack_bound(life, n, align), best = SIZE_MAX;
    if (bound == SIZE_MAX)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "plan: the sizes of a step's buffers overflow; the picture is too large");
    packer p = {life, align, n, malloc(((size_t)n + 1) * sizeof(int)), malloc(((size_t)n + 1) * sizeof(int)),
        malloc(((size_t)n + 1) * sizeof(size_t))};
    if (!p.order || !p.placed || !p.at) {
        free(p.order), free(p.placed), free(p.at);
        return tsr_fail(TSR_ERR_MEMORY, "plan: out of memory");
    }
    for (order_by by = 0; by < ORDERS && best != bound; by++) {
        sort(&p, by);
        for (int round = 0; round <= effort && best != bound; round++) {
            size_t now = place_all(&p);
            if (now < best) {
                best = now;
                memcpy(at, p.at, (size_t)n * sizeof *at);
            }
            if (n)
                promote(&p, now);
        }
    }
    *bytes = best;
    free(p.order), free(p.placed), free(p.at);
    return TSR_OK;
}

/* Blue noise by void and cluster (Ulichney 1993): ranks 0..4095 on a torus, such that the points
 * below any rank are spread evenly. Made at first use, in some 20 ms, instead of kept as a table
 * nobody can check. */
#include "vulkan/internal.h"

#include <math.h>

enum { N = VK_DITHER, POINTS = N * N, REACH = 7 /* the kernel is below 2e-5 beyond */ };

typedef struct field {
    float kernel[2 * REACH + 1][2 * REACH + 1];
    float crowd[POINTS]; /* how close the set points are, summed */
    bool set[POINTS];
} field;

static void put(field *f, int p, bool on) {
    int x = p % N, y = p / N;
    f->set[p] = on;
    for (int dy = -REACH; dy <= REACH; dy++)
        for (int dx = -REACH; dx <= REACH; dx++) {
            float k = f->kernel[dy + REACH][dx + REACH];
            f->crowd[((y + dy) & (N - 1)) * N + ((x + dx) & (N - 1))] += on ? k : -k;
        }
}

/* The set point with the most company, or the empty one with the least. */
static int extreme(const field *f, bool set) {
    int best = -1;
    for (int p = 0; p < POINTS; p++)
        if (f->set[p] == set && (best < 0 || (set ? f->crowd[p] > f->crowd[best] : f->crowd[p] < f->crowd[best])))
            best = p;
    return best;
}

/* A tenth of the points, moved from clusters to voids until none wants to move. */
static int scatter(field *f) {
    uint32_t seed = 1;
    int n = 0;
    while (n < POINTS / 10) {
        seed = seed * 1664525u + 1013904223u;
        int p = (int)((seed >> 16) % POINTS);
        if (!f->set[p]) {
            put(f, p, true);
            n++;
        }
    }
    for (int i = 0; i < POINTS; i++) { /* the bound is against going in circles */
        int from = extreme(f, true);
        put(f, from, false);
        int to = extreme(f, false);
        put(f, to, true);
        if (to == from)
            break;
    }
    return n;
}

void tsr_vk_dither_pattern(float *out) {
    field f = {0};
    for (int dy = -REACH; dy <= REACH; dy++)
        for (int dx = -REACH; dx <= REACH; dx++)
            f.kernel[dy + REACH][dx + REACH] = expf(-(float)(dx * dx + dy * dy) / (2 * 1.5f * 1.5f));
    int begin = scatter(&f);
    field down = f; /* ranks below `begin`: taken out again, tightest cluster first */
    for (int k = begin - 1; k >= 0; k--) {
        int p = extreme(&down, true);
        put(&down, p, false);
        out[p] = ((float)k + 0.5f) / POINTS;
    }
    for (int k = begin; k < POINTS; k++) { /* the others: into the largest void */
        int p = extreme(&f, false);
        put(&f, p, true);
        out[p] = ((float)k + 0.5f) / POINTS;
    }
}

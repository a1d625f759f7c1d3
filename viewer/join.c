#include "join.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool join_open(join *j, int overlap, int width, int height) {
    *j = (join){.overlap = overlap, .values = 3 * (size_t)width * (size_t)height};
    if (overlap)
        j->tail = malloc((size_t)overlap * j->values * sizeof *j->tail);
    return !overlap || j->tail;
}

void join_close(join *j) {
    free(j->tail);
    *j = (join){0};
}

/* As the pipelines that made the latents do: a third of the overlap the old one, a third a raised cosine, a third the
 * new one; of two frames one each; a single frame is the old one's. */
double join_weight(int64_t k, int m) {
    if (m < 3)
        return k == 0 ? 1 : 0;
    double s = (double)k / (m - 1), u = fmin(fmax((s - 1.0 / 3) * 3, 0), 1);
    return 0.5 + 0.5 * cos(M_PI * u);
}

void join_keep(join *j, int64_t k, const float *frame) {
    memcpy(j->tail + (size_t)k * j->values, frame, j->values * sizeof *frame);
}

void join_fade(const join *j, int64_t k, float *frame) {
    const float *old = j->tail + (size_t)k * j->values;
    float w = (float)join_weight(k, j->overlap);
    for (size_t i = 0; i < j->values; i++)
        frame[i] = w * old[i] + (1 - w) * frame[i];
}

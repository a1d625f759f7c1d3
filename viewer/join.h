/* Videos that overlap in time: the last frames of one fade into the first of the next. */
#ifndef TSR_JOIN_H
#define TSR_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct join {
    int overlap;   /* frames; 0: videos follow each other */
    size_t values; /* floats of a frame */
    float *tail;   /* [overlap][values]: of the video before, as decoded, not clamped */
} join;

/* False: no memory. Frames are width x height x 3 floats in any order. */
bool join_open(join *j, int overlap, int width, int height);
void join_close(join *j);
/* Frame k of the overlap, of the video that ends. */
void join_keep(join *j, int64_t k, const float *frame);
/* Frame k of the video that begins becomes the mix of both. */
void join_fade(const join *j, int64_t k, float *frame);
/* The share of the video that ends in frame k of m. */
double join_weight(int64_t k, int m);

#endif

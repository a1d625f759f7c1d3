/* Balanced tiles along one axis, where they hand over, and the weights of the fade. All in the unit passed in. */
#ifndef TSR_SPANS_H
#define TSR_SPANS_H

#include "core/core.h"

typedef struct tsr_span {
    int begin, end; /* [begin, end) */
} tsr_span;

/* The fewest spans of at most `tile` that cover [0, total), overlap by at least `overlap`, and are all the same
 * length, the first and last flush with the ends. Writes at most `most` spans, returns how many there are.
 * total >= 1, tile >= 1, 0 <= overlap <= tile/2. */
int tsr_spans(int total, int tile, int overlap, tsr_span *out, int most);
/* The length that these spans have: at most `tile`, less where balance allows. */
int tsr_span_length(int total, int tile, int overlap);
/* Where span i hands over to i+1: their overlap, cut symmetrically so that seams never meet. n-1 seams. */
void tsr_seams(const tsr_span *spans, int n, tsr_span *out);
/* Weights of span i, end-begin floats: a raised cosine across each seam. At most two spans have a weight at a
 * point, and the weights sum to 1. */
void tsr_fade(const tsr_span *spans, int n, int i, float *out);

#endif

#include "plan/spans.h"

#include <math.h>

static int64_t ceil_div(int64_t a, int64_t b) { /* a >= 0, b > 0 */
    return (a + b - 1) / b;
}

static int64_t span_count(int total, int tile, int overlap) {
    return total <= tile ? 1 : ceil_div((int64_t)total - overlap, tile - overlap);
}

int tsr_span_length(int total, int tile, int overlap) {
    int64_t n = span_count(total, tile, overlap);
    return (int)ceil_div(total + (n - 1) * overlap, n);
}

int tsr_spans(int total, int tile, int overlap, tsr_span *out, int most) {
    int64_t n = span_count(total, tile, overlap);
    int length = tsr_span_length(total, tile, overlap);
    for (int64_t i = 0; i < n && i < most; i++) {
        int begin = n == 1 ? 0 : (int)(((total - length) * i + (n - 1) / 2) / (n - 1)); /* rounded */
        out[i] = (tsr_span){begin, begin + length};
    }
    return (int)n;
}

/* Three tiles meet where an overlap is longer than a stride; a seam of one stride never meets the next. */
static tsr_span seam(tsr_span a, tsr_span b) {
    int64_t stride = (int64_t)b.begin - a.begin, cut = ((int64_t)a.end - b.begin - stride + 1) / 2;
    if (cut < 0)
        cut = 0;
    return (tsr_span){(int)(b.begin + cut), (int)(a.end - cut)};
}

void tsr_seams(const tsr_span *spans, int n, tsr_span *out) {
    for (int i = 0; i + 1 < n; i++)
        out[i] = seam(spans[i], spans[i + 1]);
}

/* Rises from 0 to 1 across the seam; a seam without length is a step. */
static double rise(double x, tsr_span s) {
    double u = (x - s.begin) / fmax(1e-3, (double)s.end - s.begin);
    return 0.5 - 0.5 * cos(fmin(1, fmax(0, u)) * M_PI);
}

void tsr_fade(const tsr_span *spans, int n, int i, float *out) {
    tsr_span s = spans[i], before = {0}, after = {0};
    if (i > 0)
        before = seam(spans[i - 1], s);
    if (i + 1 < n)
        after = seam(s, spans[i + 1]);
    for (int p = s.begin; p < s.end; p++) {
        double x = p + 0.5, w = 1;
        if (i > 0)
            w *= rise(x, before);
        if (i + 1 < n)
            w *= 1 - rise(x, after);
        out[p - s.begin] = (float)w;
    }
}

/*
 * Attention over the pixels of each frame by itself: one head, online softmax, a query at a time.
 *
 * Scores that are not finite, in every tier, as exp(score - largest) / sum says: -inf beside finite
 * ones weighs 0, and a query that has +inf, NaN or nothing but -inf gives NaN.
 */
#include "backend/cpu/ref.h"

#include <math.h>

enum { PARTS = 64 }; /* pieces of a frame's queries, each with its own scratch */

/* Scratch of a part: its query [c], a key or value [c], the weighted sum of values [c]. */
size_t tsr_ref_attention_scratch(const tsr_program *p, const tsr_op *op) {
    return PARTS * 3 * (size_t)p->buffer[op->out.buf].c * sizeof(float);
}

static float dot(const float *a, const float *b, int n) {
    float part[16] = {0}, sum = 0; /* sums side by side, which the compiler can vectorise */
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            part[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (int j = 0; j < 16; j++)
        sum += part[j];
    return sum;
}

/* One query at pixel `at` of frame t against all pixels. */
static void attend(const tsr_op_io *io, int t, int at, float *q, float *kv, float *sum) {
    const tsr_buffer *in = tsr_io_in(io), *out = tsr_io_out(io);
    int c = out->c, tin = io->op->in.t0 + t;
    float largest = -INFINITY, scale = 1 / sqrtf((float)c);
    double total = 0;
    tsr_ref_get(io->program, in, tsr_pixel(in, io->in, tin, 0, at), 0, c, q);
    for (int i = 0; i < c; i++)
        sum[i] = 0;
    for (int j = 0; j < in->h * in->w; j++) {
        const void *pixel = tsr_pixel(in, io->in, tin, 0, j);
        tsr_ref_get(io->program, in, pixel, c, c, kv); /* key */
        float score = dot(q, kv, c) * scale, shrink = 1;
        if (!(score <= largest)) { /* what was summed so far counts for less; NaN spreads */
            shrink = expf(largest - score);
            largest = score;
        }
        float weight = score == -INFINITY ? 0 : expf(score - largest); /* and nothing but those: 0 / 0 */
        tsr_ref_get(io->program, in, pixel, 2 * c, c, kv);             /* value */
        total = total * (double)shrink + (double)weight;
        for (int i = 0; i < c; i++)
            sum[i] = sum[i] * shrink + weight * kv[i];
    }
    for (int i = 0; i < c; i++)
        sum[i] /= (float)total;
    tsr_ref_put(io->program, out, tsr_pixel(out, io->out, io->op->out.t0 + t, 0, at), 0, c, sum);
}

static void attention_parts(void *ctx, size_t begin, size_t end) { /* of [PARTS] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *out = tsr_io_out(io);
    const tsr_view *v = &io->op->out;
    size_t first = (size_t)v->y0 * (size_t)out->w, n = (size_t)v->ny * (size_t)out->w;
    for (size_t part = begin; part < end; part++) {
        float *q = (float *)io->scratch + part * 3 * (size_t)out->c, *kv = q + out->c, *sum = kv + out->c;
        for (int t = 0; t < v->nt; t++)
            for (size_t i = n * part / PARTS; i < n * (part + 1) / PARTS; i++)
                attend(io, t, (int)(first + i), q, kv, sum);
    }
}

tsr_status tsr_ref_attention(const tsr_op_io *io) {
    tsr_parallel_for(PARTS, 1, attention_parts, (void *)io);
    return TSR_OK;
}

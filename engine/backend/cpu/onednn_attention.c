/*
 * Attention in f32 by blocks of queries and keys: scores of a block by a matrix product, the online
 * softmax over the blocks of keys, the values summed by another product. Scratch does not grow with
 * the picture.
 */
#include "backend/cpu/onednn.h"
#include "backend/cpu/simd.h"

#include <math.h>
#include <string.h>

enum { ROWS = 256, KEYS = 1024 }; /* a block's scores take 1 MiB: they stay in the second-level caches */

typedef struct scratch {
    float scores[ROWS * KEYS];
    float largest[ROWS], total[ROWS]; /* so far, of each query */
} scratch;

bool tsr_dnnl_attention_can(const tsr_program *p, const tsr_op *op) {
    const tsr_buffer *in = &p->buffer[op->in.buf], *out = &p->buffer[op->out.buf];
    return in->dtype == TSR_F32 && in->quant < 0 && out->dtype == TSR_F32 && out->quant < 0;
}

size_t tsr_dnnl_attention_scratch(const tsr_program *p, const tsr_op *op) {
    (void)p, (void)op;
    return sizeof(scratch);
}

/* The scores of a block become weights; what the queries summed so far shrinks where a larger score
 * turned up. */
typedef struct block {
    scratch *s;
    const tsr_simd *simd;
    float *out; /* [rows][c] */
    int keys, c;
} block;

static void softmax_rows(void *ctx, size_t begin, size_t end) {
    const block *b = ctx;
    for (size_t r = begin; r < end; r++) {
        float *x = b->s->scores + r * KEYS, before = b->s->largest[r];
        float largest = b->simd->largest(x, b->keys, before), shrink = before == largest ? 1 : expf(before - largest);
        b->s->largest[r] = largest;
        b->s->total[r] =
            b->s->total[r] * shrink + b->simd->exponentials(x, b->keys, largest == -INFINITY ? 0 : largest);
        if (shrink != 1)
            b->simd->scale(b->out + r * (size_t)b->c, b->c, shrink);
    }
}

static void divide_rows(void *ctx, size_t begin, size_t end) {
    const block *b = ctx;
    for (size_t r = begin; r < end; r++)
        b->simd->scale(b->out + r * (size_t)b->c, b->c, 1 / b->s->total[r]);
}

/* rows queries from q on ([..][3c]) against all keys of the frame. */
static tsr_status attend(scratch *s, const float *q, int rows, const float *frame, int pixels, float *out, int c) {
    tsr_status status;
    block b = {s, tsr_simd_best(), out, 0, c};
    float scale = 1 / sqrtf((float)c);
    memset(out, 0, (size_t)rows * (size_t)c * sizeof *out);
    for (int r = 0; r < rows; r++) {
        s->largest[r] = -INFINITY;
        s->total[r] = 0;
    }
    for (int k = 0; k < pixels; k += KEYS) {
        const float *key = frame + (size_t)k * 3 * (size_t)c + c, *value = key + c;
        b.keys = pixels - k < KEYS ? pixels - k : KEYS;
        DNNL_TRY(dnnl_sgemm('N', 'T', rows, b.keys, c, scale, q, 3 * c, key, 3 * c, 0, s->scores, KEYS));
        tsr_parallel_for((size_t)rows, 8, softmax_rows, &b);
        DNNL_TRY(dnnl_sgemm('N', 'N', rows, c, b.keys, 1, s->scores, KEYS, value, 3 * c, 1, out, c));
    }
    tsr_parallel_for((size_t)rows, 8, divide_rows, &b);
error:
    return status;
}

tsr_status tsr_dnnl_attention_run(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    const tsr_buffer *in = &io->program->buffer[op->in.buf], *out = &io->program->buffer[op->out.buf];
    int c = out->c, pixels = in->h * in->w, first = op->out.y0 * in->w, last = first + op->out.ny * in->w;
    for (int t = 0; t < op->in.nt; t++) {
        const float *frame = (const float *)io->in + (ptrdiff_t)(op->in.t0 + t) * pixels * 3 * c;
        float *to = (float *)io->out + (ptrdiff_t)(op->out.t0 + t) * pixels * c;
        for (int r = first; r < last; r += ROWS) {
            int rows = last - r < ROWS ? last - r : ROWS;
            tsr_status status =
                attend(io->scratch, frame + (ptrdiff_t)r * 3 * c, rows, frame, pixels, to + (ptrdiff_t)r * c, c);
            if (status != TSR_OK)
                return status;
        }
    }
    return TSR_OK;
}

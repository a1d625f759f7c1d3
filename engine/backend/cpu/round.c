/* The modes of 16 and 8 bits that a CPU computes in f32: what an op wrote, rounded to the numbers
 * of the mode. */
#include "backend/cpu/cpu.h"

typedef struct job {
    tsr_dtype type;
    float *x;
} job;

enum { CHUNK = 1024 };

static void round_range(void *ctx, size_t begin, size_t end) { /* in chunks */
    const job *j = ctx;
    uint16_t number[CHUNK];
    for (size_t i = begin; i < end; i += CHUNK) {
        size_t n = end - i < CHUNK ? end - i : CHUNK;
        float *x = j->x + i;
        for (size_t k = 0; k < n && j->type == TSR_E4M3; k++) /* codes stand for an eighth */
            x[k] *= 8;
        tsr_from_f32(j->type, x, number, n);
        tsr_to_f32(j->type, number, x, n);
        for (size_t k = 0; k < n && j->type == TSR_E4M3; k++)
            x[k] /= 8;
    }
}

void tsr_cpu_round(const tsr_program *p, const tsr_op *op, void *out) {
    if (op->out.buf < 0 || op->kind == TSR_OP_CACHE_LOAD || op->kind == TSR_OP_PAGE_IN || op->kind == TSR_OP_PAGE_OUT ||
        p->buffer[op->out.buf].rounded == TSR_F32)
        return;
    const tsr_buffer *b = &p->buffer[op->out.buf];
    size_t frame = (size_t)b->h * (size_t)b->w * (size_t)b->c, row = (size_t)b->w * (size_t)b->c;
    for (int i = 0; i < op->out.nt; i++) {
        ptrdiff_t t = op->out.t0 + i * op->out_dt;
        job j = {b->rounded, (float *)out + t * (ptrdiff_t)frame + (size_t)op->out.y0 * row};
        tsr_parallel_for((size_t)op->out.ny * row, CHUNK, round_range, &j);
    }
}

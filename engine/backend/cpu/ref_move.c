/* Ops that only move frames: in, to and from the caches, out. */
#include "backend/cpu/ref.h"
#include "backend/cpu/simd.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- INPUT */

static void input_rows(void *ctx, size_t begin, size_t end) { /* of [nt][h] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *out = tsr_io_out(io);
    const tsr_view *v = &io->op->out;
    for (size_t r = begin; r < end; r++) {
        int t = (int)(r / (size_t)v->ny), y = v->y0 + (int)(r % (size_t)v->ny);
        const float *from =
            io->input + ((size_t)(io->op->in.t0 + t) * (size_t)out->h + (size_t)y) * (size_t)out->w * (size_t)out->c;
        for (int x = 0; x < out->w; x++)
            tsr_ref_put(io->program, out, tsr_pixel(out, io->out, v->t0 + t, y, x), 0, out->c,
                from + (size_t)x * (size_t)out->c);
    }
}

tsr_status tsr_ref_input(const tsr_op_io *io) {
    tsr_parallel_for((size_t)io->op->out.nt * (size_t)io->op->out.ny, 1, input_rows, (void *)io);
    return TSR_OK;
}

/* ---------------------------------------------------------------- caches */

enum { COPY_GRAIN = 1 << 16 }; /* bytes */

static size_t frame_bytes(const tsr_cache *c) {
    return (size_t)c->h * (size_t)c->w * (size_t)c->c * tsr_dtype_size(c->dtype);
}

typedef struct copy {
    char *to;
    const char *from; /* the same, or apart */
} copy;

static void copy_range(void *ctx, size_t begin, size_t end) {
    const copy *c = ctx;
    memmove(c->to + begin, c->from + begin, end - begin);
}

/* Threads that the decode has idle meanwhile double what a copy gets of the memory. */
static void copy_bytes(void *to, const void *from, size_t bytes) {
    tsr_parallel_for(bytes, COPY_GRAIN, copy_range, &(copy){to, from});
}

typedef struct recode {
    const uint8_t *from;
    uint8_t *to;
    tsr_code_range old, now;
} recode;

static void recode_range(void *ctx, size_t begin, size_t end) {
    const recode *r = ctx;
    tsr_simd_best()->recode(
        r->from + begin, r->to + begin, end - begin, r->old.scale / r->now.scale, r->old.zero, r->now.zero);
}

void tsr_ref_recode(const tsr_op_io *io, const void *from, void *to, tsr_code_range old) {
    size_t bytes = (size_t)io->op->out.nt * frame_bytes(&io->program->cache[io->op->cache]);
    if (old.scale == io->range->scale && old.zero == io->range->zero)
        copy_bytes(to, from, from == to ? 0 : bytes);
    else
        tsr_parallel_for(bytes, COPY_GRAIN, recode_range, &(recode){from, to, old, *io->range});
}

tsr_status tsr_ref_cache_load(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    if (op->section >= 0)
        return tsr_band_load(io);
    const tsr_cache *c = &io->program->cache[op->cache];
    size_t skip = (size_t)(c->frames - op->out.nt) * frame_bytes(c); /* the newest frames are the head's */
    size_t bytes = (size_t)op->out.nt * frame_bytes(c);
    void *to = tsr_pixel(tsr_io_out(io), io->out, op->out.t0, 0, 0);
    if (tsr_ref_is_u8(io->program, op->out.buf))
        tsr_ref_recode(io, (char *)io->cache + skip, to, *io->cache_range);
    else
        copy_bytes(to, (char *)io->cache + skip, bytes);
    return TSR_OK;
}

tsr_status tsr_ref_cache_save(const tsr_op_io *io) {
    const tsr_op *op = io->op;
    if (op->section >= 0)
        return tsr_band_save(io);
    const tsr_cache *c = &io->program->cache[op->cache];
    const tsr_buffer *in = tsr_io_in(io);
    size_t size = frame_bytes(c);
    for (int i = 0; i < c->frames; i++) { /* upwards: what the cache gives itself lies ahead */
        int t = op->replicate ? op->in.t0 : op->in.t0 + i;
        bool remembered = t < -in->head; /* the heads are not joined: the frame is in the cache alone */
        const void *from =
            remembered ? (char *)io->cache + (size_t)(c->frames + t) * size : tsr_pixel(in, io->in, t, 0, 0);
        copy_bytes((char *)io->cache + (size_t)i * size, from, size);
    }
    if (tsr_ref_is_u8(io->program, op->in.buf))
        *io->cache_range = *io->range;
    return TSR_OK;
}

/* ---------------------------------------------------------------- STORE */

static void store_rows(void *ctx, size_t begin, size_t end) { /* of [nt][h] */
    const tsr_op_io *io = ctx;
    const tsr_buffer *in = tsr_io_in(io);
    const tsr_view *v = &io->op->in;
    size_t size = tsr_dtype_size(io->slot_dtype);
    int y0, y1, top = tsr_picture_begin(in, io->band), height = tsr_picture_rows(in);
    long long bad = 0;
    tsr_io_rows(io, *v, &y0, &y1);
    for (size_t r = begin; r < end; r++) {
        int t = (int)(r / (size_t)(y1 - y0)), y = y0 + (int)(r % (size_t)(y1 - y0));
        for (int x = 0; x < in->w; x++)
            for (int c = 0; c < in->c; c++) {
                float value;
                size_t plane = (size_t)(io->op->out.t0 + t) * (size_t)in->c + (size_t)c;
                size_t at = (plane * (size_t)height + (size_t)(y - top)) * (size_t)in->w + (size_t)x;
                tsr_ref_get(io->program, in, tsr_pixel(in, io->in, v->t0 + t, y, x), c, 1, &value);
                tsr_from_f32(io->slot_dtype, &value, (char *)io->slot + at * size, 1);
                bad += !isfinite(value);
            }
    }
    if (bad && io->not_finite)
        atomic_fetch_add(io->not_finite, bad);
}

tsr_status tsr_ref_store(const tsr_op_io *io) {
    int y0, y1;
    tsr_io_rows(io, io->op->in, &y0, &y1);
    tsr_parallel_for((size_t)io->op->in.nt * (size_t)(y1 - y0), 1, store_rows, (void *)io);
    return TSR_OK;
}

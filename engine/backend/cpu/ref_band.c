/* Bands of rows: their way to and from whole frames, and what lies outside of the picture. */
#include "backend/cpu/ref.h"

#include <string.h>

static size_t row_bytes(const tsr_buffer *b) {
    return (size_t)b->w * (size_t)b->c * tsr_dtype_size(b->dtype);
}

/* What a conv pads this buffer with: zero, as its numbers or codes have it. */
static int padding(const tsr_op_io *io, int buf) {
    return tsr_ref_is_u8(io->program, buf) ? io->range->zero : 0;
}

/* Fills the rows of a band's view that are outside of the picture. */
static void pad(const tsr_op_io *io, tsr_view v, void *base) {
    const tsr_buffer *b = &io->program->buffer[v.buf];
    int y0, y1, value = padding(io, v.buf);
    tsr_io_rows(io, v, &y0, &y1);
    for (int t = v.t0; t < v.t0 + v.nt; t++) {
        memset(tsr_pixel(b, base, t, v.y0, 0), value, row_bytes(b) * (size_t)(y0 - v.y0));
        memset(tsr_pixel(b, base, t, y1, 0), value, row_bytes(b) * (size_t)(v.y0 + v.ny - y1));
    }
}

void tsr_band_pad(const tsr_op_io *io) {
    if (io->op->kind == TSR_OP_NORM && tsr_io_out(io)->whole)
        pad(io, io->op->out, io->out);
}

/* ---------------------------------------------------------------- PAGE_IN, PAGE_OUT */

typedef struct copy { /* rows of a band, and of whole frames */
    const tsr_op_io *io;
    bool in;
    int y0, rows; /* of the band */
} copy;

static void copy_rows(void *ctx, size_t begin, size_t end) { /* of [nt][rows] */
    const copy *k = ctx;
    const tsr_buffer *from = tsr_io_in(k->io), *to = tsr_io_out(k->io), *band = k->in ? to : from;
    const tsr_view *in = &k->io->op->in, *out = &k->io->op->out;
    for (size_t i = begin; i < end; i++) {
        int t = (int)(i / (size_t)k->rows), y = k->y0 + (int)(i % (size_t)k->rows);
        int row = y - tsr_picture_begin(band, k->io->band);
        memcpy(tsr_pixel(to, k->io->out, out->t0 + t, k->in ? y : row, 0),
            tsr_pixel(from, k->io->in, in->t0 + t, k->in ? row : y, 0), row_bytes(band));
    }
}

tsr_status tsr_band_page(const tsr_op_io *io) {
    copy k = {.io = io, .in = io->op->kind == TSR_OP_PAGE_IN};
    tsr_view band = k.in ? io->op->out : io->op->in;
    int end;
    tsr_io_rows(io, band, &k.y0, &end);
    k.rows = end - k.y0;
    tsr_parallel_for((size_t)band.nt * (size_t)k.rows, 8, copy_rows, &k);
    if (k.in)
        pad(io, band, io->out);
    return TSR_OK;
}

/* ---------------------------------------------------------------- caches */

static void *cache_row(const tsr_op_io *io, int frame, int row) {
    const tsr_cache *c = &io->program->cache[io->op->cache];
    return (char *)io->cache +
           ((size_t)frame * (size_t)c->h + (size_t)row) * (size_t)c->w * (size_t)c->c * tsr_dtype_size(c->dtype);
}

/* The row above was saved anew with the band before, which still holds the old one. */
tsr_status tsr_band_load(const tsr_op_io *io) {
    const tsr_buffer *b = tsr_io_out(io);
    const tsr_cache *c = &io->program->cache[io->op->cache];
    tsr_view v = io->op->out;
    int y0, y1, begin = tsr_picture_begin(b, io->band), kept = io->band ? b->halo : 0;
    tsr_io_rows(io, v, &y0, &y1);
    for (int i = 0; i < v.nt; i++) {
        int t = v.t0 + i, frame = c->frames - v.nt + i; /* the newest frames are the head's */
        if (kept)
            memcpy(tsr_pixel(b, io->out, t, 0, 0), tsr_pixel(b, io->out, t, b->h - 2 * b->halo, 0),
                row_bytes(b) * (size_t)kept);
        if (y1 <= y0 + kept)
            continue;
        char *to = tsr_pixel(b, io->out, t, y0 + kept, 0);
        const void *from = cache_row(io, frame, y0 + kept - begin);
        size_t bytes = row_bytes(b) * (size_t)(y1 - y0 - kept);
        if (tsr_ref_is_u8(io->program, v.buf)) /* the range may have grown */
            tsr_requantise(from, *io->cache_range, (uint8_t *)to, *io->range, bytes);
        else
            memcpy(to, from, bytes);
    }
    pad(io, v, io->out);
    return TSR_OK;
}

tsr_status tsr_band_save(const tsr_op_io *io) {
    const tsr_buffer *b = tsr_io_in(io);
    const tsr_cache *c = &io->program->cache[io->op->cache];
    tsr_view v = io->op->in;
    int y0, y1, row;
    tsr_io_rows(io, v, &y0, &y1);
    row = y0 - tsr_picture_begin(b, io->band);
    for (int i = 0; i < c->frames; i++)
        memcpy(cache_row(io, i, row), tsr_pixel(b, io->in, v.t0 + (v.nt > 1 ? i : 0), y0, 0),
            row_bytes(b) * (size_t)(y1 - y0));
    /* Loads of other bands are still of the old range. */
    if (tsr_ref_is_u8(io->program, v.buf) && io->band + 1 == io->program->bands)
        *io->cache_range = *io->range;
    return TSR_OK;
}

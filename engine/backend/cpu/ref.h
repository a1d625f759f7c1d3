/* The plain C tier: what every op means. Any number type of the program's buffers; parallel, but
 * never clever. */
#ifndef TSR_REF_H
#define TSR_REF_H

#include "backend/ops.h"

extern const tsr_tier tsr_tier_c;

tsr_status tsr_ref_input(const tsr_op_io *io);
tsr_status tsr_ref_stats(const tsr_op_io *io);
tsr_status tsr_ref_norm(const tsr_op_io *io);
tsr_status tsr_ref_quantise(const tsr_op_io *io);
tsr_status tsr_ref_attention(const tsr_op_io *io);
size_t tsr_ref_attention_scratch(const tsr_program *p, const tsr_op *op);
tsr_status tsr_ref_cache_load(const tsr_op_io *io);
tsr_status tsr_ref_cache_save(const tsr_op_io *io);
/* CACHE_LOAD of u8 codes to the head, where they may lie already: from the cache's range, old, to that of the buffer,
 * which may have grown. */
void tsr_ref_recode(const tsr_op_io *io, const void *from, void *to, tsr_code_range old);
tsr_status tsr_ref_store(const tsr_op_io *io);

/* The same in bands of rows, and what only bands need. */
tsr_status tsr_band_load(const tsr_op_io *io);
tsr_status tsr_band_save(const tsr_op_io *io);
tsr_status tsr_band_page(const tsr_op_io *io); /* PAGE_IN, PAGE_OUT */
/* After a norm: rows outside of the picture become what convs pad with. */
void tsr_band_pad(const tsr_op_io *io);

tsr_status tsr_ref_conv(const tsr_op_io *io);
size_t tsr_ref_kernel_bytes(const tsr_kernel *k, tsr_dtype input);
tsr_status tsr_ref_pack(
    tsr_packed *k, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases);

/* u8 codes whose range is chosen while decoding: exact sums of products of codes in 32 bits. */
bool tsr_ref_is_u8(const tsr_program *p, int buffer);
tsr_status tsr_ref_conv8(const tsr_op_io *io);
size_t tsr_ref_kernel_bytes8(const tsr_kernel *k);
void tsr_ref_pack8(tsr_packed *k, const float *weights, const float *biases);

/* ---------------------------------------------------------------- addresses and numbers */

static inline const tsr_buffer *tsr_io_in(const tsr_op_io *io) {
    return &io->program->buffer[io->op->in.buf];
}
static inline const tsr_buffer *tsr_io_out(const tsr_op_io *io) {
    return &io->program->buffer[io->op->out.buf];
}
/* Pixel (t, y, x) of buffer b whose frame 0 lies at base; t may be negative, in the head. */
static inline void *tsr_pixel(const tsr_buffer *b, const void *base, int t, int y, int x) {
    ptrdiff_t i = (((ptrdiff_t)t * b->h + y) * b->w + x) * b->c * (ptrdiff_t)tsr_dtype_size(b->dtype);
    return (char *)base + i;
}
/* n channels from c0 on of the pixel at `pixel`, as the real numbers they stand for. */
void tsr_ref_get(const tsr_program *p, const tsr_buffer *b, const void *pixel, int c0, int n, float *x);
/* And back, rounded or quantised to the buffer's type. */
void tsr_ref_put(const tsr_program *p, const tsr_buffer *b, void *pixel, int c0, int n, const float *x);

enum { TSR_REF_CHUNK = 64 }; /* channels at a time, so that small arrays on the stack do */

#endif

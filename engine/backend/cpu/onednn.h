/* oneDNN, where it was built in: convolutions and matrix products. One engine and stream for the
 * process; oneDNN's own threads are those of the calling thread's OpenMP. */
#ifndef TSR_ONEDNN_H
#define TSR_ONEDNN_H

#include "backend/ops.h"

#include <dnnl.h>

extern const tsr_tier tsr_tier_onednn;
extern const tsr_tier tsr_tier_vnni; /* convolutions of 8-bit codes, where the CPU has instructions for them */

/* TSR_OK, or what oneDNN said about `what`. */
tsr_status tsr_dnnl_check(dnnl_status_t status, const char *what);
/* TSR_TRY of a oneDNN call. */
#define DNNL_TRY(call) TSR_TRY(tsr_dnnl_check((call), #call))

/* Made when first asked for; NULL where oneDNN fails. */
dnnl_engine_t tsr_dnnl_engine(void);
dnnl_stream_t tsr_dnnl_stream(void);

/* All that a convolution's primitive depends on, [d][h][w][cin] -> [frames][oh][ow][cout]; hashed: no padding between.
 */
typedef struct tsr_dnnl_shape {
    int cin, cout;
    int kt, kh, kw, st, sy, sx;
    int top, left, bottom, right;
    int frames, h, w; /* frames: outputs; h, w: of the input */
    int sum, codes;   /* into what is there; u8 x s8 instead of f32 */
    int threads;      /* oneDNN divides the work when the primitive is made */
} tsr_dnnl_shape;

typedef struct tsr_dnnl_sizes { /* bytes, in the layout that is fastest */
    size_t weights, scratch;
} tsr_dnnl_sizes;

/* From a table, else from the primitive that `create` describes: a plan compares many tile sizes, each with the same
 * shapes several times, and a window makes a hundred plans for every setting. 0 where there is no primitive: bind()
 * will say so. */
tsr_dnnl_sizes tsr_dnnl_sizes_of(
    const tsr_dnnl_shape *s, tsr_status (*create)(const void *ctx, dnnl_primitive_desc_t *out), const void *ctx);

/* Weights in the folded order, [cout][kt][kh][kw][cin], oneDNN's odhwi, to the order that a primitive wants. */
tsr_status tsr_dnnl_reorder(
    const tsr_kernel *k, dnnl_data_type_t type, const void *from, const dnnl_memory_desc_t *wanted, void *to);

bool tsr_dnnl_conv_can(const tsr_program *p, const tsr_op *op);
size_t tsr_dnnl_conv_scratch(const tsr_program *p, const tsr_op *op);
tsr_status tsr_dnnl_conv_bind(void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel);
void tsr_dnnl_conv_unbind(void *bound);
tsr_status tsr_dnnl_conv_run(const tsr_op_io *io);
size_t tsr_dnnl_kernel_bytes(const tsr_kernel *k, tsr_dtype input);
tsr_status tsr_dnnl_pack(
    tsr_packed *k, const tsr_program *p, const tsr_op *op, const float *weights, const float *biases);
void tsr_dnnl_unpack(tsr_packed *k);
bool tsr_dnnl_packed_for(const tsr_packed *k, const tsr_program *p, const tsr_op *op);

bool tsr_dnnl_attention_can(const tsr_program *p, const tsr_op *op);
size_t tsr_dnnl_attention_scratch(const tsr_program *p, const tsr_op *op);
tsr_status tsr_dnnl_attention_run(const tsr_op_io *io);

#endif

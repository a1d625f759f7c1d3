/* oneDNN, where it was built in: convolutions and matrix products. One engine and stream for the
 * process; oneDNN's own threads are those of the calling thread's OpenMP. */
#ifndef TSR_ONEDNN_H
#define TSR_ONEDNN_H

#include "backend/ops.h"

#include <dnnl.h>

extern const tsr_tier tsr_tier_onednn;
extern const tsr_tier
    tsr_tier_vnni; /* convolutions of 8-bit codes, where the CPU has instructions for them */

/* TSR_OK, or what oneDNN said about `what`. */
tsr_status tsr_dnnl_check(dnnl_status_t status, const char *what);
/* TSR_TRY of a oneDNN call. */
#define DNNL_TRY(call) TSR_TRY(tsr_dnnl_check((call), #call))

/* Made when first asked for; NULL where oneDNN fails. */
dnnl_engine_t tsr_dnnl_engine(void);
dnnl_stream_t tsr_dnnl_stream(void);

bool tsr_dnnl_conv_can(const tsr_program *p, const tsr_op *op);
size_t tsr_dnnl_conv_scratch(const tsr_program *p, const tsr_op *op);
tsr_status tsr_dnnl_conv_bind(
    void **bound, const tsr_program *p, const tsr_op *op, const tsr_packed *kernel);
void tsr_dnnl_conv_unbind(void *bound);
tsr_status tsr_dnnl_conv_run(const tsr_op_io *io);
size_t tsr_dnnl_kernel_bytes(const tsr_kernel *k, tsr_dtype input);
tsr_status tsr_dnnl_pack(tsr_packed *k, const tsr_program *p, const tsr_op *op,
    const float *weights, const float *biases);
void tsr_dnnl_unpack(tsr_packed *k);
bool tsr_dnnl_packed_for(const tsr_packed *k, const tsr_program *p, const tsr_op *op);

bool tsr_dnnl_attention_can(const tsr_program *p, const tsr_op *op);
size_t tsr_dnnl_attention_scratch(const tsr_program *p, const tsr_op *op);
tsr_status tsr_dnnl_attention_run(const tsr_op_io *io);

#endif

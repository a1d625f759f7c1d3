/* How weights lie in device memory for the convolution kernels (kernels.h): which kernel shape takes a conv,
 * how many bytes its packed block has, and the packing itself, on the host. */
#ifndef TSR_CUDA_PACK_H
#define TSR_CUDA_PACK_H

#include "backend/cuda/kernels.h"
#include "model/kernels.h"

/* The numbers of one row of TSR_CONV_SHAPES. */
typedef struct tsr_conv_form {
    const char *name;
    int tile_h, chunk, couts, kh, kw, stride;
    int halo_bytes; /* of one stage */
    int shared;     /* bytes a block needs */
    bool eight;     /* exists for 8-bit elements too */
} tsr_conv_form;
extern const tsr_conv_form tsr_conv_forms[TSR_CONV_SHAPE_COUNT];

/* The shape for a conv whose input is of this type; large: prefer 16x16 tiles where there is a choice.
 * TSR_CONV_SHAPE_COUNT where no kernel takes it. */
tsr_conv_shape tsr_conv_shape_for(const tsr_kernel *k, tsr_dtype input, bool large);

/* One block of memory: weights, then scale, bias, weight_sum, at 256-byte aligned offsets. */
typedef struct tsr_conv_packing {
    tsr_conv_shape shape;
    tsr_dtype input;
    int chunks, n_blocks, n_padded;
    size_t weights, scale, bias, weight_sum; /* offsets; scale and weight_sum only for 8-bit inputs */
    size_t bytes;
} tsr_conv_packing;
tsr_conv_packing tsr_conv_packing_of(const tsr_kernel *k, tsr_conv_shape shape, tsr_dtype input);

/* codes: [phases][cout][kt][kh][kw][cin], elements as the tensor cores read them: F16, BF16, E4M3, or s8 for U8
 * inputs. scale: [phases][cout], 8-bit inputs only. bias: [phases][classes][cout]. out: p->bytes. */
void tsr_conv_pack(const tsr_conv_packing *p, const tsr_kernel *k, const void *codes, const float *scale, const float *bias, void *out);

#endif

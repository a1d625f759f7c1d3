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
    bool bf16;      /* exists for BF16 too */
    bool hopper;    /* exists on sm_90a only */
} tsr_conv_form;
extern const tsr_conv_form tsr_conv_forms[TSR_CONV_SHAPE_COUNT];

/* The shapes that take a conv whose input is of this type, on Hopper or elsewhere; how many: 0 where no kernel takes
 * it. The first is a good choice where nothing was measured. */
enum { TSR_CONV_CHOICES = 4 };
int tsr_conv_choices(const tsr_kernel *k, tsr_dtype input, bool hopper, tsr_conv_shape out[TSR_CONV_CHOICES]);

/* One block of memory: weights, then the vectors, at 256-byte aligned offsets. */
typedef struct tsr_conv_packing {
    tsr_conv_shape shape;
    tsr_dtype input;
    int chunks, n_blocks, n_padded;
    size_t weights, bias;     /* offsets */
    size_t scale, weight_sum; /* 8-bit inputs only */
    size_t gain, range;       /* U8 only: [cin], what the norm before multiplies by; the codes' tsr_range */
    size_t bytes;
} tsr_conv_packing;
tsr_conv_packing tsr_conv_packing_of(const tsr_kernel *k, tsr_conv_shape shape, tsr_dtype input);

/* A kernel as the tensor cores read it. */
typedef struct tsr_conv_weights {
    const void *codes;  /* [phases][cout][kt][kh][kw][cin] of F16, BF16, E4M3, or s8 for U8 inputs */
    const float *bias;  /* [phases][classes][cout] */
    const float *scale; /* [phases][cout]; 8-bit inputs only */
    const float *gain;  /* [cin]; U8 only */
} tsr_conv_weights;
/* out: p->bytes. */
void tsr_conv_pack(const tsr_conv_packing *p, const tsr_kernel *k, const tsr_conv_weights *w, void *out);

#endif

/*
 * Quantising for the modes of fewer bits, as docs/precision.md defines it: one place for all
 * backends. Weights are quantised once, when they are packed; what activations' codes stand for is
 * chosen while decoding.
 */
#ifndef TSR_QUANTISE_H
#define TSR_QUANTISE_H

#include "model/program.h"

/* The convolutions that `int8` and `fp8` run in 8 bits, those of resnets, as tsr_numerics has them. Layers from `room`
 * on are left out. */
void tsr_eight_layers(const tsr_half *half, uint8_t *eight, int room);

/*
 * Rounds a kernel that tsr_kernel_fold made, in place, for inputs of this type:
 *   F16, BF16  weights become numbers of the type
 *   E4M3       weights become e4m3 codes as numbers, scale[cout] what they are multiplied by,
 *              biases are corrected
 *   U8         weights become s8 codes as numbers, for inputs multiplied by gain[cin]; scale and biases likewise. Codes
 *              and gain come once for each plane that the kernel reads, as they lie in cin
 * Others: nothing is done. E4M3 and U8 are for convolutions behind a norm. scale and gain may be NULL for the types
 * that do not have them. TSR_ERR_MEMORY.
 */
tsr_status tsr_quantise_kernel(const tsr_half *half, const tsr_kernel *k, tsr_dtype input, float *weights,
    float *biases, float *scale, float *gain);

/* One scale and shift a channel for GroupNorm and its affine: stats of a frame, `count` numbers a
 * group. */
void tsr_norm_affine(const double *stats, double count, int c, const float *gamma, const float *beta, double eps,
    float *scale, float *shift);

/* The range of the codes of silu(norm) of some frames, zero that of each plane. stats: [frames][groups + c][2]
 * (TSR_OP_STATS); before: that of the codes that lie in the cache, scale 0 where there are none. */
tsr_code_range tsr_range_choose(const double *stats, int frames, double count, int c, int planes, const float *gamma,
    const float *beta, const float *gain, tsr_code_range before);

/* Codes of one range as codes of another. from == to is allowed. */
void tsr_requantise(const uint8_t *from, tsr_code_range old, uint8_t *to, tsr_code_range now, size_t n);

#endif

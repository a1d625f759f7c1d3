/* Models that have shapes and no values: what planners need, in a file that takes no room. */
#ifndef TSR_TESTS_SHAPES_H
#define TSR_TESTS_SHAPES_H

#include "plan/plan.h"
#include "synthetic.h"

/* The VAE of these shapes, its tensors all zero; aborts where that fails. Close with tsr_vae_destroy. */
tsr_vae *shapes_vae(const synth_config *config);

/* A device that is arithmetic only: kernels take weights in the input's type and biases in f32, no scratch, 60, 200
 * and 400 TFLOP/s, 900 GB/s, a link of 25 GB/s, memory unknown. fp16 and int8 keep the stream in 16 bits, int8 reads
 * 8 bits in the resnets' convs. */
tsr_target shapes_target(void);

#endif

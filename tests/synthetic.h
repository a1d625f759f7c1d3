/* Synthetic weights, latents and videos: the same values in any language, from names alone, so that
 * golden files need not carry them. value(name, i) = splitmix64(fnv1a64(name) + seed * golden + i)
 * as a float in [-1, 1). */
#ifndef TSR_TESTS_SYNTHETIC_H
#define TSR_TESTS_SYNTHETIC_H

#include "core/core.h"

/* Elements [begin, begin + n) of what `name` means: "latent" sqrt(3) u; "video" u; *.bias 0.1 u;
 * *norm* 1 + 0.3 u; other weights u sqrt(3 / fan_in), with fan_in = elements / dim[0]. Model
 * tensors are rounded to f16. */
void synth_values(const char *name, const int64_t *dim, int ndim, uint64_t seed, size_t begin, size_t n, float *out);

typedef struct synth_tensor {
    char name[96];
    int ndim;
    int64_t dim[5];
    size_t count;
} synth_tensor;

typedef struct synth_config {
    int channels[TSR_MAX_LEVELS]; /* widest picture first, 0 ends it; all 0: 128, 256, 512, 512 */
    int layers;                   /* resnets a down block, one more an up block; 0: 2 */
    int latent;                   /* 0: 16 */
    bool encoder, decoder;        /* neither: both */
    uint64_t seed;
} synth_config;

/* Names and shapes of every tensor, malloc'd, in the reference's order. NULL: no memory. */
synth_tensor *synth_shapes(const synth_config *config, size_t *count);
/* A model file, safetensors f16, written in pieces: little memory whatever its size (501 MB for the
 * defaults). */
tsr_status synth_model_write(const char *path, const synth_config *config);

/* The golden latent [channels][frames][height][width] as [frames][height][width][channels], f32:
 * what tsr_latent_from_memory takes. malloc'd. */
float *synth_latent(int channels, int frames, int height, int width, uint64_t seed);
/* The golden video [3][frames][height][width], f32. malloc'd. */
float *synth_video(int frames, int height, int width, uint64_t seed);

#endif

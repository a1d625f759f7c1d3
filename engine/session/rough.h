/*
 * A rough picture straight from the latents: colour = map * (z, 1), fitted by least squares on a few tiny decodes.
 */
#ifndef TSR_ROUGH_H
#define TSR_ROUGH_H

#include "core/core.h"

#include <stdatomic.h>

enum { TSR_ROUGH_CHANNELS = 64 }; /* of a latent, at most */

typedef struct tsr_rough_map {
    int channels;
    float row[3][TSR_ROUGH_CHANNELS + 1]; /* of R, G, B in -1..1; the last is the constant */
} tsr_rough_map;

/* From the cache folder, or fitted on pieces of this video by an engine of its own and kept there. *stop is looked at
 * between pieces: TSR_ERR_CANCELLED. */
tsr_status tsr_rough_map_get(tsr_model *m, const tsr_latent *z, int video, const tsr_engine_params *engine,
    const atomic_bool *stop, tsr_rough_map *out);
/* One latent frame, f32 [n][channels], to RGBA8, red in the low byte. */
void tsr_rough_paint(const tsr_rough_map *map, const float *z, size_t n, uint32_t *out);
/* Least squares with a little ridge: x is [n][channels], rgb [n][3]. False where nothing comes of it. */
bool tsr_rough_fit(const float *x, const float *rgb, size_t n, int channels, tsr_rough_map *out);

#endif

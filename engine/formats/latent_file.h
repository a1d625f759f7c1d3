/* Latents: one video (or a batch) of [frames][height][width][channels], from ComfyUI .latent, safetensors or npy. */
#ifndef TSR_LATENT_FILE_H
#define TSR_LATENT_FILE_H

#include "formats/tensor_file.h"

/* tsr_latent_open, _from_memory, _close and _get_info of the public header live here. */

/* Frame t of video v as float [height][width][channels], divided by the scale. A value that is not finite gives
 * TSR_ERR_FORMAT and names file, frame and position. */
tsr_status tsr_latent_read(const tsr_latent *z, int video, int t, float *out);
int tsr_latent_channels(const tsr_latent *z);

#endif

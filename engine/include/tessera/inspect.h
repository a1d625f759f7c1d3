/*
 * Inspect: what a model or latent file holds, as lines of text.
 */
#ifndef TESSERA_INSPECT_H
#define TESSERA_INSPECT_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One fact. Sections come in this order, each once; key and value are valid during the call.
 *
 *     "file"     path, container, bytes, tensors, holds ("model", "latent", or why it is neither)
 *     "model"    the architecture read from names and shapes: widths, levels, latent channels, ...
 *     "latent"   videos, frames, size, layout, scale, what it decodes to
 *     "tensors"  key: the tensor's name as stored; value: "F16 [512, 16, 3, 3, 3]"
 */
typedef void (*tsr_inspect_fn)(void *user, const char *section, const char *key, const char *value);

/* Reads the headers only. TSR_ERR_FORMAT or TSR_ERR_IO where the file is not a file of tensors at
 * all; a file of tensors that is neither model nor latent is described, and says so. */
TSR_API tsr_status tsr_inspect(const char *path, tsr_inspect_fn fact, void *user);

#ifdef __cplusplus
}
#endif
#endif

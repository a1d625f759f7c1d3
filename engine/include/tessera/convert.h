/*
 * Convert: a model into another container or number type, and what that costs.
 */
#ifndef TESSERA_CONVERT_H
#define TESSERA_CONVERT_H

#include <tessera/tessera.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_convert_params {
    const char *type; /* of the weights: "f32", "f16", "bf16"; in GGUF also "q8_0", "q5_1", "q5_0", "q4_1", "q4_0".
                         NULL: as they are stored, where that can be written, else f16 */
    bool overwrite;
} tsr_convert_params;

/* The tensors that came out in one type. */
typedef struct tsr_convert_part {
    const char *type; /* "F16", "Q8_0", ... */
    int tensors;
    int64_t parameters, bytes;
    double snr; /* dB: sum of w^2 over sum of (w - w')^2; infinite where nothing was lost */
} tsr_convert_part;

enum { TSR_CONVERT_PARTS = 8 };
typedef struct tsr_convert_report {
    int parts;
    tsr_convert_part part[TSR_CONVERT_PARTS];
    int tensors;
    int64_t parameters, bytes; /* of the tensors */
    double snr;                /* of all weights together */
} tsr_convert_report;

/*
 * Writes the tensors of the model's architecture, by their canonical names, to path: .gguf or .safetensors, by its
 * suffix; under path.part until whole. In GGUF, 5-D kernels are flattened to [Co, Ci*kt*kh*kw] and their shape
 * recorded in comfy.gguf.orig_shape.NAME (INT32), norms and biases are f32, and weights whose rows are not
 * whole blocks are f16. Weights beyond the range of fp16 stay f32, and the log says so. report may be NULL.
 */
TSR_API tsr_status tsr_convert(
    const tsr_model *m, const char *path, const tsr_convert_params *params, tsr_convert_report *report);

/* Decodes the same small latent of noise with both models, in f32, and compares the videos: PSNR in dB over the
 * decoder's range of 2; infinite where they are equal. TSR_ERR_UNSUPPORTED where the models have no decoder. */
TSR_API tsr_status tsr_convert_psnr(tsr_engine *e, tsr_model *from, tsr_model *to, double *psnr);

#ifdef __cplusplus
}
#endif
#endif

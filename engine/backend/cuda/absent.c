/* CUDA in a build without nvcc. */
#include "backend/backend.h"

tsr_status tsr_cuda_create(tsr_backend **out, int index) {
    (void)index;
    *out = NULL;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "cuda: this build has no CUDA kernels (no nvcc); use --device cpu");
}

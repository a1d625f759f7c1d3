/* Stands in for the CUDA backend until there is one: delete this file with the commit that brings it. */
#include "backend/backend.h"

tsr_status tsr_cuda_create(tsr_backend **out, int index) {
    (void)out, (void)index;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "device: this build has no CUDA; use --device cpu");
}

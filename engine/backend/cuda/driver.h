/* The CUDA driver, found at run time: nothing of NVIDIA is linked, and the program starts without it. */
#ifndef TSR_CUDA_DRIVER_H
#define TSR_CUDA_DRIVER_H

#include "core/core.h"

#include <cuda.h> /* types, and the macros that choose a function's version */

/* clang-format off */
#define TSR_CU_FUNCTIONS(X) \
    X(cuInit) X(cuGetErrorName) X(cuGetErrorString) \
    X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName) X(cuDeviceGetUuid) \
    X(cuDeviceGetAttribute) X(cuDeviceTotalMem) \
    X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease) X(cuCtxSetCurrent) \
    X(cuLibraryLoadData) X(cuLibraryUnload) X(cuLibraryGetKernel) \
    X(cuKernelSetAttribute) X(cuLaunchKernel) \
    X(cuMemGetInfo) X(cuMemHostAlloc) X(cuMemFreeHost) X(cuMemHostGetDevicePointer) \
    X(cuMemGetAllocationGranularity) X(cuMemCreate) X(cuMemRelease) \
    X(cuMemAddressReserve) X(cuMemAddressFree) X(cuMemMap) X(cuMemUnmap) X(cuMemSetAccess) \
    X(cuMemExportToShareableHandle) \
    X(cuMemFree) X(cuImportExternalMemory) X(cuExternalMemoryGetMappedBuffer) X(cuDestroyExternalMemory) \
    X(cuImportExternalSemaphore) X(cuDestroyExternalSemaphore) \
    X(cuSignalExternalSemaphoresAsync) X(cuWaitExternalSemaphoresAsync) \
    X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuMemcpyAsync) \
    X(cuStreamCreate) X(cuStreamDestroy) X(cuStreamSynchronize) X(cuStreamQuery) \
    X(cuEventCreate) X(cuEventDestroy) X(cuEventRecord) X(cuEventSynchronize) \
    X(cuEventElapsedTime) X(cuStreamWaitEvent) \
    X(cuGraphCreate) X(cuGraphDestroy) X(cuGraphAddKernelNode) X(cuGraphAddMemcpyNode) \
    X(cuGraphInstantiate) X(cuGraphExecDestroy) X(cuGraphLaunch) \
    X(cuGraphExecKernelNodeSetParams) X(cuGraphExecMemcpyNodeSetParams)
/* clang-format on */

typedef struct tsr_cu_api {
/* ## directly here: one more macro in between would expand the name's version suffix into the member's. */
#define X(f) __typeof__(&f) p_##f;
    TSR_CU_FUNCTIONS(X)
#undef X
    int version; /* of CUDA that the driver speaks: 13000 and up */
} tsr_cu_api;
extern tsr_cu_api tsr_cu;

/* Fills tsr_cu, once; later calls cost nothing. TSR_ERR_UNSUPPORTED with one line where there is no driver, or one
 * older than CUDA 13. Any thread. */
tsr_status tsr_cu_load(void);

/* TSR_OK, or the failure with `what` in front: TSR_ERR_MEMORY where memory ran out, else TSR_ERR_DEVICE. */
tsr_status tsr_cu_check(CUresult r, const char *what);

#endif

/* Memory and timeline semaphores shared with another API, by file descriptors, and by NT handles on Windows. The only
 * file of the backend that knows one from the other. */
#include "backend/cuda/device.h"

#ifdef _WIN32

#include <windows.h>
#include <winternl.h>

const CUmemAllocationHandleType tsr_cuda_handle_type = CU_MEM_HANDLE_TYPE_WIN32;
const CUdevice_attribute tsr_cuda_exports = CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED;
static const CUexternalMemoryHandleType memory_type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32;
static const CUexternalSemaphoreHandleType timeline_type = CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_WIN32;
#define SET_HANDLE(info, h) ((info).handle.win32.handle = (h))

void tsr_cuda_handle_close(tsr_handle handle) {
    if (handle)
        CloseHandle(handle);
}

/* After an import, or one that failed: stays the caller's. */
static void handed_over(tsr_handle handle, CUresult r) {
    (void)handle;
    (void)r;
}

void tsr_cuda_prop_exported(CUmemAllocationProp *prop) {
    static OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes}; /* the default security */
    prop->requestedHandleTypes = tsr_cuda_handle_type;
    prop->win32HandleMetaData = &attributes;
}

#else

#include <unistd.h>

const CUmemAllocationHandleType tsr_cuda_handle_type = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
const CUdevice_attribute tsr_cuda_exports = CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
static const CUexternalMemoryHandleType memory_type = CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD;
static const CUexternalSemaphoreHandleType timeline_type = CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD;
#define SET_HANDLE(info, h) ((info).handle.fd = (h))

void tsr_cuda_handle_close(tsr_handle handle) {
    if (handle >= 0)
        close(handle);
}

/* An import that succeeds takes the fd over; one that fails leaves it. */
static void handed_over(tsr_handle handle, CUresult r) {
    if (r != CUDA_SUCCESS)
        tsr_cuda_handle_close(handle);
}

void tsr_cuda_prop_exported(CUmemAllocationProp *prop) {
    prop->requestedHandleTypes = tsr_cuda_handle_type;
}

#endif

/* ---------------------------------------------------------------- memory of the other API */

tsr_status tsr_cuda_foreign_import(
    const tsr_cuda *c, tsr_handle handle, size_t bytes, bool dedicated, tsr_cuda_foreign *out) {
    tsr_status status = tsr_cuda_enter(c);
    *out = (tsr_cuda_foreign){0};
    if (status != TSR_OK) {
        handed_over(handle, CUDA_ERROR_UNKNOWN);
        return status;
    }
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC info = {
        .type = memory_type, .size = bytes, .flags = dedicated ? CUDA_EXTERNAL_MEMORY_DEDICATED : 0};
    SET_HANDLE(info, handle);
    CUresult r = tsr_cu.p_cuImportExternalMemory(&out->memory, &info);
    handed_over(handle, r);
    TSR_TRY(tsr_cu_check(r, "importing Vulkan's memory"));
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC all = {.size = bytes};
    TSR_TRY(
        tsr_cu_check(tsr_cu.p_cuExternalMemoryGetMappedBuffer(&out->at, out->memory, &all), "mapping Vulkan's memory"));
    return TSR_OK;
error:
    tsr_cuda_foreign_release(out);
    return status;
}

void tsr_cuda_foreign_release(tsr_cuda_foreign *f) {
    if (f->at)
        tsr_cu.p_cuMemFree(f->at);
    if (f->memory)
        tsr_cu.p_cuDestroyExternalMemory(f->memory);
    *f = (tsr_cuda_foreign){0};
}

/* ---------------------------------------------------------------- timelines of the other API */

static tsr_status import_timeline(tsr_handle handle, CUexternalSemaphore *out) {
    CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC info = {.type = timeline_type};
    SET_HANDLE(info, handle);
    CUresult r = tsr_cu.p_cuImportExternalSemaphore(out, &info);
    handed_over(handle, r);
    if (r != CUDA_SUCCESS)
        *out = NULL;
    return tsr_cu_check(r, "importing a timeline of Vulkan's");
}

tsr_status tsr_cuda_share(tsr_cuda *c, tsr_handle lane, tsr_handle progress) {
    tsr_status status = tsr_cuda_enter(c);
    if (status != TSR_OK) {
        handed_over(lane, CUDA_ERROR_UNKNOWN);
        handed_over(progress, CUDA_ERROR_UNKNOWN);
        return status;
    }
    status = import_timeline(lane, &c->lane);
    if (status != TSR_OK)
        handed_over(progress, CUDA_ERROR_UNKNOWN);
    else
        status = import_timeline(progress, &c->progress);
    if (status != TSR_OK)
        tsr_cuda_unshare(c);
    return status;
}

void tsr_cuda_unshare(tsr_cuda *c) {
    if (c->lane || c->progress)
        tsr_cu.p_cuCtxSetCurrent(c->context);
    if (c->lane)
        tsr_cu.p_cuDestroyExternalSemaphore(c->lane);
    if (c->progress)
        tsr_cu.p_cuDestroyExternalSemaphore(c->progress);
    c->lane = c->progress = NULL;
}

tsr_status tsr_cuda_signal_lane(const tsr_cuda *c, uint64_t value) {
    CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS p = {.params.fence.value = value};
    if (!c->lane || !value)
        return TSR_OK;
    return tsr_cu_check(tsr_cu.p_cuSignalExternalSemaphoresAsync(&c->lane, &p, 1, c->stream), "signalling Vulkan");
}

tsr_status tsr_cuda_await_progress(const tsr_cuda *c, uint64_t value) {
    CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS p = {.params.fence.value = value};
    if (!c->progress || !value)
        return TSR_OK;
    return tsr_cu_check(tsr_cu.p_cuWaitExternalSemaphoresAsync(&c->progress, &p, 1, c->stream), "waiting for Vulkan");
}

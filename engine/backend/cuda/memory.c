/* Device memory through the virtual memory interface: an address range, memory behind it, and who may touch it. And
 * pinned memory of the host. */
#include "backend/cuda/device.h"

static tsr_status create(const CUmemAllocationProp *prop, size_t bytes, tsr_cuda_block *b) {
    tsr_status status;
    size_t granularity = 0;
    CUmemAccessDesc access = {.location = prop->location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemGetAllocationGranularity(&granularity, prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
        "asking for the granularity"));
    size_t rounded = (bytes + granularity - 1) / granularity * granularity;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemAddressReserve(&b->at, rounded, 0, 0, 0), "reserving addresses"));
    b->bytes = rounded;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemCreate(&b->handle, rounded, prop, 0), "taking memory"));
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemMap(b->at, rounded, 0, b->handle, 0), "mapping memory"));
    b->mapped = true;
    TSR_TRY(tsr_cu_check(tsr_cu.p_cuMemSetAccess(b->at, rounded, &access, 1), "opening memory"));
error:
    return status;
}

tsr_status tsr_cuda_block_create(
    const tsr_cuda *c, size_t bytes, bool exported, const char *what, tsr_cuda_block *out) {
    char text[32];
    CUmemAllocationProp prop = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = c->device}};
    if (exported)
        tsr_cuda_prop_exported(&prop);
    *out = (tsr_cuda_block){0};
    tsr_status status = create(&prop, bytes, out);
    if (status == TSR_OK) {
        out->counted = bytes;
        tsr_mem_count((int64_t)bytes);
        return TSR_OK;
    }
    tsr_cuda_block_destroy(out);
    return tsr_fail_context(status, "%s for %s", tsr_bytes_text(text, (int64_t)bytes), what);
}

void tsr_cuda_block_destroy(tsr_cuda_block *b) {
    tsr_mem_count(-(int64_t)b->counted);
    if (b->mapped)
        tsr_cu.p_cuMemUnmap(b->at, b->bytes);
    if (b->handle)
        tsr_cu.p_cuMemRelease(b->handle);
    if (b->bytes)
        tsr_cu.p_cuMemAddressFree(b->at, b->bytes);
    *b = (tsr_cuda_block){0};
}

tsr_status tsr_cuda_pin(tsr_cuda *c, size_t bytes, void **host, CUdeviceptr *at) {
    static const char what[] = "pinning host memory";
    *host = NULL;
    pthread_mutex_lock(&c->pinning);
    CUresult r = tsr_cu.p_cuMemHostAlloc(host, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP);
    pthread_mutex_unlock(&c->pinning);
    tsr_status status = tsr_cu_check(r, what);
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuMemHostGetDevicePointer(at, *host, 0), what);
    return status; /* *host is the caller's in any case */
}

void tsr_cuda_unpin(tsr_cuda *c, void *host) {
    if (!host)
        return;
    pthread_mutex_lock(&c->pinning);
    tsr_cu.p_cuMemFreeHost(host);
    pthread_mutex_unlock(&c->pinning);
}

tsr_status tsr_cuda_memory_free(tsr_cuda *c, size_t *left) {
    size_t total;
    if (pthread_mutex_trylock(&c->pinning) != 0) {
        int64_t now = atomic_load(&c->room) - (int64_t)tsr_mem_used();
        *left = now > 0 ? (size_t)now : 0;
        return TSR_OK;
    }
    tsr_status status = tsr_cuda_enter(c);
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuMemGetInfo(left, &total), "asking for the memory");
    if (status == TSR_OK)
        atomic_store(&c->room, (long long)*left + (long long)tsr_mem_used());
    pthread_mutex_unlock(&c->pinning);
    return status;
}

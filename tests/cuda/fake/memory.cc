/* Memory of the device and of the host, and copies between them. */
#include "state.h"

#include <chrono>
#include <cstring>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

namespace fake {

char *at(CUdeviceptr p) {
    return reinterpret_cast<char *>(p);
}

bool is_mapped(const char *p, size_t bytes) {
    for (auto &m : mapped)
        if (m.second.open && p >= m.first && p + bytes <= m.first + m.second.bytes)
            return true;
    return false;
}

bool is_pinned(const char *p, size_t bytes) {
    for (auto &m : pinned)
        if (p >= m.first && p + bytes <= m.first + m.second)
            return true;
    return false;
}

bool accessible(const char *p, size_t bytes) {
    if (is_mapped(p, bytes) || is_pinned(p, bytes))
        return true;
    for (CUexternalMemory f : foreign)
        if (f->at && p >= at(f->at) && p + bytes <= at(f->at) + f->usable)
            return true;
    return false;
}

bool run_copy(const copy &c) {
    if (!accessible(c.to, c.bytes) || !accessible(c.from, c.bytes)) {
        wrong("a copy of %zu bytes touches memory that is not mapped", c.bytes);
        return false;
    }
    if (c.to < c.from + c.bytes && c.from < c.to + c.bytes) {
        wrong("a copy of %zu bytes overlaps itself", c.bytes);
        return false;
    }
    std::memcpy(c.to, c.from, c.bytes);
    return true;
}

} // namespace fake

static CUmemGenericAllocationHandle next_handle = 100;
static const size_t PINNED_FRONT = 512; /* of a page: no alignment is promised for pinned memory */

static size_t granularity() {
    return config.pages ? config.pages : USUAL_PAGES;
}

static size_t bytes_left() {
    size_t taken = counts.memory + config.others;
    return taken < config.memory ? config.memory - taken : 0;
}

static bool is_here(const CUmemLocation &l) {
    return l.type == CU_MEM_LOCATION_TYPE_DEVICE && l.id == context_device;
}

static int new_file(size_t bytes, size_t front) {
    int fd = memfd_create("fake device memory", MFD_CLOEXEC);
    bool good = fd >= 0 && ftruncate(fd, static_cast<off_t>(front + bytes)) == 0;
    if (good && front) {
        mesa_header h = {front + bytes, front, {}};
        std::memcpy(h.mark, config.mark, sizeof h.mark);
        good = pwrite(fd, &h, sizeof h, 0) == sizeof h;
    }
    if (!good && fd >= 0)
        close(fd);
    return good ? fd : -1;
}

static void forget_memory(CUmemGenericAllocationHandle h) {
    memory &m = memories[h];
    if (!m.released || m.mappings)
        return;
    close(m.fd);
    counts.memory -= m.bytes;
    memories.erase(h);
}

extern "C" {

CUresult CUDAAPI cuMemGetInfo(size_t *left, size_t *total) { /* nobody has to say that it failed */
    stalled += pinning;
    BEGIN_ANYWHERE
    NEED(current, "%s without a context", __func__);
    *total = config.memory;
    *left = bytes_left();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
    pinning++;
    std::this_thread::sleep_for(std::chrono::milliseconds(config.pin_ms));
    pinning--;
    BEGIN_MAKING
    NEED(bytes && (flags & CU_MEMHOSTALLOC_DEVICEMAP), "pinned memory that the device does not see");
    char *p = static_cast<char *>(aligned_alloc(4096, (PINNED_FRONT + bytes + 4095) / 4096 * 4096)) + PINNED_FRONT;
    std::memset(p, 0xff, bytes);
    *out = p;
    pinned[p] = bytes;
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemFreeHost(void *p) {
    BEGIN_FREEING_HERE
    NEED(pinned.erase(static_cast<char *>(p)), "freeing memory that is not pinned");
    free(static_cast<char *>(p) - PINNED_FRONT);
    counts.live--;
    return end;
}
CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr *out, void *p, unsigned) {
    BEGIN
    NEED(pinned.count(static_cast<char *>(p)), "memory that is not pinned");
    *out = reinterpret_cast<CUdeviceptr>(p);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemGetAllocationGranularity(
    size_t *out, const CUmemAllocationProp *, CUmemAllocationGranularity_flags) {
    BEGIN
    *out = granularity();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemCreate(
    CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *prop, unsigned long long) {
    BEGIN_MAKING
    NEED(bytes && bytes % granularity() == 0, "%zu bytes are no multiple of the granularity", bytes);
    NEED(is_here(prop->location), "memory of another device");
    NEED(prop->type == CU_MEM_ALLOCATION_TYPE_PINNED && !prop->win32HandleMetaData, "memory of no kind");
    bool exportable = prop->requestedHandleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    NEED(!exportable || config.exports, "this device exports nothing");
    if (bytes > bytes_left())
        return CUDA_ERROR_OUT_OF_MEMORY;
    size_t front = exportable && config.mark ? HEADER : 0;
    int fd = new_file(bytes, front);
    if (fd < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = next_handle++;
    memories[*out] = {fd, bytes, front, exportable, false, true, 0};
    counts.live++;
    counts.memory += bytes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemRelease(CUmemGenericAllocationHandle h) {
    BEGIN_FREEING
    NEED(memories.count(h) && !memories[h].released, "releasing memory twice");
    memories[h].released = true;
    counts.live--;
    forget_memory(h);
    return end;
}
CUresult CUDAAPI cuMemExportToShareableHandle(
    void *out, CUmemGenericAllocationHandle h, CUmemAllocationHandleType type, unsigned long long) {
    BEGIN_MAKING
    NEED(memories.count(h) && !memories[h].released && memories[h].exportable &&
             type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        "exporting memory that was not made for it");
    const memory &m = memories[h];
    *static_cast<int *>(out) = config.other_memory ? new_file(m.bytes, m.front) : dup(m.fd);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
    BEGIN_MAKING
    NEED(bytes && bytes % granularity() == 0, "%zu bytes of addresses are no multiple of the granularity", bytes);
    void *p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    reserved[static_cast<char *>(p)] = bytes;
    *out = reinterpret_cast<CUdeviceptr>(p);
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemAddressFree(CUdeviceptr p, size_t bytes) {
    BEGIN_FREEING
    auto r = reserved.find(at(p));
    NEED(r != reserved.end() && r->second == bytes && !mapped.count(at(p)),
        "freeing addresses that are mapped, or not reserved");
    munmap(at(p), bytes);
    reserved.erase(r);
    counts.live--;
    return end;
}
CUresult CUDAAPI cuMemMap(
    CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle h, unsigned long long) {
    BEGIN_MAKING
    auto r = reserved.find(at(p));
    NEED(r != reserved.end() && r->second == bytes && !mapped.count(at(p)), "mapping where nothing is reserved");
    NEED(memories.count(h) && !memories[h].released && memories[h].bytes == bytes && offset == 0,
        "mapping no memory of this size");
    if (mmap(at(p), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, memories[h].fd, static_cast<off_t>(memories[h].front)) ==
        MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memories[h].mappings++;
    mapped[at(p)] = {bytes, h, false};
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemSetAccess(CUdeviceptr p, size_t bytes, const CUmemAccessDesc *d, size_t n) {
    BEGIN
    auto m = mapped.find(at(p));
    NEED(m != mapped.end() && m->second.bytes == bytes && n == 1 && d->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        "opening what is not mapped");
    NEED(is_here(d->location), "opening memory for another device");
    mprotect(at(p), bytes, PROT_READ | PROT_WRITE);
    m->second.open = true;
    memory &behind = memories[m->second.handle];
    if (behind.fresh)
        std::memset(at(p), 0xff, bytes); /* NaN in every type */
    behind.fresh = false;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemUnmap(CUdeviceptr p, size_t bytes) {
    BEGIN_FREEING
    auto m = mapped.find(at(p));
    NEED(m != mapped.end() && m->second.bytes == bytes, "unmapping what is not mapped");
    for (CUstream s : streams)
        NEED(s->work.empty(), "unmapping memory while work waits that may touch it");
    mmap(at(p), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    CUmemGenericAllocationHandle h = m->second.handle;
    mapped.erase(m);
    memories[h].mappings--;
    forget_memory(h);
    counts.live--;
    return end;
}

/* ---------------------------------------------------------------- copies */

CUresult CUDAAPI cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream s) {
    BEGIN
    NEED(known(s) && bytes && accessible(at(to), bytes), "copying %zu bytes to memory that is not mapped", bytes);
    std::string kept(static_cast<const char *>(from), bytes); /* pageable memory is read before the call returns */
    queue(s, [=] { return accessible(at(to), bytes) && std::memcpy(at(to), kept.data(), bytes); });
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream s) {
    BEGIN
    NEED(known(s) && bytes && accessible(at(from), bytes), "copying %zu bytes from memory that is not mapped", bytes);
    queue(s, [=] { return accessible(at(from), bytes) && std::memcpy(to, at(from), bytes); });
    return CUDA_SUCCESS;
}
/* Between what the device sees: pinned memory is read when the copy's turn comes. */
CUresult CUDAAPI cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
    BEGIN
    NEED(known(s) && bytes, "copying into no stream");
    copy c = {at(to), at(from), bytes};
    queue(s, [c] { return run_copy(c); });
    return config.eager_copies ? run_until(s, s->queued) : CUDA_SUCCESS;
}

} // extern "C"

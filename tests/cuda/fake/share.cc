/* Memory and timelines of another API. */
#include "state.h"

#include <chrono>
#include <cstring>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

static bool wait_timeline(void *t, uint64_t value) {
    for (int ms = 0; ms < (config.patience ? config.patience : 60000); ms++) {
        if (timelines.value(t) >= value) {
            counts.awaited++;
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    wrong("a wait for %llu of a timeline that nobody signals", static_cast<unsigned long long>(value));
    return false;
}

extern "C" {

CUresult CUDAAPI cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *d) {
    BEGIN_MAKING
    mesa_header h = {};
    struct stat st;
    NEED(d->type == CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD && !(d->flags & ~CUDA_EXTERNAL_MEMORY_DEDICATED) &&
             fstat(d->handle.fd, &st) == 0,
        "importing no memory");
    if (config.no_imports)
        return CUDA_ERROR_NOT_SUPPORTED;
    bool marked = config.mark && pread(d->handle.fd, &h, sizeof h, 0) == sizeof h &&
                  memcmp(h.mark, config.mark, sizeof h.mark) == 0;
    size_t file = static_cast<size_t>(st.st_size), data = marked ? h.data : 0;
    NEED(data < file && d->size <= file - data, "importing %llu bytes of a file of %zu", d->size, file);
    void *map = mmap(nullptr, file, PROT_READ | PROT_WRITE, MAP_SHARED, d->handle.fd, 0);
    NEED(map != MAP_FAILED, "importing memory that cannot be mapped");
    make(out, foreign);
    **out = {static_cast<char *>(map), file, 0, static_cast<size_t>(d->size)};
    (*out)->at = 0;
    (*out)->usable = static_cast<size_t>(d->size);
    close(d->handle.fd);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuExternalMemoryGetMappedBuffer(
    CUdeviceptr *out, CUexternalMemory m, const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *d) {
    BEGIN_MAKING
    NEED(foreign.count(m) && !m->at && d->offset == 0 && d->size == m->usable,
        "mapping memory that is not imported whole");
    size_t data = config.mark ? reinterpret_cast<mesa_header *>(m->map)->data : 0;
    *out = m->at = reinterpret_cast<CUdeviceptr>(m->map + data);
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemFree(CUdeviceptr p) {
    BEGIN_FREEING_HERE
    for (CUexternalMemory m : foreign)
        if (m->at == p) {
            m->at = 0;
            counts.live--;
            return end;
        }
    return wrong("freeing what is not a mapped buffer");
}
CUresult CUDAAPI cuDestroyExternalMemory(CUexternalMemory m) {
    BEGIN_FREEING
    NEED(foreign.count(m) && !m->at, "releasing imported memory that is mapped");
    for (CUstream s : streams)
        NEED(s->work.empty(), "releasing imported memory while work waits that may touch it");
    munmap(m->map, m->bytes);
    return drop("releasing", m, foreign, end);
}
CUresult CUDAAPI cuImportExternalSemaphore(CUexternalSemaphore *out, const CUDA_EXTERNAL_SEMAPHORE_HANDLE_DESC *d) {
    BEGIN_MAKING
    bool right = timelines.open && d->type == CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD;
    void *t = right ? timelines.open(d->handle.fd) : nullptr;
    NEED(t, "importing no timeline");
    make(out, semaphores);
    (*out)->timeline = t;
    (*out)->signalled = 0;
    close(d->handle.fd);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDestroyExternalSemaphore(CUexternalSemaphore t) {
    CUresult r;
    bool last;
    {
        BEGIN_FREEING
        for (CUstream s : streams)
            if (!s->work.empty())
                end = wrong("releasing a timeline while work waits that may touch it");
        r = drop("releasing", t, semaphores, end);
        last = semaphores.empty();
    }
    if (last)
        end_device();
    return r;
}
CUresult CUDAAPI cuSignalExternalSemaphoresAsync(
    const CUexternalSemaphore *t, const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS *p, unsigned n, CUstream s) {
    BEGIN
    NEED(n == 1 && semaphores.count(*t) && known(s), "signalling no timeline");
    uint64_t value = p->params.fence.value;
    NEED(value > (*t)->signalled, "a timeline that goes from %llu to %llu",
        static_cast<unsigned long long>((*t)->signalled), static_cast<unsigned long long>(value));
    (*t)->signalled = value;
    void *timeline = (*t)->timeline;
    if (!config.drop_signals)
        queue(s, [=] {
            timelines.signal(timeline, value);
            counts.signals++;
            return true;
        });
    wake_device();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuWaitExternalSemaphoresAsync(
    const CUexternalSemaphore *t, const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS *p, unsigned n, CUstream s) {
    BEGIN
    NEED(n == 1 && semaphores.count(*t) && known(s), "waiting for no timeline");
    void *timeline = (*t)->timeline;
    uint64_t value = p->params.fence.value;
    queue(s, [=] { return wait_timeline(timeline, value); });
    return CUDA_SUCCESS;
}

} // extern "C"

/* Streams, events, and the device that runs by itself. */
#include "state.h"

#include <condition_variable>
#include <thread>

namespace fake {

void queue(CUstream s, std::function<bool()> f) {
    s->work.push_back(std::move(f));
    s->queued++;
}

CUresult run_until(CUstream s, uint64_t until) {
    while (s->done < until) {
        std::function<bool()> f = std::move(s->work.front());
        s->work.pop_front();
        if (!sticky && !f())
            sticky = true;
        s->done++; /* now: it may have waited for another stream, and that one for this */
    }
    return sticky ? CUDA_ERROR_ILLEGAL_ADDRESS : CUDA_SUCCESS;
}

bool known(CUstream s) {
    return streams.count(s) != 0;
}

/* The device by itself: a thread that runs what other APIs wait for. */
std::condition_variable_any stirred;
bool stir, stopping;
std::thread device;

void run_by_itself() {
    std::unique_lock<std::recursive_mutex> guard(lock);
    while (!stopping) {
        if (!stir) {
            stirred.wait(guard);
            continue;
        }
        stir = false;
        for (CUstream s : streams)
            run_until(s, s->queued);
    }
}

void wake_device() {
    if (!device.joinable()) {
        stopping = false;
        device = std::thread(run_by_itself);
    }
    stir = true;
    stirred.notify_all();
}

/* With the last timeline goes the thread. Called without the lock. */
void end_device() {
    {
        std::lock_guard<std::recursive_mutex> guard(lock);
        stopping = true;
        stirred.notify_all();
    }
    if (device.joinable())
        device.join();
}

} // namespace fake

extern "C" {

__attribute__((visibility("default"))) int fake_cuda_product(
    void *stream, uint64_t blocks, const void *const at[4], const size_t bytes[4]) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    CUstream s = static_cast<CUstream>(stream);
    for (int i = 0; i < 4; i++)
        if (!known(s) || !accessible(static_cast<const char *>(at[i]), bytes[i]))
            return wrong("a product of memory that is not mapped, or into no stream"), 1;
    s->blocks += blocks;
    return 0;
}

CUresult CUDAAPI cuStreamCreate(CUstream *out, unsigned) {
    BEGIN_MAKING
    return make(out, streams);
}
CUresult CUDAAPI cuStreamDestroy(CUstream s) {
    BEGIN_FREEING_HERE
    return drop("destroying", s, streams, end);
}
CUresult CUDAAPI cuStreamSynchronize(CUstream s) {
    BEGIN_FREEING_HERE /* work ends, whether well or not */
        NEED(known(s), "waiting for no stream");
    counts.waits++;
    CUresult ran = run_until(s, s->queued);
    return ran == CUDA_SUCCESS ? end : ran;
}
CUresult CUDAAPI cuEventCreate(CUevent *out, unsigned flags) {
    BEGIN_MAKING
    make(out, events);
    (*out)->timing = !(flags & CU_EVENT_DISABLE_TIMING);
    (*out)->blocking = flags & CU_EVENT_BLOCKING_SYNC;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuEventDestroy(CUevent e) {
    BEGIN_FREEING_HERE
    return drop("destroying", e, events, end);
}
CUresult CUDAAPI cuEventRecord(CUevent e, CUstream s) {
    BEGIN
    NEED(events.count(e) && known(s), "recording no event");
    e->stream = s;
    e->at = s->queued;
    e->blocks = s->blocks;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuEventSynchronize(CUevent e) {
    BEGIN
    NEED(events.count(e) && e->stream && known(e->stream), "waiting for an event that nothing will signal");
    counts.waits += e->stream->done < e->at;
    counts.spins += e->stream->done < e->at && !e->blocking;
    return run_until(e->stream, e->at);
}
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    BEGIN
    NEED(events.count(from) && events.count(to) && from->stream && from->stream == to->stream && known(to->stream),
        "the time between events that were not recorded");
    NEED(from->timing && to->timing, "the time between events that keep none");
    NEED(to->stream->done >= to->at, "the time of work that was not waited for");
    *ms = static_cast<float>(to->blocks - from->blocks) * 1e-3f;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuStreamWaitEvent(CUstream s, CUevent e, unsigned) {
    BEGIN
    NEED(events.count(e) && e->stream && known(e->stream) && known(s),
        "a stream that waits for an event nothing will signal");
    CUstream other = e->stream;
    uint64_t until = e->at; /* as recorded now: the event may serve again */
    queue(s, [=] { return run_until(other, until) == CUDA_SUCCESS; });
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuStreamQuery(CUstream s) {
    BEGIN
    NEED(known(s), "asking about no stream");
    return s->work.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

} // extern "C"

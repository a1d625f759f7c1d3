/* What is alive, what went wrong, and what tests ask. */
#include "state.h"

#include <cstdarg>

namespace fake {

std::recursive_mutex lock;
fake_cuda_config config = {
    13000, 1, 8, 9, 1, static_cast<size_t>(1) << 32, nullptr, nullptr, 0, 0, 0, 0, 0, 0, 0, 0, 0};
fake_cuda_timelines timelines;
fake_cuda_counts counts;
std::atomic<int> pinning, stalled;
int fail_in = -1;
bool settled, sticky;
std::string first_wrong;
thread_local CUcontext current;
CUctx_st the_context;
int retained, context_device;
std::map<CUmemGenericAllocationHandle, memory> memories;
std::map<char *, size_t> reserved, pinned;
std::map<char *, mapping> mapped;
std::set<CUstream> streams;
std::set<CUevent> events;
std::set<CUgraph> graphs;
std::set<CUgraphExec> execs;
std::set<CUlibrary> libraries;
std::set<CUexternalMemory> foreign;
std::set<CUexternalSemaphore> semaphores;
std::map<std::pair<CUlibrary, std::string>, CUkern_st> kernels;
uint64_t seed;

CUresult wrong(const char *format, ...) {
    char text[300];
    va_list ap;
    va_start(ap, format);
    std::vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (first_wrong.empty())
        first_wrong = text;
    return CUDA_ERROR_INVALID_VALUE;
}

bool turn_to_fail() {
    counts.calls++;
    return fail_in >= 0 && fail_in-- == 0;
}

} // namespace fake

extern "C" {

#define SEEN __attribute__((visibility("default")))

SEEN void fake_cuda_setup(const fake_cuda_config *c) {
    config = *c;
    fail_in = -1;
    settled = sticky = false;
    first_wrong.clear();
    counts = {};
    pinning = stalled = 0;
}
SEEN void fake_cuda_reconfigure(const fake_cuda_config *c) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    config = *c;
}
SEEN void fake_cuda_set_timelines(const fake_cuda_timelines *t) {
    timelines = *t;
}
SEEN void fake_cuda_fail_at(int n) {
    fail_in = n;
}
SEEN void fake_cuda_settled(int s) {
    settled = s;
}
SEEN void fake_cuda_count(fake_cuda_counts *out) {
    *out = counts;
    out->pinning = pinning;
    out->stalled = stalled;
}
SEEN const char *fake_cuda_wrong(void) {
    return first_wrong.c_str();
}

} // extern "C"

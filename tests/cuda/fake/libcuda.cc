/*
 * The driver functions that the backend uses, in host memory; kernels run through the shim.
 *
 * A stream runs late: nothing happens until somebody waits for it, so that a forgotten wait leaves old data to be
 * seen. Device memory is shared memory behind an address range, NaN until written. Kernels may touch what is mapped
 * and opened, and pinned host memory.
 */
#include "fake.h"
#include "shim/kernels.h"

#include <cuda.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

struct CUlib_st {
    int unused;
};
struct CUkern_st {
    const shim::named_kernel *kernel;
    int most_shared;
};
struct CUctx_st {
    int unused;
};
struct CUstream_st {
    std::deque<std::function<bool()>> work; /* false: it failed */
    uint64_t done = 0, queued = 0;
    uint64_t blocks = 0; /* of the launches queued so far: what passes for time */
};
struct CUextMemory_st {
    char *map;
    size_t bytes; /* of the map */
    CUdeviceptr at;
    size_t usable;
};
struct CUextSemaphore_st {
    void *timeline;
    uint64_t signalled; /* as queued */
};
struct CUevent_st {
    CUstream stream = nullptr;
    uint64_t at = 0; /* of the stream's work */
    uint64_t blocks = 0;
};
struct launch {
    const shim::named_kernel *kernel;
    std::string args;
    dim3 grid;
    size_t shared;
};
struct copy {
    char *to, *from;
    size_t bytes;
};
struct CUgraphNode_st {
    int index;
    bool is_copy;
};
struct node {
    bool is_copy;
    launch run;
    copy move;
};
struct CUgraph_st {
    std::deque<node> nodes;
    std::deque<CUgraphNode_st> handles;
};
struct CUgraphExec_st {
    std::deque<node> nodes;
};

namespace {

const size_t GRANULARITY = 2 << 20;
const int MOST_SHARED = 99 << 10, MOST_SHARED_HOPPER = 227 << 10, FREE_SHARED = 48 << 10;

/* What Mesa's software driver puts in front of memory that it exports, and looks for in what it imports. */
struct mesa_header {
    size_t file, data; /* bytes of the file; where the data begin */
    uint8_t mark[16];
};
const size_t HEADER = 4096;

struct memory { /* behind a cuMemCreate handle */
    int fd;
    size_t bytes, front;
    bool exportable, released, fresh;
    int mappings;
};
struct mapping {
    size_t bytes;
    CUmemGenericAllocationHandle handle;
    bool open;
};

std::recursive_mutex lock;
fake_cuda_config config = {13000, 1, 8, 9, 1, static_cast<size_t>(1) << 32, nullptr, nullptr, 0, 0, 0, 0};
fake_cuda_timelines timelines;
fake_cuda_counts counts;
int fail_in = -1;
bool settled, sticky;
std::string first_wrong;
thread_local CUcontext current;
CUctx_st the_context;
int retained;

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
std::map<std::string, CUkern_st> kernels;
CUmemGenericAllocationHandle next_handle = 100;
uint64_t seed;

CUresult wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
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

/* Begins every function: its turn to fail; a context where one is needed. */
#define BEGIN_ANYWHERE                                                                             \
    std::lock_guard<std::recursive_mutex> guard(lock);                                             \
    if (turn_to_fail())                                                                            \
        return CUDA_ERROR_UNKNOWN;
#define BEGIN                                                                                      \
    std::lock_guard<std::recursive_mutex> guard(lock);                                             \
    if (turn_to_fail()) {                                                                          \
        counts.failures++;                                                                         \
        return CUDA_ERROR_UNKNOWN;                                                                 \
    }                                                                                              \
    if (!current)                                                                                  \
        return wrong("%s without a context", __func__);                                            \
    if (sticky)                                                                                    \
        return CUDA_ERROR_ILLEGAL_ADDRESS;
/* The same for functions that make something. */
#define BEGIN_MAKING                                                                               \
    BEGIN                                                                                          \
    if (settled)                                                                                   \
        return wrong("%s while decoding", __func__);
/* And those that free or wait: they do, and may still report a failure of something earlier. */
#define BEGIN_FREEING                                                                              \
    std::lock_guard<std::recursive_mutex> guard(lock);                                             \
    CUresult end = turn_to_fail() ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
#define NEED(condition, ...)                                                                       \
    if (!(condition))                                                                              \
        return wrong(__VA_ARGS__);

char *at(CUdeviceptr p) {
    return reinterpret_cast<char *>(p);
}

/* All of [p, p + bytes) is mapped and open, or pinned. */
bool accessible(const char *p, size_t bytes) {
    for (auto &m : mapped)
        if (m.second.open && p >= m.first && p + bytes <= m.first + m.second.bytes)
            return true;
    for (auto &m : pinned)
        if (p >= m.first && p + bytes <= m.first + m.second)
            return true;
    for (CUexternalMemory f : foreign)
        if (f->at && p >= at(f->at) && p + bytes <= at(f->at) + f->usable)
            return true;
    return false;
}

bool run_launch(const launch &l) {
    shim::options how;
    how.seed = ++seed;
    for (auto &m : mapped)
        if (m.second.open)
            how.regions.push_back({m.first, m.second.bytes, true});
    for (auto &m : pinned)
        how.regions.push_back({m.first, m.second, true});
    for (CUexternalMemory f : foreign)
        if (f->at)
            how.regions.push_back({at(f->at), f->usable, true});
    std::string fault = shim::launch(l.kernel->fn, l.args.data(), l.grid, {256, 1, 1}, l.shared, how, nullptr);
    counts.launches++;
    if (config.fault_launch && --config.fault_launch == 0)
        fault = "made to fault";
    if (!fault.empty())
        wrong("%s: %s", l.kernel->name, fault.c_str());
    return fault.empty();
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

void queue(CUstream s, std::function<bool()> f) {
    s->work.push_back(std::move(f));
    s->queued++;
}

CUresult run_until(CUstream s, uint64_t until) {
    while (s->done < until) {
        std::function<bool()> f = std::move(s->work.front());
        s->work.pop_front();
        s->done++;
        if (!sticky && !f())
            sticky = true;
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

bool wait_timeline(void *t, uint64_t value) {
    for (int ms = 0; ms < 60000; ms++) {
        if (timelines.value(t) >= value) {
            counts.awaited++;
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    wrong("a wait for %llu of a timeline that nobody signals", static_cast<unsigned long long>(value));
    return false;
}

template <class T> CUresult make(T **out, std::set<T *> &all) {
    *out = new T();
    all.insert(*out);
    counts.live++;
    return CUDA_SUCCESS;
}

template <class T> CUresult drop(const char *what, T *p, std::set<T *> &all, CUresult end) {
    NEED(all.erase(p), "%s of what does not exist", what);
    delete p;
    counts.live--;
    return end;
}

CUresult take_launch(CUkernel k, const unsigned grid[3], const unsigned block[3], size_t shared, void **params, launch *out) {
    bool here = false;
    for (auto &e : kernels)
        here |= &e.second == k;
    NEED(here && !libraries.empty(), "a launch of no kernel");
    NEED(block[0] == 256 && block[1] == 1 && block[2] == 1, "%s: blocks of %u threads", k->kernel->name, block[0]);
    NEED(grid[0] && grid[1] && grid[2] && grid[1] < 65536 && grid[2] < 65536, "%s: a grid of %u x %u x %u",
        k->kernel->name, grid[0], grid[1], grid[2]);
    NEED(shared <= static_cast<size_t>(k->most_shared), "%s: %zu bytes of shared memory, allowed are %d",
        k->kernel->name, shared, k->most_shared);
    NEED(params && params[0], "%s: no parameters", k->kernel->name);
    *out = {k->kernel, std::string(static_cast<char *>(params[0]), k->kernel->args_bytes), {grid[0], grid[1], grid[2]}, shared};
    return CUDA_SUCCESS;
}

CUresult take_node(const CUDA_KERNEL_NODE_PARAMS *p, node *out) {
    const unsigned grid[3] = {p->gridDimX, p->gridDimY, p->gridDimZ}, block[3] = {p->blockDimX, p->blockDimY, p->blockDimZ};
    out->is_copy = false;
    return take_launch(p->func ? reinterpret_cast<CUkernel>(p->func) : p->kern, grid, block, p->sharedMemBytes, p->kernelParams, &out->run);
}

CUresult take_copy(const CUDA_MEMCPY3D *p, node *out) {
    NEED(p->srcMemoryType == CU_MEMORYTYPE_DEVICE && p->dstMemoryType == CU_MEMORYTYPE_DEVICE && p->Height == 1 && p->Depth == 1 &&
             p->WidthInBytes > 0,
        "a copy node that is not one row between device memory");
    *out = node{true, {}, {at(p->dstDevice), at(p->srcDevice), p->WidthInBytes}};
    return CUDA_SUCCESS;
}

CUresult add_node(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const node &what) {
    NEED(graphs.count(g), "a node for a graph that does not exist");
    /* Nodes run in the order in which they were added; a chain is that order. */
    NEED(n == (g->nodes.empty() ? 0u : 1u) && (n == 0 || *before == &g->handles.back()), "the graph is not a chain");
    g->nodes.push_back(what);
    g->handles.push_back({static_cast<int>(g->nodes.size()) - 1, what.is_copy});
    *out = &g->handles.back();
    return CUDA_SUCCESS;
}

CUresult update(CUgraphExec e, CUgraphNode n, const node &what) {
    NEED(execs.count(e) && n && n->index < static_cast<int>(e->nodes.size()) && n->is_copy == what.is_copy, "an update of no such node");
    node &old = e->nodes[static_cast<size_t>(n->index)];
    NEED(what.is_copy || what.run.kernel == old.run.kernel, "an update to another kernel");
    old = what;
    counts.updates++;
    return CUDA_SUCCESS;
}

} // namespace

extern "C" {

/* ---------------------------------------------------------------- for the tests */

#define SEEN __attribute__((visibility("default")))

SEEN void fake_cuda_setup(const fake_cuda_config *c) {
    config = *c;
    fail_in = -1;
    settled = sticky = false;
    first_wrong.clear();
    counts = {};
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
}
SEEN const char *fake_cuda_wrong(void) {
    return first_wrong.c_str();
}

/* ---------------------------------------------------------------- devices */

CUresult CUDAAPI cuInit(unsigned) {
    BEGIN_ANYWHERE
    return config.devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult CUDAAPI cuDriverGetVersion(int *v) {
    *v = config.version;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGetErrorName(CUresult r, const char **s) {
    *s = r == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_FAKE";
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGetErrorString(CUresult r, const char **s) {
    *s = r == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : r == CUDA_ERROR_UNKNOWN ? "made to fail" : first_wrong.c_str();
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetCount(int *n) {
    BEGIN_ANYWHERE
    *n = config.devices;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGet(CUdevice *d, int i) {
    BEGIN_ANYWHERE
    NEED(i >= 0 && i < config.devices, "no device %d", i);
    *d = i;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetName(char *name, int n, CUdevice) {
    BEGIN_ANYWHERE
    std::snprintf(name, static_cast<size_t>(n), "Fake GPU");
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetUuid(CUuuid *u, CUdevice d) {
    BEGIN_ANYWHERE
    std::memset(u->bytes, 'f' + d, sizeof u->bytes);
    if (config.uuid)
        std::memcpy(u->bytes, config.uuid, sizeof u->bytes);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceTotalMem(size_t *n, CUdevice) {
    BEGIN_ANYWHERE
    *n = config.memory;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDeviceGetAttribute(int *v, CUdevice_attribute a, CUdevice) {
    BEGIN_ANYWHERE
    static const std::map<int, int> fixed = {{CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 4}, {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000},
        {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000}, {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 256},
        {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1}};
    auto f = fixed.find(a);
    *v = a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR                          ? config.major
         : a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR                        ? config.minor
         : a == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED     ? config.exports
         : f != fixed.end()                                                        ? f->second
                                                                                   : -1;
    NEED(*v >= 0, "attribute %d is not one the fake knows", a);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice) {
    BEGIN_ANYWHERE
    *c = &the_context;
    retained++;
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice) {
    BEGIN_FREEING
    NEED(retained > 0, "the context is released too often");
    retained--;
    counts.live--;
    return end;
}
CUresult CUDAAPI cuCtxSetCurrent(CUcontext c) {
    BEGIN_ANYWHERE
    NEED(!c || retained, "a context that is not retained");
    current = c;
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- kernels */

CUresult CUDAAPI cuLibraryLoadData(CUlibrary *out, const void *code, CUjit_option *, void **, unsigned, CUlibraryOption *, void **, unsigned) {
    BEGIN_MAKING
    uint32_t magic;
    std::memcpy(&magic, code, 4);
    NEED(magic == 0xba55ed50u && reinterpret_cast<uintptr_t>(code) % 8 == 0, "not a fatbin");
    return make(out, libraries);
}
CUresult CUDAAPI cuLibraryUnload(CUlibrary l) {
    BEGIN_FREEING
    kernels.clear();
    return drop("unloading", l, libraries, end);
}
CUresult CUDAAPI cuLibraryGetKernel(CUkernel *out, CUlibrary l, const char *name) {
    BEGIN
    const shim::named_kernel *k = shim::find_kernel(name);
    NEED(libraries.count(l) && k, "no kernel %s", name);
    auto entry = kernels.insert({name, {k, FREE_SHARED}}).first;
    *out = &entry->second;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice) {
    BEGIN
    NEED(a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES &&
             v <= (config.major == 9 ? MOST_SHARED_HOPPER : MOST_SHARED),
        "%d bytes of shared memory", v);
    k->most_shared = v;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
    CUstream s, void **params, void **) {
    BEGIN
    NEED(known(s), "a launch into no stream");
    launch l = {};
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    CUresult r = take_launch(reinterpret_cast<CUkernel>(f), grid, block, shared, params, &l);
    if (r == CUDA_SUCCESS) {
        s->blocks += static_cast<uint64_t>(gx) * gy * gz;
        queue(s, [l] { return run_launch(l); });
    }
    return r;
}

/* ---------------------------------------------------------------- memory */

CUresult CUDAAPI cuMemGetInfo(size_t *left, size_t *total) {
    BEGIN_ANYWHERE
    *total = config.memory;
    *left = config.memory - counts.memory;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemHostAlloc(void **out, size_t bytes, unsigned flags) {
    BEGIN_MAKING
    NEED(bytes && (flags & CU_MEMHOSTALLOC_DEVICEMAP), "pinned memory that the device does not see");
    *out = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    std::memset(*out, 0xff, bytes);
    pinned[static_cast<char *>(*out)] = bytes;
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemFreeHost(void *p) {
    BEGIN_FREEING
    NEED(pinned.erase(static_cast<char *>(p)), "freeing memory that is not pinned");
    free(p);
    counts.live--;
    return end;
}
CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr *out, void *p, unsigned) {
    BEGIN
    NEED(pinned.count(static_cast<char *>(p)), "memory that is not pinned");
    *out = reinterpret_cast<CUdeviceptr>(p);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemGetAllocationGranularity(size_t *out, const CUmemAllocationProp *, CUmemAllocationGranularity_flags) {
    BEGIN
    *out = GRANULARITY;
    return CUDA_SUCCESS;
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

CUresult CUDAAPI cuMemCreate(CUmemGenericAllocationHandle *out, size_t bytes, const CUmemAllocationProp *prop, unsigned long long) {
    BEGIN_MAKING
    NEED(bytes && bytes % GRANULARITY == 0, "%zu bytes are no multiple of the granularity", bytes);
    bool exportable = prop->requestedHandleTypes == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    NEED(!exportable || config.exports, "this device exports nothing");
    if (counts.memory + bytes > config.memory)
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

static void forget_memory(CUmemGenericAllocationHandle h) {
    memory &m = memories[h];
    if (!m.released || m.mappings)
        return;
    close(m.fd);
    counts.memory -= m.bytes;
    memories.erase(h);
}

CUresult CUDAAPI cuMemRelease(CUmemGenericAllocationHandle h) {
    BEGIN_FREEING
    NEED(memories.count(h) && !memories[h].released, "releasing memory twice");
    memories[h].released = true;
    counts.live--;
    forget_memory(h);
    return end;
}
CUresult CUDAAPI cuMemExportToShareableHandle(void *out, CUmemGenericAllocationHandle h, CUmemAllocationHandleType type, unsigned long long) {
    BEGIN_MAKING
    NEED(memories.count(h) && !memories[h].released && memories[h].exportable && type == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        "exporting memory that was not made for it");
    const memory &m = memories[h];
    *static_cast<int *>(out) = config.other_memory ? new_file(m.bytes, m.front) : dup(m.fd);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
    BEGIN_MAKING
    NEED(bytes && bytes % GRANULARITY == 0, "%zu bytes of addresses are no multiple of the granularity", bytes);
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
    NEED(r != reserved.end() && r->second == bytes && !mapped.count(at(p)), "freeing addresses that are mapped, or not reserved");
    munmap(at(p), bytes);
    reserved.erase(r);
    counts.live--;
    return end;
}
CUresult CUDAAPI cuMemMap(CUdeviceptr p, size_t bytes, size_t offset, CUmemGenericAllocationHandle h, unsigned long long) {
    BEGIN_MAKING
    auto r = reserved.find(at(p));
    NEED(r != reserved.end() && r->second == bytes && !mapped.count(at(p)), "mapping where nothing is reserved");
    NEED(memories.count(h) && !memories[h].released && memories[h].bytes == bytes && offset == 0, "mapping no memory of this size");
    if (mmap(at(p), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, memories[h].fd, static_cast<off_t>(memories[h].front)) == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memories[h].mappings++;
    mapped[at(p)] = {bytes, h, false};
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemSetAccess(CUdeviceptr p, size_t bytes, const CUmemAccessDesc *d, size_t n) {
    BEGIN
    auto m = mapped.find(at(p));
    NEED(m != mapped.end() && m->second.bytes == bytes && n == 1 && d->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "opening what is not mapped");
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
CUresult CUDAAPI cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream s) {
    BEGIN
    NEED(known(s) && bytes, "copying into no stream");
    copy c = {at(to), at(from), bytes};
    queue(s, [c] { return run_copy(c); });
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- streams, events */

CUresult CUDAAPI cuStreamCreate(CUstream *out, unsigned) {
    BEGIN_MAKING
    return make(out, streams);
}
CUresult CUDAAPI cuStreamDestroy(CUstream s) {
    BEGIN_FREEING
    return drop("destroying", s, streams, end);
}
CUresult CUDAAPI cuStreamSynchronize(CUstream s) {
    BEGIN_FREEING /* work ends, whether well or not */
    NEED(known(s), "waiting for no stream");
    counts.waits++;
    CUresult ran = run_until(s, s->queued);
    return ran == CUDA_SUCCESS ? end : ran;
}
CUresult CUDAAPI cuEventCreate(CUevent *out, unsigned) {
    BEGIN_MAKING
    return make(out, events);
}
CUresult CUDAAPI cuEventDestroy(CUevent e) {
    BEGIN_FREEING
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
    return run_until(e->stream, e->at);
}
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to) {
    BEGIN
    NEED(events.count(from) && events.count(to) && from->stream && from->stream == to->stream && known(to->stream),
        "the time between events that were not recorded");
    NEED(to->stream->done >= to->at, "the time of work that was not waited for");
    *ms = static_cast<float>(to->blocks - from->blocks) * 1e-3f;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuStreamQuery(CUstream s) {
    BEGIN
    NEED(known(s), "asking about no stream");
    return s->work.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

/* ---------------------------------------------------------------- memory and timelines of another API */

CUresult CUDAAPI cuImportExternalMemory(CUexternalMemory *out, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *d) {
    BEGIN_MAKING
    mesa_header h = {};
    struct stat st;
    NEED(d->type == CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD && fstat(d->handle.fd, &st) == 0, "importing no memory");
    if (config.no_imports)
        return CUDA_ERROR_NOT_SUPPORTED;
    bool marked = config.mark && pread(d->handle.fd, &h, sizeof h, 0) == sizeof h && memcmp(h.mark, config.mark, sizeof h.mark) == 0;
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
CUresult CUDAAPI cuExternalMemoryGetMappedBuffer(CUdeviceptr *out, CUexternalMemory m, const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *d) {
    BEGIN_MAKING
    NEED(foreign.count(m) && !m->at && d->offset == 0 && d->size == m->usable, "mapping memory that is not imported whole");
    size_t data = config.mark ? reinterpret_cast<mesa_header *>(m->map)->data : 0;
    *out = m->at = reinterpret_cast<CUdeviceptr>(m->map + data);
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuMemFree(CUdeviceptr p) {
    BEGIN_FREEING
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
    void *t = timelines.open && d->type == CU_EXTERNAL_SEMAPHORE_HANDLE_TYPE_TIMELINE_SEMAPHORE_FD ? timelines.open(d->handle.fd) : nullptr;
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
        r = drop("releasing", t, semaphores, end);
        last = semaphores.empty();
    }
    if (last)
        end_device();
    return r;
}
CUresult CUDAAPI cuSignalExternalSemaphoresAsync(const CUexternalSemaphore *t, const CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS *p, unsigned n, CUstream s) {
    BEGIN
    NEED(n == 1 && semaphores.count(*t) && known(s), "signalling no timeline");
    uint64_t value = p->params.fence.value;
    NEED(value > (*t)->signalled, "a timeline that goes from %llu to %llu", static_cast<unsigned long long>((*t)->signalled),
        static_cast<unsigned long long>(value));
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
CUresult CUDAAPI cuWaitExternalSemaphoresAsync(const CUexternalSemaphore *t, const CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS *p, unsigned n, CUstream s) {
    BEGIN
    NEED(n == 1 && semaphores.count(*t) && known(s), "waiting for no timeline");
    void *timeline = (*t)->timeline;
    uint64_t value = p->params.fence.value;
    queue(s, [=] { return wait_timeline(timeline, value); });
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------- graphs */

CUresult CUDAAPI cuGraphCreate(CUgraph *out, unsigned) {
    BEGIN
    return make(out, graphs);
}
CUresult CUDAAPI cuGraphDestroy(CUgraph g) {
    BEGIN_FREEING
    return drop("destroying", g, graphs, end);
}
CUresult CUDAAPI cuGraphAddKernelNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const CUDA_KERNEL_NODE_PARAMS *p) {
    BEGIN
    node what = {};
    CUresult r = take_node(p, &what);
    return r == CUDA_SUCCESS ? add_node(out, g, before, n, what) : r;
}
CUresult CUDAAPI cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph g, const CUgraphNode *before, size_t n, const CUDA_MEMCPY3D *p, CUcontext) {
    BEGIN
    node what = {};
    CUresult r = take_copy(p, &what);
    return r == CUDA_SUCCESS ? add_node(out, g, before, n, what) : r;
}
CUresult CUDAAPI cuGraphInstantiate(CUgraphExec *out, CUgraph g, unsigned long long) {
    BEGIN
    NEED(graphs.count(g) && !g->nodes.empty(), "making no graph ready");
    make(out, execs);
    (*out)->nodes = g->nodes;
    counts.built++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec e) {
    BEGIN_FREEING
    return drop("destroying", e, execs, end);
}
CUresult CUDAAPI cuGraphExecKernelNodeSetParams(CUgraphExec e, CUgraphNode n, const CUDA_KERNEL_NODE_PARAMS *p) {
    BEGIN
    node what = {};
    CUresult r = take_node(p, &what);
    return r == CUDA_SUCCESS ? update(e, n, what) : r;
}
CUresult CUDAAPI cuGraphExecMemcpyNodeSetParams(CUgraphExec e, CUgraphNode n, const CUDA_MEMCPY3D *p, CUcontext) {
    BEGIN
    node what = {};
    CUresult r = take_copy(p, &what);
    return r == CUDA_SUCCESS ? update(e, n, what) : r;
}
CUresult CUDAAPI cuGraphLaunch(CUgraphExec e, CUstream s) {
    BEGIN
    NEED(execs.count(e) && known(s), "launching no graph");
    counts.graphs++;
    for (const node &n : e->nodes)
        queue(s, [n] { return n.is_copy ? run_copy(n.move) : run_launch(n.run); });
    return CUDA_SUCCESS;
}

} // extern "C"

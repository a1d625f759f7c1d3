/*
 * The driver functions that the backend uses, in host memory; kernels run through the shim. What its files share.
 *
 * A stream runs late: nothing happens until somebody waits for it, so that a forgotten wait leaves old data to be
 * seen. Nodes of a graph run in an order that their edges allow, another one each time. Device memory is shared memory
 * behind an address range, NaN until written. Kernels may touch what is mapped and opened, and pinned host memory.
 */
#ifndef TSR_TESTS_FAKE_STATE_H
#define TSR_TESTS_FAKE_STATE_H

#include "fake.h"
#include "shim/kernels.h"

#include <cuda.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

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
    bool timing = false, blocking = false;
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
    std::vector<int> after;
    int ways; /* of a copy: the kinds of memory */
};
struct CUgraph_st {
    std::deque<node> nodes;
    std::deque<CUgraphNode_st> handles;
};
struct CUgraphExec_st {
    CUgraph of; /* whose nodes name those to update */
    std::deque<node> nodes;
};

namespace fake {

const size_t USUAL_PAGES = 2 << 20;
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

extern std::recursive_mutex lock;
extern fake_cuda_config config;
extern fake_cuda_timelines timelines;
extern fake_cuda_counts counts;
extern std::atomic<int> pinning, stalled;
extern int fail_in;
extern bool settled, sticky;
extern std::string first_wrong;
extern thread_local CUcontext current;
extern CUctx_st the_context;
extern int retained, context_device;
extern std::map<CUmemGenericAllocationHandle, memory> memories;
extern std::map<char *, size_t> reserved, pinned;
extern std::map<char *, mapping> mapped;
extern std::set<CUstream> streams;
extern std::set<CUevent> events;
extern std::set<CUgraph> graphs;
extern std::set<CUgraphExec> execs;
extern std::set<CUlibrary> libraries;
extern std::set<CUexternalMemory> foreign;
extern std::set<CUexternalSemaphore> semaphores;
extern std::map<std::pair<CUlibrary, std::string>, CUkern_st> kernels;
extern uint64_t seed; /* of what is up to chance: another one each launch */

char *at(CUdeviceptr p);
bool is_mapped(const char *p, size_t bytes); /* all of it, and open */
bool is_pinned(const char *p, size_t bytes);
bool accessible(const char *p, size_t bytes); /* one of the two, or another API's */
bool known(CUstream s);
void queue(CUstream s, std::function<bool()> f);
CUresult run_until(CUstream s, uint64_t until);
bool run_launch(const launch &l);
bool run_copy(const copy &c);
CUresult take_launch(
    CUkernel k, const unsigned grid[3], const unsigned block[3], size_t shared, void **params, launch *out);
/* The device by itself: a thread that runs what other APIs wait for, until the last timeline goes. end: without the
 * lock. */
void wake_device();
void end_device();

CUresult wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool turn_to_fail();

/* Begins every function: its turn to fail; a context where one is needed. */
#define BEGIN_ANYWHERE                                                                                                 \
    std::lock_guard<std::recursive_mutex> guard(lock);                                                                 \
    if (turn_to_fail())                                                                                                \
        return CUDA_ERROR_UNKNOWN;
#define BEGIN                                                                                                          \
    std::lock_guard<std::recursive_mutex> guard(lock);                                                                 \
    if (turn_to_fail()) {                                                                                              \
        counts.failures++;                                                                                             \
        return CUDA_ERROR_UNKNOWN;                                                                                     \
    }                                                                                                                  \
    if (!current)                                                                                                      \
        return wrong("%s without a context", __func__);                                                                \
    if (sticky)                                                                                                        \
        return CUDA_ERROR_ILLEGAL_ADDRESS;
/* The same for functions that make something. */
#define BEGIN_MAKING                                                                                                   \
    BEGIN                                                                                                              \
    if (settled)                                                                                                       \
        return wrong("%s while decoding", __func__);
/* And those that free or wait: they do, and may still report a failure of something earlier. Some of them want a
 * context as well. */
#define BEGIN_FREEING                                                                                                  \
    std::lock_guard<std::recursive_mutex> guard(lock);                                                                 \
    CUresult end = turn_to_fail() ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS;
#define BEGIN_FREEING_HERE                                                                                             \
    BEGIN_FREEING                                                                                                      \
    if (!current)                                                                                                      \
        return wrong("%s without a context", __func__);
#define NEED(condition, ...)                                                                                           \
    if (!(condition))                                                                                                  \
        return wrong(__VA_ARGS__);

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

} // namespace fake

using namespace fake;

#endif

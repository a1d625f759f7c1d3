/* Devices, contexts, kernels and their launches. */
#include "state.h"

#include <cstring>

namespace fake {

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

CUresult take_launch(
    CUkernel k, const unsigned grid[3], const unsigned block[3], size_t shared, void **params, launch *out) {
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
    *out = {k->kernel, std::string(static_cast<char *>(params[0]), k->kernel->args_bytes), {grid[0], grid[1], grid[2]},
        shared};
    return CUDA_SUCCESS;
}

} // namespace fake

extern "C" {

CUresult CUDAAPI cuInit(unsigned) {
    BEGIN_ANYWHERE
    if (const char *launch = std::getenv("FAKE_CUDA_FAULT_LAUNCH")) /* of each process, for programs */
        config.fault_launch = std::atoi(launch);
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
    *s = r == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory"
         : r == CUDA_ERROR_UNKNOWN     ? "made to fail"
                                       : first_wrong.c_str();
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
    static const std::map<int, int> fixed = {{CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 4},
        {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000}, {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000},
        {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 256},
        {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1}};
    auto f = fixed.find(a);
    *v = a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR                      ? config.major
         : a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR                    ? config.minor
         : a == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED ? config.exports
         : f != fixed.end()                                                     ? f->second
                                                                                : -1;
    NEED(*v >= 0, "attribute %d is not one the fake knows", a);
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *c, CUdevice d) {
    BEGIN_ANYWHERE
    NEED(!retained || d == context_device, "a context of a second device, which the fake has not");
    context_device = d;
    *c = &the_context;
    retained++;
    counts.live++;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice d) {
    BEGIN_FREEING
    NEED(retained > 0 && d == context_device, "the context is released too often");
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

CUresult CUDAAPI cuLibraryLoadData(
    CUlibrary *out, const void *code, CUjit_option *, void **, unsigned, CUlibraryOption *, void **, unsigned) {
    BEGIN_MAKING
    uint32_t magic;
    std::memcpy(&magic, code, 4);
    NEED(magic == 0xba55ed50u && reinterpret_cast<uintptr_t>(code) % 8 == 0, "not a fatbin");
    return make(out, libraries);
}
CUresult CUDAAPI cuLibraryUnload(CUlibrary l) {
    BEGIN_FREEING
    for (auto k = kernels.begin(); k != kernels.end();)
        k = k->first.first == l ? kernels.erase(k) : std::next(k);
    return drop("unloading", l, libraries, end);
}
CUresult CUDAAPI cuLibraryGetKernel(CUkernel *out, CUlibrary l, const char *name) {
    BEGIN
    const shim::named_kernel *k = shim::find_kernel(name);
    NEED(libraries.count(l) && k, "no kernel %s", name);
    auto entry = kernels.insert({{l, name}, {k, FREE_SHARED}}).first;
    *out = &entry->second;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuKernelSetAttribute(CUfunction_attribute a, int v, CUkernel k, CUdevice d) {
    BEGIN
    NEED(d == context_device && a == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES &&
             v <= (config.major == 9 ? MOST_SHARED_HOPPER : MOST_SHARED),
        "%d bytes of shared memory", v);
    k->most_shared = v;
    return CUDA_SUCCESS;
}
CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
    unsigned bz, unsigned shared, CUstream s, void **params, void **) {
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

} // extern "C"

/* In place of the shim (shim/shim.h): the same checks launch the kernels on the device. What a launch may touch is
 * copied there and back, each piece between guards, and pointers to it in the kernel's parameters become the
 * device's. */
#include "device.h"

#include "shim/kernels.h"

#include <atomic>
using std::atomic_bool, std::atomic_llong; /* what <stdatomic.h> calls so in C */

extern "C" {
#include "backend/cuda/device.h"
}

#include <cstdio>
#include <map>

bool shim::exact_sums = false;
static tsr_cuda *gpu;
static std::map<std::string, shim::named_kernel> found;

enum { GUARD = 256, GUARD_BYTE = 0xa5 };

tsr_status device_open(std::string *name) {
    tsr_backend *b = nullptr;
    tsr_status status = tsr_cuda_create(&b, -1);
    gpu = reinterpret_cast<tsr_cuda *>(b);
    *name = status == TSR_OK ? gpu->name : tsr_last_error();
    return status;
}

void device_close() {
    gpu->base.v->destroy(&gpu->base);
}

bool device_lost() {
    CUresult r = tsr_cu.p_cuStreamQuery(gpu->stream);
    return r != CUDA_SUCCESS && r != CUDA_ERROR_NOT_READY;
}

bool device_hopper() {
    return tsr_cuda_hopper(gpu);
}

bool device_has(const one_case &c) {
    if (c.shape != TSR_CONV_SHAPE_COUNT)
        return tsr_cuda_has(gpu, c.shape, c.type);
    return c.type != TSR_E4M3 || tsr_cuda_fp8(gpu);
}

/* ---------------------------------------------------------------- kernels by name */

static CUkernel conv_named(const std::string &name) {
    static const char *const element[TSR_CUDA_CONV_ELEMENTS] = {"f16", "bf16", "e4m3", "u8"};
    for (int e = 0; e < TSR_CUDA_CONV_ELEMENTS; e++)
        for (int s = 0; s < TSR_CONV_SHAPE_COUNT; s++)
            if (name == std::string("tsr_conv_") + element[e] + "_" + tsr_conv_forms[s].name)
                return gpu->conv[e][s];
    return nullptr;
}

static CUkernel pass_named(const std::string &name, size_t *args) {
    static const struct {
        const char *name;
        size_t args;
    } pass[] = {{"tsr_stats", sizeof(tsr_stats_args)}, {"tsr_reduce", sizeof(tsr_reduce_args)},
        {"tsr_set_range", sizeof(tsr_set_range_args)}, {"tsr_requantise", sizeof(tsr_requantise_args)},
        {"tsr_norm", sizeof(tsr_norm_args)}, {"tsr_attention_f16", sizeof(tsr_attention_args)},
        {"tsr_attention_bf16", sizeof(tsr_attention_args)}, {"tsr_input", sizeof(tsr_input_args)},
        {"tsr_store", sizeof(tsr_store_args)}};
    static_assert(sizeof pass / sizeof *pass == TSR_CUDA_PASS_COUNT, "in the order of TSR_CUDA_PASSES");
    for (int i = 0; i < TSR_CUDA_PASS_COUNT; i++)
        if (name == pass[i].name) {
            *args = pass[i].args;
            return gpu->pass[i];
        }
    return nullptr;
}

const shim::named_kernel *shim::find_kernel(const std::string &name) {
    size_t args = sizeof(tsr_conv_args);
    CUkernel k = name.rfind("tsr_conv_", 0) == 0 ? conv_named(name) : pass_named(name, &args);
    if (!k)
        return nullptr;
    auto &entry = found[name];
    entry = {"", reinterpret_cast<kernel_fn>(k), args};
    return &entry;
}

/* ---------------------------------------------------------------- launches */

struct piece {
    const shim::region *from;
    size_t at; /* in the copy */
};

/* Pointers into (or to the end of) a piece, wherever they stand in the parameters. */
static void aim(std::string &args, const std::vector<piece> &pieces, CUdeviceptr copy) {
    for (size_t i = 0; i + 8 <= args.size(); i += 8) {
        uintptr_t p;
        std::memcpy(&p, &args[i], sizeof p);
        for (const piece &part : pieces) {
            uintptr_t begin = reinterpret_cast<uintptr_t>(part.from->begin);
            if (p < begin || p > begin + part.from->bytes)
                continue;
            p = static_cast<uintptr_t>(copy) + part.at + (p - begin);
            std::memcpy(&args[i], &p, sizeof p);
            break;
        }
    }
}

static std::string run(CUkernel k, std::string &args, dim3 grid, unsigned shared, CUdeviceptr at, std::string &bytes) {
    void *param[1] = {&args[0]};
    tsr_status status =
        tsr_cu_check(tsr_cu.p_cuMemcpyHtoDAsync(at, bytes.data(), bytes.size(), gpu->stream), "copying");
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuLaunchKernel(reinterpret_cast<CUfunction>(k), grid.x, grid.y, grid.z,
                                  TSR_CONV_THREADS, 1, 1, shared, gpu->stream, param, nullptr),
            "launching");
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuMemcpyDtoHAsync(&bytes[0], at, bytes.size(), gpu->stream), "copying back");
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuStreamSynchronize(gpu->stream), "running");
    return status == TSR_OK ? "" : tsr_last_error();
}

/* The pieces to where they came from; what is wrong with what lay around them, or in those that are only read. */
static std::string take_back(const std::vector<piece> &pieces, const std::string &bytes) {
    size_t end = 0;
    for (const piece &part : pieces) {
        for (; end < part.at; end++)
            if (static_cast<uint8_t>(bytes[end]) != GUARD_BYTE)
                return "it wrote outside of its memory";
        end += part.from->bytes;
        if (part.from->writable)
            std::memcpy(const_cast<void *>(part.from->begin), &bytes[part.at], part.from->bytes);
        else if (std::memcmp(part.from->begin, &bytes[part.at], part.from->bytes) != 0)
            return "it wrote to what is only read";
    }
    for (; end < bytes.size(); end++)
        if (static_cast<uint8_t>(bytes[end]) != GUARD_BYTE)
            return "it wrote outside of its memory";
    return "";
}

std::string shim::launch(
    kernel_fn kernel, const void *args, dim3 grid, dim3, size_t shared, const options &how, counters *) {
    std::vector<piece> pieces;
    std::string bytes, params;
    for (auto &f : found)
        if (f.second.fn == kernel)
            params.assign(static_cast<const char *>(args), f.second.args_bytes);
    for (const region &r : how.regions) {
        bytes.resize((bytes.size() + GUARD + 255) / 256 * 256, static_cast<char>(GUARD_BYTE));
        pieces.push_back({&r, bytes.size()});
        bytes.append(static_cast<const char *>(r.begin), r.bytes);
    }
    bytes.resize(bytes.size() + GUARD, static_cast<char>(GUARD_BYTE));
    tsr_cuda_block memory;
    if (tsr_cuda_enter(gpu) != TSR_OK || tsr_cuda_block_create(gpu, bytes.size(), false, "a check", &memory) != TSR_OK)
        return tsr_last_error();
    aim(params, pieces, memory.at);
    std::string wrong =
        run(reinterpret_cast<CUkernel>(kernel), params, grid, static_cast<unsigned>(shared), memory.at, bytes);
    tsr_cuda_block_destroy(&memory);
    return wrong.empty() ? take_back(pieces, bytes) : wrong;
}

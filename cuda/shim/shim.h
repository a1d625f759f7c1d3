/*
 * Host shim: runs the project's CUDA kernels on the CPU, to prove them without a GPU.
 *
 * The same .cu files are compiled as C++17 with TSR_SHIM defined. Each CUDA thread is a fiber.
 * Blocks run one after the other in a shuffled order, warps and lanes of a block interleave in a
 * shuffled order; the seed decides both, so a run can be repeated. What ptx.h offers a kernel on
 * the GPU, this header offers on the CPU, and it watches:
 *
 *   divergence: the 32 lanes of a warp must meet in the same warp-wide operation, a block in the same barrier
 *   cp.async: a destination is poisoned from the copy's issue until the issuing thread has waited for its group
 *   wgmma: runs as late as it may, when it is waited for, from what registers and shared memory hold by then;
 *       shared memory must have been there, and published to it, when it began
 *   races: two warps touching the same 4 bytes of shared memory, one of them writing, with no barrier between
 *   shared memory: every access against the launch's size; reading what nobody wrote
 *   global memory: every access against the launch's regions, where some are given
 *
 * The first fault ends the launch and is returned as one line of text. Accesses of one warp to its
 * own data count as ordered. Not modelled: time, caches.
 */
#ifndef TSR_SHIM_H
#define TSR_SHIM_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace shim {

struct region { /* global memory a launch may touch */
    const void *begin;
    size_t bytes;
    bool writable;
};

struct options {
    uint64_t seed = 1;
    std::vector<region> regions; /* empty: global accesses are not checked (by us) */
};

struct counters {
    uint64_t blocks = 0, barriers = 0;
    uint64_t mma = 0, ldmatrix = 0;
    uint64_t mma_flops = 0;       /* multiply-adds counted as 2 */
    uint64_t async_bytes = 0;     /* global to shared memory, by cp.async */
    uint64_t load_bytes = 0;      /* global to registers */
    uint64_t store_bytes = 0;     /* registers to global */
    uint64_t shared_accesses = 0; /* warp-wide shared-memory wavefronts at best */
    uint64_t bank_conflicts = 0;  /* wavefronts beyond that, of loads and ldmatrix */
    uint64_t write_conflicts = 0; /* likewise of stores. Lanes meet by their n-th visit of a line of
                                     source, which is a guess where some lanes skip visits */
};

/* How a tensor core adds products of floating-point numbers: `together` of them and the sum so far at once, each cut
 * off `fraction` bits below the largest one's first (a product's exponent is the sum of its factors'), the new sum
 * `kept` bits below its own. Measured on GPUs by others (arXiv 2511.10909): of 16-bit numbers {8, 24, 23} on sm_80, 86
 * and 89, {16, 25, 23} on sm_90 and 120; of e4m3 {16, 13, 13} on sm_89, {32, 13, 13} on sm_90, {32, 25, 23} on sm_120.
 */
struct tensor_core {
    int together, fraction, kept;
};
extern tensor_core adds; /* 0 together, as it begins: all are added in f32, rounded. Others want finite numbers */
extern bool exact_sums;  /* sums are checked as those in f32; false on a GPU */

typedef void (*kernel_fn)(const void *args);

/* Runs kernel over grid x block threads (block.y = block.z = 1, block.x a multiple of 32) with
 * shared_bytes of dynamic shared memory. "" where all went well; else what went wrong first, and
 * where. Adds to *total if set. */
std::string launch(kernel_fn kernel, const void *args, dim3 grid, dim3 block, size_t shared_bytes, const options &how,
    counters *total);

/* A kernel that takes its parameters as one struct, as a kernel_fn. */
template <class Args, void (*Kernel)(Args)> void entry(const void *args) {
    Kernel(*static_cast<const Args *>(args));
}

/* ---------------------------------------------------------------- for ptx.h's half of the shim */

struct ids {
    dim3 thread, block;
};
const ids &self();
extern dim3 grid_dim, block_dim;

/* Every warp-wide operation passes here. The last of 32 lanes to arrive runs fn over all lanes'
 * arguments. */
struct warp_call {
    const void *in[32];
    void *out[32];
};
void warp_op(const char *name, int line, const void *in, void *out, void (*fn)(warp_call &));
void barrier(int line);
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

constexpr uint32_t shared_base = 0x400; /* not 0, so that a forgotten base is seen */
void shared_read(uint32_t address, void *to, uint32_t bytes, int line);
void shared_write(uint32_t address, const void *from, uint32_t bytes, int line);
/* 8 rows of 16 bytes, as one phase of ldmatrix reads them. */
void shared_rows(const uint32_t (&address)[8], uint8_t (&to)[8][16], int line);
void async_copy(uint32_t to, const void *from, uint32_t bytes, int line);
void async_commit();
void async_wait(unsigned pending);
void global_read(const void *p, size_t bytes, int line);
void global_write(const void *p, size_t bytes, int line);
void count_mma(uint64_t flops);

/* A lane's part of a wgmma, which runs when the lane's warp waits for it. */
struct product {
    const uint32_t *a; /* [4] */
    void *d;           /* [16][4] */
    uint64_t rows;     /* descriptor of b */
    int line;
    void (*run)(const product *const (&lanes)[32]);
    bool committed;
};
void product_begin(const product &p);
void product_commit();
void product_wait(int line);
void registers_moved(); /* by an instruction that a wgmma might not see without a fence */
void registers_fence();
void publish(); /* fence.proxy.async: what this thread wrote, to wgmma */
/* 128 rows of 32 bytes, as the descriptor says. */
void shared_matrix(uint64_t rows, uint8_t (&to)[128][32], int line);

} // namespace shim

#define threadIdx (shim::self().thread)
#define blockIdx (shim::self().block)
#define gridDim (shim::grid_dim)
#define blockDim (shim::block_dim)

#endif

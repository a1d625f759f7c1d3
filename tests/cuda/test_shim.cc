/* The host shim itself: every kind of fault it exists for is seen, and right kernels pass. */
#include "ptx.h"

#include <criterion/criterion.h>

struct shim_args {
    uint8_t *global;
    int fault;
};

enum {
    NONE,
    SHORT_WAIT,
    NO_BARRIER,
    OVERWRITE,
    DIVERGENT_WARP,
    DIVERGENT_BLOCK,
    SHARED_END,
    UNWRITTEN,
    GLOBAL_END,
    EARLY_EXIT,
    MISALIGNED
};

/* 64 threads copy 64 x 16 bytes through shared memory, each to its mirror's place; then sum over
 * warps. */
static void mirror(shim_args a) {
    const uint32_t tid = threadIdx.x, s = shared_memory(), past_end = a.fault == SHARED_END && tid == 5 ? 1024 : 0;
    if (a.fault == EARLY_EXIT && tid == 40)
        return;
    cp_async16(s + tid * 16 + past_end, a.global + tid * 16);
    cp_commit();
    if (a.fault != SHORT_WAIT)
        cp_wait<0>();
    if (a.fault == DIVERGENT_BLOCK && tid >= 32)
        block_sync();
    else if (a.fault != NO_BARRIER)
        block_sync();
    uint32_t v = lds32(s + (63 - tid) * 16 + (a.fault == UNWRITTEN ? 1024 : 0) + (a.fault == MISALIGNED ? 2 : 0));
    if (a.fault != OVERWRITE)
        block_sync();
    sts32(s + tid * 16, v);
    if (a.fault == DIVERGENT_WARP && tid % 32 < 3)
        v = shfl_xor32(v, 1);
    else
        v += shfl_xor32(v, 1);
    block_sync();
    stg(reinterpret_cast<uint32_t *>(a.global + 1024 + (a.fault == GLOBAL_END ? 4 : 0)) + tid, v);
}

static std::string run(int fault, uint64_t seed, shim::counters *count = nullptr) {
    std::vector<uint8_t> global(1024 + 256 + 16);
    for (size_t i = 0; i < 1024; i++)
        global[i] = static_cast<uint8_t>(i * 31);
    shim_args a = {global.data(), fault};
    shim::options how;
    how.seed = seed;
    how.regions.push_back({global.data(), 1024 + 256, true});
    std::string wrong = shim::launch(
        shim::entry<shim_args, mirror>, &a, {2, 1, 1}, {64, 1, 1}, fault == UNWRITTEN ? 2048 : 1024, how, count);
    for (int t = 0; wrong.empty() && t < 64; t++) {
        uint32_t mine, other, got;
        std::memcpy(&mine, &global[(63 - t) * 16], 4);
        std::memcpy(&other, &global[(63 - (t ^ 1)) * 16], 4);
        std::memcpy(&got, &global[1024 + t * 4], 4);
        if (got != mine + other)
            return "wrong sum";
    }
    return wrong;
}

Test(shim, a_right_kernel_passes_in_every_order) {
    for (uint64_t seed = 0; seed < 50; seed++) {
        std::string wrong = run(NONE, seed);
        cr_assert(wrong.empty(), "%s", wrong.c_str());
    }
}

Test(shim, each_fault_is_named) {
    struct {
        int fault;
        const char *says;
    } cases[] = {
        {SHORT_WAIT, "in flight"},
        {NO_BARRIER, ""}, /* race, or in flight where the reader came first */
        {OVERWRITE, "race"},
        {DIVERGENT_WARP, "divergence"},
        {DIVERGENT_BLOCK, "divergence"},
        {SHARED_END, "shared memory"},
        {UNWRITTEN, "never written"},
        {GLOBAL_END, "global memory"},
        {EARLY_EXIT, "divergence"},
        {MISALIGNED, "multiple"},
    };
    for (auto &c : cases)
        for (uint64_t seed = 0; seed < 20; seed++) {
            std::string wrong = run(c.fault, seed);
            cr_assert(!wrong.empty(), "fault %d passed with seed %d", c.fault, static_cast<int>(seed));
            cr_assert(wrong.find(c.says) != std::string::npos, "fault %d: %s", c.fault, wrong.c_str());
        }
}

Test(shim, counts) {
    shim::counters count;
    cr_assert(run(NONE, 1, &count).empty());
    cr_assert_eq(count.blocks, 2u);
    cr_assert_eq(count.barriers, 2 * 3u);
    cr_assert_eq(count.async_bytes, 2 * 1024u);
    cr_assert_eq(count.store_bytes, 2 * 256u);
    /* 16-byte strides: 32 lanes hit 8 banks, so an access of a warp takes 4 wavefronts for 1 */
    cr_assert_eq(count.bank_conflicts, 2 * 2 * 3u);
    cr_assert_eq(count.write_conflicts, 2 * 2 * 3u);
}

struct mma_args {
    uint32_t *out;
};
/* One product of ones by the identity's pattern, through ldmatrix. */
template <class E> static void product(mma_args a) {
    const uint32_t lane = threadIdx.x, s = shared_memory();
    const uint32_t one = E::bytes == 2            ? pack16(E::type, 1, 1)
                         : E::type == TSR_ELEM_U8 ? 0x01010101u
                                                  : pack_e4m3(1, 1) * 0x10001u;
    sts128(s + lane * 16, {{one, one, one, one}});
    block_sync();
    uint32_t m[4], t[4], b[2];
    ldmatrix4(m, s + lane % 16 * 16);
    ldmatrix4_trans(t, s + lane % 16 * 16);
    ldmatrix2(b, s + lane % 8 * 16);
    typename E::acc c[4] = {1, 1, 1, 1};
    mma(E(), c, m, b[0], b[1]);
    bool right = true;
    for (int i = 0; i < 4; i++)
        right = right && c[i] == 1 + 32 / E::bytes && m[i] == one && (E::bytes == 1 || t[i] == one);
    stg(a.out + lane, static_cast<uint32_t>(right));
}

template <class E> static void check_product() {
    uint32_t out[32] = {};
    mma_args a = {out};
    std::string wrong = shim::launch(shim::entry<mma_args, product<E>>, &a, {1, 1, 1}, {32, 1, 1}, 512, {}, nullptr);
    cr_assert(wrong.empty(), "%s", wrong.c_str());
    for (uint32_t right : out)
        cr_assert(right);
}

Test(shim, products_of_ones) {
    check_product<elem_f16>();
    check_product<elem_bf16>();
    check_product<elem_e4m3>();
    check_product<elem_u8>();
}

/* div.approx of the PTX ISA: a * (1 / b), and 1 / b is 0 from 2^126 on. */
Test(shim, fast_division_by_large_numbers) {
    cr_assert_eq(divide_fast(6, 3), 2.0f);
    cr_assert_eq(divide_fast(-1e30f, 0x1p127f), 0.0f);
    cr_assert_eq(divide_fast(1, INFINITY), 0.0f);
    cr_assert(std::isnan(divide_fast(-INFINITY, 0x1p127f)) && std::isnan(divide_fast(INFINITY, INFINITY)));
    cr_assert(std::isnan(divide_fast(NAN, 0x1p127f)) && std::isnan(silu(-INFINITY)));
}

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

/* ---------------------------------------------------------------- who holds what
 *
 * Written down from the tables of the PTX ISA (mma.m16n8k16 and .m16n8k32, ldmatrix), not from the shim: numbers are
 * placed by the tables, and a product is right only where the shim places them alike. Small integers: sums are exact.
 */

static int number_a(int row, int k) {
    return (row * 7 + k * 3) % 13;
}
static int number_b(int k, int column) {
    return (k * 5 + column * 11) % 9 - 4;
}

template <class E> static uint32_t bits(int v) {
    float f = static_cast<float>(v);
    return E::bytes == 2            ? pack16(E::type, f, f) & 0xffff
           : E::type == TSR_ELEM_U8 ? static_cast<uint32_t>(v) & 0xff /* s8 of b likewise */
                                    : pack_e4m3(f, f) & 0xff;
}

struct product_args {
    int32_t *out; /* [16][8] */
};

template <class E> static void product(product_args a) {
    enum { EACH = 4 / E::bytes, HALF = 16 / E::bytes }; /* numbers in a register; half of the k of a product */
    const int group = static_cast<int>(threadIdx.x) / 4, in_group = static_cast<int>(threadIdx.x) % 4;
    uint32_t m[4] = {}, b[2] = {};
    for (int r = 0; r < 4; r++)
        for (int i = 0; i < EACH; i++)
            m[r] |= bits<E>(number_a(group + r % 2 * 8, in_group * EACH + i + r / 2 * HALF)) << 8 * E::bytes * i;
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < EACH; i++)
            b[r] |= bits<E>(number_b(in_group * EACH + i + r * HALF, group)) << 8 * E::bytes * i;
    typename E::acc c[4] = {1, 2, 3, 4};
    mma(E(), c, m, b[0], b[1]);
    for (int i = 0; i < 4; i++)
        stg(a.out + (group + i / 2 * 8) * 8 + in_group * 2 + i % 2, static_cast<int32_t>(c[i]) - i);
}

template <class E> static void check_product() {
    int32_t out[16][8] = {};
    product_args a = {out[0]};
    std::string wrong = shim::launch(shim::entry<product_args, product<E>>, &a, {1, 1, 1}, {32, 1, 1}, 0, {}, nullptr);
    cr_assert(wrong.empty(), "%s", wrong.c_str());
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 8; column++) {
            int sum = 1;
            for (int k = 0; k < 32 / E::bytes; k++)
                sum += number_a(row, k) * number_b(k, column);
            cr_assert_eq(out[row][column], sum, "row %d, column %d: %d, not %d", row, column, out[row][column], sum);
        }
}

Test(shim, products_of_the_tables) {
    check_product<elem_f16>();
    check_product<elem_bf16>();
    check_product<elem_e4m3>();
    check_product<elem_u8>();
}

struct matrix_args {
    uint32_t *out; /* [lane][x4, x4 transposed, x2: 10 registers] */
};

/* Four matrices whose number at row r, column c of matrix m is 64 m + 8 r + c. */
static void matrices(matrix_args a) {
    const uint32_t lane = threadIdx.x, s = shared_memory();
    vec4 row;
    for (uint32_t i = 0; i < 4; i++)
        row.x[i] = (lane * 8 + 2 * i) | (lane * 8 + 2 * i + 1) << 16;
    sts128(s + lane * 16, row);
    block_sync();
    uint32_t x4[4], trans[4], x2[2];
    ldmatrix4(x4, s + lane * 16);
    ldmatrix4_trans(trans, s + lane * 16);
    ldmatrix2(x2, s + lane % 16 * 16);
    for (uint32_t i = 0; i < 4; i++) {
        stg(a.out + lane * 10 + i, x4[i]);
        stg(a.out + lane * 10 + 4 + i, trans[i]);
    }
    stg(a.out + lane * 10 + 8, x2[0]);
    stg(a.out + lane * 10 + 9, x2[1]);
}

Test(shim, matrices_of_the_tables) {
    uint32_t out[32][10] = {};
    matrix_args a = {out[0]};
    std::string wrong = shim::launch(shim::entry<matrix_args, matrices>, &a, {1, 1, 1}, {32, 1, 1}, 512, {}, nullptr);
    cr_assert(wrong.empty(), "%s", wrong.c_str());
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t m = 0; m < 4; m++) {
            uint32_t line = lane / 4, pair = lane % 4 * 2;
            uint32_t plain = (64 * m + 8 * line + pair) | (64 * m + 8 * line + pair + 1) << 16;
            uint32_t trans = (64 * m + 8 * pair + line) | (64 * m + 8 * (pair + 1) + line) << 16;
            cr_assert_eq(out[lane][m], plain);
            cr_assert_eq(out[lane][4 + m], trans);
            cr_assert(m > 1 || out[lane][8 + m] == plain);
        }
}

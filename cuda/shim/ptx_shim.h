/* The CPU's half of ptx.h, included by it. The line of the calling kernel comes along for messages
 * and for telling one place of a kernel from another. */
#include "shim.h"

extern "C" {
#include "core/core.h"
}

#undef DEV
#define DEV static inline
#define LINE int line = __builtin_LINE()

DEV uint32_t shared_memory() {
    return shim::shared_base;
}

template <class T> DEV T ldg(const T *p, LINE) {
    shim::global_read(p, sizeof(T), line);
    return *p;
}
template <class T> DEV void stg(T *p, T v, LINE) {
    shim::global_write(p, sizeof(T), line);
    *p = v;
}

DEV uint32_t lds32(uint32_t a, LINE) {
    uint32_t v;
    shim::shared_read(a, &v, 4, line);
    return v;
}
DEV vec2 lds64(uint32_t a, LINE) {
    vec2 v;
    shim::shared_read(a, &v, 8, line);
    return v;
}
DEV vec4 lds128(uint32_t a, LINE) {
    vec4 v;
    shim::shared_read(a, &v, 16, line);
    return v;
}
DEV void sts32(uint32_t a, uint32_t v, LINE) {
    shim::shared_write(a, &v, 4, line);
}
DEV void sts64(uint32_t a, vec2 v, LINE) {
    shim::shared_write(a, &v, 8, line);
}
DEV void sts128(uint32_t a, vec4 v, LINE) {
    shim::shared_write(a, &v, 16, line);
}

DEV void cp_async16(uint32_t to, const void *from, LINE) {
    shim::async_copy(to, from, 16, line);
}
DEV void cp_commit() {
    shim::async_commit();
}
template <int Pending> DEV void cp_wait() {
    static_assert(Pending >= 0, "a number of groups");
    shim::async_wait(Pending);
}
DEV void block_sync(LINE) {
    shim::barrier(line);
}

/* ---------------------------------------------------------------- warps */

DEV uint32_t shfl_xor32(uint32_t v, int mask, LINE) {
    struct arg {
        uint32_t v;
        int mask;
    } in = {v, mask};
    uint32_t out;
    shim::warp_op("shfl", line, &in, &out, [](shim::warp_call &w) {
        for (int l = 0; l < 32; l++) {
            int m = static_cast<const arg *>(w.in[l])->mask;
            *static_cast<uint32_t *>(w.out[l]) = static_cast<const arg *>(w.in[l ^ (m & 31)])->v;
        }
    });
    return out;
}

namespace shim {
struct rows_arg {
    uint32_t address;
    int line;
};

template <int Matrices, bool Trans> SHIM_UNCHECKED void load_matrices(warp_call &w) {
    for (int m = 0; m < Matrices; m++) {
        uint32_t address[8];
        uint8_t row[8][16];
        const rows_arg *first = static_cast<const rows_arg *>(w.in[0]);
        for (int r = 0; r < 8; r++)
            address[r] = static_cast<const rows_arg *>(w.in[m * 8 + r])->address;
        shared_rows(address, row, first->line);
        for (int l = 0; l < 32; l++)
            for (int e = 0; e < 2; e++) {
                int i = l / 4,
                    j = 2 * (l % 4) + e; /* element (i, j) of the matrix, or of its transpose */
                const uint8_t *from = Trans ? row[j] + 2 * i : row[i] + 2 * j;
                std::memcpy(static_cast<uint8_t *>(w.out[l]) + m * 4 + e * 2, from, 2);
            }
    }
}
} // namespace shim

DEV void ldmatrix4(uint32_t (&r)[4], uint32_t a, LINE) {
    shim::rows_arg in = {a, line};
    shim::registers_moved();
    shim::warp_op("ldmatrix.x4", line, &in, r, shim::load_matrices<4, false>);
}
DEV void ldmatrix2(uint32_t (&r)[2], uint32_t a, LINE) {
    shim::rows_arg in = {a, line};
    shim::warp_op("ldmatrix.x2", line, &in, r, shim::load_matrices<2, false>);
}
DEV void ldmatrix4_trans(uint32_t (&r)[4], uint32_t a, LINE) {
    shim::rows_arg in = {a, line};
    shim::warp_op("ldmatrix.x4.trans", line, &in, r, shim::load_matrices<4, true>);
}

namespace shim {
struct mma_arg {
    const uint32_t *a;
    uint32_t b[2];
};

/* Number types as tables: a tile multiplies millions of them. */
template <class From> inline std::vector<float> number_table(unsigned n, From from) {
    std::vector<float> t(n);
    for (unsigned i = 0; i < n; i++)
        t[i] = from(i);
    return t;
}
SHIM_UNCHECKED inline uint16_t half_at(const uint8_t *p, int k) {
    uint16_t h;
    std::memcpy(&h, p + 2 * k, 2);
    return h;
}

/* Operand k of a fragment's 32 bytes, as the number type that the sums are kept in. */
SHIM_UNCHECKED inline float operand(elem_f16, const uint8_t *p, int k, bool) {
    static const std::vector<float> table =
        number_table(65536, [](unsigned i) { return tsr_f16_to_f32(static_cast<uint16_t>(i)); });
    return table[half_at(p, k)];
}
SHIM_UNCHECKED inline float operand(elem_bf16, const uint8_t *p, int k, bool) {
    return tsr_bf16_to_f32(half_at(p, k));
}
SHIM_UNCHECKED inline float operand(elem_e4m3, const uint8_t *p, int k, bool) {
    static const std::vector<float> table =
        number_table(256, [](unsigned i) { return tsr_e4m3_to_f32(static_cast<uint8_t>(i)); });
    return table[p[k]];
}
SHIM_UNCHECKED inline int32_t operand(elem_u8, const uint8_t *p, int k, bool weight) {
    return weight ? static_cast<int8_t>(p[k]) : p[k];
}

/* Lane l holds of a: rows l/4 and l/4 + 8, bytes 4*(l%4).. and 16 + 4*(l%4)..; of b: column l/4,
 * the same bytes; of c: rows l/4 and l/4 + 8, columns 2*(l%4) and the next. */
template <class E> SHIM_UNCHECKED void multiply(warp_call &w) {
    typedef typename E::acc acc;
    constexpr int K = 32 / E::bytes;
    uint8_t bytes_a[16][32], bytes_b[8][32];
    for (int l = 0; l < 32; l++) {
        const mma_arg *in = static_cast<const mma_arg *>(w.in[l]);
        for (int i = 0; i < 4; i++)
            std::memcpy(bytes_a[l / 4 + (i & 1) * 8] + (i >> 1) * 16 + l % 4 * 4, &in->a[i], 4);
        for (int i = 0; i < 2; i++)
            std::memcpy(bytes_b[l / 4] + i * 16 + l % 4 * 4, &in->b[i], 4);
    }
    acc a[16][K], b[K][8], c[16][8] = {};
    for (int k = 0; k < K; k++) {
        for (int r = 0; r < 16; r++)
            a[r][k] = operand(E(), bytes_a[r], k, false);
        for (int n = 0; n < 8; n++)
            b[k][n] = operand(E(), bytes_b[n], k, true);
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < K; k++)
            for (int n = 0; n < 8; n++)
                c[r][n] += a[r][k] * b[k][n];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            static_cast<acc *>(w.out[l])[i] += c[l / 4 + (i >> 1) * 8][l % 4 * 2 + (i & 1)];
    count_mma(2ull * 16 * 8 * K);
}
} // namespace shim

template <class E>
DEV void mma(E, typename E::acc (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, LINE) {
    shim::mma_arg in = {a, {b0, b1}};
    shim::warp_op("mma", line, &in, c, shim::multiply<E>);
}

/* ---------------------------------------------------------------- warpgroups */

namespace shim {
/* One warp's 16 rows of the product: fragments as multiply()'s, over 16 groups of 8 columns. */
template <class E> SHIM_UNCHECKED void multiply_rows(const product *const (&lanes)[32]) {
    typedef typename E::acc acc;
    constexpr int K = 32 / E::bytes;
    static uint8_t rows[128][32]; /* static: fibers' stacks are small */
    static acc b[K][128];
    uint8_t bytes_a[16][32];
    shared_matrix(lanes[0]->rows, rows, lanes[0]->line);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            std::memcpy(bytes_a[l / 4 + (i & 1) * 8] + (i >> 1) * 16 + l % 4 * 4, lanes[l]->a + i, 4);
    for (int k = 0; k < K; k++)
        for (int n = 0; n < 128; n++)
            b[k][n] = operand(E(), rows[n], k, true);
    for (int r = 0; r < 16; r++) {
        acc c[128] = {};
        for (int k = 0; k < K; k++) {
            const acc a = operand(E(), bytes_a[r], k, false);
            for (int n = 0; n < 128; n++)
                c[n] += a * b[k][n];
        }
        for (int n = 0; n < 128; n++)
            static_cast<acc *>(lanes[r % 8 * 4 + n % 8 / 2]->d)[n / 8 * 4 + r / 8 * 2 + n % 2] += c[n];
    }
    count_mma(2ull * 16 * 128 * K);
}
} // namespace shim

DEV void wgmma_fence() {
    shim::registers_fence();
}
DEV void wgmma_commit() {
    shim::product_commit();
}
DEV void wgmma_wait(LINE) {
    shim::product_wait(line);
}
DEV void wgmma_publish() {
    shim::publish();
}
template <class E>
DEV void wgmma(E, typename E::acc (&d)[16][4], const uint32_t (&a)[4], uint64_t b, LINE) {
    shim::product_begin({a, d, b, line, shim::multiply_rows<E>, false});
}

/* ---------------------------------------------------------------- numbers */

DEV float as_float(uint32_t u) {
    float f;
    std::memcpy(&f, &u, 4);
    return f;
}
DEV uint32_t as_bits(float f) {
    uint32_t u;
    std::memcpy(&u, &f, 4);
    return u;
}
DEV double as_double(vec2 v) {
    double d;
    std::memcpy(&d, &v, 8);
    return d;
}
DEV vec2 double_bits(double d) {
    vec2 v;
    std::memcpy(&v, &d, 8);
    return v;
}
DEV float round_even(float v) {
    return std::nearbyint(v);
}
DEV uint32_t pack_f16(float lo, float hi) {
    return tsr_f32_to_f16(lo) | static_cast<uint32_t>(tsr_f32_to_f16(hi)) << 16;
}
DEV float unpack_f16(uint32_t v, int half) {
    return tsr_f16_to_f32(static_cast<uint16_t>(half ? v >> 16 : v));
}
DEV uint32_t pack_bf16(float lo, float hi) {
    return tsr_f32_to_bf16(lo) | static_cast<uint32_t>(tsr_f32_to_bf16(hi)) << 16;
}
DEV uint32_t pack_e4m3(float lo, float hi) {
    return tsr_f32_to_e4m3(lo) | static_cast<uint32_t>(tsr_f32_to_e4m3(hi)) << 8;
}
DEV uint32_t to_u8(float v) {
    return v > 0 ? v < 255 ? static_cast<uint32_t>(std::nearbyint(v)) : 255 : 0;
}
DEV float exp2_fast(float x) {
    return std::exp2(x);
}
DEV float divide_fast(float a, float b) {
    return std::fabs(b) >= 0x1p126f ? (std::isnan(a) ? a : 0.0f) : a / b;
}

#undef LINE

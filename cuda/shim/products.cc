/* What the tensor cores and ldmatrix do, for all lanes of a warp at once: where the shim's time goes. */
#include "ptx.h"

#include <algorithm>

namespace shim {

template <int Matrices, bool Trans> void load_matrices(warp_call &w) {
    for (int m = 0; m < Matrices; m++) {
        uint32_t address[8];
        uint8_t row[8][16];
        const rows_arg *first = static_cast<const rows_arg *>(w.in[0]);
        for (int r = 0; r < 8; r++)
            address[r] = static_cast<const rows_arg *>(w.in[m * 8 + r])->address;
        shared_rows(address, row, first->line);
        for (int l = 0; l < 32; l++)
            for (int e = 0; e < 2; e++) {
                int i = l / 4, j = 2 * (l % 4) + e; /* element (i, j) of the matrix, or of its transpose */
                const uint8_t *from = Trans ? row[j] + 2 * i : row[i] + 2 * j;
                std::memcpy(static_cast<uint8_t *>(w.out[l]) + m * 4 + e * 2, from, 2);
            }
    }
}

/* Number types as tables: a tile multiplies millions of them. */
template <class From> static std::vector<float> number_table(unsigned n, From from) {
    std::vector<float> t(n);
    for (unsigned i = 0; i < n; i++)
        t[i] = from(i);
    return t;
}
static uint16_t half_at(const uint8_t *p, int k) {
    uint16_t h;
    std::memcpy(&h, p + 2 * k, 2);
    return h;
}

/* The operands in 32 bytes of a fragment, every type as f32: sums of 32 products of codes are whole numbers below
 * 2^24. */
static void operands(elem_f16, const uint8_t *p, float *to, bool) {
    static const std::vector<float> numbers =
        number_table(65536, [](unsigned i) { return tsr_f16_to_f32(static_cast<uint16_t>(i)); });
    const float *table = numbers.data();
    for (int k = 0; k < 16; k++)
        to[k] = table[half_at(p, k)];
}
static void operands(elem_bf16, const uint8_t *p, float *to, bool) {
    for (int k = 0; k < 16; k++) {
        const uint32_t bits = static_cast<uint32_t>(half_at(p, k)) << 16;
        std::memcpy(to + k, &bits, 4);
    }
}
static void operands(elem_e4m3, const uint8_t *p, float *to, bool) {
    static const std::vector<float> numbers =
        number_table(256, [](unsigned i) { return tsr_e4m3_to_f32(static_cast<uint8_t>(i)); });
    const float *table = numbers.data();
    for (int k = 0; k < 32; k++)
        to[k] = table[p[k]];
}
static void operands(elem_u8, const uint8_t *p, float *to, bool weights) {
    for (int k = 0; k < 32; k++)
        to[k] = static_cast<float>(weights ? static_cast<int8_t>(p[k]) : p[k]);
}

/* No infinity and no NaN in a word of codes: times 0 it is 0. */
static bool finite(elem_f16, uint32_t v) {
    return (v & 0x7c00u) != 0x7c00u && (v & 0x7c000000u) != 0x7c000000u;
}
static bool finite(elem_bf16, uint32_t v) {
    return (v & 0x7f80u) != 0x7f80u && (v & 0x7f800000u) != 0x7f800000u;
}
static bool finite(elem_e4m3, uint32_t v) {
    const uint32_t same = (v & 0x7f7f7f7fu) ^ 0x7f7f7f7fu; /* a byte of 0 is a NaN */
    return !((same - 0x01010101u) & ~same & 0x80808080u);
}
static bool finite(elem_u8, uint32_t) {
    return true;
}

/* Weights beyond the last channel, as most are in small models. */
template <class E> static bool adds_nothing(const warp_call &w) {
    bool nothing = true;
    for (int l = 0; l < 32 && nothing; l++) {
        const mma_arg *in = static_cast<const mma_arg *>(w.in[l]);
        nothing = !(in->b[0] | in->b[1]);
        for (int i = 0; i < 4; i++)
            nothing = nothing && finite(E(), in->a[i]);
    }
    return nothing;
}

typedef float octet __attribute__((vector_size(32)));

/* c = a[16][K] * b[N][K], b as it lies; c [16][N]. Four rows by eight columns at a time stay in registers. */
template <int K, int N> static void multiply_all(const float (&a)[16][K], const float (&b)[N][K], float (&c)[16][N]) {
    for (int n = 0; n < N; n += 8) {
        octet across[K];
        for (int k = 0; k < K; k++)
            for (int i = 0; i < 8; i++)
                across[k][i] = b[n + i][k];
        for (int r = 0; r < 16; r += 4) {
            octet sum[4] = {};
            for (int k = 0; k < K; k++)
                for (int i = 0; i < 4; i++)
                    sum[i] += a[r + i][k] * across[k];
            for (int i = 0; i < 4; i++)
                std::memcpy(&c[r + i][n], &sum[i], sizeof sum[i]);
        }
    }
}

/* The place of a number's first bit; numbers below the type's least exponent have it there. */
static int exponent(double v, int least) {
    int e;
    std::frexp(v, &e);
    return v == 0 ? -1000 : std::max(e - 1, least);
}

/* sum + a[k] * b[k] of n products at once (shim.h). */
static float add_at_once(float sum, const float *a, const float *b, int n, int least) {
    int top = exponent(sum, -126);
    for (int k = 0; k < n; k++)
        top = std::max(top, exponent(a[k], least) + exponent(b[k], least));
    const double unit = std::ldexp(1.0, top - adds.fraction);
    int64_t units = static_cast<int64_t>(sum / unit);
    for (int k = 0; k < n; k++)
        units += static_cast<int64_t>(static_cast<double>(a[k]) * b[k] / unit);
    if (!units)
        return 0;
    const double all = static_cast<double>(units) * unit, last = std::ldexp(1.0, exponent(all, -126) - adds.kept);
    return static_cast<float>(std::trunc(all / last) * last);
}

/* to += sum, which is that of all a[k] * b[k], or as a tensor core adds these. */
template <class E, int K> static void add(typename E::acc &to, float sum, const float (&a)[K], const float (&b)[K]) {
    constexpr int least = E::type == TSR_ELEM_E4M3 ? -6 : E::type == TSR_ELEM_F16 ? -14 : -126;
    if (E::type == TSR_ELEM_U8 || !adds.together) {
        to += static_cast<typename E::acc>(sum);
        return;
    }
    if (std::all_of(a, a + K, [](float v) { return v == 0; })) /* beyond the picture, as most of a small one is */
        return;
    for (int k = 0; k < K; k += adds.together)
        to = static_cast<typename E::acc>(
            add_at_once(static_cast<float>(to), a + k, b + k, std::min(adds.together, K - k), least));
}

/* A warp's 16 rows of a. Lane l holds of a: rows l/4 and l/4 + 8, bytes 4*(l%4).. and 16 + 4*(l%4)..; of b: column l/4,
 * the same bytes; of c: rows l/4 and l/4 + 8, columns 2*(l%4) and the next. */
template <class E, int K> static void gather(const uint32_t *const (&lanes)[32], float (&a)[16][K]) {
    uint8_t rows[16][32];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            std::memcpy(rows[l / 4 + (i & 1) * 8] + (i >> 1) * 16 + l % 4 * 4, lanes[l] + i, 4);
    for (int r = 0; r < 16; r++)
        operands(E(), rows[r], a[r], false);
}

template <class E> void multiply(warp_call &w) {
    typedef typename E::acc acc;
    constexpr int K = 32 / E::bytes;
    uint8_t bytes_b[8][32];
    const uint32_t *lanes[32];
    count_mma(2ull * 16 * 8 * K);
    if (adds_nothing<E>(w))
        return;
    for (int l = 0; l < 32; l++) {
        const mma_arg *in = static_cast<const mma_arg *>(w.in[l]);
        lanes[l] = in->a;
        for (int i = 0; i < 2; i++)
            std::memcpy(bytes_b[l / 4] + i * 16 + l % 4 * 4, &in->b[i], 4);
    }
    float a[16][K], b[8][K], c[16][8];
    gather<E>(lanes, a);
    for (int n = 0; n < 8; n++)
        operands(E(), bytes_b[n], b[n], true);
    multiply_all(a, b, c);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            const int m = l / 4 + (i >> 1) * 8, n = l % 4 * 2 + (i & 1);
            add<E>(static_cast<acc *>(w.out[l])[i], c[m][n], a[m], b[n]);
        }
}

/* One warp's 16 rows of the product: fragments as multiply()'s, over 16 groups of 8 columns. */
template <class E> void multiply_rows(const product *const (&lanes)[32]) {
    typedef typename E::acc acc;
    constexpr int K = 32 / E::bytes;
    static uint8_t rows[128][32]; /* static: fibers' stacks are small */
    static float a[16][K], b[128][K], c[16][128];
    const uint32_t *registers[32];
    for (int l = 0; l < 32; l++)
        registers[l] = lanes[l]->a;
    shared_matrix(lanes[0]->rows, rows, lanes[0]->line);
    gather<E>(registers, a);
    for (int n = 0; n < 128; n++)
        operands(E(), rows[n], b[n], true);
    multiply_all(a, b, c);
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < 128; n++)
            add<E>(static_cast<acc *>(lanes[r % 8 * 4 + n % 8 / 2]->d)[n / 8 * 4 + r / 8 * 2 + n % 2], c[r][n], a[r],
                b[n]);
    count_mma(2ull * 16 * 128 * K);
}

template void load_matrices<2, false>(warp_call &);
template void load_matrices<4, false>(warp_call &);
template void load_matrices<4, true>(warp_call &);
#define PRODUCTS(E)                                                                                                    \
    template void multiply<E>(warp_call &);                                                                            \
    template void multiply_rows<E>(const product *const(&)[32]);
PRODUCTS(elem_f16)
PRODUCTS(elem_bf16)
PRODUCTS(elem_e4m3)
PRODUCTS(elem_u8)

} // namespace shim

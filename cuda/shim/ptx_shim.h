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

template <int Matrices, bool Trans> void load_matrices(warp_call &w);
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
template <class E> void multiply(warp_call &w);
} // namespace shim

template <class E> DEV void mma(E, typename E::acc (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, LINE) {
    shim::mma_arg in = {a, {b0, b1}};
    shim::warp_op("mma", line, &in, c, shim::multiply<E>);
}

/* ---------------------------------------------------------------- warpgroups */

namespace shim {
template <class E> void multiply_rows(const product *const (&lanes)[32]);
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
template <class T> DEV void wgmma_sums_done(T (&)[16][4]) {
}
template <class E> DEV void wgmma(E, typename E::acc (&d)[16][4], const uint32_t (&a)[4], uint64_t b, LINE) {
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
    return std::fabs(b) >= 0x1p126f ? a * 0.0f : a / b; /* an infinity over such a number is NaN */
}

#undef LINE

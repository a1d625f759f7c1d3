/*
 * What kernels ask of the machine: the only place with inline PTX. Under TSR_SHIM the same names
 * run on the CPU and check what they are asked (shim/ptx_shim.h).
 *
 * Shared memory is dynamic only and reached through 32-bit addresses, global memory through ldg and
 * stg, so that the shim sees every access.
 */
#ifndef TSR_CUDA_PTX_H
#define TSR_CUDA_PTX_H

#include "backend/cuda/kernels.h"

#define DEV static __device__ __forceinline__

/* 4, 8 or 16 bytes that move as one. */
struct alignas(8) vec2 {
    uint32_t x[2];
};
struct alignas(16) vec4 {
    uint32_t x[4];
};

/* Operand types of the tensor cores, as tags. */
struct elem_f16 {
    static constexpr int bytes = 2;
    static constexpr tsr_elem type = TSR_ELEM_F16;
    typedef float acc;
};
struct elem_bf16 {
    static constexpr int bytes = 2;
    static constexpr tsr_elem type = TSR_ELEM_BF16;
    typedef float acc;
};
struct elem_e4m3 { /* times e4m3 */
    static constexpr int bytes = 1;
    static constexpr tsr_elem type = TSR_ELEM_E4M3;
    typedef float acc;
};
struct elem_u8 { /* times s8 */
    static constexpr int bytes = 1;
    static constexpr tsr_elem type = TSR_ELEM_U8;
    typedef int32_t acc;
};

#ifdef TSR_SHIM
#include "shim/ptx_shim.h"
#else

/* ---------------------------------------------------------------- memory */

/* First byte of the launch's dynamic shared memory. */
DEV uint32_t shared_memory() {
    extern __shared__ __align__(1024) uint8_t tsr_shared[];
    return static_cast<uint32_t>(__cvta_generic_to_shared(tsr_shared));
}

template <class T> DEV T ldg(const T *p) {
    return *p;
}
template <class T> DEV void stg(T *p, T v) {
    *p = v;
}

DEV uint32_t lds32(uint32_t a) {
    uint32_t v;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(a) : "memory");
    return v;
}
DEV vec2 lds64(uint32_t a) {
    vec2 v;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x[0]), "=r"(v.x[1]) : "r"(a) : "memory");
    return v;
}
DEV vec4 lds128(uint32_t a) {
    vec4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x[0]), "=r"(v.x[1]), "=r"(v.x[2]), "=r"(v.x[3])
                 : "r"(a)
                 : "memory");
    return v;
}
DEV void sts32(uint32_t a, uint32_t v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(a), "r"(v) : "memory");
}
DEV void sts64(uint32_t a, vec2 v) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(a), "r"(v.x[0]), "r"(v.x[1]) : "memory");
}
DEV void sts128(uint32_t a, vec4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(a), "r"(v.x[0]), "r"(v.x[1]), "r"(v.x[2]), "r"(v.x[3])
                 : "memory");
}

/* 16 bytes from global to shared memory, behind the thread's back. */
DEV void cp_async16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
/* Closes a group of copies; cp_wait<n> waits until at most the last n groups of this thread are on
 * their way. */
DEV void cp_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int Pending> DEV void cp_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

DEV void block_sync() {
    __syncthreads();
}

/* ---------------------------------------------------------------- warps */

DEV uint32_t shfl_xor32(uint32_t v, int mask) {
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

/* 8x8 matrices of 16 bits: lane l names row l%8 of matrix l/8, and gets of each matrix the pair at
 * row l/4, column 2*(l%4); with trans, of the transposed matrix. */
DEV void ldmatrix4(uint32_t (&r)[4], uint32_t a) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(a)
                 : "memory");
}
DEV void ldmatrix2(uint32_t (&r)[2], uint32_t a) { /* lanes 0..15 name rows */
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(a)
                 : "memory");
}
DEV void ldmatrix4_trans(uint32_t (&r)[4], uint32_t a) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(a)
                 : "memory");
}

/* c[16][8] += a[16][k] * b[k][8], k bytes = 32: the tensor cores' m16n8k16 (16 bits) and m16n8k32
 * (8 bits). */
DEV void mma(elem_f16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma(elem_bf16, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma(elem_u8, int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEV void mma(elem_e4m3, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH_FEAT_SM120_ALL)
    /* Consumer Blackwell runs plain e4m3 with f32 sums at half rate; block-scaled with unit scales
     * (ue8m0 0x7f) at full rate and to the same sums. */
    asm volatile("mma.sync.aligned.kind::mxf8f6f4.block_scale.scale_vec::1X.m16n8k32.row.col.f32.e4m3.e4m3."
                 "f32.ue8m0 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3}, {%10}, {%11,%11}, {%10}, {%11,%11};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(0x7f7f7f7fu), "h"((uint16_t)0));
#else
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* Hopper's (sm_90a) warpgroups: d[64][128] += a[64][32 bytes of k] * b, where each of four warps
 * holds 16 rows of a and of d as mma's fragments are, and b is 128 rows of 32 bytes in shared
 * memory. The product runs behind the threads' backs: registers of a and d, and b, are its own
 * between wgmma_fence and wgmma_wait. */
DEV void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
DEV void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
DEV void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
/* What this thread has written to shared memory is there for wgmma, after the next barrier. */
DEV void wgmma_publish() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#define TSR_WGMMA_SUMS4(c, d, i) c(d[i][0]), c(d[i][1]), c(d[i][2]), c(d[i][3])
#define TSR_WGMMA_SUMS16(c, d, i)                                                                                      \
    TSR_WGMMA_SUMS4(c, d, i), TSR_WGMMA_SUMS4(c, d, i + 1), TSR_WGMMA_SUMS4(c, d, i + 2), TSR_WGMMA_SUMS4(c, d, i + 3)
#define TSR_WGMMA_SUMS(c, d)                                                                                           \
    TSR_WGMMA_SUMS16(c, d, 0), TSR_WGMMA_SUMS16(c, d, 4), TSR_WGMMA_SUMS16(c, d, 8), TSR_WGMMA_SUMS16(c, d, 12)

/* `tail`: what the instruction has after the operands: add to d, and for floats the operands' signs and transpose. */
#define TSR_WGMMA(elem, sum, constraint, shape_and_types, tail)                                                        \
    DEV void wgmma(elem, sum(&d)[16][4], const uint32_t(&a)[4], uint64_t b) {                                          \
        asm volatile("wgmma.mma_async.sync.aligned." shape_and_types " {"                                              \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                          \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                \
                     "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                \
                     "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "               \
                     "{%64, %65, %66, %67}, %68, " tail ";"                                                            \
                     : TSR_WGMMA_SUMS(constraint, d)                                                                   \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                            \
    }
TSR_WGMMA(elem_f16, float, "+f", "m64n128k16.f32.f16.f16", "1, 1, 1, 0")
TSR_WGMMA(elem_bf16, float, "+f", "m64n128k16.f32.bf16.bf16", "1, 1, 1, 0")
TSR_WGMMA(elem_e4m3, float, "+f", "m64n128k32.f32.e4m3.e4m3", "1, 1, 1")
TSR_WGMMA(elem_u8, int32_t, "+r", "m64n128k32.s32.u8.s8", "1")
#undef TSR_WGMMA

/* After wgmma_wait(): the compiler, which takes the sums for done when the instruction is issued, reads none before. */
#define TSR_WGMMA_SUMS_DONE(sum, constraint)                                                                           \
    DEV void wgmma_sums_done(sum(&d)[16][4]) {                                                                         \
        asm volatile("" : TSR_WGMMA_SUMS(constraint, d)::"memory");                                                    \
    }
TSR_WGMMA_SUMS_DONE(float, "+f")
TSR_WGMMA_SUMS_DONE(int32_t, "+r")
#undef TSR_WGMMA_SUMS_DONE

/* ---------------------------------------------------------------- numbers */

DEV float as_float(uint32_t u) {
    return __uint_as_float(u);
}
DEV uint32_t as_bits(float f) {
    return __float_as_uint(f);
}

DEV double as_double(vec2 v) {
    return __hiloint2double(static_cast<int>(v.x[1]), static_cast<int>(v.x[0]));
}
DEV vec2 double_bits(double d) {
    return {{static_cast<uint32_t>(__double2loint(d)), static_cast<uint32_t>(__double2hiint(d))}};
}
DEV float round_even(float v) {
    return rintf(v);
}

/* Two 16-bit numbers in a word, lower half first. */
DEV uint32_t pack_f16(float lo, float hi) {
    uint32_t r;
    asm("{.reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}"
        : "=r"(r)
        : "f"(lo), "f"(hi));
    return r;
}
DEV float unpack_f16(uint32_t v, int half) {
    float f;
    asm("{.reg .f16 h; mov.b16 h, %1; cvt.f32.f16 %0, h;}" : "=f"(f) : "h"((uint16_t)(half ? v >> 16 : v)));
    return f;
}
DEV uint32_t pack_bf16(float lo, float hi) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
/* Two e4m3 codes, nearest even, saturated to 448. */
DEV uint32_t pack_e4m3(float lo, float hi) {
#if __CUDA_ARCH__ >= 890
    uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
    return r;
#else
    __trap(); /* no fp8 before sm_89 */
    return 0;
#endif
}
/* Nearest even, clamped to 0..255 by the instruction; NaN gives 0. */
DEV uint32_t to_u8(float v) {
    uint32_t r;
    asm("cvt.rni.sat.u8.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}

DEV float exp2_fast(float x) { /* 2 ulp */
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEV float divide_fast(float a, float b) { /* 2 ulp; 0 where b is 2^126 and more */
    return __fdividef(a, b);
}

#endif /* TSR_SHIM */

/* b of a wgmma: 128 rows, `bytes` (128 or 64) apart, from this address on, whose 16-byte pieces are
 * XORed with the row (kernels.h). In 16 bytes: where, and how far groups of 8 rows lie apart; then
 * the kind of swizzle. */
DEV uint64_t wgmma_rows(uint32_t address, int bytes) {
    return (address & 0x3ffffu) >> 4 | static_cast<uint64_t>(bytes * 8 >> 4) << 32 |
           static_cast<uint64_t>(bytes == 128 ? 1 : 2) << 62;
}

DEV float unpack_bf16(uint32_t v, int half) {
    return as_float(half ? v & 0xffff0000u : v << 16);
}
DEV uint32_t pack16(int type, float lo, float hi) {
    return type == TSR_ELEM_F16 ? pack_f16(lo, hi) : pack_bf16(lo, hi);
}
DEV float unpack16(int type, uint32_t v, int half) {
    return type == TSR_ELEM_F16 ? unpack_f16(v, half) : unpack_bf16(v, half);
}
DEV float shfl_xor(float v, int mask) {
    return as_float(shfl_xor32(as_bits(v), mask));
}
DEV float silu(float x) { /* x / (1 + exp(-x)) */
    return divide_fast(x, 1.0f + exp2_fast(-1.44269504f * x));
}

#endif

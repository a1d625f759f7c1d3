/* The ceiling for convolutions: cuBLAS's product of the same sizes, where cuBLAS is. Found at run time like the driver;
 * types and values are those of cublasLt.h (CUDA 12 and 13). */
#include "backend/cuda/device.h"

#include <dlfcn.h>
#include <stdlib.h>

enum { TRANSPOSED = 1, TRANSPOSE_A = 3, FAST_SUMS = 25, SUMS_F32 = 68, SUMS_S32 = 72 };
enum { TYPE_F32 = 0, TYPE_F16 = 2, TYPE_S8 = 3, TYPE_S32 = 10, TYPE_BF16 = 14, TYPE_E4M3 = 28 };
enum { WORKSPACE = 32 << 20, TIMES = 10 };
static const int64_t MOST_BYTES = 1 << 30; /* of the left matrix: more rows change nothing */

static struct {
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*product_create)(void **product, int sums, int scale_type);
    int (*product_set)(void *product, int what, const void *value, size_t bytes);
    int (*product_destroy)(void *product);
    int (*matrix_create)(void **matrix, int type, uint64_t rows, uint64_t columns, int64_t stride);
    int (*matrix_destroy)(void *matrix);
    int (*multiply)(void *handle, void *product, const void *alpha, const void *a, void *a_matrix, const void *b,
        void *b_matrix, const void *beta, const void *c, void *c_matrix, void *d, void *d_matrix, const void *algorithm,
        void *workspace, size_t workspace_bytes, CUstream stream);
} cublas;

/* Once: a library that is found stays. */
static bool find_cublas(void) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    static bool tried;
    void *so = NULL;
    if (tried)
        return cublas.multiply;
    tried = true;
    for (size_t i = 0; i < sizeof names / sizeof *names && !so; i++)
        so = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        tsr_log(TSR_LOG_INFO, "cuda: no cuBLAS here (%s): convolutions are held against no ceiling", names[0]);
        return false;
    }
    *(void **)&cublas.create = dlsym(so, "cublasLtCreate");
    *(void **)&cublas.destroy = dlsym(so, "cublasLtDestroy");
    *(void **)&cublas.product_create = dlsym(so, "cublasLtMatmulDescCreate");
    *(void **)&cublas.product_set = dlsym(so, "cublasLtMatmulDescSetAttribute");
    *(void **)&cublas.product_destroy = dlsym(so, "cublasLtMatmulDescDestroy");
    *(void **)&cublas.matrix_create = dlsym(so, "cublasLtMatrixLayoutCreate");
    *(void **)&cublas.matrix_destroy = dlsym(so, "cublasLtMatrixLayoutDestroy");
    if (cublas.create && cublas.destroy && cublas.product_create && cublas.product_set && cublas.product_destroy &&
        cublas.matrix_create && cublas.matrix_destroy)
        *(void **)&cublas.multiply = dlsym(so, "cublasLtMatmul");
    return cublas.multiply;
}

typedef struct product {
    tsr_cuda *c;
    tsr_dtype type;
    int in, out, sums, scale; /* as cuBLAS calls the types */
    int m, n, k;
    void *handle, *what, *a, *b, *d;
    tsr_cuda_block memory; /* a [m][k], b [n][k], d [m][n], workspace */
    size_t at_b, at_d, at_workspace;
} product;

static bool describe(product *p, tsr_precision precision) {
    switch (precision) {
    case TSR_PRECISION_FP16:
        p->type = TSR_F16, p->in = p->out = TYPE_F16;
        break;
    case TSR_PRECISION_BF16:
        p->type = TSR_BF16, p->in = p->out = TYPE_BF16;
        break;
    case TSR_PRECISION_FP8:
        p->type = TSR_E4M3, p->in = TYPE_E4M3, p->out = TYPE_BF16;
        break;
    case TSR_PRECISION_INT8:
        p->type = TSR_U8, p->in = TYPE_S8, p->out = TYPE_S32;
        break;
    default:
        return false;
    }
    p->sums = p->in == TYPE_S8 ? SUMS_S32 : SUMS_F32;
    p->scale = p->in == TYPE_S8 ? TYPE_S32 : TYPE_F32;
    int64_t most = MOST_BYTES / ((int64_t)tsr_dtype_size(p->type) * p->k) / 128 * 128;
    p->m = p->m > most ? (int)most : p->m;
    return p->m > 0 && p->n > 0 && p->k > 0;
}

/* Numbers like those of a picture: zeros would be multiplied faster. */
static tsr_status fill(const product *p, CUdeviceptr to, size_t bytes) {
    enum { PART = 1 << 20 };
    char *part = malloc(PART);
    uint32_t random = 1;
    tsr_status status = part ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "cuda: out of memory for a product");
    for (size_t i = 0, size = tsr_dtype_size(p->type); part && i < PART; i += size) {
        random = random * 1664525 + 1013904223;
        float v = (float)(random >> 8) / (1 << 24);
        if (p->type == TSR_U8)
            part[i] = (char)(random >> 24);
        else
            tsr_from_f32(p->type, &v, part + i, 1);
    }
    for (size_t i = 0; status == TSR_OK && i < bytes; i += PART)
        status =
            tsr_cu_check(tsr_cu.p_cuMemcpyHtoDAsync(to + i, part, bytes - i < PART ? bytes - i : PART, p->c->stream),
                "filling a matrix");
    if (status == TSR_OK)
        status = tsr_cu_check(tsr_cu.p_cuStreamSynchronize(p->c->stream), "filling a matrix");
    free(part);
    return status;
}

static tsr_status take_matrices(product *p) {
    size_t size = tsr_dtype_size(p->type), m = (size_t)p->m, n = (size_t)p->n, k = (size_t)p->k;
    tsr_status status;
    p->at_b = tsr_align(m * k * size, 256);
    p->at_d = p->at_b + tsr_align(n * k * size, 256);
    p->at_workspace = p->at_d + tsr_align(m * n * (p->out == TYPE_S32 ? 4 : 2), 256);
    TSR_TRY(tsr_cuda_block_create(p->c, p->at_workspace + WORKSPACE, false, "a product", &p->memory));
    TSR_TRY(fill(p, p->memory.at, p->at_d));
error:
    return status;
}

/* To cuBLAS, whose matrices lie by columns, ours are [k][n] and [k][m]: d' [n][m] = b'T a'. All types come in this
 * form. */
static bool take_handles(product *p) {
    const int32_t transposed = TRANSPOSED;
    const int8_t fast = 1;
    uint64_t m = (uint64_t)p->m, n = (uint64_t)p->n, k = (uint64_t)p->k;
    return !cublas.create(&p->handle) && !cublas.product_create(&p->what, p->sums, p->scale) &&
           !cublas.product_set(p->what, TRANSPOSE_A, &transposed, sizeof transposed) &&
           (p->type != TSR_E4M3 || !cublas.product_set(p->what, FAST_SUMS, &fast, sizeof fast)) &&
           !cublas.matrix_create(&p->b, p->in, k, n, p->k) && !cublas.matrix_create(&p->a, p->in, k, m, p->k) &&
           !cublas.matrix_create(&p->d, p->out, n, m, p->n);
}

static CUresult multiply(void *ctx) {
    const product *p = ctx;
    const int32_t one_s32 = 1, none_s32 = 0;
    const float one = 1, none = 0;
    bool whole = p->scale == TYPE_S32;
    char *at = (char *)(uintptr_t)p->memory.at;
    int failed = cublas.multiply(p->handle, p->what, whole ? (const void *)&one_s32 : &one, at + p->at_b, p->b, at,
        p->a, whole ? (const void *)&none_s32 : &none, at + p->at_d, p->d, at + p->at_d, p->d, NULL,
        at + p->at_workspace, WORKSPACE, p->c->stream);
    return failed ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

static void give_back(product *p) {
    if (p->a)
        cublas.matrix_destroy(p->a);
    if (p->b)
        cublas.matrix_destroy(p->b);
    if (p->d)
        cublas.matrix_destroy(p->d);
    if (p->what)
        cublas.product_destroy(p->what);
    if (p->handle)
        cublas.destroy(p->handle);
    tsr_cuda_block_destroy(&p->memory);
}

double tsr_cuda_gemm_rate(tsr_backend *b, tsr_precision precision, int m, int n, int k) {
    product p = {.c = (tsr_cuda *)b, .m = m, .n = n, .k = k};
    float ms = 0;
    if (!describe(&p, precision) || tsr_cuda_enter(p.c) != TSR_OK || !find_cublas())
        return 0;
    bool timed =
        take_matrices(&p) == TSR_OK && take_handles(&p) && tsr_cuda_time(p.c, multiply, &p, TIMES, &ms) == TSR_OK;
    give_back(&p);
    return timed && ms > 0 ? 2.0 * p.m * p.n * p.k / ((double)ms * 1e-3) : 0;
}

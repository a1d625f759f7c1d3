/* A libcublasLt.so.13 that multiplies nothing: it holds what it is asked against what cuBLAS takes (row-contiguous
 * operands, the first transposed), and says so to the driver without a GPU. */
#include "fake.h"

#include <dlfcn.h>

#define SEEN extern "C" __attribute__((visibility("default")))

namespace {

enum { INVALID = 7 };
enum { F32 = 0, F16 = 2, S8 = 3, S32 = 10, BF16 = 14, E4M3 = 28 };

struct matrix {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};
struct product {
    int sums, scale;
    bool transposed, fast;
};

size_t bytes_of(const matrix &m) {
    size_t size = m.type == S8 || m.type == E4M3 ? 1 : m.type == S32 || m.type == F32 ? 4 : 2;
    return m.columns * static_cast<size_t>(m.stride) * size;
}

bool types_agree(const product &p, int in, int out) {
    if (in == S8)
        return p.sums == 72 && p.scale == S32 && out == S32;
    bool sixteen = (in == F16 || in == BF16) && out == in;
    return p.sums == 68 && p.scale == F32 && (sixteen || (in == E4M3 && out == BF16 && p.fast));
}

} // namespace

SEEN int cublasLtCreate(void **handle) {
    *handle = new int(1);
    return 0;
}
SEEN int cublasLtDestroy(void *handle) {
    delete static_cast<int *>(handle);
    return 0;
}
SEEN int cublasLtMatmulDescCreate(void **out, int sums, int scale) {
    *out = new product{sums, scale, false, false};
    return 0;
}
SEEN int cublasLtMatmulDescDestroy(void *p) {
    delete static_cast<product *>(p);
    return 0;
}
SEEN int cublasLtMatmulDescSetAttribute(void *what, int attribute, const void *value, size_t bytes) {
    product *p = static_cast<product *>(what);
    if (attribute == 3 && bytes == 4)
        p->transposed = *static_cast<const int *>(value) == 1;
    else if (attribute == 25 && bytes == 1)
        p->fast = *static_cast<const char *>(value) == 1;
    else
        return INVALID;
    return 0;
}
SEEN int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if (stride < static_cast<int64_t>(rows))
        return INVALID;
    *out = new matrix{type, rows, columns, stride};
    return 0;
}
SEEN int cublasLtMatrixLayoutDestroy(void *m) {
    delete static_cast<matrix *>(m);
    return 0;
}
SEEN int cublasLtMatmul(void *handle, void *what, const void *alpha, const void *a, void *a_matrix, const void *b,
    void *b_matrix, const void *beta, const void *, void *, void *d, void *d_matrix, const void *algorithm,
    void *workspace, size_t workspace_bytes, void *stream) {
    const product &p = *static_cast<product *>(what);
    const matrix &ma = *static_cast<matrix *>(a_matrix), &mb = *static_cast<matrix *>(b_matrix),
                 &md = *static_cast<matrix *>(d_matrix);
    bool sizes = ma.rows == mb.rows && md.rows == ma.columns && md.columns == mb.columns;
    if (!handle || !alpha || !beta || algorithm || !p.transposed || !sizes || ma.type != mb.type ||
        !types_agree(p, ma.type, md.type))
        return INVALID;
    static void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    fake_cuda_product_fn run;
    *reinterpret_cast<void **>(&run) = dlsym(driver, "fake_cuda_product");
    const void *at[4] = {a, b, d, workspace};
    const size_t bytes[4] = {bytes_of(ma), bytes_of(mb), bytes_of(md), workspace_bytes};
    return run && run(stream, md.rows * md.columns >> 14 | 1, at, bytes) == 0 ? 0 : INVALID;
}

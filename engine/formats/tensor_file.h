/* Files of named tensors, mapped into memory: safetensors, GGUF, npy. Known by content, never by suffix. */
#ifndef TSR_TENSOR_FILE_H
#define TSR_TENSOR_FILE_H

#include "core/core.h"

enum { TSR_MAX_DIMS = 8 };

typedef struct tsr_tensor {
    const char *name; /* as in the file; "" for the one tensor of an npy */
    tsr_dtype dtype;
    int ndim;                  /* logical, after orig_shape/raw_shape of GGUF files */
    int64_t dim[TSR_MAX_DIMS]; /* slowest first (row-major) in every container; each >= 0, product fits size_t */
    size_t count;              /* elements */
    const void *data;          /* in the mapping; may be unaligned for its type: read through tsr_tensor_read */
    size_t bytes;
} tsr_tensor;

typedef struct tsr_tensor_file tsr_tensor_file;

/* Checks every length, count, type, shape and offset in the header before it is used; errors name file, tensor
 * and reason. The data is only mapped. */
tsr_status tsr_tensor_file_open(tsr_tensor_file **out, const char *path);
void tsr_tensor_file_close(tsr_tensor_file **f);

const char *tsr_tensor_file_path(const tsr_tensor_file *f);
const char *tsr_tensor_file_container(const tsr_tensor_file *f); /* "safetensors", "gguf", "npy" */
size_t tsr_tensor_file_bytes(const tsr_tensor_file *f);
size_t tsr_tensor_file_count(const tsr_tensor_file *f);
const tsr_tensor *tsr_tensor_file_at(const tsr_tensor_file *f, size_t i);
const tsr_tensor *tsr_tensor_file_find(const tsr_tensor_file *f, const char *name); /* NULL: none */
/* Metadata (safetensors __metadata__, GGUF strings and numbers as text); NULL where absent. */
const char *tsr_tensor_file_meta(const tsr_tensor_file *f, const char *key);

/* Elements [begin, begin + n) as float, blocks dequantised; n == 0 is allowed. For block types begin and n are
 * multiples of the block or reach the end. */
void tsr_tensor_read(const tsr_tensor *t, size_t begin, size_t n, float *out);
/* "[512, 16, 3, 3, 3]" */
const char *tsr_shape_text(char buf[96], const int64_t *dim, int ndim);

/* ---- writing: whole files at once, for tests, encode and convert. Written as path.part, then renamed. */
typedef struct tsr_meta {
    const char *key, *value;
} tsr_meta;
tsr_status tsr_safetensors_write(
    const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas);
tsr_status tsr_npy_write(const char *path, const tsr_tensor *t);

/* n elements to type t, which is F32, F16, BF16 or a block of 32 (n then a multiple of it) as ggml's own reference code
 * rounds it; bytes as tsr_tensor_bytes() says. */
void tsr_tensor_encode(tsr_dtype t, const float *src, size_t n, void *out);
bool tsr_dtype_writable(tsr_dtype t); /* whether that can be */
/* Bytes of count elements; false where they overflow or end within a block. */
bool tsr_tensor_bytes(tsr_dtype t, size_t count, size_t *bytes);

/* Whole files whose data is made while it is written: their `data` is not looked at, fill puts the `bytes` of
 * tensor i to out, in order. GGUF: tensors of more than four dimensions are flattened to two and their shape
 * recorded as comfy.gguf.orig_shape.NAME; rows, flattened, are whole blocks. */
typedef tsr_status (*tsr_fill_fn)(void *ctx, size_t i, void *out);
tsr_status tsr_safetensors_fill(const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta,
    size_t metas, tsr_fill_fn fill, void *ctx);
tsr_status tsr_gguf_fill(const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas,
    tsr_fill_fn fill, void *ctx);

/* The bytes before the data, for writers that stream it: malloc'd, *size bytes. F32 only for npy. */
tsr_status tsr_gguf_header(
    const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas, char **header, size_t *size);
tsr_status tsr_safetensors_header(
    const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas, char **header, size_t *size);
tsr_status tsr_npy_header(const tsr_tensor *t, char **header, size_t *size);

#endif

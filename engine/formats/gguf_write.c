/* The header of a GGUF 3 file: key-values, then tensor infos, then zeros up to the data. */
#include "formats/containers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KV_U32 = 4, KV_I32 = 5, KV_STRING = 8, KV_ARRAY = 9 }; /* types of values */
enum { MOST_DIMS = 4 };                                       /* of a tensor, in ggml */

static const struct {
    uint8_t dtype, ggml;
    uint8_t file_type; /* general.file_type of a file that is mostly this */
} types[] = {
    {TSR_F32, 0, 0},
    {TSR_F16, 1, 1},
    {TSR_BF16, 30, 32},
    {TSR_Q4_0, 2, 2},
    {TSR_Q4_1, 3, 3},
    {TSR_Q5_0, 6, 8},
    {TSR_Q5_1, 7, 9},
    {TSR_Q8_0, 8, 7},
};
enum { TYPES = sizeof types / sizeof *types };

static int type_index(tsr_dtype t) {
    for (int i = 0; i < TYPES; i++)
        if (types[i].dtype == t)
            return i;
    return -1;
}

/* ---------------------------------------------------------------- little-endian bytes */

static void put(FILE *o, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++)
        fputc((int)(v >> (8 * i) & 255), o);
}

static void put_text(FILE *o, const char *s) {
    put(o, strlen(s), 8);
    fputs(s, o);
}

static void put_string(FILE *o, const char *key, const char *value) {
    put_text(o, key);
    put(o, KV_STRING, 4);
    put_text(o, value);
}

static void put_u32(FILE *o, const char *key, uint32_t value) {
    put_text(o, key);
    put(o, KV_U32, 4);
    put(o, value, 4);
}

static void put_shape(FILE *o, const tsr_tensor *t) {
    static const char prefix[] = "comfy.gguf.orig_shape.";
    put(o, strlen(prefix) + strlen(t->name), 8);
    fputs(prefix, o);
    fputs(t->name, o);
    put(o, KV_ARRAY, 4);
    put(o, KV_I32, 4);
    put(o, (uint64_t)t->ndim, 8);
    for (int i = 0; i < t->ndim; i++)
        put(o, (uint32_t)t->dim[i], 4);
}

/* ---------------------------------------------------------------- tensors */

/* As stored: more dimensions than ggml has are flattened to rows of what belongs to one output
 * channel. Returns how many there are. */
static int stored_shape(const tsr_tensor *t, uint64_t dim[MOST_DIMS]) {
    int ndim = t->ndim > MOST_DIMS ? 2 : t->ndim;
    for (int i = 0; i < ndim; i++)
        dim[i] = (uint64_t)t->dim[i];
    for (int i = ndim; i < t->ndim; i++)
        dim[ndim - 1] *= (uint64_t)t->dim[i];
    return ndim;
}

/* A whole tensor of a type that is written, its rows whole blocks. */
static bool writable(const tsr_tensor *t) {
    size_t count, bytes, block, size;
    uint64_t dim[MOST_DIMS] = {0};
    if (t->ndim < 1 || t->ndim > TSR_MAX_DIMS || type_index(t->dtype) < 0 ||
        !tsr_shape_count(t->dim, t->ndim, &count) || count == 0 || count != t->count ||
        !tsr_tensor_bytes(t->dtype, count, &bytes) || bytes != t->bytes)
        return false;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] > INT32_MAX)
            return false;
    tsr_block_size(t->dtype, &block, &size);
    return dim[stored_shape(t, dim) - 1] % block == 0;
}

static void put_tensor(FILE *o, const tsr_tensor *t, uint64_t at) {
    uint64_t dim[MOST_DIMS];
    int ndim = stored_shape(t, dim);
    put_text(o, t->name);
    put(o, (uint64_t)ndim, 4);
    for (int i = ndim - 1; i >= 0; i--) /* fastest first */
        put(o, dim[i], 8);
    put(o, types[type_index(t->dtype)].ggml, 4);
    put(o, at, 8);
}

/* ---------------------------------------------------------------- the header */

static uint32_t file_type(const tsr_tensor *tensors, size_t count) {
    size_t elements[TYPES] = {0};
    int most = 0;
    for (size_t i = 0; i < count; i++)
        elements[type_index(tensors[i].dtype)] += tensors[i].count;
    for (int i = 1; i < TYPES; i++)
        if (elements[i] > elements[most])
            most = i;
    return types[most].file_type;
}

static void put_header(FILE *o, const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas) {
    size_t shapes = 0;
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++)
        shapes += tensors[i].ndim > MOST_DIMS;
    fputs("GGUF", o);
    put(o, 3, 4);
    put(o, count, 8);
    put(o, metas + 2 + shapes, 8);
    for (size_t i = 0; i < metas; i++)
        put_string(o, meta[i].key, meta[i].value);
    put_u32(o, "general.quantization_version", 2);
    put_u32(o, "general.file_type", file_type(tensors, count));
    for (size_t i = 0; i < count; i++)
        if (tensors[i].ndim > MOST_DIMS)
            put_shape(o, &tensors[i]);
    for (size_t i = 0; i < count; i++) {
        put_tensor(o, &tensors[i], at);
        at += tsr_align(tensors[i].bytes, TSR_GGUF_ALIGN);
    }
    while (ftello(o) % TSR_GGUF_ALIGN)
        fputc(0, o);
}

tsr_status tsr_gguf_header(
    const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas, char **header, size_t *size) {
    *header = NULL;
    for (size_t i = 0; i < count; i++)
        if (!writable(&tensors[i]))
            return tsr_fail(
                TSR_ERR_ARGUMENT, "tensor %.150s: its shape, type and size do not make a GGUF tensor", tensors[i].name);
    FILE *o = open_memstream(header, size);
    if (!o)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a GGUF header");
    put_header(o, tensors, count, meta, metas);
    bool bad = ferror(o);
    if (fclose(o) != 0 || bad) {
        free(*header);
        *header = NULL;
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a GGUF header");
    }
    return TSR_OK;
}

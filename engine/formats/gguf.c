/* GGUF 2 and 3: counts, key-values, tensor infos, then aligned data. Dimensions stand fastest
 * first, and ggml has at most four: the five of a video convolution come flattened, with the true
 * shape in comfy.gguf.orig_shape.NAME or raw_shape.NAME, or as they are from writers that do not
 * ask ggml. */
#include "formats/containers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
enum { /* types of values */
    KV_U8, KV_I8, KV_U16, KV_I16, KV_U32, KV_I32, KV_F32, KV_BOOL, KV_STRING, KV_ARRAY, KV_U64,
    KV_I64, KV_F64, KV_TYPES
};
// clang-format on
static const uint8_t kv_size[KV_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* A string longer than this (a vocabulary, a program) is no metadata of ours. */
static const size_t text_most = 1 << 20;

typedef struct shape_kv { /* an original shape found among the key-values */
    char *name;           /* of the tensor; owned */
    int ndim;
    int64_t dim[TSR_MAX_DIMS];
} shape_kv;

typedef struct reader {
    tsr_tensor_file *f;
    size_t at;
    size_t alignment;
    shape_kv *shape; /* sorted by name once all are read */
    size_t shapes, room;
} reader;

/* ---------------------------------------------------------------- taking bytes */

static size_t left(const reader *r) {
    return r->f->bytes - r->at;
}

static tsr_status cut_short(const reader *r, const char *what) {
    return tsr_file_bad(r->f, NULL, "%s at byte %zu leaves the file of %zu bytes; it is cut short or damaged", what,
        r->at, r->f->bytes);
}

static tsr_status take(reader *r, size_t n, const char *what, const uint8_t **out) {
    if (n > left(r))
        return cut_short(r, what);
    *out = r->f->map + r->at;
    r->at += n;
    return TSR_OK;
}

static tsr_status take_u32(reader *r, const char *what, uint32_t *out) {
    const uint8_t *p = NULL;
    tsr_status status = take(r, 4, what, &p);
    if (status == TSR_OK)
        *out = tsr_le32(p);
    return status;
}

static tsr_status take_u64(reader *r, const char *what, uint64_t *out) {
    const uint8_t *p = NULL;
    tsr_status status = take(r, 8, what, &p);
    if (status == TSR_OK)
        *out = tsr_le64(p);
    return status;
}

/* A length and that many bytes, left in the mapping. */
static tsr_status take_bytes(reader *r, const char *what, const char **out, size_t *n) {
    uint64_t length = 0;
    const uint8_t *p = NULL;
    tsr_status status = take_u64(r, what, &length);
    if (status != TSR_OK)
        return status;
    if (length > left(r))
        return cut_short(r, what);
    status = take(r, (size_t)length, what, &p);
    *out = (const char *)p;
    *n = (size_t)length;
    return status;
}

/* The same as a C string; free it. */
static tsr_status take_name(reader *r, const char *what, char **out) {
    const char *s = NULL;
    size_t n = 0;
    tsr_status status = take_bytes(r, what, &s, &n);
    if (status != TSR_OK)
        return status;
    if (n == 0 || n > UINT16_MAX || memchr(s, 0, n))
        return tsr_file_bad(
            r->f, NULL, "%s at byte %zu is empty, too long or holds a zero byte; the file is damaged", what, r->at - n);
    *out = strndup(s, n);
    return *out ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its names", r->f->path);
}

/* ---------------------------------------------------------------- key-values */

static void number_text(char buf[40], uint32_t type, const uint8_t *p) {
    uint64_t u = kv_size[type] == 1   ? *p
                 : kv_size[type] == 2 ? tsr_le16(p)
                 : kv_size[type] == 4 ? tsr_le32(p)
                                      : tsr_le64(p);
    uint32_t u32 = (uint32_t)u;
    float f32;
    double f64;
    memcpy(&f32, &u32, 4);
    memcpy(&f64, &u, 8);
    switch (type) {
    case KV_I8:
        snprintf(buf, 40, "%d", (int8_t)u);
        break;
    case KV_I16:
        snprintf(buf, 40, "%d", (int16_t)u);
        break;
    case KV_I32:
        snprintf(buf, 40, "%" PRId32, (int32_t)u);
        break;
    case KV_I64:
        snprintf(buf, 40, "%" PRId64, (int64_t)u);
        break;
    case KV_F32:
        snprintf(buf, 40, "%.9g", (double)f32);
        break;
    case KV_F64:
        snprintf(buf, 40, "%.17g", f64);
        break;
    case KV_BOOL:
        snprintf(buf, 40, "%s", u ? "true" : "false");
        break;
    default:
        snprintf(buf, 40, "%" PRIu64, u);
        break;
    }
}

static bool is_shape_key(const char *key, const char **tensor) {
    static const char *const prefix[] = {"comfy.gguf.orig_shape.", "raw_shape."};
    for (int i = 0; i < 2; i++)
        if (strncmp(key, prefix[i], strlen(prefix[i])) == 0) {
            *tensor = key + strlen(prefix[i]);
            return true;
        }
    return false;
}

/* An array of 32- or 64-bit integers that is the true shape of a tensor. */
static tsr_status keep_shape(
    reader *r, const char *key, const char *tensor, uint32_t type, uint64_t count, const uint8_t *data) {
    shape_kv s = {.ndim = (int)count};
    if ((type != KV_I32 && type != KV_I64 && type != KV_U32 && type != KV_U64) || count < 1 || count > TSR_MAX_DIMS)
        return tsr_file_bad(
            r->f, NULL, "%.150s is not an array of 1 to %d integers of 32 or 64 bits", key, TSR_MAX_DIMS);
    for (int i = 0; i < s.ndim; i++) {
        const uint8_t *p = data + (size_t)i * kv_size[type];
        s.dim[i] = type == KV_I32 ? (int32_t)tsr_le32(p) : type == KV_U32 ? (int64_t)tsr_le32(p) : (int64_t)tsr_le64(p);
        if (s.dim[i] < 0)
            return tsr_file_bad(r->f, NULL, "%.150s: dimension %d is negative; the file is damaged", key, i);
    }
    if (r->shapes == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        /* Each came from 25 bytes of the file or more: the product cannot overflow. */
        shape_kv *p = realloc(r->shape, room * sizeof *p);
        if (!p)
            return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its shapes", r->f->path);
        r->shape = p;
        r->room = room;
    }
    s.name = strdup(tensor);
    if (!s.name)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its shapes", r->f->path);
    r->shape[r->shapes++] = s;
    return TSR_OK;
}

/* Arrays are stepped over, but for shapes. */
static tsr_status read_array(reader *r, const char *key) {
    uint32_t type = 0;
    uint64_t count = 0;
    size_t bytes;
    const uint8_t *data = NULL;
    const char *tensor;
    tsr_status status;
    TSR_TRY(take_u32(r, "the type of an array", &type));
    TSR_TRY(take_u64(r, "the length of an array", &count));
    if (type >= KV_TYPES || type == KV_ARRAY)
        return tsr_file_bad(
            r->f, NULL, "%.150s: arrays of type %" PRIu32 " are not known; the file is damaged", key, type);
    if (type == KV_STRING) {
        /* Bounded whatever the count: each string takes 8 bytes of the file at least. */
        for (uint64_t i = 0; i < count; i++) {
            const char *s;
            size_t n;
            TSR_TRY(take_bytes(r, "a string of an array", &s, &n));
        }
        return is_shape_key(key, &tensor) ? keep_shape(r, key, tensor, type, count, NULL) : TSR_OK;
    }
    if (!tsr_mul((size_t)count, kv_size[type], &bytes))
        return cut_short(r, "an array");
    TSR_TRY(take(r, bytes, "an array", &data));
    return is_shape_key(key, &tensor) ? keep_shape(r, key, tensor, type, count, data) : TSR_OK;
error:
    return status;
}

static tsr_status read_string(reader *r, const char *key) {
    const char *s = NULL;
    size_t n = 0;
    tsr_status status = take_bytes(r, "a string", &s, &n);
    if (status != TSR_OK || n > text_most)
        return status;
    char *value = strndup(s, n);
    status = value ? tsr_file_add_meta(r->f, key, value)
                   : tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its metadata", r->f->path);
    free(value);
    return status;
}

static tsr_status read_number(reader *r, const char *key, uint32_t type) {
    const uint8_t *p = NULL;
    char text[40];
    tsr_status status = take(r, kv_size[type], "a value", &p);
    if (status != TSR_OK)
        return status;
    if (strcmp(key, "general.alignment") == 0) {
        uint32_t a = type == KV_U32 ? tsr_le32(p) : 0;
        if (a == 0 || (a & (a - 1)))
            return tsr_file_bad(r->f, NULL, "general.alignment is not a power of two of 32 bits; the file is damaged");
        r->alignment = a;
    }
    number_text(text, type, p);
    return tsr_file_add_meta(r->f, key, text);
}

static tsr_status read_kv(reader *r) {
    char *key = NULL;
    uint32_t type = 0;
    tsr_status status;
    TSR_TRY(take_name(r, "a key", &key));
    TSR_TRY(take_u32(r, "the type of a value", &type));
    if (type >= KV_TYPES)
        status = tsr_file_bad(
            r->f, NULL, "%.150s: values of type %" PRIu32 " are not known; the file is damaged", key, type);
    else if (type == KV_ARRAY)
        status = read_array(r, key);
    else if (type == KV_STRING)
        status = read_string(r, key);
    else
        status = read_number(r, key, type);
error:
    free(key);
    return status;
}

/* ---------------------------------------------------------------- tensors */

static bool parse_type(uint32_t type, tsr_dtype *out) {
    static const struct {
        uint8_t ggml, dtype;
    } types[] = {
        {0, TSR_F32},
        {1, TSR_F16},
        {30, TSR_BF16},
        {28, TSR_F64},
        {8, TSR_Q8_0},
        {2, TSR_Q4_0},
        {3, TSR_Q4_1},
        {6, TSR_Q5_0},
        {7, TSR_Q5_1},
        {10, TSR_Q2_K},
        {11, TSR_Q3_K},
        {12, TSR_Q4_K},
        {13, TSR_Q5_K},
        {14, TSR_Q6_K},
        {24, TSR_I8},
        {25, TSR_I16},
        {26, TSR_I32},
        {27, TSR_I64},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].ggml == type) {
            *out = (tsr_dtype)types[i].dtype;
            return true;
        }
    return false;
}

static int compare_shapes(const void *a, const void *b) {
    return strcmp(((const shape_kv *)a)->name, ((const shape_kv *)b)->name);
}

/* Puts the true shape, where one is recorded, in the place of the stored one. */
static tsr_status restore_shape(const reader *r, tsr_tensor *t) {
    shape_kv wanted = {.name = (char *)t->name};
    const shape_kv *s = r->shapes ? bsearch(&wanted, r->shape, r->shapes, sizeof *r->shape, compare_shapes) : NULL;
    char is[96], was[96];
    size_t count;
    if (!s)
        return TSR_OK;
    if (!tsr_shape_count(s->dim, s->ndim, &count) || count != t->count)
        return tsr_file_bad(r->f, t->name, "stored as %s, but its recorded shape is %s; the file is damaged",
            tsr_shape_text(is, t->dim, t->ndim), tsr_shape_text(was, s->dim, s->ndim));
    t->ndim = s->ndim;
    memcpy(t->dim, s->dim, sizeof t->dim);
    return TSR_OK;
}

/* Type and stored shape agree, and the elements and bytes that follow from them. */
static tsr_status check_shape(const reader *r, tsr_tensor *t) {
    size_t block, bytes;
    char shape[96];
    tsr_shape_text(shape, t->dim, t->ndim);
    tsr_block_size(t->dtype, &block, &bytes);
    if (!tsr_shape_count(t->dim, t->ndim, &t->count))
        return tsr_file_bad(r->f, t->name, "the product of its shape %s overflows; the file is damaged", shape);
    if (block > 1 && (t->ndim == 0 || t->dim[t->ndim - 1] % (int64_t)block))
        return tsr_file_bad(r->f, t->name, "rows of %s do not divide into the %zu weights of a %s block", shape, block,
            tsr_dtype_name(t->dtype));
    if (!tsr_tensor_bytes(t->dtype, t->count, &t->bytes))
        return tsr_file_bad(r->f, t->name, "the bytes of its shape %s overflow; the file is damaged", shape);
    return TSR_OK;
}

/* `data` of the tensor holds its offset until the data section is known. */
static tsr_status read_tensor_info(reader *r) {
    tsr_tensor t = {0};
    uint32_t ndim = 0, type = 0;
    uint64_t offset = 0, dim = 0;
    char *name = NULL;
    tsr_status status;
    TSR_TRY(take_name(r, "the name of a tensor", &name));
    t.name = name;
    TSR_TRY(take_u32(r, "the dimensions of a tensor", &ndim));
    if (ndim > TSR_MAX_DIMS)
        TSR_TRY(tsr_file_bad(r->f, name, "%" PRIu32 " dimensions; at most %d are known", ndim, TSR_MAX_DIMS));
    t.ndim = (int)ndim;
    for (int i = t.ndim - 1; i >= 0; i--) { /* fastest first in the file */
        TSR_TRY(take_u64(r, "the shape of a tensor", &dim));
        if (dim > INT64_MAX)
            TSR_TRY(tsr_file_bad(r->f, name, "dimension %d of its shape overflows; the file is damaged", i));
        t.dim[i] = (int64_t)dim;
    }
    TSR_TRY(take_u32(r, "the type of a tensor", &type));
    TSR_TRY(take_u64(r, "the offset of a tensor", &offset));
    if (!parse_type(type, &t.dtype))
        TSR_TRY(tsr_file_bad(r->f, name,
            "ggml type %" PRIu32 " is not supported (F32, F16, BF16, Q8_0, Q4_0 to Q5_1, Q2_K to Q6_K are)", type));
    TSR_TRY(check_shape(r, &t));
    TSR_TRY(restore_shape(r, &t));
    t.data = (const void *)(uintptr_t)offset;
    TSR_TRY(tsr_file_add(r->f, &t));
error:
    free(name);
    return status;
}

static int compare_data(const void *a, const void *b) {
    const tsr_tensor *x = *(const tsr_tensor *const *)a, *y = *(const tsr_tensor *const *)b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Turns offsets into pointers; each tensor is aligned, inside the file and overlaps no other. */
static tsr_status place_tensors(reader *r) {
    tsr_tensor_file *f = r->f;
    size_t begin, end;
    if (!tsr_add(r->at, r->alignment - 1, &begin))
        return cut_short(r, "the data");
    begin &= ~(r->alignment - 1);
    for (size_t i = 0; i < f->count; i++) {
        tsr_tensor *t = &f->tensor[i];
        size_t offset = (size_t)(uintptr_t)t->data;
        if (offset % r->alignment)
            return tsr_file_bad(f, t->name,
                "its offset %zu is not a multiple of the alignment %zu; the file is damaged", offset, r->alignment);
        if (!tsr_add(begin, offset, &offset) || !tsr_add(offset, t->bytes, &end) || end > f->bytes)
            return tsr_file_bad(
                f, t->name, "its data leaves the file of %zu bytes; it is cut short or damaged", f->bytes);
        t->data = f->map + offset;
    }
    const tsr_tensor **by_data = malloc((f->count + 1) * sizeof *by_data);
    if (!by_data)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its list of tensors", f->path);
    for (size_t i = 0; i < f->count; i++)
        by_data[i] = &f->tensor[i];
    qsort(by_data, f->count, sizeof *by_data, compare_data);
    tsr_status status = TSR_OK;
    for (size_t i = 1; i < f->count && status == TSR_OK; i++)
        if ((const uint8_t *)by_data[i]->data < (const uint8_t *)by_data[i - 1]->data + by_data[i - 1]->bytes)
            status = tsr_file_bad(
                f, by_data[i]->name, "its data overlaps that of %.150s; the file is damaged", by_data[i - 1]->name);
    free(by_data);
    return status;
}

/* ---------------------------------------------------------------- the file */

static tsr_status check_version(reader *r) {
    uint32_t version = 0;
    tsr_status status = take_u32(r, "the version", &version);
    if (status != TSR_OK)
        return status;
    if (version && (version & 0xffff) == 0)
        return tsr_file_bad(r->f, NULL, "is a big-endian GGUF; convert it to little-endian");
    if (version != 2 && version != 3)
        return tsr_file_bad(
            r->f, NULL, "GGUF version %" PRIu32 " is not known (2 and 3 are); convert it anew", version);
    return TSR_OK;
}

static tsr_status read_file(reader *r) {
    uint64_t tensors = 0, kvs = 0;
    tsr_status status;
    TSR_TRY(check_version(r));
    TSR_TRY(take_u64(r, "the number of tensors", &tensors));
    TSR_TRY(take_u64(r, "the number of key-values", &kvs));
    if (kvs > left(r) / 13) /* 8 of key length, 4 of type, 1 of value at least */
        return tsr_file_bad(r->f, NULL,
            "%" PRIu64 " key-values do not fit the file of %zu bytes; it is cut short or damaged", kvs, r->f->bytes);
    for (uint64_t i = 0; i < kvs; i++)
        TSR_TRY(read_kv(r));
    if (r->shapes)
        qsort(r->shape, r->shapes, sizeof *r->shape, compare_shapes);
    for (size_t i = 1; i < r->shapes; i++)
        if (compare_shapes(&r->shape[i - 1], &r->shape[i]) == 0)
            return tsr_file_bad(r->f, r->shape[i].name, "two shapes are recorded for it; the file is damaged");
    if (tensors > left(r) / 24) /* name length, dimensions, type, offset */
        return tsr_file_bad(r->f, NULL,
            "%" PRIu64 " tensors do not fit the file of %zu bytes; it is cut short or damaged", tensors, r->f->bytes);
    for (uint64_t i = 0; i < tensors; i++)
        TSR_TRY(read_tensor_info(r));
    TSR_TRY(place_tensors(r));
error:
    return status;
}

tsr_status tsr_gguf_parse(tsr_tensor_file *f) {
    reader r = {.f = f, .at = 4, .alignment = 32};
    tsr_status status = read_file(&r);
    for (size_t i = 0; i < r.shapes; i++)
        free(r.shape[i].name);
    free(r.shape);
    return status;
}

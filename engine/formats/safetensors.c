/* safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes without holes. */
#include "formats/containers.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* Headers of real files stay below 1 MiB. JSON takes up to 32 times its size in memory once parsed,
 * so the bound is lower than the 100 MB the format allows. */
static const uint64_t header_most = 16 << 20;
/* JSON numbers are doubles: beyond 2^53 they are not exact. */
static const double exact_most = 9007199254740991;

static bool parse_dtype(const char *s, tsr_dtype *out) {
    for (int t = 0; t < TSR_DTYPE_COUNT; t++)
        if (tsr_dtype_size((tsr_dtype)t) && strcmp(s, tsr_dtype_name((tsr_dtype)t)) == 0) {
            *out = (tsr_dtype)t;
            return true;
        }
    return false;
}

static bool whole_number(const cJSON *item, int64_t *out) {
    double v = item->valuedouble;
    if (!cJSON_IsNumber(item) || !(v >= 0 && v <= exact_most) || v != (double)(int64_t)v)
        return false;
    *out = (int64_t)v;
    return true;
}

/* The one member called key; NULL where there is none or more than one. */
static const cJSON *only(const cJSON *object, const char *key) {
    const cJSON *item, *found = NULL;
    cJSON_ArrayForEach(item, object) {
        if (strcmp(item->string, key) != 0)
            continue;
        if (found)
            return NULL;
        found = item;
    }
    return found;
}

static tsr_status parse_shape(const tsr_tensor_file *f, const cJSON *shape, tsr_tensor *t) {
    const cJSON *item;
    if (!cJSON_IsArray(shape))
        return tsr_file_bad(f, t->name, "no shape, or not a list; the file is damaged");
    cJSON_ArrayForEach(item, shape) {
        if (t->ndim == TSR_MAX_DIMS)
            return tsr_file_bad(f, t->name, "more than %d dimensions", TSR_MAX_DIMS);
        if (!whole_number(item, &t->dim[t->ndim]))
            return tsr_file_bad(f, t->name, "dimension %d of its shape is not a whole number from 0 to 2^53", t->ndim);
        t->ndim++;
    }
    if (!tsr_shape_count(t->dim, t->ndim, &t->count) || !tsr_tensor_bytes(t->dtype, t->count, &t->bytes))
        return tsr_file_bad(f, t->name, "the product of its shape overflows; the file is damaged");
    return TSR_OK;
}

static tsr_status parse_tensor(tsr_tensor_file *f, const cJSON *item, const uint8_t *data, size_t data_bytes) {
    tsr_tensor t = {.name = item->string};
    char shape[96];
    int64_t begin, end;
    if (!cJSON_IsObject(item))
        return tsr_file_bad(f, t.name, "its header entry is not an object; the file is damaged");
    const cJSON *dtype = only(item, "dtype"), *offsets = only(item, "data_offsets");
    if (!cJSON_IsString(dtype))
        return tsr_file_bad(f, t.name, "no dtype, or two, or not a string; the file is damaged");
    if (!parse_dtype(dtype->valuestring, &t.dtype))
        return tsr_file_bad(f, t.name, "type \"%.40s\" is not supported", dtype->valuestring);
    tsr_status status = parse_shape(f, only(item, "shape"), &t);
    if (status != TSR_OK)
        return status;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !whole_number(offsets->child, &begin) ||
        !whole_number(offsets->child->next, &end))
        return tsr_file_bad(f, t.name, "data_offsets are not two whole numbers; the file is damaged");
    if (begin > end || (uint64_t)end > data_bytes)
        return tsr_file_bad(f, t.name,
            "data_offsets [%lld, %lld] leave the file's %zu bytes of data; it is cut short or "
            "damaged",
            (long long)begin, (long long)end, data_bytes);
    if ((uint64_t)(end - begin) != t.bytes)
        return tsr_file_bad(f, t.name, "%s of %s takes %zu bytes, data_offsets give %lld; the file is damaged",
            tsr_shape_text(shape, t.dim, t.ndim), tsr_dtype_name(t.dtype), t.bytes, (long long)(end - begin));
    t.data = data + begin;
    return tsr_file_add(f, &t);
}

static tsr_status parse_metadata(tsr_tensor_file *f, const cJSON *object) {
    const cJSON *item;
    if (!cJSON_IsObject(object))
        return tsr_file_bad(f, NULL, "__metadata__ is not an object; the file is damaged");
    cJSON_ArrayForEach(item, object) {
        if (!cJSON_IsString(item))
            return tsr_file_bad(f, NULL, "__metadata__ %.150s is not a string; the file is damaged", item->string);
        tsr_status status = tsr_file_add_meta(f, item->string, item->valuestring);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

static int compare_data(const void *a, const void *b) {
    const tsr_tensor *x = *(const tsr_tensor *const *)a, *y = *(const tsr_tensor *const *)b;
    if (x->data != y->data)
        return (const uint8_t *)x->data < (const uint8_t *)y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Tensors lie one after the other, without overlap or hole, to the end of the file: what the format
 * demands, and what shows a damaged or badly joined file. */
static tsr_status check_ranges(const tsr_tensor_file *f, const uint8_t *data) {
    const tsr_tensor **by_data = malloc((f->count + 1) * sizeof *by_data);
    const uint8_t *at = data;
    tsr_status status = TSR_OK;
    if (!by_data)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its list of tensors", f->path);
    for (size_t i = 0; i < f->count; i++)
        by_data[i] = &f->tensor[i];
    qsort(by_data, f->count, sizeof *by_data, compare_data);
    for (size_t i = 0; i < f->count && status == TSR_OK; i++) {
        const uint8_t *begin = by_data[i]->data;
        if (begin != at)
            status = tsr_file_bad(f, by_data[i]->name, "its data %s; the file is damaged",
                begin < at ? "overlaps another tensor's" : "leaves a hole before it");
        at = begin + by_data[i]->bytes;
    }
    if (status == TSR_OK && at != f->map + f->bytes)
        status = tsr_file_bad(
            f, NULL, "%zu bytes at its end belong to no tensor; the file is damaged", (size_t)(f->map + f->bytes - at));
    free(by_data);
    return status;
}

static tsr_status parse_header(tsr_tensor_file *f, const cJSON *root, const uint8_t *data) {
    const cJSON *item;
    bool metadata = false;
    if (!cJSON_IsObject(root))
        return tsr_file_bad(f, NULL, "its header is not a JSON object; the file is damaged");
    cJSON_ArrayForEach(item, root) {
        tsr_status status;
        if (strcmp(item->string, "__metadata__") != 0) {
            status = parse_tensor(f, item, data, (size_t)(f->map + f->bytes - data));
        } else {
            status =
                metadata ? tsr_file_bad(f, NULL, "two __metadata__; the file is damaged") : parse_metadata(f, item);
            metadata = true;
        }
        if (status != TSR_OK)
            return status;
    }
    return check_ranges(f, data);
}

tsr_status tsr_safetensors_parse(tsr_tensor_file *f) {
    uint64_t length = tsr_le64(f->map); /* the caller has seen byte 8 */
    const char *header = (const char *)f->map + 8, *end = header;
    if (length > f->bytes - 8)
        return tsr_file_bad(f, NULL,
            "its header says %llu bytes, the file has %zu; it is cut short or no safetensors file",
            (unsigned long long)length, f->bytes - 8);
    if (length > header_most)
        return tsr_file_bad(
            f, NULL, "its header of %llu bytes is over the limit of 16 MiB", (unsigned long long)length);
    if (memchr(header, 0, (size_t)length)) /* cJSON would take it for the end of a name */
        return tsr_file_bad(f, NULL, "its header holds a zero byte; the file is damaged");
    cJSON *root = cJSON_ParseWithLengthOpts(header, (size_t)length, &end, 0);
    if (!root) /* `end` is where it stopped; not valid JSON, nested too deep, or no memory */
        return tsr_file_bad(f, NULL, "its header is not valid JSON (near byte %zu); the file is damaged",
            8 + (size_t)(end && end > header ? end - header : 0));
    tsr_status status = TSR_OK;
    for (const char *p = end; p < header + length && status == TSR_OK; p++)
        if (!memchr(" \t\r\n", *p, 4))
            status = tsr_file_bad(f, NULL, "its header goes on after the JSON ends; the file is damaged");
    if (status == TSR_OK)
        status = parse_header(f, root, f->map + 8 + length);
    cJSON_Delete(root);
    return status;
}

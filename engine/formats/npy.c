/* npy, versions 1 to 3: a Python dictionary in ASCII, then one array. */
#include "formats/containers.h"

#include <stdio.h>
#include <string.h>

/* The dictionary is read strictly, in any order of its three keys: whitespace is free, nothing else
 * is. */
typedef struct cursor {
    const char *p, *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\n' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
}

static bool take(cursor *c, const char *text) {
    size_t n = strlen(text);
    skip_space(c);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, text, n) != 0)
        return false;
    c->p += n;
    return true;
}

/* A string in single or double quotes, without escapes. */
static bool take_string(cursor *c, char *out, size_t room) {
    skip_space(c);
    if (c->p == c->end || (*c->p != '\'' && *c->p != '"'))
        return false;
    char quote = *c->p++;
    const char *close = memchr(c->p, quote, (size_t)(c->end - c->p));
    if (!close || (size_t)(close - c->p) >= room || memchr(c->p, '\\', (size_t)(close - c->p)))
        return false;
    memcpy(out, c->p, (size_t)(close - c->p));
    out[close - c->p] = 0;
    c->p = close + 1;
    return true;
}

static bool take_number(cursor *c, int64_t *out) {
    int64_t v = 0;
    skip_space(c);
    if (c->p == c->end || *c->p < '0' || *c->p > '9')
        return false;
    for (; c->p < c->end && *c->p >= '0' && *c->p <= '9'; c->p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *c->p - '0', &v))
            return false;
    *out = v;
    return true;
}

static tsr_status parse_type(const tsr_tensor_file *f, cursor *c, tsr_tensor *t) {
    static const struct {
        const char *name;
        tsr_dtype dtype;
    } types[] = {
        {"<f4", TSR_F32},
        {"<f2", TSR_F16},
        {"<f8", TSR_F64},
        {"|u1", TSR_U8},
        {"|i1", TSR_I8},
        {"<i2", TSR_I16},
        {"<i4", TSR_I32},
        {"<i8", TSR_I64},
        {"|b1", TSR_BOOL},
    };
    char descr[32];
    if (!take_string(c, descr, sizeof descr))
        return tsr_file_bad(f, NULL, "npy header: descr names no plain type; save one array of numbers");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(descr, types[i].name) == 0) {
            t->dtype = types[i].dtype;
            return TSR_OK;
        }
    if (descr[0] == '>')
        return tsr_file_bad(f, NULL, "npy type '%s' is big-endian; save it as little-endian float32", descr);
    return tsr_file_bad(f, NULL, "npy type '%s' is not supported; save it as float32", descr);
}

static tsr_status parse_order(const tsr_tensor_file *f, cursor *c) {
    if (take(c, "False"))
        return TSR_OK;
    if (take(c, "True"))
        return tsr_file_bad(f, NULL, "npy array is in Fortran order; save numpy.ascontiguousarray(x)");
    return tsr_file_bad(f, NULL, "npy header: fortran_order is neither True nor False; the file is damaged");
}

static tsr_status parse_shape(const tsr_tensor_file *f, cursor *c, tsr_tensor *t) {
    if (!take(c, "("))
        return tsr_file_bad(f, NULL, "npy header: shape is not a tuple; the file is damaged");
    while (!take(c, ")")) {
        if (t->ndim == TSR_MAX_DIMS)
            return tsr_file_bad(f, NULL, "npy array has more than %d dimensions", TSR_MAX_DIMS);
        if (!take_number(c, &t->dim[t->ndim]))
            return tsr_file_bad(
                f, NULL, "npy header: dimension %d of shape is not a whole number from 0 to 2^63", t->ndim);
        t->ndim++;
        if (!take(c, ",") && (c->p == c->end || *c->p != ')'))
            return tsr_file_bad(f, NULL, "npy header: shape is not a tuple; the file is damaged");
    }
    return TSR_OK;
}

static tsr_status parse_dictionary(const tsr_tensor_file *f, cursor *c, tsr_tensor *t) {
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    if (!take(c, "{"))
        return tsr_file_bad(f, NULL, "npy header is not a dictionary; the file is damaged");
    while (!take(c, "}")) {
        char key[32];
        int k = 0;
        if (!take_string(c, key, sizeof key) || !take(c, ":"))
            return tsr_file_bad(f, NULL, "npy header is not a dictionary of three entries; the file is damaged");
        while (k < 3 && strcmp(key, keys[k]) != 0)
            k++;
        if (k == 3 || seen & 1u << k)
            return tsr_file_bad(f, NULL, "npy header: key '%s' is unknown or stands twice; the file is damaged", key);
        seen |= 1u << k;
        tsr_status status = k == 0 ? parse_type(f, c, t) : k == 1 ? parse_order(f, c) : parse_shape(f, c, t);
        if (status != TSR_OK)
            return status;
        take(c, ",");
    }
    skip_space(c);
    if (seen != 7 || c->p != c->end)
        return tsr_file_bad(
            f, NULL, "npy header does not hold just descr, fortran_order and shape; the file is damaged");
    return TSR_OK;
}

tsr_status tsr_npy_parse(tsr_tensor_file *f) {
    tsr_tensor t = {.name = ""};
    if (f->bytes < 12)
        return tsr_file_bad(f, NULL, "npy header is cut short at %zu bytes; write the file again", f->bytes);
    unsigned version = f->map[6];
    if (version < 1 || version > 3 || f->map[7] != 0)
        return tsr_file_bad(f, NULL, "npy version %u.%u is not known (1.0, 2.0 and 3.0 are)", version, f->map[7]);
    size_t begin = version == 1 ? 10 : 12, length = version == 1 ? tsr_le16(f->map + 8) : tsr_le32(f->map + 8);
    if (length > f->bytes - begin)
        return tsr_file_bad(f, NULL, "npy header says %zu bytes, the file has %zu; it is cut short or damaged", length,
            f->bytes - begin);
    const char *text = (const char *)f->map + begin;
    tsr_status status = parse_dictionary(f, &(cursor){text, text + length}, &t);
    if (status != TSR_OK)
        return status;
    char shape[96];
    size_t have = f->bytes - begin - length;
    tsr_shape_text(shape, t.dim, t.ndim);
    if (!tsr_shape_count(t.dim, t.ndim, &t.count) || !tsr_tensor_bytes(t.dtype, t.count, &t.bytes))
        return tsr_file_bad(f, NULL, "npy shape %s overflows; the file is damaged", shape);
    if (t.bytes != have)
        return tsr_file_bad(f, NULL, "npy array %s of %s takes %zu bytes, the file holds %zu; it is %s", shape,
            tsr_dtype_name(t.dtype), t.bytes, have, have < t.bytes ? "cut short" : "damaged or holds several arrays");
    t.data = f->map + begin + length;
    return tsr_file_add(f, &t);
}

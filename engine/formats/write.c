/* Writing safetensors and npy: the header first, then each tensor's bytes, under a neighbour's name
 * until whole. */
#include "formats/containers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- headers */

static void put_string(FILE *o, const char *s) {
    fputc('"', o);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(o, "\\%c", c);
        else if (c < 0x20)
            fprintf(o, "\\u%04x", c);
        else
            fputc(c, o);
    }
    fputc('"', o);
}

static void put_metadata(FILE *o, const tsr_meta *meta, size_t metas) {
    fputs("\"__metadata__\":{", o);
    for (size_t i = 0; i < metas; i++) {
        fputs(i ? "," : "", o);
        put_string(o, meta[i].key);
        fputc(':', o);
        put_string(o, meta[i].value);
    }
    fputc('}', o);
}

static void put_tensor(FILE *o, const tsr_tensor *t, size_t begin) {
    put_string(o, t->name);
    fprintf(o, ":{\"dtype\":\"%s\",\"shape\":[", tsr_dtype_name(t->dtype));
    for (int i = 0; i < t->ndim; i++)
        fprintf(o, i ? ",%lld" : "%lld", (long long)t->dim[i]);
    fprintf(o, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->bytes);
}

/* Shape, type, count and bytes must agree: the file would not open again. */
static bool consistent(const tsr_tensor *t) {
    size_t n = 1, bytes;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] < 0 || !tsr_mul(n, (size_t)t->dim[i], &n))
            return false;
    return t->ndim <= TSR_MAX_DIMS && n == t->count && tsr_dtype_size(t->dtype) &&
           tsr_mul(n, tsr_dtype_size(t->dtype), &bytes) && bytes == t->bytes;
}

tsr_status tsr_safetensors_header(
    const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas, char **header, size_t *size) {
    char *text = NULL;
    size_t length = 0, at = 0;
    *header = NULL;
    for (size_t i = 0; i < count; i++)
        if (!consistent(&tensors[i]))
            return tsr_fail(TSR_ERR_ARGUMENT,
                "tensor %.150s: shape, type and size do not agree, or the type cannot be written", tensors[i].name);
    FILE *o = open_memstream(&text, &length);
    if (!o)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a safetensors header");
    fwrite("\0\0\0\0\0\0\0", 1, 8, o); /* the length, once known */
    fputc('{', o);
    if (metas)
        put_metadata(o, meta, metas);
    for (size_t i = 0; i < count; i++) {
        fputs(i || metas ? "," : "", o);
        put_tensor(o, &tensors[i], at);
        at += tensors[i].bytes;
    }
    fputc('}', o);
    while (ftello(o) % 8) /* so that the data is aligned */
        fputc(' ', o);
    bool failed = ferror(o);
    if (fclose(o) != 0 || failed) {
        free(text);
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a safetensors header");
    }
    for (int i = 0; i < 8; i++)
        text[i] = (char)((uint64_t)(length - 8) >> (8 * i));
    *header = text;
    *size = length;
    return TSR_OK;
}

tsr_status tsr_npy_header(const tsr_tensor *t, char **header, size_t *size) {
    char dict[320];
    *header = NULL;
    if (t->dtype != TSR_F32 || !consistent(t))
        return tsr_fail(TSR_ERR_ARGUMENT, "npy: only whole float32 arrays are written");
    size_t at = (size_t)snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < t->ndim; i++) /* Python wants a comma after a single entry */
        at += (size_t)snprintf(dict + at, sizeof dict - at,
            i + 1 < t->ndim ? "%lld, "
            : i             ? "%lld"
                            : "%lld,",
            (long long)t->dim[i]);
    at += (size_t)snprintf(dict + at, sizeof dict - at, "), }");
    /* Magic, version and length; the dictionary; a newline. */
    size_t length = tsr_align(10 + at + 1, 64);
    char *text = malloc(length);
    if (!text)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for an npy header");
    memset(text, ' ', length);
    memcpy(text, "\x93NUMPY\1\0", 8);
    text[8] = (char)((length - 10) & 255);
    text[9] = (char)((length - 10) >> 8);
    memcpy(text + 10, dict, at);
    text[length - 1] = '\n';
    *header = text;
    *size = length;
    return TSR_OK;
}

/* ---------------------------------------------------------------- whole files */

/* A file in the making: under path.part until whole, then renamed. What exists and is no regular
 * file (a pipe, /dev/stdout) is written directly, never renamed over. */
typedef struct output {
    const char *path;
    char *name; /* that is written */
    bool direct;
    FILE *o;
} output;

static tsr_status cannot_write(const char *path) {
    return tsr_fail(TSR_ERR_IO, "%.300s: cannot write: %s", path, strerror(errno));
}

static tsr_status output_open(output *f, const char *path) {
    struct stat st;
    bool direct = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    *f = (output){.path = path, .direct = direct};
    f->name = tsr_format_text(direct ? "%s" : "%s.part", path);
    if (!f->name)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to write it", path);
    f->o = fopen(f->name, "wbe");
    return f->o ? TSR_OK : cannot_write(path);
}

static tsr_status output_write(output *f, const void *bytes, size_t n) {
    return n == 0 || fwrite(bytes, 1, n, f->o) == n ? TSR_OK : cannot_write(f->path);
}

/* Closes, and renames where status is TSR_OK; else removes. Returns the status. */
static tsr_status output_close(output *f, tsr_status status) {
    bool opened = f->o;
    if (opened && fclose(f->o) != 0 && status == TSR_OK)
        status = cannot_write(f->path);
    if (status == TSR_OK && !f->direct && rename(f->name, f->path) != 0)
        status = cannot_write(f->path);
    if (status != TSR_OK && opened && !f->direct)
        unlink(f->name);
    free(f->name);
    return status;
}

/* Header and tensors into path, each tensor filled up with zeros to a multiple of `align`. Without
 * fill their data is there. */
static tsr_status write_file(const char *path, const char *header, size_t size, const tsr_tensor *tensors, size_t count,
    size_t align, tsr_fill_fn fill, void *ctx) {
    static const char zeros[TSR_GGUF_ALIGN];
    size_t most = 0;
    output f;
    void *made = NULL;
    tsr_status status = output_open(&f, path);
    if (status != TSR_OK)
        goto error;
    for (size_t i = 0; i < count; i++)
        most = tensors[i].bytes > most ? tensors[i].bytes : most;
    if (fill && most && !(made = malloc(most)))
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to write it", path));
    TSR_TRY(output_write(&f, header, size));
    for (size_t i = 0; i < count; i++) {
        size_t bytes = tensors[i].bytes;
        if (fill)
            TSR_TRY(fill(ctx, i, made));
        TSR_TRY(output_write(&f, fill ? made : tensors[i].data, bytes));
        TSR_TRY(output_write(&f, zeros, tsr_align(bytes, align) - bytes));
    }
error:
    free(made);
    return output_close(&f, status);
}

tsr_status tsr_safetensors_fill(const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta,
    size_t metas, tsr_fill_fn fill, void *ctx) {
    char *header;
    size_t size;
    tsr_status status = tsr_safetensors_header(tensors, count, meta, metas, &header, &size);
    if (status != TSR_OK)
        return tsr_fail_context(status, "%.300s", path);
    status = write_file(path, header, size, tensors, count, 1, fill, ctx);
    free(header);
    return status;
}

tsr_status tsr_safetensors_write(
    const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas) {
    return tsr_safetensors_fill(path, tensors, count, meta, metas, NULL, NULL);
}

tsr_status tsr_gguf_fill(const char *path, const tsr_tensor *tensors, size_t count, const tsr_meta *meta, size_t metas,
    tsr_fill_fn fill, void *ctx) {
    char *header;
    size_t size;
    tsr_status status = tsr_gguf_header(tensors, count, meta, metas, &header, &size);
    if (status != TSR_OK)
        return tsr_fail_context(status, "%.300s", path);
    status = write_file(path, header, size, tensors, count, TSR_GGUF_ALIGN, fill, ctx);
    free(header);
    return status;
}

tsr_status tsr_npy_write(const char *path, const tsr_tensor *t) {
    char *header;
    size_t size;
    tsr_status status = tsr_npy_header(t, &header, &size);
    if (status != TSR_OK)
        return tsr_fail_context(status, "%.300s", path);
    status = write_file(path, header, size, t, 1, 1, NULL, NULL);
    free(header);
    return status;
}

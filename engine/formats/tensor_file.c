/* Opening: mapping, telling the container by its first bytes, finding tensors and metadata, reading
 * elements. */
#include "formats/containers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- for the readers */

tsr_status tsr_file_bad(const tsr_tensor_file *f, const char *name, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (name)
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: tensor %.150s: %s", f->path, name, text);
    return tsr_fail(TSR_ERR_FORMAT, "%.300s: %s", f->path, text);
}

/* Makes room for one more element of `size` bytes. */
static bool grow(void **array, size_t *room, size_t count, size_t size) {
    if (count < *room)
        return true;
    size_t more = *room ? *room * 2 : 64, bytes;
    void *p = tsr_mul(more, size, &bytes) ? realloc(*array, bytes) : NULL;
    if (!p)
        return false;
    *array = p;
    *room = more;
    return true;
}

tsr_status tsr_file_add(tsr_tensor_file *f, const tsr_tensor *t) {
    char *name = strdup(t->name);
    if (!name || !grow((void **)&f->tensor, &f->room, f->count, sizeof *f->tensor)) {
        free(name);
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its list of tensors", f->path);
    }
    f->tensor[f->count] = *t;
    f->tensor[f->count++].name = name;
    return TSR_OK;
}

tsr_status tsr_file_add_meta(tsr_tensor_file *f, const char *key, const char *value) {
    tsr_pair p = {strdup(key), strdup(value)};
    if (!p.key || !p.value || !grow((void **)&f->meta, &f->meta_room, f->metas, sizeof *f->meta)) {
        free(p.key);
        free(p.value);
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its metadata", f->path);
    }
    f->meta[f->metas++] = p;
    return TSR_OK;
}

bool tsr_shape_count(const int64_t *dim, int ndim, size_t *count) {
    size_t n = 1;
    for (int i = 0; i < ndim; i++)
        if (dim[i] < 0 || !tsr_mul(n, (size_t)dim[i], &n))
            return false;
    *count = n;
    return true;
}

bool tsr_tensor_bytes(tsr_dtype t, size_t count, size_t *bytes) {
    size_t elements, size;
    tsr_block_size(t, &elements, &size);
    return count % elements == 0 && tsr_mul(count / elements, size, bytes);
}

/* ---------------------------------------------------------------- opening */

static tsr_status map_file(tsr_tensor_file *f) {
    struct stat st;
    /* Not blocking: opening a named pipe would wait for a writer. */
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        return tsr_fail(TSR_ERR_IO, "%.300s: cannot open: %s", f->path, strerror(e));
    }
    tsr_status status = TSR_OK;
    if (S_ISDIR(st.st_mode))
        status = tsr_file_bad(f, NULL, "is a folder; name a file in it");
    else if (!S_ISREG(st.st_mode))
        status = tsr_file_bad(f, NULL, "is not a regular file and cannot be mapped; copy it to a file first");
    else if (st.st_size == 0)
        status = tsr_file_bad(f, NULL, "is empty; fetch or write it again");
    if (status == TSR_OK) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            status = tsr_fail(TSR_ERR_IO, "%.300s: cannot map: %s", f->path, strerror(errno));
        else
            f->map = map, f->bytes = (size_t)st.st_size;
    }
    close(fd);
    return status;
}

static bool starts(const tsr_tensor_file *f, const char *magic, size_t n) {
    return f->bytes >= n && memcmp(f->map, magic, n) == 0;
}

static bool looks_like_text(const tsr_tensor_file *f) {
    for (size_t i = 0; i < f->bytes && i < 64; i++)
        if ((f->map[i] < 0x20 && !strchr("\t\r\n", f->map[i])) || f->map[i] == 0x7f || f->map[i] == 0)
            return false;
    return true;
}

/* Says what the file is instead, and what to do about it. */
static tsr_status refuse(const tsr_tensor_file *f) {
    if (starts(f, "PK\x03\x04", 4))
        return tsr_file_bad(f, NULL,
            "is a zip archive (a PyTorch .pt or .pth, or an .npz); save its tensors as "
            ".safetensors or .npy");
    if (f->bytes >= 2 && f->map[0] == 0x80 && f->map[1] >= 2 && f->map[1] <= 5) /* PROTO 2 to 5 */
        return tsr_file_bad(
            f, NULL, "is a Python pickle (an old PyTorch .pt or .pth); save its tensors as .safetensors");
    if (starts(f, "version https://git-lfs", 23))
        return tsr_file_bad(f, NULL, "is a Git LFS pointer, not the file itself; run `git lfs pull`");
    if (looks_like_text(f))
        return tsr_file_bad(f, NULL, "is text, not a tensor file; name a safetensors, GGUF, npy or .latent file");
    if (f->bytes < 10)
        return tsr_file_bad(
            f, NULL, "has only %zu bytes, too few for safetensors, GGUF or npy; fetch or write it again", f->bytes);
    return tsr_file_bad(f, NULL, "is no safetensors, GGUF or npy file (it starts with %02x %02x %02x %02x)", f->map[0],
        f->map[1], f->map[2], f->map[3]);
}

static tsr_status parse(tsr_tensor_file *f) {
    if (starts(f, "GGUF", 4)) {
        f->container = "gguf";
        return tsr_gguf_parse(f);
    }
    if (starts(f, "\x93NUMPY", 6)) {
        f->container = "npy";
        return tsr_npy_parse(f);
    }
    if (f->bytes > 8 && f->map[8] == '{') { /* 8 bytes of header length, then JSON */
        f->container = "safetensors";
        return tsr_safetensors_parse(f);
    }
    return refuse(f);
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const tsr_tensor *const *)a)->name, (*(const tsr_tensor *const *)b)->name);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const tsr_pair *)a)->key, ((const tsr_pair *)b)->key);
}

static tsr_status sort_names(tsr_tensor_file *f) {
    f->by_name = malloc((f->count + 1) * sizeof *f->by_name);
    if (!f->by_name)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory for its list of tensors", f->path);
    for (size_t i = 0; i < f->count; i++)
        f->by_name[i] = &f->tensor[i];
    qsort(f->by_name, f->count, sizeof *f->by_name, compare_names);
    for (size_t i = 1; i < f->count; i++)
        if (compare_names(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return tsr_file_bad(f, f->by_name[i]->name, "stands in the file twice; the file is damaged");
    if (f->metas)
        qsort(f->meta, f->metas, sizeof *f->meta, compare_keys);
    for (size_t i = 1; i < f->metas; i++)
        if (compare_keys(&f->meta[i - 1], &f->meta[i]) == 0)
            return tsr_file_bad(
                f, NULL, "metadata %.150s stands in the file twice; the file is damaged", f->meta[i].key);
    return TSR_OK;
}

tsr_status tsr_tensor_file_open(tsr_tensor_file **out, const char *path) {
    tsr_status status;
    *out = NULL;
    tsr_tensor_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        status = tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to open it", path);
        goto error;
    }
    TSR_TRY(map_file(f));
    TSR_TRY(parse(f));
    TSR_TRY(sort_names(f));
    *out = f;
    return TSR_OK;
error:
    tsr_tensor_file_close(&f);
    return status;
}

void tsr_tensor_file_close(tsr_tensor_file **file) {
    tsr_tensor_file *f = *file;
    if (!f)
        return;
    for (size_t i = 0; i < f->metas; i++) {
        free(f->meta[i].key);
        free(f->meta[i].value);
    }
    free(f->meta);
    free(f->by_name);
    for (size_t i = 0; i < f->count; i++)
        free((char *)f->tensor[i].name);
    free(f->tensor);
    if (f->map)
        munmap((void *)f->map, f->bytes);
    free(f->path);
    free(f);
    *file = NULL;
}

/* ---------------------------------------------------------------- looking inside */

const char *tsr_tensor_file_path(const tsr_tensor_file *f) {
    return f->path;
}

const char *tsr_tensor_file_container(const tsr_tensor_file *f) {
    return f->container;
}

size_t tsr_tensor_file_bytes(const tsr_tensor_file *f) {
    return f->bytes;
}

size_t tsr_tensor_file_count(const tsr_tensor_file *f) {
    return f->count;
}

const tsr_tensor *tsr_tensor_file_at(const tsr_tensor_file *f, size_t i) {
    return i < f->count ? &f->tensor[i] : NULL;
}

const tsr_tensor *tsr_tensor_file_find(const tsr_tensor_file *f, const char *name) {
    tsr_tensor wanted = {.name = name};
    const tsr_tensor *key = &wanted;
    const tsr_tensor **found = bsearch(&key, f->by_name, f->count, sizeof *f->by_name, compare_names);
    return found ? *found : NULL;
}

const char *tsr_tensor_file_meta(const tsr_tensor_file *f, const char *key) {
    tsr_pair wanted = {.key = (char *)key};
    const tsr_pair *found = f->metas ? bsearch(&wanted, f->meta, f->metas, sizeof *f->meta, compare_keys) : NULL;
    return found ? found->value : NULL;
}

/* ---------------------------------------------------------------- elements */

/* Plain types: conversion needs aligned elements, which a file does not promise. */
static void read_plain(const tsr_tensor *t, size_t begin, size_t n, float *out) {
    size_t size = tsr_dtype_size(t->dtype);
    const uint8_t *src = (const uint8_t *)t->data + begin * size;
    if ((uintptr_t)src % size == 0) {
        tsr_to_f32(t->dtype, src, out, n);
        return;
    }
    double aligned[256];
    size_t chunk = sizeof aligned / size;
    for (size_t i = 0; i < n; i += chunk) {
        size_t now = n - i < chunk ? n - i : chunk;
        memcpy(aligned, src + i * size, now * size);
        tsr_to_f32(t->dtype, aligned, out + i, now);
    }
}

void tsr_tensor_read(const tsr_tensor *t, size_t begin, size_t n, float *out) {
    size_t block, size;
    if (n == 0)
        return;
    if (tsr_dtype_size(t->dtype)) {
        read_plain(t, begin, n, out);
        return;
    }
    tsr_block_size(t->dtype, &block, &size);
    tsr_blocks_to_f32(t->dtype, (const uint8_t *)t->data + begin / block * size, n / block, out);
}

const char *tsr_shape_text(char buf[96], const int64_t *dim, int ndim) {
    size_t at = 0, room = 96;
    at += (size_t)snprintf(buf, room, "[");
    for (int i = 0; i < ndim && at < room; i++)
        at += (size_t)snprintf(buf + at, room - at, i ? ", %lld" : "%lld", (long long)dim[i]);
    if (at < room)
        snprintf(buf + at, room - at, "]");
    return buf;
}

#include "model/names.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Seen through in any combination: all-in-one checkpoints and converters put them in front. */
static const char *const prefixes[] = {"vae.", "first_stage_model.", "model.diffusion_model.", "model."};

static const char *without_prefix(const char *name) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes;) {
        size_t n = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], n) == 0) {
            name += n;
            i = 0;
        } else {
            i++;
        }
    }
    return name;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const tsr_named *)a)->name, ((const tsr_named *)b)->name);
}

tsr_status tsr_names_create(tsr_names *out, const tsr_tensor_file *file) {
    *out = (tsr_names){.path = tsr_tensor_file_path(file), .count = tsr_tensor_file_count(file)};
    out->entry = calloc(out->count ? out->count : 1, sizeof *out->entry);
    if (!out->entry)
        return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory for %zu names", out->path, out->count);
    for (size_t i = 0; i < out->count; i++) {
        const tsr_tensor *t = tsr_tensor_file_at(file, i);
        out->entry[i] = (tsr_named){.name = without_prefix(t->name), .tensor = t};
    }
    qsort(out->entry, out->count, sizeof *out->entry, by_name);
    return TSR_OK;
}

void tsr_names_clear(tsr_names *n) {
    free(n->entry);
    *n = (tsr_names){0};
}

/* The first entry whose name is not less than this. */
static size_t lower_bound(const tsr_names *n, const char *name) {
    size_t lo = 0, hi = n->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(n->entry[mid].name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

tsr_status tsr_names_get(tsr_names *n, const char *name, const tsr_tensor **out) {
    *out = NULL;
    size_t i = lower_bound(n, name);
    if (i == n->count || strcmp(n->entry[i].name, name) != 0)
        return TSR_OK;
    if (i + 1 < n->count && strcmp(n->entry[i + 1].name, name) == 0)
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensors '%s' and '%s' both stand for %s; keep one of them", n->path,
            n->entry[i].tensor->name, n->entry[i + 1].tensor->name, name);
    n->entry[i].used = true;
    *out = n->entry[i].tensor;
    return TSR_OK;
}

bool tsr_names_under(const tsr_names *n, const char *prefix) {
    size_t i = lower_bound(n, prefix);
    return i < n->count && strncmp(n->entry[i].name, prefix, strlen(prefix)) == 0;
}

int tsr_names_numbered(const tsr_names *n, const char *prefix) {
    size_t length = strlen(prefix);
    int most = 0;
    for (size_t i = lower_bound(n, prefix); i < n->count && strncmp(n->entry[i].name, prefix, length) == 0; i++) {
        char *end;
        const char *digits = n->entry[i].name + length;
        if (*digits < '0' || *digits > '9')
            continue;
        unsigned long k = strtoul(digits, &end, 10);
        if (*end == '.' && k < INT_MAX && (int)k + 1 > most)
            most = (int)k + 1;
    }
    return most;
}

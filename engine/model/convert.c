/* A model written anew: its tensors by their canonical names, in another type or container. */
#include "model/vae.h"

#include <tessera/convert.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const float HALF_MOST = 65504; /* the largest fp16 */

typedef struct entry {
    char name[128];
    const tsr_tensor *from;
} entry;

typedef struct conversion {
    const char *path;
    bool gguf;
    bool as_stored;
    tsr_dtype type; /* wanted */
    size_t count, room;
    entry *entry;         /* [count], sorted by name */
    tsr_tensor *to;       /* [count] */
    float *value, *again; /* of the largest tensor: its values, and what the file holds of them */
    size_t elements[TSR_DTYPE_COUNT], bytes[TSR_DTYPE_COUNT];
    int tensors[TSR_DTYPE_COUNT];
    double signal[TSR_DTYPE_COUNT], noise[TSR_DTYPE_COUNT];
} conversion;

/* ---------------------------------------------------------------- which tensors */

static tsr_status add(conversion *c, const char *layer, const char *part, const char *suffix, const tsr_tensor *t) {
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 64;
        entry *grown = realloc(c->entry, c->room * sizeof *grown);
        if (!grown)
            return tsr_fail(TSR_ERR_MEMORY, "out of memory for names");
        c->entry = grown;
    }
    entry *e = &c->entry[c->count++];
    e->from = t;
    snprintf(e->name, sizeof e->name, "%s%s%s", layer, part, suffix);
    return TSR_OK;
}

static tsr_status add_layer(conversion *c, const tsr_layer *l) {
    static const char *const qkv[] = {"to_q", "to_k", "to_v"};
    static const char *const upsampler[] = {".conv", ".upscale_conv"};
    char name[96];
    tsr_status status = TSR_OK;
    snprintf(name, sizeof name, "%s", l->name);
    if (l->kind == TSR_LAYER_QKV)
        name[strlen(name) - strlen("to_qkv")] = 0;
    for (int i = 0; i < 3 && l->weight[i]; i++) {
        const char *part = l->kind == TSR_LAYER_QKV        ? qkv[i]
                           : l->kind == TSR_LAYER_UPSAMPLE ? upsampler[i]
                           : l->kind == TSR_LAYER_LINEAR   ? ".0"
                                                           : "";
        TSR_TRY(add(c, name, part, ".weight", l->weight[i]));
        TSR_TRY(add(c, name, part, ".bias", l->bias[i]));
    }
error:
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static tsr_status list_tensors(conversion *c, const tsr_vae *v) {
    const tsr_half *halves[] = {&v->encoder, &v->decoder};
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < halves[h]->layers; i++) {
            tsr_status status = add_layer(c, &halves[h]->layer[i]);
            if (status != TSR_OK)
                return status;
        }
    qsort(c->entry, c->count, sizeof *c->entry, by_name);
    return TSR_OK;
}

/* ---------------------------------------------------------------- in which type */

/* Elements of a row as it will be stored. */
static size_t row_length(const tsr_tensor *t) {
    size_t row = t->ndim > 4 ? t->count / (size_t)t->dim[0] : (size_t)t->dim[t->ndim - 1];
    return row;
}

static bool fits(const conversion *c, const tsr_tensor *t, tsr_dtype type) {
    size_t bytes;
    return tsr_dtype_writable(type) && tsr_tensor_bytes(type, row_length(t), &bytes) &&
           (c->gguf || tsr_dtype_size(type));
}

static tsr_status choose_type(
    const conversion *c, const entry *e, const tsr_tensor *shape, float most, tsr_dtype *out) {
    bool small = shape->ndim == 1; /* norms and biases: readers of GGUF expect them in f32 */
    tsr_dtype type = c->as_stored ? e->from->dtype : c->type;
    if (small && c->gguf && !c->as_stored)
        type = TSR_F32;
    if (!fits(c, shape, type))
        type = small && c->gguf ? TSR_F32 : TSR_F16;
    if (!isfinite(most))
        return tsr_fail(TSR_ERR_FORMAT, "%s: holds a value that is not finite; the model is damaged", e->name);
    if (type != e->from->dtype && type != TSR_F32 && type != TSR_BF16 && most > HALF_MOST) {
        tsr_log(TSR_LOG_WARN, "%s: values of %g are beyond fp16; kept in f32", e->name, (double)most);
        type = TSR_F32;
    }
    *out = type;
    return TSR_OK;
}

/* The largest magnitude; infinite where a value is not finite. */
static float largest(const float *v, size_t n) {
    float most = 0;
    bool finite = true;
    for (size_t i = 0; i < n; i++) {
        finite = finite && isfinite(v[i]);
        most = fmaxf(most, fabsf(v[i]));
    }
    return finite ? most : INFINITY;
}

static tsr_status plan_tensor(conversion *c, size_t i) {
    const entry *e = &c->entry[i];
    tsr_tensor *t = &c->to[i];
    *t = *e->from;
    t->name = e->name;
    t->data = NULL;
    if (strstr(e->name, ".attentions.") && t->ndim > 2)
        t->ndim = 2; /* old files keep the linear layers as [c, c, 1, 1] */
    tsr_tensor_read(e->from, 0, t->count, c->value);
    tsr_status status = choose_type(c, e, t, largest(c->value, t->count), &t->dtype);
    if (status == TSR_OK && !tsr_tensor_bytes(t->dtype, t->count, &t->bytes))
        status = tsr_fail(TSR_ERR_FORMAT, "%s: its size overflows", e->name);
    return status;
}

static tsr_status plan_tensors(conversion *c) {
    size_t most = 1, bytes;
    for (size_t i = 0; i < c->count; i++)
        most = c->entry[i].from->count > most ? c->entry[i].from->count : most;
    if (!tsr_mul(most, sizeof(float), &bytes) || !(c->value = malloc(bytes)) || !(c->again = malloc(bytes)) ||
        !(c->to = calloc(c->count, sizeof *c->to)))
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: a tensor of %zu values", most);
    for (size_t i = 0; i < c->count; i++) {
        tsr_status status = plan_tensor(c, i);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
}

/* ---------------------------------------------------------------- writing, and what it costs */

static tsr_status fill(void *ctx, size_t i, void *out) {
    conversion *c = ctx;
    const tsr_tensor *from = c->entry[i].from;
    tsr_tensor to = c->to[i];
    tsr_dtype type = to.dtype;
    tsr_tensor_read(from, 0, from->count, c->value);
    if (type == from->dtype)
        memcpy(out, from->data, to.bytes);
    else
        tsr_tensor_encode(type, c->value, from->count, out);
    to.data = out;
    tsr_tensor_read(&to, 0, to.count, c->again);
    for (size_t k = 0; k < to.count; k++) {
        double w = (double)c->value[k], d = w - (double)c->again[k];
        c->signal[type] += w * w;
        c->noise[type] += d * d;
    }
    c->tensors[type]++;
    c->elements[type] += to.count;
    c->bytes[type] += to.bytes;
    return TSR_OK;
}

static double decibels(double signal, double noise) {
    return noise > 0 ? 10 * log10(signal / noise) : INFINITY;
}

static void report_costs(const conversion *c, tsr_convert_report *r) {
    double signal = 0, noise = 0;
    *r = (tsr_convert_report){0};
    for (int t = 0; t < TSR_DTYPE_COUNT; t++) {
        if (!c->tensors[t])
            continue;
        r->part[r->parts++] = (tsr_convert_part){.type = tsr_dtype_name((tsr_dtype)t),
            .tensors = c->tensors[t],
            .parameters = (int64_t)c->elements[t],
            .bytes = (int64_t)c->bytes[t],
            .snr = decibels(c->signal[t], c->noise[t])};
        r->tensors += c->tensors[t];
        r->parameters += (int64_t)c->elements[t];
        r->bytes += (int64_t)c->bytes[t];
        signal += c->signal[t];
        noise += c->noise[t];
    }
    r->snr = decibels(signal, noise);
}

/* ---------------------------------------------------------------- what was asked for */

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcasecmp(path + n - m, suffix) == 0;
}

static tsr_status read_params(conversion *c, const char *path, const tsr_convert_params *p) {
    c->path = path;
    c->gguf = has_suffix(path, ".gguf");
    c->as_stored = !p->type;
    if (!c->gguf && !has_suffix(path, ".safetensors"))
        return tsr_fail(TSR_ERR_ARGUMENT, "%.300s: neither .gguf nor .safetensors; name one of these", path);
    if (p->type) {
        int t = 0;
        while (t < TSR_DTYPE_COUNT &&
               !(tsr_dtype_writable((tsr_dtype)t) && strcasecmp(tsr_dtype_name((tsr_dtype)t), p->type) == 0))
            t++;
        if (t == TSR_DTYPE_COUNT)
            return tsr_fail(TSR_ERR_ARGUMENT,
                "type %.32s is not written; f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0 are", p->type);
        c->type = (tsr_dtype)t;
        if (!c->gguf && !tsr_dtype_size(c->type))
            return tsr_fail(TSR_ERR_ARGUMENT,
                "%.300s: safetensors hold no %s; write a .gguf, or choose f32, f16 or bf16", path,
                tsr_dtype_name(c->type));
    }
    if (!p->overwrite && access(path, F_OK) == 0)
        return tsr_fail(TSR_ERR_IO, "output exists: %s; overwrite it with -y or choose another name", path);
    return TSR_OK;
}

tsr_status tsr_convert(
    const tsr_model *m, const char *path, const tsr_convert_params *params, tsr_convert_report *report) {
    static const tsr_meta architecture = {"general.architecture", "seedvr2_vae"};
    static const tsr_meta torch = {"format", "pt"}; /* readers of the Hugging Face family ask for it */
    conversion *c = calloc(1, sizeof *c);
    tsr_status status;
    if (!c)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory to convert a model");
    TSR_TRY(read_params(c, path, params));
    TSR_TRY(list_tensors(c, m->vae));
    TSR_TRY(plan_tensors(c));
    TSR_TRY(c->gguf ? tsr_gguf_fill(path, c->to, c->count, &architecture, 1, fill, c)
                    : tsr_safetensors_fill(path, c->to, c->count, &torch, 1, fill, c));
    if (report)
        report_costs(c, report);
error:
    free(c->entry);
    free(c->to);
    free(c->value);
    free(c->again);
    free(c);
    return status;
}

/* The architecture of half a VAE, from the names and shapes of its tensors. */
#include "model/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_CHANNELS = 1 << 16, /* far beyond any model; keeps every later product of sizes in range */
    MOST_RESNETS = 64,       /* a level */
    ANY = -1,                /* a dimension the file decides */
};

typedef struct builder {
    tsr_names *names;
    tsr_half *half;
    const char *side; /* "decoder" or "encoder" */
    int level;        /* of the next layer */
    int c;            /* channels of the stream here */
} builder;

void tsr_half_clear(tsr_half *half) {
    free(half->layer);
    free(half->block);
    *half = (tsr_half){0};
}

int tsr_layer_remembers(const tsr_layer *l) {
    if (l->kind == TSR_LAYER_UPSAMPLE)
        return l->zt == 2 ? 1 : 2; /* of the low resolution, spec 9.6 */
    return l->kind == TSR_LAYER_CONV && l->kt > l->st ? l->kt - l->st : 0;
}

/* ---------------------------------------------------------------- tensors and their shapes */

static const char *expected_text(char buf[96], const int64_t *dim, int ndim) {
    size_t at = 0;
    for (int i = 0; i < ndim; i++) {
        const char *between = i ? ", " : "[";
        if (dim[i] == ANY)
            at += (size_t)snprintf(buf + at, 96 - at, "%sn", between);
        else
            at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", between, (long long)dim[i]);
    }
    snprintf(buf + at, 96 - at, "]");
    return buf;
}

static tsr_status wrong_shape(builder *b, const tsr_tensor *t, const int64_t *dim, int ndim) {
    char found[96], wanted[96];
    tsr_shape_text(found, t->dim, t->ndim);
    expected_text(wanted, dim, ndim);
    if (ndim == 5 && t->ndim == 4)
        return tsr_fail(TSR_ERR_FORMAT,
            "%s: tensor '%s' is a 4-D kernel %s, expected %s: this is the VAE of an image model; a "
            "video VAE is needed",
            b->names->path, t->name, found, wanted);
    return tsr_fail(
        TSR_ERR_FORMAT, "%s: tensor '%s' has shape %s, expected %s", b->names->path, t->name, found, wanted);
}

static bool holds_weights(tsr_dtype t) {
    return !(t == TSR_U8 || t == TSR_I8 || t == TSR_I16 || t == TSR_I32 || t == TSR_I64 || t == TSR_BOOL);
}

/* The tensor called layer + suffix, with these dimensions, of which ANY ones are what they are but
 * sensible. */
static tsr_status take(
    builder *b, const tsr_tensor **out, const char *layer, const char *suffix, int ndim, const int64_t *dim) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", layer, suffix);
    tsr_status status = tsr_names_get(b->names, name, out);
    if (status != TSR_OK)
        return status;
    const tsr_tensor *t = *out;
    if (!t)
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' is missing", b->names->path, name);
    if (t->ndim != ndim)
        return wrong_shape(b, t, dim, ndim);
    for (int i = 0; i < ndim; i++) {
        bool right = dim[i] == ANY ? t->dim[i] >= 1 && t->dim[i] <= MOST_CHANNELS : t->dim[i] == dim[i];
        if (!right)
            return wrong_shape(b, t, dim, ndim);
    }
    if (!holds_weights(t->dtype))
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' holds %s, expected floating-point weights", b->names->path,
            t->name, tsr_dtype_name(t->dtype));
    return TSR_OK;
}

/* ---------------------------------------------------------------- layers */

static tsr_status add_layer(builder *b, tsr_layer_kind kind, const char *name, tsr_layer **out, int *index) {
    tsr_half *h = b->half;
    if ((h->layers & (h->layers - 1)) == 0) {
        size_t room = h->layers ? 2 * (size_t)h->layers : 1;
        tsr_layer *grown = realloc(h->layer, room * sizeof *grown);
        if (!grown)
            return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory for layers", b->names->path);
        h->layer = grown;
    }
    *index = h->layers;
    *out = &h->layer[h->layers++];
    **out = (tsr_layer){.kind = kind, .kt = 1, .kh = 1, .kw = 1, .st = 1, .sy = 1, .sx = 1, .zt = 1, .level = b->level};
    snprintf((*out)->name, sizeof(*out)->name, "%s", name);
    return TSR_OK;
}

static tsr_status add_norm(builder *b, const char *name, int c, int *index) {
    tsr_layer *l = NULL;
    tsr_status status = add_layer(b, TSR_LAYER_NORM, name, &l, index);
    if (status != TSR_OK)
        return status;
    if (c % TSR_GROUPS)
        return tsr_fail(TSR_ERR_FORMAT, "%s: '%s' would normalise %d channels, which %d groups do not divide",
            b->names->path, name, c, TSR_GROUPS);
    l->cin = l->cout = c;
    TSR_TRY(take(b, &l->weight[0], name, ".weight", 1, (int64_t[]){c}));
    TSR_TRY(take(b, &l->bias[0], name, ".bias", 1, (int64_t[]){c}));
error:
    return status;
}

/* cout may be ANY. k: rows and columns; 3x3 convs are 3 or 1 deep in time, as the file says, 1x1
 * ones 1. */
static tsr_status add_conv(builder *b, const char *name, int cin, int cout, int k, int *index) {
    tsr_layer *l = NULL;
    tsr_status status = add_layer(b, TSR_LAYER_CONV, name, &l, index);
    if (status != TSR_OK)
        return status;
    int64_t dim[5] = {cout, cin, k, k, k};
    const tsr_tensor *probe;
    char weight[128];
    snprintf(weight, sizeof weight, "%s.weight", name);
    TSR_TRY(tsr_names_get(b->names, weight, &probe));
    if (probe && probe->ndim == 5 && probe->dim[2] == 1)
        dim[2] = 1;
    TSR_TRY(take(b, &l->weight[0], name, ".weight", 5, dim));
    l->cin = cin;
    l->cout = (int)l->weight[0]->dim[0];
    l->kt = (int)dim[2];
    l->kh = l->kw = k;
    TSR_TRY(take(b, &l->bias[0], name, ".bias", 1, (int64_t[]){l->cout}));
error:
    return status;
}

/* Linear layers are [c, c]; in old files [c, c, 1, 1]. */
static tsr_status take_linear(
    builder *b, const tsr_tensor **weight, const tsr_tensor **bias, const char *layer, int c) {
    char name[128];
    const tsr_tensor *probe;
    tsr_status status = TSR_OK;
    snprintf(name, sizeof name, "%s.weight", layer);
    TSR_TRY(tsr_names_get(b->names, name, &probe));
    int ndim = probe && probe->ndim > 2 && probe->ndim <= 5 ? probe->ndim : 2;
    TSR_TRY(take(b, weight, layer, ".weight", ndim, (int64_t[]){c, c, 1, 1, 1}));
    TSR_TRY(take(b, bias, layer, ".bias", 1, (int64_t[]){c}));
error:
    return status;
}

/* ---------------------------------------------------------------- blocks */

static tsr_status add_block(builder *b, tsr_block_kind kind, const int layer[5]) {
    tsr_half *h = b->half;
    if ((h->blocks & (h->blocks - 1)) == 0) {
        tsr_block *grown = realloc(h->block, (h->blocks ? 2 * (size_t)h->blocks : 1) * sizeof *grown);
        if (!grown)
            return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory for blocks", b->names->path);
        h->block = grown;
    }
    tsr_block *k = &h->block[h->blocks++];
    k->kind = kind;
    memcpy(k->layer, layer, sizeof k->layer);
    return TSR_OK;
}

static tsr_status add_resnet(builder *b, const char *prefix, int cout) {
    char name[128];
    int layer[5] = {-1, -1, -1, -1, -1};
    tsr_status status;
#define NAMED(suffix) (snprintf(name, sizeof name, "%s%s", prefix, suffix), name)
    TSR_TRY(add_norm(b, NAMED(".norm1"), b->c, &layer[0]));
    TSR_TRY(add_conv(b, NAMED(".conv1"), b->c, cout, 3, &layer[1]));
    cout = b->half->layer[layer[1]].cout;
    TSR_TRY(add_norm(b, NAMED(".norm2"), cout, &layer[2]));
    TSR_TRY(add_conv(b, NAMED(".conv2"), cout, cout, 3, &layer[3]));
    if (b->c != cout || tsr_names_under(b->names, NAMED(".conv_shortcut.")))
        TSR_TRY(add_conv(b, NAMED(".conv_shortcut"), b->c, cout, 1, &layer[4]));
    b->c = cout;
    TSR_TRY(add_block(b, TSR_BLOCK_RESNET, layer));
error:
    return status;
}

static tsr_status add_attention(builder *b, const char *prefix) {
    static const char *const spelling[2][4] = {
        {"to_q", "to_k", "to_v", "to_out.0"}, {"query", "key", "value", "proj_attn"}};
    char name[128];
    int layer[5] = {-1, -1, -1, -1, -1};
    tsr_layer *l = NULL;
    tsr_status status;
    TSR_TRY(add_norm(b, NAMED(".group_norm"), b->c, &layer[0]));
    const char *const *part = spelling[tsr_names_under(b->names, NAMED(".query.")) ? 1 : 0];
    TSR_TRY(add_layer(b, TSR_LAYER_QKV, NAMED(".to_qkv"), &l, &layer[1]));
    l->cin = b->c;
    l->cout = 3 * b->c;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%s", prefix, part[i]);
        TSR_TRY(take_linear(b, &l->weight[i], &l->bias[i], name, b->c));
    }
    TSR_TRY(add_layer(b, TSR_LAYER_LINEAR, NAMED(".to_out"), &l, &layer[2]));
    l->cin = l->cout = b->c;
    snprintf(name, sizeof name, "%s.%s", prefix, part[3]);
    TSR_TRY(take_linear(b, &l->weight[0], &l->bias[0], name, b->c));
    TSR_TRY(add_block(b, TSR_BLOCK_ATTENTION, layer));
error:
    return status;
}

static tsr_status add_mid(builder *b) {
    char name[64];
    tsr_status status;
    snprintf(name, sizeof name, "%s.mid_block.resnets.0", b->side);
    TSR_TRY(add_resnet(b, name, b->c));
    snprintf(name, sizeof name, "%s.mid_block.attentions.0.", b->side);
    if (tsr_names_under(b->names, name)) {
        name[strlen(name) - 1] = 0;
        TSR_TRY(add_attention(b, name));
    }
    snprintf(name, sizeof name, "%s.mid_block.resnets.1", b->side);
    TSR_TRY(add_resnet(b, name, b->c));
error:
    return status;
}

static tsr_status add_upsampler(builder *b, const char *prefix) {
    char name[128];
    int layer[5] = {-1, -1, -1, -1, -1}, c = b->c;
    tsr_layer *l = NULL;
    tsr_status status;
    TSR_TRY(add_layer(b, TSR_LAYER_UPSAMPLE, prefix, &l, &layer[0]));
    l->cin = l->cout = c;
    l->kt = l->kh = l->kw = 3;
    TSR_TRY(take(b, &l->weight[0], NAMED(".conv"), ".weight", 5, (int64_t[]){c, c, 3, 3, 3}));
    TSR_TRY(take(b, &l->bias[0], name, ".bias", 1, (int64_t[]){c}));
    TSR_TRY(take(b, &l->weight[1], NAMED(".upscale_conv"), ".weight", 5, (int64_t[]){ANY, c, 1, 1, 1}));
    int64_t rows = l->weight[1]->dim[0];
    if (rows != 4 * (int64_t)c && rows != 8 * (int64_t)c)
        return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' has %lld rows, expected %d (space) or %d (space and time)",
            b->names->path, l->weight[1]->name, (long long)rows, 4 * c, 8 * c);
    l->zt = rows == 8 * (int64_t)c ? 2 : 1;
    TSR_TRY(take(b, &l->bias[1], name, ".bias", 1, (int64_t[]){rows}));
    b->level++;
    b->half->space_factor *= 2;
    b->half->time_factor *= l->zt;
    TSR_TRY(add_block(b, TSR_BLOCK_UPSAMPLE, layer));
error:
    return status;
}

static tsr_status add_downsampler(builder *b, const char *prefix) {
    char name[128];
    int layer[5] = {-1, -1, -1, -1, -1};
    tsr_status status;
    TSR_TRY(add_conv(b, NAMED(".conv"), b->c, b->c, 3, &layer[0]));
    tsr_layer *l = &b->half->layer[layer[0]];
    l->st = l->kt == 3 ? 2 : 1;
    l->sy = l->sx = 2;
    b->level--;
    b->half->space_factor *= 2;
    b->half->time_factor *= l->st;
    TSR_TRY(add_block(b, TSR_BLOCK_DOWNSAMPLE, layer));
error:
    return status;
}
#undef NAMED

/* All up_blocks or down_blocks. */
static tsr_status add_levels(builder *b, bool encoder, int levels, int resnets, int widths[TSR_MAX_LEVELS]) {
    const char *kind = encoder ? "down" : "up";
    char name[96];
    tsr_status status = TSR_OK;
    for (int i = 0; i < levels; i++) {
        for (int j = 0; j < resnets; j++) {
            snprintf(name, sizeof name, "%s.%s_blocks.%d.resnets.%d", b->side, kind, i, j);
            TSR_TRY(add_resnet(b, name, j ? b->c : ANY));
        }
        widths[i] = b->c;
        snprintf(name, sizeof name, "%s.%s_blocks.%d.%ssamplers.0.", b->side, kind, i, kind);
        if (!tsr_names_under(b->names, name))
            continue;
        name[strlen(name) - 1] = 0;
        TSR_TRY(encoder ? add_downsampler(b, name) : add_upsampler(b, name));
    }
error:
    return status;
}

static tsr_status add_ends(builder *b, bool out, int cin, int cout) {
    char name[64];
    int layer[5] = {-1, -1, -1, -1, -1};
    tsr_status status;
    if (out) {
        snprintf(name, sizeof name, "%s.conv_norm_out", b->side);
        TSR_TRY(add_norm(b, name, cin, &layer[0]));
    }
    snprintf(name, sizeof name, "%s.conv_%s", b->side, out ? "out" : "in");
    TSR_TRY(add_conv(b, name, cin, cout, 3, &layer[out]));
    b->c = b->half->layer[layer[out]].cout;
    TSR_TRY(add_block(b, out ? TSR_BLOCK_OUT : TSR_BLOCK_CONV_IN, layer));
error:
    return status;
}

/* How many blocks, resnets a block and changes of resolution the names tell of. */
static tsr_status count_levels(builder *b, bool encoder, int *levels, int *resnets) {
    const char *kind = encoder ? "down" : "up";
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.%s_blocks.", b->side, kind);
    *levels = tsr_names_numbered(b->names, prefix);
    *resnets = 0;
    b->level = 0;
    if (*levels > TSR_MAX_LEVELS)
        return tsr_fail(
            TSR_ERR_FORMAT, "%s: %d %s_blocks, expected at most %d", b->names->path, *levels, kind, TSR_MAX_LEVELS);
    for (int i = 0; i < *levels; i++) {
        snprintf(prefix, sizeof prefix, "%s.%s_blocks.%d.resnets.", b->side, kind, i);
        int n = tsr_names_numbered(b->names, prefix);
        *resnets = n > *resnets ? n : *resnets;
        snprintf(prefix, sizeof prefix, "%s.%s_blocks.%d.%ssamplers.0.", b->side, kind, i, kind);
        if (encoder && tsr_names_under(b->names, prefix))
            b->level++; /* the pictures' level; each downsampler takes one away */
    }
    if (*resnets > MOST_RESNETS)
        return tsr_fail(
            TSR_ERR_FORMAT, "%s: %d resnets a block, expected at most %d", b->names->path, *resnets, MOST_RESNETS);
    *levels = *levels ? *levels : 1; /* so that the first tensor missing is named */
    *resnets = *resnets ? *resnets : 1;
    return TSR_OK;
}

tsr_status tsr_half_infer(tsr_half *half, tsr_names *names, bool encoder, int widths[TSR_MAX_LEVELS], int *resnets) {
    builder b = {.names = names, .half = half, .side = encoder ? "encoder" : "decoder"};
    int levels;
    half->space_factor = half->time_factor = 1;
    half->encodes = encoder;
    tsr_status status = count_levels(&b, encoder, &levels, resnets);
    if (status != TSR_OK)
        return status;
    /* Z of a decoder is what its first conv reads. */
    const tsr_tensor *first = NULL;
    char name[64];
    snprintf(name, sizeof name, "%s.conv_in.weight", b.side);
    TSR_TRY(tsr_names_get(names, name, &first));
    if (!first)
        return tsr_fail(
            TSR_ERR_FORMAT, "%s: not a VAE of the SeedVR2 family: tensor '%s' is missing", names->path, name);
    half->in_channels = 3;
    if (!encoder) {
        if (first->ndim != 5 || first->dim[1] < 1 || first->dim[1] > MOST_CHANNELS)
            return wrong_shape(&b, first, (int64_t[]){ANY, ANY, 3, 3, 3}, 5);
        half->in_channels = (int)first->dim[1];
    }
    TSR_TRY(add_ends(&b, false, half->in_channels, ANY));
    if (!encoder)
        TSR_TRY(add_mid(&b));
    TSR_TRY(add_levels(&b, encoder, levels, *resnets, widths));
    if (encoder)
        TSR_TRY(add_mid(&b));
    TSR_TRY(add_ends(&b, true, b.c, encoder ? ANY : 3));
    half->out_channels = b.c;
    if (encoder && b.c % 2)
        return tsr_fail(TSR_ERR_FORMAT,
            "%s: encoder.conv_out has %d channels, expected an even number (mean and log variance)", names->path, b.c);
    for (half->levels = 1; 1 << (half->levels - 1) < half->space_factor; half->levels++)
        ;
error:
    return status;
}

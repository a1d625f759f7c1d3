#include "synthetic.h"

#include "formats/tensor_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- values */

static const uint64_t golden = 0x9E3779B97F4A7C15u;

static uint64_t fnv1a64(const char *s) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001B3u;
    return h;
}

static float uniform(uint64_t state) { /* in [-1, 1), 24 bits: exact */
    uint64_t s = state + golden;
    s = (s ^ s >> 30) * 0xBF58476D1CE4E5B9u;
    s = (s ^ s >> 27) * 0x94D049BB133111EBu;
    s ^= s >> 31;
    return (float)(s >> 40) / (float)(1 << 23) - 1;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

void synth_values(const char *name, const int64_t *dim, int ndim, uint64_t seed, size_t begin, size_t n, float *out) {
    uint64_t state = fnv1a64(name) + seed * golden + begin;
    double scale = 1, fan_in = 1, plus = 0;
    bool half = strcmp(name, "latent") != 0 && strcmp(name, "video") != 0;
    for (int i = 1; i < ndim; i++)
        fan_in *= (double)dim[i];
    if (strcmp(name, "latent") == 0)
        scale = sqrt(3);
    else if (ends_with(name, ".bias"))
        scale = 0.1;
    else if (strstr(name, "norm"))
        scale = 0.3, plus = 1;
    else if (half)
        scale = sqrt(3 / fan_in);
    for (size_t i = 0; i < n; i++) {
        float v = (float)plus + (float)scale * uniform(state + i);
        out[i] = half ? tsr_f16_to_f32(tsr_f32_to_f16(v)) : v;
    }
}

/* ---------------------------------------------------------------- shapes */

typedef struct list {
    synth_tensor *tensor;
    size_t count, room;
    bool failed;
} list;

static void add(list *l, const char *prefix, const char *suffix, int ndim, const int64_t *dim) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        synth_tensor *p = realloc(l->tensor, room * sizeof *p);
        if (!p) {
            l->failed = true;
            return;
        }
        l->tensor = p;
        l->room = room;
    }
    synth_tensor *t = &l->tensor[l->count++];
    *t = (synth_tensor){.ndim = ndim, .count = 1};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, suffix);
    for (int i = 0; i < ndim; i++) {
        t->dim[i] = dim[i];
        t->count *= (size_t)dim[i];
    }
}

static void conv(list *l, const char *p, int ci, int co, int kt, int k) {
    add(l, p, ".weight", 5, (int64_t[]){co, ci, kt, k, k});
    add(l, p, ".bias", 1, (int64_t[]){co});
}

static void norm(list *l, const char *p, int c) {
    add(l, p, ".weight", 1, (int64_t[]){c});
    add(l, p, ".bias", 1, (int64_t[]){c});
}

static const char *join(char buf[80], const char *p, const char *suffix) {
    snprintf(buf, 80, "%s%s", p, suffix);
    return buf;
}

static void resnet(list *l, const char *p, int ci, int co) {
    char b[80];
    norm(l, join(b, p, ".norm1"), ci);
    conv(l, join(b, p, ".conv1"), ci, co, 3, 3);
    norm(l, join(b, p, ".norm2"), co);
    conv(l, join(b, p, ".conv2"), co, co, 3, 3);
    if (ci != co)
        conv(l, join(b, p, ".conv_shortcut"), ci, co, 1, 1);
}

static void mid(list *l, const char *p, int c) {
    static const char *const linear[] = {"to_q", "to_k", "to_v", "to_out.0"};
    char b[80];
    resnet(l, join(b, p, ".resnets.0"), c, c);
    norm(l, join(b, p, ".attentions.0.group_norm"), c);
    for (int i = 0; i < 4; i++) {
        snprintf(b, sizeof b, "%s.attentions.0.%s", p, linear[i]);
        add(l, b, ".weight", 2, (int64_t[]){c, c});
        add(l, b, ".bias", 1, (int64_t[]){c});
    }
    resnet(l, join(b, p, ".resnets.1"), c, c);
}

static void encoder(list *l, const synth_config *c, int levels) {
    char p[80];
    int ci = c->channels[0], last = levels - 1;
    conv(l, "encoder.conv_in", 3, ci, 3, 3);
    for (int i = 0; i < levels; i++) {
        for (int j = 0; j < c->layers; j++) {
            snprintf(p, sizeof p, "encoder.down_blocks.%d.resnets.%d", i, j);
            resnet(l, p, ci, c->channels[i]);
            ci = c->channels[i];
        }
        snprintf(p, sizeof p, "encoder.down_blocks.%d.downsamplers.0.conv", i);
        if (i < last) /* the last two halve time as well */
            conv(l, p, ci, ci, i >= last - 2 ? 3 : 1, 3);
    }
    mid(l, "encoder.mid_block", ci);
    norm(l, "encoder.conv_norm_out", ci);
    conv(l, "encoder.conv_out", ci, 2 * c->latent, 3, 3);
}

static void decoder(list *l, const synth_config *c, int levels) {
    char p[80];
    int ci = c->channels[levels - 1];
    conv(l, "decoder.conv_in", c->latent, ci, 3, 3);
    mid(l, "decoder.mid_block", ci);
    for (int i = 0; i < levels; i++) {
        for (int j = 0; j <= c->layers; j++) {
            snprintf(p, sizeof p, "decoder.up_blocks.%d.resnets.%d", i, j);
            resnet(l, p, ci, c->channels[levels - 1 - i]);
            ci = c->channels[levels - 1 - i];
        }
        if (i == levels - 1)
            break;
        snprintf(p, sizeof p, "decoder.up_blocks.%d.upsamplers.0.conv", i);
        conv(l, p, ci, ci, 3, 3);
        snprintf(p, sizeof p, "decoder.up_blocks.%d.upsamplers.0.upscale_conv", i);
        conv(l, p, ci, ci * (i < 2 ? 8 : 4), 1, 1); /* the first two double time as well */
    }
    norm(l, "decoder.conv_norm_out", ci);
    conv(l, "decoder.conv_out", ci, 3, 3, 3);
}

synth_tensor *synth_shapes(const synth_config *config, size_t *count) {
    synth_config c = *config;
    list l = {0};
    int levels = 0;
    if (!c.channels[0])
        memcpy(c.channels, (int[]){128, 256, 512, 512}, 4 * sizeof(int));
    c.layers = c.layers ? c.layers : 2;
    c.latent = c.latent ? c.latent : 16;
    while (levels < TSR_MAX_LEVELS && c.channels[levels])
        levels++;
    if (c.encoder || !c.decoder)
        encoder(&l, &c, levels);
    if (c.decoder || !c.encoder)
        decoder(&l, &c, levels);
    if (l.failed) {
        free(l.tensor);
        return NULL;
    }
    *count = l.count;
    return l.tensor;
}

/* ---------------------------------------------------------------- a model file */

enum { CHUNK = 1 << 20 };

typedef struct chunk {
    const synth_tensor *t;
    uint64_t seed;
    size_t begin;
    float *values;
    uint16_t *halves;
} chunk;

static void fill(void *ctx, size_t begin, size_t end) {
    chunk *c = ctx;
    synth_values(c->t->name, c->t->dim, c->t->ndim, c->seed, c->begin + begin, end - begin, c->values + begin);
    tsr_from_f32(TSR_F16, c->values + begin, c->halves + begin, end - begin);
}

static bool write_tensor(FILE *o, const synth_tensor *t, uint64_t seed, float *values, uint16_t *halves) {
    for (size_t at = 0; at < t->count; at += CHUNK) {
        size_t n = t->count - at < CHUNK ? t->count - at : CHUNK;
        tsr_parallel_for(n, 4096, fill, &(chunk){t, seed, at, values, halves});
        if (fwrite(halves, 2, n, o) != n)
            return false;
    }
    return true;
}

static tsr_status header_for(const synth_tensor *s, size_t count, char **header, size_t *size) {
    tsr_tensor *t = calloc(count, sizeof *t);
    if (!t)
        return tsr_fail(TSR_ERR_MEMORY, "no memory for a synthetic model");
    for (size_t i = 0; i < count; i++) {
        t[i] = (tsr_tensor){
            .name = s[i].name, .dtype = TSR_F16, .ndim = s[i].ndim, .count = s[i].count, .bytes = 2 * s[i].count};
        memcpy(t[i].dim, s[i].dim, sizeof s[i].dim);
    }
    tsr_status status = tsr_safetensors_header(t, count, NULL, 0, header, size);
    free(t);
    return status;
}

tsr_status synth_model_write(const char *path, const synth_config *config) {
    tsr_status status = TSR_OK;
    size_t count = 0, size = 0;
    char *header = NULL;
    FILE *o = NULL;
    synth_tensor *s = synth_shapes(config, &count);
    float *values = malloc(CHUNK * sizeof *values);
    uint16_t *halves = malloc(CHUNK * sizeof *halves);
    if (!s || !values || !halves) {
        status = tsr_fail(TSR_ERR_MEMORY, "no memory for a synthetic model");
        goto error;
    }
    TSR_TRY(header_for(s, count, &header, &size));
    o = fopen(path, "wb");
    bool ok = o && fwrite(header, 1, size, o) == size;
    for (size_t i = 0; ok && i < count; i++)
        ok = write_tensor(o, &s[i], config->seed, values, halves);
    if (o && fclose(o) != 0)
        ok = false;
    if (!ok)
        status = tsr_fail(TSR_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
error:
    free(header);
    free(halves);
    free(values);
    free(s);
    return status;
}

/* ---------------------------------------------------------------- latents and videos */

float *synth_latent(int channels, int frames, int height, int width, uint64_t seed) {
    size_t c = (size_t)channels, n = (size_t)frames * (size_t)height * (size_t)width;
    float *plane = malloc(n * sizeof *plane), *out = malloc(n * c * sizeof *out);
    for (size_t k = 0; plane && out && k < c; k++) {
        synth_values("latent", (int64_t[]){channels, frames, height, width}, 4, seed, k * n, n, plane);
        for (size_t i = 0; i < n; i++)
            out[i * c + k] = plane[i];
    }
    free(plane);
    return out;
}

float *synth_video(int frames, int height, int width, uint64_t seed) {
    size_t n = 3 * (size_t)frames * (size_t)height * (size_t)width;
    float *out = malloc(n * sizeof *out);
    if (out)
        synth_values("video", (int64_t[]){3, frames, height, width}, 4, seed, 0, n, out);
    return out;
}

/* The architecture read from names and shapes, with everything that can be wrong about them, and
 * folded kernels against the layers they stand for, computed one after the other in double. */
#include "synthetic.h"
#include "temp.h"

#include "model/kernels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- model files of any shapes,
 * without data */

typedef struct shapes {
    tsr_tensor *t;
    size_t count;
} shapes;

static shapes shapes_of(const synth_config *config) {
    shapes s;
    synth_tensor *made = synth_shapes(config, &s.count);
    cr_assert(made);
    s.t = calloc(s.count + 8, sizeof *s.t); /* a few more may be added */
    for (size_t i = 0; i < s.count; i++) {
        s.t[i] = (tsr_tensor){.name = strdup(made[i].name), .dtype = TSR_F16, .ndim = made[i].ndim};
        memcpy(s.t[i].dim, made[i].dim, sizeof made[i].dim);
    }
    free(made);
    return s;
}

static void shapes_free(shapes *s) {
    for (size_t i = 0; i < s->count; i++)
        free((char *)s->t[i].name);
    free(s->t);
}

static size_t place_of(const shapes *s, const char *name) {
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->t[i].name, name) == 0)
            return i;
    cr_assert_fail("no tensor %s", name);
    return 0;
}

static void rename_to(shapes *s, size_t i, const char *name) {
    free((char *)s->t[i].name);
    s->t[i].name = strdup(name);
}

static void drop(shapes *s, size_t i) {
    free((char *)s->t[i].name);
    s->t[i] = s->t[--s->count];
}

static void add(shapes *s, const char *name, int ndim, const int64_t *dim) {
    s->t[s->count] = (tsr_tensor){.name = strdup(name), .dtype = TSR_F16, .ndim = ndim};
    memcpy(s->t[s->count++].dim, dim, (size_t)ndim * sizeof *dim);
}

/* The header, and a hole for the data: half a gigabyte costs nothing. */
static const char *write_hollow(shapes *s) {
    static const char *path;
    path = temp_path("hollow.safetensors");
    char *header;
    size_t size, data = 0;
    for (size_t i = 0; i < s->count; i++) {
        tsr_tensor *t = &s->t[i];
        t->count = 1;
        for (int d = 0; d < t->ndim; d++)
            t->count *= (size_t)t->dim[d];
        t->bytes = t->count * tsr_dtype_size(t->dtype);
        data += t->bytes;
    }
    cr_assert(tsr_safetensors_header(s->t, s->count, NULL, 0, &header, &size) == TSR_OK, "%s", tsr_last_error());
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(header, 1, size, f) == size);
    if (data)
        cr_assert(fseek(f, (long)(size + data - 1), SEEK_SET) == 0 && fputc(0, f) == 0);
    fclose(f);
    free(header);
    return path;
}

static tsr_status open_shapes(tsr_model **m, shapes *s) {
    return tsr_model_open(m, write_hollow(s));
}

static const synth_config tiny = {.channels = {32, 32, 32, 32}, .layers = 1};

/* ---------------------------------------------------------------- architecture */

Test(vae, published_architecture) {
    shapes s = shapes_of(&(synth_config){0});
    tsr_model *m;
    cr_assert(open_shapes(&m, &s) == TSR_OK, "%s", tsr_last_error());
    const tsr_model_info *i = tsr_model_get_info(m);
    cr_assert(i->tensors == 250 && i->parameters == 250648227);
    cr_assert(i->latent_channels == 16 && i->space_factor == 8 && i->time_factor == 4 && i->levels == 4);
    cr_assert(i->width[0] == 128 && i->width[1] == 256 && i->width[2] == 512 && i->width[3] == 512);
    cr_assert(i->decoder_resnets == 3 && i->encoder_resnets == 2 && i->has_decoder && i->has_encoder);
    cr_assert(fabs(i->latent_scale - 0.9152) < 1e-12 && strcmp(i->container, "safetensors") == 0);
    const tsr_half *d = &m->vae->decoder;
    int up[3], n = 0, norms = 0;
    for (int k = 0; k < d->layers; k++) {
        norms += d->layer[k].kind == TSR_LAYER_NORM;
        if (d->layer[k].kind == TSR_LAYER_UPSAMPLE && n < 3)
            up[n++] = k;
    }
    cr_assert(n == 3 && norms == 2 * 14 + 2 && d->levels == 4);
    cr_assert(d->layer[up[0]].zt == 2 && d->layer[up[1]].zt == 2 && d->layer[up[2]].zt == 1);
    cr_assert(d->layer[up[2]].cin == 256 && d->layer[up[2]].level == 2);
    cr_assert(strcmp(d->layer[0].name, "decoder.conv_in") == 0 &&
              strcmp(d->layer[d->layers - 1].name, "decoder.conv_out") == 0);
    cr_assert(d->blocks == 1 + 3 + 12 + 3 + 1 && m->vae->encoder.blocks == 1 + 8 + 3 + 3 + 1);
    tsr_model_close(&m);
    cr_assert(m == NULL);
    shapes_free(&s);
}

Test(vae, other_widths_and_halves) {
    static const struct {
        synth_config config;
        bool decoder, encoder;
    } cases[] = {
        {{.channels = {32, 64, 64, 128}}, true, true},
        {{.channels = {32, 32, 64, 64}, .decoder = true}, true, false},
        {{.channels = {32, 32, 64, 64}, .encoder = true}, false, true},
        {{.channels = {64, 32, 96, 32}, .layers = 1, .latent = 4}, true, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const synth_config *config = &cases[c].config;
        shapes s = shapes_of(config);
        tsr_model *m;
        cr_assert(open_shapes(&m, &s) == TSR_OK, "%s", tsr_last_error());
        const tsr_model_info *i = tsr_model_get_info(m);
        cr_assert(i->has_decoder == cases[c].decoder && i->has_encoder == cases[c].encoder);
        cr_assert(i->levels == 4 && memcmp(i->width, config->channels, sizeof i->width) == 0);
        cr_assert(i->latent_channels == (config->latent ? config->latent : 16) && i->space_factor == 8 &&
                  i->time_factor == 4);
        cr_assert(i->tensors == (int)s.count);
        cr_assert(i->decoder_resnets == (cases[c].decoder ? (config->layers ? config->layers : 2) + 1 : 0));
        tsr_model_close(&m);
        shapes_free(&s);
    }
}

Test(vae, prefixes_are_seen_through) {
    static const char *const prefixes[] = {
        "vae.", "first_stage_model.", "model.diffusion_model.", "model.", "model.vae.first_stage_model."};
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++) {
        shapes s = shapes_of(&tiny);
        char name[160];
        for (size_t i = 0; i < s.count; i++) {
            snprintf(name, sizeof name, "%s%s", prefixes[p], s.t[i].name);
            rename_to(&s, i, name);
        }
        add(&s, "model.diffusion_model.blocks.0.attn.proj.weight", 2, (int64_t[]){8, 8}); /* an all-in-one file */
        tsr_model *m;
        cr_assert(open_shapes(&m, &s) == TSR_OK, "%s: %s", prefixes[p], tsr_last_error());
        cr_assert(strcmp(m->vae->decoder.layer[0].name, "decoder.conv_in") == 0);
        cr_assert(tsr_model_get_info(m)->tensors == (int)s.count - 1);
        tsr_model_close(&m);
        shapes_free(&s);
    }
}

Test(vae, attention_by_any_name_or_none) {
    static const char *const spelling[][2] = {
        {"to_q", "query"}, {"to_k", "key"}, {"to_v", "value"}, {"to_out.0", "proj_attn"}};
    for (int none = 0; none < 2; none++) {
        shapes s = shapes_of(&tiny);
        for (size_t i = s.count; i-- > 0;) {
            char name[160] = "";
            for (size_t k = 0; k < 4; k++) {
                const char *at = strstr(s.t[i].name, spelling[k][0]);
                if (at)
                    snprintf(name, sizeof name, "%.*s%s%s", (int)(at - s.t[i].name), s.t[i].name, spelling[k][1],
                        at + strlen(spelling[k][0]));
            }
            if (none && strstr(s.t[i].name, ".attentions.")) {
                drop(&s, i);
            } else if (name[0]) {
                rename_to(&s, i, name);
                if (s.t[i].ndim == 2) {
                    s.t[i].ndim = 4;
                    s.t[i].dim[2] = s.t[i].dim[3] = 1;
                }
            }
        }
        tsr_model *m;
        cr_assert(open_shapes(&m, &s) == TSR_OK, "%s", tsr_last_error());
        int attentions = 0;
        for (int i = 0; i < m->vae->decoder.blocks; i++)
            attentions += m->vae->decoder.block[i].kind == TSR_BLOCK_ATTENTION;
        cr_assert(attentions == !none && tsr_model_get_info(m)->tensors == (int)s.count);
        tsr_model_close(&m);
        shapes_free(&s);
    }
}

static char logged[4096];

static void keep_line(void *user, tsr_log_level level, const char *line) {
    (void)user;
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%d %s\n", (int)level, line);
}

Test(vae, what_is_ignored_is_said) {
    shapes s = shapes_of(&tiny);
    tsr_model *m;
    add(&s, "quant_conv.weight", 5, (int64_t[]){32, 32, 1, 1, 1});
    add(&s, "something.else", 1, (int64_t[]){3});
    add(&s, "decoder.mid_block.resnets.2.norm1.weight", 1, (int64_t[]){32});
    tsr_log_set(TSR_LOG_DEBUG, keep_line, NULL);
    cr_assert(open_shapes(&m, &s) == TSR_OK, "%s", tsr_last_error());
    tsr_log_set(TSR_LOG_ERROR, NULL, NULL);
    cr_assert(strstr(logged, "'quant_conv.weight' is ignored"), "%s", logged);
    cr_assert(strstr(logged, "'something.else' is not used"), "%s", logged);
    cr_assert(strstr(logged, "1 tensors of the VAE are unknown and ignored, the first is "
                             "'decoder.mid_block.resnets.2.norm1.weight'"),
        "%s", logged);
    tsr_model_close(&m);
    shapes_free(&s);
}

/* ---------------------------------------------------------------- what is wrong, by name */

static void must_fail(shapes *s, const char *part1, const char *part2, const char *part3) {
    tsr_model *m = (tsr_model *)1;
    cr_assert(open_shapes(&m, s) == TSR_ERR_FORMAT, "no failure: %s %s", part1, part2);
    const char *error = tsr_last_error();
    cr_assert(m == NULL && strstr(error, "hollow.safetensors"));
    cr_assert(strstr(error, part1) && strstr(error, part2) && strstr(error, part3), "%s\nwithout: %s, %s, %s", error,
        part1, part2, part3);
    shapes_free(s);
}

Test(vae, every_missing_tensor_is_named) {
    shapes all = shapes_of(&tiny);
    for (size_t i = 0; i < all.count; i++) {
        shapes s = shapes_of(&tiny);
        char quoted[128];
        snprintf(quoted, sizeof quoted, "'%s' is missing", all.t[i].name);
        drop(&s, i);
        must_fail(&s, quoted, "", "");
    }
    shapes_free(&all);
}

Test(vae, every_wrong_shape_is_named) {
    shapes all = shapes_of(&tiny);
    for (size_t i = 0; i < all.count; i++) {
        shapes s = shapes_of(&tiny);
        char quoted[128], shape[96], found[128];
        tsr_tensor *t = &s.t[i];
        t->dim[t->ndim - 1]++;
        snprintf(quoted, sizeof quoted, "'%s'", t->name);
        snprintf(found, sizeof found, "shape %s, expected [", tsr_shape_text(shape, t->dim, t->ndim));
        must_fail(&s, quoted, found, "");
    }
    shapes_free(&all);
}

Test(vae, wrong_files_are_told_apart) {
    shapes s = {.t = calloc(8, sizeof(tsr_tensor))};
    add(&s, "blocks.0.attn.proj_qkv.vid.weight", 2, (int64_t[]){8, 8});
    must_fail(&s, "not a VAE of the SeedVR2 family", "decoder.conv_in.weight", "diffusion transformer");

    s = (shapes){.t = calloc(8, sizeof(tsr_tensor))};
    must_fail(&s, "not a VAE of the SeedVR2 family", "0 tensors", "");

    s = (shapes){.t = calloc(8, sizeof(tsr_tensor))};
    add(&s, "decoder.conv1.weight", 5, (int64_t[]){8, 8, 3, 3, 3});
    must_fail(&s, "not a VAE of the SeedVR2 family", "'decoder.conv_in.weight' is missing", "");

    s = shapes_of(&tiny); /* an image model's VAE: 4-D */
    for (size_t i = 0; i < s.count; i++)
        if (s.t[i].ndim == 5)
            s.t[i].ndim = 4;
    must_fail(&s, "4-D kernel [32, 16, 3, 3]", "image model", "decoder.conv_in.weight");
}

Test(vae, values_no_model_can_have) {
    shapes s = shapes_of(&tiny); /* 33 channels in 32 groups */
    s.t[place_of(&s, "encoder.conv_in.weight")].dim[0] = 33;
    s.t[place_of(&s, "encoder.conv_in.bias")].dim[0] = 33;
    must_fail(&s, "encoder.down_blocks.0.resnets.0.norm1", "33 channels", "32 groups");

    s = shapes_of(&tiny);
    s.t[place_of(&s, "decoder.conv_in.weight")].dim[0] = 0;
    must_fail(&s, "decoder.conv_in.weight", "[0, 16, 3, 3, 3]", "expected [n, 16, 3, 3, 3]");

    s = shapes_of(&tiny);
    s.t[place_of(&s, "decoder.up_blocks.0.upsamplers.0.upscale_conv.weight")].dim[0] = 96;
    must_fail(&s, "up_blocks.0.upsamplers.0.upscale_conv.weight", "96 rows", "128 (space) or 256");

    s = shapes_of(&tiny);
    s.t[place_of(&s, "encoder.conv_out.weight")].dim[0] = 31;
    s.t[place_of(&s, "encoder.conv_out.bias")].dim[0] = 31;
    must_fail(&s, "encoder.conv_out", "31 channels", "even");

    s = shapes_of(&tiny);
    s.t[place_of(&s, "encoder.conv_out.weight")].dim[0] = 8;
    s.t[place_of(&s, "encoder.conv_out.bias")].dim[0] = 8;
    must_fail(&s, "encoder.conv_out has 8 channels", "expected 32", "");

    s = shapes_of(&tiny); /* the encoder's last downsampler of space only */
    s.t[place_of(&s, "encoder.down_blocks.2.downsamplers.0.conv.weight")].dim[2] = 1;
    must_fail(&s, "divides by 8 in space and 2 in time", "multiplies by 8 and 4", "");

    s = shapes_of(&tiny);
    s.t[place_of(&s, "decoder.conv_out.weight")].dtype = TSR_I8;
    must_fail(&s, "decoder.conv_out.weight", "floating-point", "");

    s = shapes_of(&tiny);
    add(&s, "vae.decoder.conv_in.weight", 5, (int64_t[]){32, 16, 3, 3, 3});
    must_fail(&s, "'vae.decoder.conv_in.weight'", "both stand for decoder.conv_in.weight", "");

    s = shapes_of(&tiny);
    add(&s, "decoder.up_blocks.999999999.x", 1, (int64_t[]){1});
    must_fail(&s, "1000000000 up_blocks", "at most 8", "");

    s = shapes_of(&tiny);
    add(&s, "decoder.up_blocks.0.resnets.99.x", 1, (int64_t[]){1});
    must_fail(&s, "100 resnets", "at most 64", "");
}

/* ---------------------------------------------------------------- folding */

static uint64_t noise_state = 1;

static float noise(void) {
    noise_state = noise_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(noise_state >> 32) / 2147483648.0f;
}

static tsr_tensor random_tensor(int ndim, const int64_t *dim) {
    tsr_tensor t = {.name = "", .dtype = TSR_F32, .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++) {
        t.dim[i] = dim[i];
        t.count *= (size_t)dim[i];
    }
    float *data = malloc(t.count * sizeof *data);
    for (size_t i = 0; i < t.count; i++)
        data[i] = noise();
    t.data = data;
    t.bytes = t.count * sizeof *data;
    return t;
}

static const float *values(const tsr_tensor *t) {
    return t->data;
}

typedef struct folded {
    tsr_kernel k;
    float *weights; /* [phases][cout][kt][kh][kw][cin] */
    float *biases;  /* [phases][classes][cout] */
} folded;

static folded fold(const tsr_half *half, tsr_fold how) {
    folded f;
    tsr_kernel_describe(&f.k, half, 0, how);
    f.weights = malloc(tsr_kernel_weights(&f.k) * sizeof(float));
    f.biases = malloc(tsr_kernel_biases(&f.k) * sizeof(float));
    memset(f.weights, 0xff, tsr_kernel_weights(&f.k) * sizeof(float)); /* NaN: nothing may be left unwritten */
    memset(f.biases, 0xff, tsr_kernel_biases(&f.k) * sizeof(float));
    cr_assert(tsr_kernel_fold(half, &f.k, tsr_sgemm_plain, f.weights, f.biases) == TSR_OK, "%s", tsr_last_error());
    return f;
}

static void folded_free(folded *f) {
    free(f->weights);
    free(f->biases);
}

/* Clips for the tests below: [t][h][w][c]. */
typedef struct clip {
    int t, h, w, c;
    double *v;
} clip;

static clip new_clip(int t, int h, int w, int c) {
    return (clip){t, h, w, c, calloc((size_t)t * (size_t)h * (size_t)w * (size_t)c, sizeof(double))};
}

static double *at(const clip *x, int t, int y, int i) {
    return x->v + (((size_t)t * (size_t)x->h + (size_t)y) * (size_t)x->w + (size_t)i) * (size_t)x->c;
}

/* Spec section 4, literally: upscale_conv, shuffle, the second frame dropped, then the causal conv.
 */
static clip direct_upsample(const tsr_layer *l, const clip *x) {
    int c_n = l->cin, zt = l->zt;
    const float *u = values(l->weight[1]), *ub = values(l->bias[1]), *k = values(l->weight[0]), *b = values(l->bias[0]);
    clip v = new_clip(x->t * zt - (zt - 1), 2 * x->h, 2 * x->w, c_n);
    for (int t = 0; t < x->t * zt; t++) {
        int to = zt == 2 && t > 1 ? t - 1 : t;
        if (zt == 2 && t == 1)
            continue;
        for (int y = 0; y < v.h; y++) {
            for (int i = 0; i < v.w; i++) {
                for (int c = 0; c < c_n; c++) {
                    int r = ((y % 2 * 2 + i % 2) * zt + t % zt) * c_n + c;
                    double sum = (double)ub[r];
                    for (int ci = 0; ci < c_n; ci++)
                        sum += (double)u[r * c_n + ci] * at(x, t / zt, y / 2, i / 2)[ci];
                    at(&v, to, y, i)[c] = sum;
                }
            }
        }
    }
    clip out = new_clip(v.t, v.h, v.w, c_n);
    for (int t = 0; t < v.t; t++) {
        for (int y = 0; y < v.h; y++) {
            for (int i = 0; i < v.w; i++) {
                for (int o = 0; o < c_n; o++) {
                    double sum = (double)b[o];
                    for (int tap = 0; tap < 27; tap++) {
                        int ft = t + tap / 9 - 2, fy = y + tap / 3 % 3 - 1, fx = i + tap % 3 - 1;
                        if (fy < 0 || fy >= v.h || fx < 0 || fx >= v.w)
                            continue;
                        for (int c = 0; c < c_n; c++)
                            sum += (double)k[(o * c_n + c) * 27 + tap] * at(&v, ft < 0 ? 0 : ft, fy, fx)[c];
                    }
                    at(&out, t, y, i)[o] = sum;
                }
            }
        }
    }
    free(v.v);
    return out;
}

/* The folded kernel at one output frame whose last tap is low-resolution frame t; frames before the
 * first repeat it. Returns the largest difference from frame `frame` of `want`. */
static double merged_error(const folded *f, const clip *x, int t, const clip *want, int frame) {
    const tsr_kernel *k = &f->k;
    double worst = 0;
    for (int y = 0; y < want->h; y++) {
        for (int i = 0; i < want->w; i++) {
            int p = y % 2, r = i % 2, h = y / 2, w = i / 2, phase = p * 2 + r;
            int ey = p == 0 ? h == 0 : h == x->h - 1, ex = r == 0 ? w == 0 : w == x->w - 1;
            for (int o = 0; o < k->cout; o++) {
                double sum = (double)f->biases[(phase * 4 + ey * 2 + ex) * k->cout + o];
                for (int tap = 0; tap < k->kt * 4; tap++) {
                    int ft = t + tap / 4 - (k->kt - 1), fy = h + tap / 2 % 2 - 1 + p, fx = w + tap % 2 - 1 + r;
                    if (fy < 0 || fy >= x->h || fx < 0 || fx >= x->w)
                        continue;
                    const float *weight =
                        f->weights +
                        (((size_t)phase * (size_t)k->cout + (size_t)o) * (size_t)(k->kt * 4) + (size_t)tap) *
                            (size_t)k->cin;
                    for (int ci = 0; ci < k->cin; ci++)
                        sum += (double)weight[ci] * at(x, ft < 0 ? 0 : ft, fy, fx)[ci];
                }
                worst = fmax(worst, fabs(sum - at(want, frame, y, i)[o]));
            }
        }
    }
    return worst;
}

Test(kernels, merged_upsamplers_are_exact) {
    static const int sizes[][2] = {{3, 4}, {1, 1}, {1, 3}, {4, 1}, {2, 2}};
    int64_t c = 6;
    for (int zt = 1; zt <= 2; zt++) {
        tsr_tensor t[4] = {random_tensor(5, (int64_t[]){c, c, 3, 3, 3}), random_tensor(1, &c),
            random_tensor(5, (int64_t[]){4 * zt * c, c, 1, 1, 1}), random_tensor(1, (int64_t[]){4 * zt * c})};
        tsr_layer layer = {.kind = TSR_LAYER_UPSAMPLE,
            .cin = (int)c,
            .cout = (int)c,
            .kt = 3,
            .kh = 3,
            .kw = 3,
            .st = 1,
            .sy = 1,
            .sx = 1,
            .zt = zt,
            .weight = {&t[0], &t[2]},
            .bias = {&t[1], &t[3]}};
        tsr_half half = {.layers = 1, .layer = &layer};
        folded f[TSR_FOLD_UP_N3 + 1];
        for (int k = TSR_FOLD_UP_S; k <= TSR_FOLD_UP_N3; k++)
            if ((zt == 1) == (k <= TSR_FOLD_UP_S1))
                f[k] = fold(&half, (tsr_fold)k);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            clip x = new_clip(4, sizes[s][0], sizes[s][1], (int)c);
            for (size_t i = 0; i < (size_t)(4 * x.h * x.w * x.c); i++)
                x.v[i] = (double)noise();
            clip want = direct_upsample(&layer, &x);
            double worst = 0;
            for (int frame = 0; frame < want.t; frame++) {
                int m = frame + 1, in = zt == 2 ? m / 2 : frame;
                tsr_fold kind = zt == 1  ? TSR_FOLD_UP_S
                                : m == 1 ? TSR_FOLD_UP_N1
                                : m < 4  ? (m == 2 ? TSR_FOLD_UP_N2 : TSR_FOLD_UP_N3)
                                : m % 2  ? TSR_FOLD_UP_Q1
                                         : TSR_FOLD_UP_Q0;
                worst = fmax(worst, merged_error(&f[kind], &x, in, &want, frame));
                if (zt == 1 && frame == 0)
                    worst = fmax(worst, merged_error(&f[TSR_FOLD_UP_S1], &x, 0, &want, 0));
            }
            cr_assert(worst < 5e-5, "zt %d, %d x %d: %g", zt, x.h, x.w,
                worst); /* sums of about 1000 products of size 1, in f32 */
            free(x.v);
            free(want.v);
        }
        for (int k = TSR_FOLD_UP_S; k <= TSR_FOLD_UP_N3; k++)
            if ((zt == 1) == (k <= TSR_FOLD_UP_S1))
                folded_free(&f[k]);
        for (int i = 0; i < 4; i++)
            free((void *)t[i].data);
    }
}

Test(kernels, convs_are_transposed_and_summed) {
    enum { CO = 5, CI = 7 };
    tsr_tensor w = random_tensor(5, (int64_t[]){CO, CI, 3, 3, 3}), b = random_tensor(1, (int64_t[]){CO});
    tsr_layer layer = {.kind = TSR_LAYER_CONV,
        .cin = CI,
        .cout = CO,
        .kt = 3,
        .kh = 3,
        .kw = 3,
        .st = 2,
        .sy = 2,
        .sx = 2,
        .zt = 1,
        .weight = {&w},
        .bias = {&b}};
    tsr_half half = {.layers = 1, .layer = &layer};
    folded none = fold(&half, TSR_FOLD_NONE), time = fold(&half, TSR_FOLD_TIME);
    cr_assert(none.k.kt == 3 && none.k.st == 2 && none.k.pad_top == 0 && none.k.pad_bottom == 1 && none.k.phases == 1);
    cr_assert(time.k.kt == 1 && time.k.st == 1 && tsr_kernel_weights(&time.k) == CO * 9 * CI);
    for (int o = 0; o < CO; o++) {
        cr_assert(none.biases[o] == values(&b)[o] && time.biases[o] == values(&b)[o]);
        for (int c = 0; c < CI; c++) {
            for (int tap = 0; tap < 9; tap++) {
                const float *raw = values(&w) + (o * CI + c) * 27 + tap;
                for (int t = 0; t < 3; t++)
                    cr_assert(none.weights[(o * 27 + t * 9 + tap) * CI + c] == raw[9 * t]);
                cr_assert(fabsf(time.weights[(o * 9 + tap) * CI + c] - (raw[0] + raw[9] + raw[18])) < 1e-6f);
            }
        }
    }
    folded_free(&time);
    folded scaled = fold(&half, TSR_FOLD_NONE);
    scaled.k.weight_shift = 6;
    scaled.k.bias_shift = 4;
    cr_assert(tsr_kernel_fold(&half, &scaled.k, tsr_sgemm_plain, scaled.weights, scaled.biases) == TSR_OK);
    for (size_t i = 0; i < tsr_kernel_weights(&none.k); i++)
        cr_assert(scaled.weights[i] * 64 == none.weights[i]);
    for (int o = 0; o < CO; o++)
        cr_assert(scaled.biases[o] * 16 == none.biases[o]);
    folded_free(&none);
    folded_free(&scaled);
    free((void *)w.data);
    free((void *)b.data);
}

Test(kernels, qkv_is_stacked) {
    enum { C = 4 };
    tsr_tensor t[6];
    tsr_layer layer = {
        .kind = TSR_LAYER_QKV, .cin = C, .cout = 3 * C, .kt = 1, .kh = 1, .kw = 1, .st = 1, .sy = 1, .sx = 1, .zt = 1};
    for (int i = 0; i < 3; i++) {
        t[i] = random_tensor(2, (int64_t[]){C, C});
        t[3 + i] = random_tensor(1, (int64_t[]){C});
        layer.weight[i] = &t[i];
        layer.bias[i] = &t[3 + i];
    }
    tsr_half half = {.layers = 1, .layer = &layer};
    folded f = fold(&half, TSR_FOLD_NONE);
    for (int i = 0; i < 3; i++) {
        cr_assert(memcmp(f.weights + i * C * C, t[i].data, C * C * sizeof(float)) == 0);
        cr_assert(memcmp(f.biases + i * C, t[3 + i].data, C * sizeof(float)) == 0);
    }
    folded_free(&f);
    for (int i = 0; i < 6; i++)
        free((void *)t[i].data);
}

Test(kernels, plain_matrix_product) {
    static const int shape[][3] = {{1, 1, 1}, {5, 9, 3}, {4, 8, 256}, {33, 17, 300}, {64, 70, 513}};
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++) {
        for (int beta = 0; beta < 2; beta++) {
            int m = shape[s][0], n = shape[s][1], k = shape[s][2], lda = k + 1, ldb = n + 2, ldc = n + 3;
            float *a = malloc((size_t)(m * lda) * 4), *b = malloc((size_t)(k * ldb) * 4),
                  *c = malloc((size_t)(m * ldc) * 4);
            for (int i = 0; i < m * lda; i++)
                a[i] = noise();
            for (int i = 0; i < k * ldb; i++)
                b[i] = noise();
            for (int i = 0; i < m * ldc; i++)
                c[i] = beta || i % ldc >= n ? 0.25f : NAN;
            tsr_sgemm_plain(m, n, k, a, lda, b, ldb, (float)beta, c, ldc);
            for (int i = 0; i < m; i++) {
                for (int j = 0; j < ldc; j++) {
                    double want = beta || j >= n ? 0.25 : 0;
                    for (int l = 0; l < k && j < n; l++)
                        want += (double)a[i * lda + l] * (double)b[l * ldb + j];
                    cr_assert(fabs((double)c[i * ldc + j] - want) < 1e-4, "%dx%dx%d at %d, %d", m, n, k, i, j);
                }
            }
            free(a);
            free(b);
            free(c);
        }
    }
}

/* ---------------------------------------------------------------- GGUF: the same model in five
 * layouts */

Test(vae, gguf_files_of_every_layout) {
    static const char *const files[] = {"bf16_flat_i64", "f16_native", "q4_0_flat_i32", "q5_1_raw", "q8_0_flat_i32"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/goldens/gguf/tiny_%s.gguf", getenv("TSR_TEST_DATA"), files[i]);
        tsr_model *m;
        cr_assert(tsr_model_open(&m, path) == TSR_OK, "%s", tsr_last_error());
        const tsr_model_info *info = tsr_model_get_info(m);
        cr_assert(info->tensors == 108 && info->width[3] == 32 && info->decoder_resnets == 2 && !info->has_encoder);
        cr_assert_str_eq(info->container, "gguf");
        const tsr_half *half = &m->vae->decoder;
        for (int l = 0; l < half->layers; l++) { /* blocks must be read whole, whatever the rows */
            const tsr_layer *layer = &half->layer[l];
            if (layer->kind != TSR_LAYER_CONV)
                continue;
            tsr_kernel k;
            tsr_kernel_describe(&k, half, l, TSR_FOLD_NONE);
            size_t n = tsr_kernel_weights(&k), taps = (size_t)(k.kt * k.kh * k.kw), ci = (size_t)k.cin;
            float *weights = malloc(n * sizeof *weights), *raw = malloc(n * sizeof *raw), bias[128];
            cr_assert(tsr_kernel_fold(half, &k, tsr_sgemm_plain, weights, bias) == TSR_OK);
            tsr_tensor_read(layer->weight[0], 0, n, raw);
            for (size_t e = 0; e < n; e++) {
                size_t o = e / (ci * taps), c = e / taps % ci, tap = e % taps;
                cr_assert(weights[(o * taps + tap) * ci + c] == raw[e], "%s, element %zu", layer->name, e);
            }
            free(weights);
            free(raw);
        }
        tsr_model_close(&m);
    }
}

/* Models written anew: blocks equal to the official package's to the bit, files that our own reader and the model
 * loader take back, types per tensor, and the costs that are reported. */
#include "synthetic.h"
#include "temp.h"

#include "model/vae.h"

#include <tessera/convert.h>

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())
#define fails(call, status, text)                                                                                      \
    do {                                                                                                               \
        cr_assert((call) == (status), "not refused as it should be: %s", tsr_last_error());                            \
        cr_assert(strstr(tsr_last_error(), text), "%s", tsr_last_error());                                             \
    } while (0)

/* ---------------------------------------------------------------- blocks */

/* tests/data/quantised.safetensors: `values`, and what gguf.quants.quantize makes of them. */
Test(quantise, blocks_equal_the_official_ones) {
    static const tsr_dtype types[] = {TSR_Q4_0, TSR_Q4_1, TSR_Q5_0, TSR_Q5_1, TSR_Q8_0};
    char path[1024];
    tsr_tensor_file *f;
    snprintf(path, sizeof path, "%s/quantised.safetensors", getenv("TSR_TEST_DATA"));
    ok(tsr_tensor_file_open(&f, path));
    const tsr_tensor *values = tsr_tensor_file_find(f, "values");
    float *v = malloc(values->count * sizeof *v);
    tsr_tensor_read(values, 0, values->count, v);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        const tsr_tensor *want = tsr_tensor_file_find(f, tsr_dtype_name(types[k]));
        size_t bytes;
        cr_assert(want && tsr_tensor_bytes(types[k], values->count, &bytes) && bytes == want->bytes);
        uint8_t *got = malloc(bytes);
        tsr_tensor_encode(types[k], v, values->count, got);
        for (size_t i = 0; i < bytes; i++)
            cr_assert(got[i] == ((const uint8_t *)want->data)[i], "%s: byte %zu of block %zu", tsr_dtype_name(types[k]),
                i % (bytes / 24), i / (bytes / 24));
        free(got);
    }
    free(v);
    tsr_tensor_file_close(&f);
}

Test(quantise, steps_below_fp16_are_zero) {
    static const tsr_dtype types[] = {TSR_Q4_0, TSR_Q4_1, TSR_Q5_0, TSR_Q5_1, TSR_Q8_0};
    float v[32], back[32];
    for (int i = 0; i < 32; i++)
        v[i] = (i % 2 ? -1 : 1) * FLT_MIN / (float)(i + 1);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        uint8_t block[64];
        tsr_tensor_encode(types[k], v, 32, block);
        const tsr_tensor t = {.dtype = types[k], .count = 32, .data = block};
        tsr_tensor_read(&t, 0, 32, back);
        for (int i = 0; i < 32; i++)
            cr_assert(back[i] == 0, "%s: %g", tsr_dtype_name(types[k]), (double)back[i]);
    }
}

/* ---------------------------------------------------------------- whole models */

static const synth_config small = {.channels = {32, 32, 32, 64}, .layers = 1};

static tsr_model *open_small(void) {
    const char *path = temp_path("small.safetensors");
    tsr_model *m;
    ok(synth_model_write(path, &small));
    ok(tsr_model_open(&m, path));
    return m;
}

/* Signal to noise of b's tensors of one type against a's, in dB; counts them. */
static double measured_snr(tsr_tensor_file *a, tsr_tensor_file *b, const char *type, int *tensors) {
    double signal = 0, noise = 0;
    *tensors = 0;
    for (size_t i = 0; i < tsr_tensor_file_count(b); i++) {
        const tsr_tensor *t = tsr_tensor_file_at(b, i), *was = tsr_tensor_file_find(a, t->name);
        char is[96], shape[96];
        cr_assert(was, "%s is not in the source", t->name);
        cr_assert_str_eq(tsr_shape_text(is, t->dim, t->ndim), tsr_shape_text(shape, was->dim, was->ndim));
        if (strcmp(tsr_dtype_name(t->dtype), type) != 0)
            continue;
        float *v = malloc(t->count * 8), *w = v + t->count;
        tsr_tensor_read(was, 0, t->count, v);
        tsr_tensor_read(t, 0, t->count, w);
        for (size_t k = 0; k < t->count; k++) {
            signal += (double)v[k] * (double)v[k];
            noise += ((double)v[k] - (double)w[k]) * ((double)v[k] - (double)w[k]);
        }
        free(v);
        ++*tensors;
    }
    return noise > 0 ? 10 * log10(signal / noise) : INFINITY;
}

/* Converts, opens the result as a model, and checks the report against the two files. */
static void check_conversion(tsr_model *m, const char *name, const char *type, double least_snr) {
    const char *path = temp_path(name);
    tsr_convert_report r;
    tsr_model *back;
    ok(tsr_convert(m, path, &(tsr_convert_params){.type = type}, &r));
    ok(tsr_model_open(&back, path));
    cr_expect(strcmp(tsr_model_get_info(back)->container, strstr(name, ".gguf") ? "gguf" : "safetensors") == 0);
    cr_expect(tsr_model_get_info(back)->parameters == tsr_model_get_info(m)->parameters);
    cr_expect(r.tensors == tsr_model_get_info(m)->tensors);
    cr_expect(r.parameters == tsr_model_get_info(m)->parameters);
    cr_expect(r.snr >= least_snr, "%s: %.1f dB", name, r.snr);
    for (int i = 0; i < r.parts; i++) {
        int tensors;
        double snr = measured_snr(m->vae->file, back->vae->file, r.part[i].type, &tensors);
        cr_expect(tensors == r.part[i].tensors, "%s: %s", name, r.part[i].type);
        cr_expect((isinf(snr) && isinf(r.part[i].snr)) || fabs(snr - r.part[i].snr) < 1e-6,
            "%s: %s: said %.6f, is %.6f", name, r.part[i].type, r.part[i].snr, snr);
    }
    tsr_model_close(&back);
}

Test(convert, every_type_comes_back) {
    tsr_model *m = open_small();
    check_conversion(m, "f32.gguf", "f32", INFINITY);
    check_conversion(m, "f16.gguf", "f16", INFINITY); /* the source is f16 */
    check_conversion(m, "bf16.gguf", "BF16", 50);
    check_conversion(m, "q8_0.gguf", "q8_0", 44);
    check_conversion(m, "q5_1.gguf", "q5_1", 30);
    check_conversion(m, "q5_0.gguf", "q5_0", 28);
    check_conversion(m, "q4_1.gguf", "q4_1", 24);
    check_conversion(m, "q4_0.gguf", "q4_0", 22);
    check_conversion(m, "f32.safetensors", "f32", INFINITY);
    check_conversion(m, "bf16.safetensors", "bf16", 50);
    tsr_model_close(&m);
}

static tsr_dtype type_of(tsr_model *m, const char *name) {
    const tsr_tensor *t = tsr_tensor_file_find(m->vae->file, name);
    cr_assert(t, "no %s", name);
    return t->dtype;
}

Test(convert, only_rows_of_whole_blocks_are_quantised) {
    tsr_model *m = open_small(), *back;
    const char *path = temp_path("q4_0.gguf");
    ok(tsr_convert(m, path, &(tsr_convert_params){.type = "q4_0"}, NULL));
    ok(tsr_model_open(&back, path));
    cr_expect(type_of(back, "decoder.conv_out.weight") == TSR_Q4_0); /* rows of 32*27 */
    cr_expect(type_of(back, "decoder.conv_in.weight") == TSR_F16);   /* of 16*27 */
    cr_expect(type_of(back, "encoder.conv_in.weight") == TSR_F16);   /* of 3*27 */
    cr_expect(type_of(back, "decoder.conv_in.bias") == TSR_F32);
    cr_expect(type_of(back, "decoder.conv_norm_out.weight") == TSR_F32);
    cr_expect(type_of(back, "decoder.mid_block.attentions.0.to_out.0.weight") == TSR_Q4_0);
    cr_expect(type_of(back, "decoder.up_blocks.0.upsamplers.0.upscale_conv.weight") == TSR_Q4_0);
    tsr_model_close(&back);
    tsr_model_close(&m);
}

Test(convert, as_stored_loses_nothing) {
    tsr_model *m = open_small(), *gguf, *back;
    const char *q8 = temp_path("q8.gguf"), *again = temp_path("again.gguf");
    const char *f16 = temp_path("f16.safetensors");
    tsr_convert_report r;
    ok(tsr_convert(m, q8, &(tsr_convert_params){.type = "q8_0"}, NULL));
    ok(tsr_model_open(&gguf, q8));
    ok(tsr_convert(gguf, again, &(tsr_convert_params){0}, &r));
    cr_expect(isinf(r.snr));
    ok(tsr_model_open(&back, again));
    for (size_t i = 0; i < tsr_tensor_file_count(gguf->vae->file); i++) {
        const tsr_tensor *a = tsr_tensor_file_at(gguf->vae->file, i);
        const tsr_tensor *b = tsr_tensor_file_find(back->vae->file, a->name);
        cr_assert(b && b->dtype == a->dtype && memcmp(a->data, b->data, a->bytes) == 0, "%s", a->name);
    }
    tsr_model_close(&back);
    ok(tsr_convert(gguf, f16, &(tsr_convert_params){0}, &r)); /* blocks do not fit safetensors */
    ok(tsr_model_open(&back, f16));
    cr_expect(type_of(back, "decoder.conv_out.weight") == TSR_F16);
    cr_expect(type_of(back, "decoder.conv_out.bias") == TSR_F32);
    tsr_model_close(&back);
    tsr_model_close(&gguf);
    tsr_model_close(&m);
}

Test(convert, refusals) {
    tsr_model *m = open_small();
    const char *path = temp_path("there.gguf");
    ok(tsr_convert(m, path, &(tsr_convert_params){.type = "f16"}, NULL));
    fails(tsr_convert(m, path, &(tsr_convert_params){.type = "f16"}, NULL), TSR_ERR_IO, "output exists");
    ok(tsr_convert(m, path, &(tsr_convert_params){.type = "f16", .overwrite = true}, NULL));
    fails(tsr_convert(m, temp_path("x.pth"), &(tsr_convert_params){0}, NULL), TSR_ERR_ARGUMENT, "neither .gguf nor");
    fails(tsr_convert(m, temp_path("x.gguf"), &(tsr_convert_params){.type = "q6_k"}, NULL), TSR_ERR_ARGUMENT,
        "is not written");
    fails(tsr_convert(m, temp_path("x.safetensors"), &(tsr_convert_params){.type = "q8_0"}, NULL), TSR_ERR_ARGUMENT,
        "safetensors hold no Q8_0");
    fails(tsr_convert(m, temp_path("none/x.gguf"), &(tsr_convert_params){.type = "q8_0"}, NULL), TSR_ERR_IO,
        "cannot write");
    cr_expect(access(temp_path("x.safetensors"), F_OK) != 0 && access(temp_path("x.gguf"), F_OK) != 0);
    tsr_model_close(&m);
}

static void count_warnings(void *user, tsr_log_level level, const char *line) {
    if (level == TSR_LOG_WARN && strstr(line, "beyond fp16"))
        ++*(int *)user;
}

/* A model of f32 with one value changed. */
static tsr_model *open_with(const char *file, const char *tensor, float value) {
    tsr_model *m = open_small(), *changed;
    tsr_tensor_file *f = m->vae->file;
    size_t n = tsr_tensor_file_count(f);
    tsr_tensor *t = malloc(n * sizeof *t);
    for (size_t i = 0; i < n; i++) {
        t[i] = *tsr_tensor_file_at(f, i);
        float *v = malloc(t[i].count * sizeof *v);
        tsr_tensor_read(&t[i], 0, t[i].count, v);
        if (strcmp(t[i].name, tensor) == 0)
            v[t[i].count / 2] = value;
        t[i].dtype = TSR_F32;
        t[i].data = v;
        t[i].bytes = t[i].count * sizeof *v;
    }
    ok(tsr_safetensors_write(temp_path(file), t, n, NULL, 0));
    for (size_t i = 0; i < n; i++)
        free((void *)t[i].data);
    free(t);
    tsr_model_close(&m);
    ok(tsr_model_open(&changed, temp_path(file)));
    return changed;
}

Test(convert, beyond_the_range_of_fp16) {
    int warnings = 0;
    tsr_log_set(TSR_LOG_WARN, count_warnings, &warnings);
    tsr_model *m = open_with("large.safetensors", "decoder.conv_out.weight", 1e6f), *back;
    ok(tsr_convert(m, temp_path("large.gguf"), &(tsr_convert_params){.type = "q8_0"}, NULL));
    ok(tsr_model_open(&back, temp_path("large.gguf")));
    cr_expect(warnings == 1);
    cr_expect(type_of(back, "decoder.conv_out.weight") == TSR_F32);
    tsr_log_set(TSR_LOG_WARN, NULL, NULL);
    tsr_model_close(&back);
    tsr_model_close(&m);
    m = open_with("nan.safetensors", "decoder.conv_out.weight", NAN);
    fails(tsr_convert(m, temp_path("nan.gguf"), &(tsr_convert_params){.type = "f16"}, NULL), TSR_ERR_FORMAT,
        "decoder.conv_out.weight: holds a value that is not finite");
    tsr_model_close(&m);
}

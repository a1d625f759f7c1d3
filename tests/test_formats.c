/* Files of tensors: blocks and whole files of the official packages, round trips, layouts of
 * latents, and bad files: every one ends in an error and one line that names it. */
#include "malformed.h"
#include "temp.h"

#include "formats/latent_file.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *data_path(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("TSR_TEST_DATA"), name);
    return path;
}

static void write_bytes(const char *path, const void *bytes, size_t n) {
    FILE *o = fopen(path, "wb");
    cr_assert(o && fwrite(bytes, 1, n, o) == n && fclose(o) == 0, "cannot write %s", path);
}

static tsr_tensor_file *open_file(const char *path) {
    tsr_tensor_file *f;
    cr_assert(tsr_tensor_file_open(&f, path) == TSR_OK, "%s", tsr_last_error());
    return f;
}

static tsr_tensor f32_tensor(const char *name, float *v, int ndim, const int64_t *dim) {
    tsr_tensor t = {.name = name, .dtype = TSR_F32, .ndim = ndim, .count = 1, .data = v};
    for (int i = 0; i < ndim; i++) {
        t.dim[i] = dim[i];
        t.count *= (size_t)dim[i];
    }
    t.bytes = 4 * t.count;
    return t;
}

/* ---------------------------------------------------------------- GGUF */

Test(gguf, blocks_equal_the_official_values) {
    static const tsr_dtype types[] = {TSR_F16, TSR_BF16, TSR_Q4_0, TSR_Q4_1, TSR_Q5_0, TSR_Q5_1, TSR_Q8_0, TSR_Q2_K,
        TSR_Q3_K, TSR_Q4_K, TSR_Q5_K, TSR_Q6_K};
    tsr_tensor_file *f = open_file(data_path("goldens/gguf/blocks.safetensors"));
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        char name[32];
        snprintf(name, sizeof name, "%s.bytes", tsr_dtype_name(types[k]));
        const tsr_tensor *stored = tsr_tensor_file_find(f, name);
        snprintf(name, sizeof name, "%s.values", tsr_dtype_name(types[k]));
        const tsr_tensor *values = tsr_tensor_file_find(f, name);
        cr_assert(stored && values, "%s", name);
        const tsr_tensor t = {.dtype = types[k], .count = values->count, .data = stored->data, .bytes = stored->bytes};
        float *want = malloc(4 * t.count), *got = malloc(4 * t.count);
        tsr_tensor_read(values, 0, t.count, want);
        tsr_tensor_read(&t, 0, t.count, got);
        for (size_t i = 0; i < t.count; i++)
            cr_assert(got[i] == want[i], "%s %zu: %a, expected %a", name, i, (double)got[i], (double)want[i]);
        size_t block = t.count / 24, n = 5 * block; /* a part */
        tsr_tensor_read(&t, 7 * block, n, got);
        cr_assert(memcmp(got, want + 7 * block, 4 * n) == 0, "%s: a part differs", name);
        free(want);
        free(got);
    }
    tsr_tensor_file_close(&f);
}

static void check_dims(const tsr_tensor_file *f, const char *name, const char *expected, tsr_dtype dtype) {
    char shape[96];
    const tsr_tensor *t = tsr_tensor_file_find(f, name);
    cr_assert(t, "%s: no %s", tsr_tensor_file_path(f), name);
    tsr_shape_text(shape, t->dim, t->ndim);
    cr_assert(strcmp(shape, expected) == 0 && t->dtype == dtype, "%s: %s %s, expected %s %s", name,
        tsr_dtype_name(t->dtype), shape, tsr_dtype_name(dtype), expected);
}

Test(gguf, whole_files_have_the_true_shapes) {
    static const struct {
        const char *file;
        tsr_dtype big;
    } cases[] = {{"f16_native", TSR_F16}, {"bf16_flat_i64", TSR_BF16}, {"q8_0_flat_i32", TSR_Q8_0},
        {"q5_1_raw", TSR_Q5_1}, {"q4_0_flat_i32", TSR_Q4_0}};
    float *first = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[96];
        snprintf(name, sizeof name, "goldens/gguf/tiny_%s.gguf", cases[i].file);
        tsr_tensor_file *f = open_file(data_path(name));
        cr_assert(strcmp(tsr_tensor_file_container(f), "gguf") == 0 && tsr_tensor_file_count(f) == 108);
        cr_assert(strcmp(tsr_tensor_file_meta(f, "general.architecture"), "seedvr2_vae") == 0);
        check_dims(f, "decoder.mid_block.resnets.0.conv1.weight", "[32, 32, 3, 3, 3]", cases[i].big);
        check_dims(f, "decoder.up_blocks.0.upsamplers.0.upscale_conv.weight", "[256, 32, 1, 1, 1]", cases[i].big);
        check_dims(f, "decoder.mid_block.attentions.0.to_q.weight", "[32, 32]", cases[i].big);
        check_dims(f, "decoder.conv_out.weight", "[3, 32, 3, 3, 3]", cases[i].big);
        check_dims(f, "decoder.conv_out.bias", "[3]", TSR_F32);
        /* The same weights in each, up to the type's rounding: 4 bits err by an eighth of the
         * largest at most. */
        const tsr_tensor *t = tsr_tensor_file_find(f, "decoder.mid_block.resnets.1.conv2.weight");
        float *v = malloc(4 * t->count), most = 0;
        tsr_tensor_read(t, 0, t->count, v);
        for (size_t k = 0; first && k < t->count; k++)
            most = fmaxf(most, fabsf(v[k] - first[k]));
        cr_assert(
            most < 0.0589f / 8 * 1.1f, "%s: off by %g", cases[i].file, (double)most); /* sqrt(3 / 864) is the largest */
        if (!first)
            first = v;
        else
            free(v);
        tsr_tensor_file_close(&f);
    }
    free(first);
}

Test(gguf, seed_reads_as_meant) {
    size_t size;
    uint8_t *bytes = malformed_seed(SEED_GGUF, &size);
    const char *path = temp_path("seed.gguf");
    for (int version = 2; version <= 3; version++) {
        bytes[4] = (uint8_t)version;
        write_bytes(path, bytes, size);
        tsr_tensor_file *f = open_file(path);
        check_dims(f, "w1", "[2, 4, 2, 2, 2]", TSR_Q8_0);
        check_dims(f, "w2", "[4]", TSR_F32);
        check_dims(f, "w3", "[2, 1, 3, 1, 2]", TSR_F16);
        cr_assert(strcmp(tsr_tensor_file_meta(f, "general.alignment"), "32") == 0);
        cr_assert(!tsr_tensor_file_meta(f, "tessera.test.example.xyz") && !tsr_tensor_file_find(f, "w4") &&
                  !tsr_tensor_file_at(f, 3));
        tsr_tensor_file_close(&f);
        cr_assert(!f);
    }
    free(bytes);
}

/* ---------------------------------------------------------------- safetensors, npy */

Test(safetensors, round_trip) {
    float a[6] = {0, -1.5f, 3e38f, 1e-40f, -0.0f, 7}, back[6];
    uint16_t h[2] = {0x3c00, 0xbc00};
    uint8_t e4[3] = {0x38, 0xb8, 0x7e}, e5[1] = {0x3c};
    double d[2] = {0.1, -2};
    int64_t n[1] = {-9};
    tsr_tensor t[] = {
        f32_tensor("odd \"name\"\\\n", a, 2, (int64_t[]){2, 3}),
        {.name = "half", .dtype = TSR_F16, .ndim = 1, .dim = {2}, .count = 2, .data = h, .bytes = 4},
        {.name = "e4m3", .dtype = TSR_E4M3, .ndim = 1, .dim = {3}, .count = 3, .data = e4, .bytes = 3},
        {.name = "double",
            .dtype = TSR_F64,
            .ndim = 1,
            .dim = {2},
            .count = 2,
            .data = d,
            .bytes = 16}, /* unaligned from here on */
        {.name = "e5m2", .dtype = TSR_E5M2, .ndim = 0, .count = 1, .data = e5, .bytes = 1},
        {.name = "none", .dtype = TSR_F32, .ndim = 2, .dim = {0, 5}, .count = 0, .data = a, .bytes = 0},
        {.name = "integer", .dtype = TSR_I64, .ndim = 1, .dim = {1}, .count = 1, .data = n, .bytes = 8},
    };
    const tsr_meta meta[] = {{"zebra", "stripes \"\\\t"}, {"antelope", ""}};
    const char *path = temp_path("round.bin"); /* the suffix says nothing */
    cr_assert(tsr_safetensors_write(path, t, 7, meta, 2) == TSR_OK, "%s", tsr_last_error());
    cr_assert(access(temp_path("round.bin.part"), F_OK) != 0, "a .part file stays");
    tsr_tensor_file *f = open_file(path);
    cr_assert(strcmp(tsr_tensor_file_container(f), "safetensors") == 0 && tsr_tensor_file_count(f) == 7);
    for (int i = 0; i < 7; i++) {
        const tsr_tensor *r = tsr_tensor_file_find(f, t[i].name);
        cr_assert(r == tsr_tensor_file_at(f, (size_t)i) && r->dtype == t[i].dtype && r->ndim == t[i].ndim &&
                  r->count == t[i].count);
        cr_assert(r->bytes == t[i].bytes && memcmp(r->data, t[i].data, t[i].bytes) == 0 &&
                  memcmp(r->dim, t[i].dim, sizeof r->dim) == 0);
    }
    tsr_tensor_read(tsr_tensor_file_at(f, 0), 1, 5, back);
    cr_assert(memcmp(back, a + 1, 20) == 0);
    tsr_tensor_read(tsr_tensor_file_find(f, "double"), 0, 2, back);
    cr_assert(back[0] == 0.1f && back[1] == -2);
    tsr_tensor_read(tsr_tensor_file_find(f, "e4m3"), 0, 3, back);
    cr_assert(back[0] == 1 && back[1] == -1 && back[2] == 448);
    tsr_tensor_read(tsr_tensor_file_find(f, "e5m2"), 0, 1, back);
    cr_assert(back[0] == 1);
    tsr_tensor_read(tsr_tensor_file_find(f, "integer"), 0, 1, back);
    cr_assert(back[0] == -9);
    tsr_tensor_read(tsr_tensor_file_find(f, "none"), 0, 0, back);
    cr_assert(strcmp(tsr_tensor_file_meta(f, "zebra"), "stripes \"\\\t") == 0 &&
              strcmp(tsr_tensor_file_meta(f, "antelope"), "") == 0);
    cr_assert(!tsr_tensor_file_meta(f, "gnu"));
    tsr_tensor_file_close(&f);
}

Test(safetensors, unaligned_tensors_of_any_length_read_the_same) {
    enum { N = 5000 };
    static uint8_t odd[1];
    static float v[N], back[N];
    for (int i = 0; i < N; i++)
        v[i] = (float)i * 0.37f - 900;
    tsr_tensor t[] = {{.name = "odd", .dtype = TSR_U8, .ndim = 1, .dim = {1}, .count = 1, .data = odd, .bytes = 1},
        f32_tensor("v", v, 1, (int64_t[]){N})};
    const char *path = temp_path("odd.safetensors");
    cr_assert(tsr_safetensors_write(path, t, 2, NULL, 0) == TSR_OK, "%s", tsr_last_error());
    tsr_tensor_file *f = open_file(path);
    const tsr_tensor *r = tsr_tensor_file_find(f, "v");
    cr_assert((uintptr_t)r->data % 4 == 1, "the test means to read unaligned data");
    tsr_tensor_read(r, 0, N, back);
    cr_assert(memcmp(back, v, sizeof v) == 0);
    tsr_tensor_read(r, 513, 700, back);
    cr_assert(memcmp(back, v + 513, 700 * sizeof *v) == 0);
    tsr_tensor_file_close(&f);
}

Test(npy, round_trip) {
    float v[24], back[24];
    for (int i = 0; i < 24; i++)
        v[i] = (float)i / 7;
    static const struct {
        int ndim;
        int64_t dim[4];
    } shapes[] = {{4, {2, 3, 1, 4}}, {1, {24}}, {0, {0}}, {2, {0, 3}}};
    for (size_t i = 0; i < 4; i++) {
        tsr_tensor t = f32_tensor("ignored", v, shapes[i].ndim, shapes[i].dim);
        const char *path = temp_path("a.npy");
        cr_assert(tsr_npy_write(path, &t) == TSR_OK, "%s", tsr_last_error());
        tsr_tensor_file *f = open_file(path);
        const tsr_tensor *r = tsr_tensor_file_find(f, "");
        cr_assert(r && tsr_tensor_file_count(f) == 1 && strcmp(tsr_tensor_file_container(f), "npy") == 0);
        cr_assert(r->ndim == t.ndim && r->count == t.count && r->dtype == TSR_F32 &&
                  memcmp(r->dim, t.dim, sizeof t.dim) == 0);
        cr_assert((uintptr_t)r->data % 64 == 0, "numpy aligns the data to 64 bytes");
        tsr_tensor_read(r, 0, r->count, back);
        cr_assert(memcmp(back, v, 4 * t.count) == 0);
        tsr_tensor_file_close(&f);
    }
}

Test(npy, every_type_and_version) {
    static const struct {
        const char *descr;
        tsr_dtype dtype;
        uint8_t bytes[8];
        float value;
    } cases[] = {
        {"<f4", TSR_F32, {0, 0, 0xc0, 0x3f}, 1.5f},
        {"<f2", TSR_F16, {0, 0x3e}, 1.5f},
        {"<f8", TSR_F64, {0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 1.5f},
        {"|u1", TSR_U8, {200}, 200},
        {"|i1", TSR_I8, {0xfe}, -2},
        {"<i2", TSR_I16, {0, 1}, 256},
        {"<i4", TSR_I32, {0xff, 0xff, 0xff, 0xff}, -1},
        {"<i8", TSR_I64, {1, 0, 1}, 65537},
        {"|b1", TSR_BOOL, {1}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int version = 1; version <= 3; version++) {
            uint8_t file[256] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version};
            size_t at = version == 1 ? 10 : 12; /* an odd header, other quotes, other order of keys: all good Python */
            int n = snprintf(
                (char *)file + at, 200, "{\"shape\": (1,), 'descr': '%s','fortran_order':False}\n", cases[i].descr);
            float v;
            file[8] = (uint8_t)n;
            memcpy(file + at + n, cases[i].bytes, 8);
            const char *path = temp_path("t.npy");
            write_bytes(path, file, at + (size_t)n + tsr_dtype_size(cases[i].dtype));
            tsr_tensor_file *f = open_file(path);
            const tsr_tensor *t = tsr_tensor_file_at(f, 0);
            tsr_tensor_read(t, 0, 1, &v);
            cr_assert(t->dtype == cases[i].dtype && v == cases[i].value, "%s: %g", cases[i].descr, (double)v);
            tsr_tensor_file_close(&f);
        }
}

Test(writing, failures_leave_nothing) {
    float v[1] = {1};
    tsr_tensor t = f32_tensor("v", v, 1, (int64_t[]){1});
    cr_assert(tsr_npy_write("/nonexistent-folder/a.npy", &t) == TSR_ERR_IO);
    cr_assert(strstr(tsr_last_error(), "/nonexistent-folder/a.npy"), "%s", tsr_last_error());
    mkdir(temp_path("folder.npy"), 0700);
    cr_assert(tsr_npy_write(temp_path("folder.npy"), &t) == TSR_ERR_IO);
    cr_assert(access(temp_path("folder.npy.part"), F_OK) != 0);
    if (access("/dev/full", W_OK) == 0) { /* written directly: it is no regular file */
        cr_assert(tsr_npy_write("/dev/full", &t) == TSR_ERR_IO);
        cr_assert(strstr(tsr_last_error(), "No space left"), "%s", tsr_last_error());
    }
    t.count = 2;
    cr_assert(tsr_npy_write(temp_path("b.npy"), &t) == TSR_ERR_ARGUMENT);
    t.count = 1;
    t.dtype = TSR_Q8_0;
    cr_assert(tsr_safetensors_write(temp_path("b.safetensors"), &t, 1, NULL, 0) == TSR_ERR_ARGUMENT);
    cr_assert(access(temp_path("b.safetensors"), F_OK) != 0 && access(temp_path("b.npy"), F_OK) != 0);
}

/* ---------------------------------------------------------------- latents */

enum { C = 16, H = 3, W = 5 };

/* What element (video, t, y, x, c) holds in the file. Exact in every float type but the 8-bit ones.
 */
static float element(int video, int t, int y, int x, int c) {
    return (float)(((video * 3 + t) * 7 + y * 5 + x * 3 + c) % 61) / 4 - 7;
}

static void write_latent(const char *path, const char *name, bool last, int videos, int frames, int ndim,
    const int64_t *dim, bool marker, const tsr_meta *meta, size_t metas) {
    float *v = malloc((size_t)(videos * frames * H * W * C) * sizeof *v), *p = v;
    for (int b = 0; b < videos; b++)
        for (int i = 0; i < frames * H * W * C; i++) {
            int c = last ? i % C : i / (frames * H * W), t = last ? i / (C * W * H) : i / (H * W) % frames;
            int y = last ? i / (C * W) % H : i / W % H, x = last ? i / C % W : i % W;
            *p++ = element(b, t, y, x, c);
        }
    tsr_tensor t[] = {f32_tensor(name, v, ndim, dim), {.name = "latent_format_version_0", .ndim = 1}};
    tsr_status status = *name ? tsr_safetensors_write(path, t, marker ? 2 : 1, meta, metas) : tsr_npy_write(path, t);
    cr_assert(status == TSR_OK, "%s", tsr_last_error());
    free(v);
}

static void check_latent(const char *path, tsr_layout ask, tsr_layout layout, int videos, int frames, double scale) {
    tsr_latent *z;
    tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
    float out[H * W * C];
    params.layout = ask;
    cr_assert(tsr_latent_open(&z, path, &params) == TSR_OK, "%s", tsr_last_error());
    const tsr_latent_info *info = tsr_latent_get_info(z);
    cr_assert(info->videos == videos && info->frames == frames && info->height == H && info->width == W &&
                  info->layout == layout,
        "%d videos of %d frames of %d x %d, layout %d", info->videos, info->frames, info->height, info->width,
        info->layout);
    cr_assert(fabs(info->scale / scale - 1) < 1e-12 && tsr_latent_channels(z) == C && strcmp(info->path, path) == 0,
        "scale %g", info->scale);
    for (int b = 0; b < videos; b++)
        for (int t = 0; t < frames; t++) {
            cr_assert(tsr_latent_read(z, b, t, out) == TSR_OK, "%s", tsr_last_error());
            for (int i = 0; i < H * W * C; i++) {
                float want = (float)((double)element(b, t, i / (C * W), i / C % W, i % C) / scale);
                cr_assert(out[i] == want, "video %d, frame %d, element %d: %g, expected %g", b, t, i, (double)out[i],
                    (double)want);
            }
        }
    cr_assert(tsr_latent_read(z, videos, 0, out) == TSR_ERR_ARGUMENT &&
              tsr_latent_read(z, 0, frames, out) == TSR_ERR_ARGUMENT);
    cr_assert(tsr_latent_read(z, -1, 0, out) == TSR_ERR_ARGUMENT && tsr_latent_read(z, 0, -1, out) == TSR_ERR_ARGUMENT);
    tsr_latent_close(&z);
    cr_assert(!z);
}

Test(latent, every_layout) {
    static const struct {
        const char *name;
        bool last;
        int videos, frames, ndim;
        int64_t dim[5];
    } cases[] = {
        {"latent_tensor", false, 1, 4, 5, {1, C, 4, H, W}},
        {"latent_tensor", false, 3, 2, 5, {3, C, 2, H, W}},
        {"samples", false, 1, 4, 4, {C, 4, H, W}},
        {"", false, 1, 4, 4, {C, 4, H, W}},
        {"", false, 1, 16, 4, {C, 16, H, W}},              /* no batch: the array was saved by hand */
        {"latent_tensor", false, 16, 1, 4, {16, C, H, W}}, /* ComfyUI: a batch of 16 pictures */
        {"latent_tensor", false, 1, 1, 4, {1, C, H, W}},
        {"latent_tensor", false, 1, 3, 4, {1, 3 * C, H, W}},
        {"latent_tensor", false, 2, 3, 4, {2, 3 * C, H, W}},
        {"anything", false, 1, 1, 3, {C, H, W}},
        {"latent", true, 1, 4, 4, {4, H, W, C}},
        {"", true, 1, 4, 4, {4, H, W, C}},
        {"latent", true, 2, 3, 5, {2, 3, H, W, C}},
        {"", true, 1, 1, 3, {H, W, C}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = temp_path("z");
        tsr_layout layout = cases[i].last ? TSR_LAYOUT_BFHWC : TSR_LAYOUT_BCFHW;
        write_latent(path, cases[i].name, cases[i].last, cases[i].videos, cases[i].frames, cases[i].ndim, cases[i].dim,
            true, NULL, 0);
        check_latent(path, TSR_LAYOUT_AUTO, layout, cases[i].videos, cases[i].frames, 0.9152);
        check_latent(path, layout, layout, cases[i].videos, cases[i].frames, 0.9152);
        tsr_latent *z;
        tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
        params.layout = cases[i].last ? TSR_LAYOUT_BCFHW : TSR_LAYOUT_BFHWC;
        cr_assert(tsr_latent_open(&z, path, &params) == TSR_ERR_FORMAT && !z, "the other layout fits case %zu", i);
        cr_assert(strstr(tsr_last_error(), cases[i].last ? "bcfhw" : "bfhwc"), "%s", tsr_last_error());
    }
}

Test(latent, channels_first_where_both_fit) {
    const char *path = temp_path("both.npy");
    float v[16 * 16 * 2 * 16] = {0};
    tsr_tensor t = f32_tensor("", v, 5, (int64_t[]){1, 16, 16, 2, 16});
    tsr_latent *z;
    cr_assert(tsr_npy_write(path, &t) == TSR_OK);
    for (tsr_layout ask = TSR_LAYOUT_AUTO; ask <= TSR_LAYOUT_BFHWC; ask++) {
        tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
        params.layout = ask;
        cr_assert(tsr_latent_open(&z, path, &params) == TSR_OK, "%s", tsr_last_error());
        const tsr_latent_info *info = tsr_latent_get_info(z);
        cr_assert(info->layout == (ask == TSR_LAYOUT_BFHWC ? TSR_LAYOUT_BFHWC : TSR_LAYOUT_BCFHW));
        cr_assert(info->frames == 16 && info->height == (ask == TSR_LAYOUT_BFHWC ? 16 : 2) &&
                  info->width == (ask == TSR_LAYOUT_BFHWC ? 2 : 16));
        tsr_latent_close(&z);
    }
}

static tsr_status open_scaled(tsr_latent **z, const char *path, double scale) {
    tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
    params.scale = scale;
    return tsr_latent_open(z, path, &params);
}

Test(latent, scale_of_the_file_the_model_or_the_user) {
    static const int64_t dim[] = {1, C, 1, H, W};
    const tsr_meta meta[] = {{"tessera.scale", "0.25"}, {"tessera.crop_width", "37"}, {"tessera.crop_height", "22"},
        {"tessera.crop_frames", "3"}};
    static const struct {
        const char *name;
        bool marker, recorded;
        double ask, scale;
    } cases[] = {
        {"latent_tensor", true, false, 0, 0.9152},
        {"latent_tensor", false, false, 0, 0.9152 * 0.18215},
        {"samples", false, false, 0, 0.9152},
        {"", false, false, 0, 0.9152},
        {"latent_tensor", true, true, 0, 0.25},
        {"latent_tensor", false, true, 0, 0.25},
        {"latent_tensor", false, false, 1, 1},
        {"latent_tensor", true, true, 2, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = temp_path("scale");
        tsr_latent *z;
        float out[H * W * C];
        write_latent(path, cases[i].name, false, 1, 1, 5, dim, cases[i].marker, meta, cases[i].recorded ? 4 : 0);
        cr_assert(open_scaled(&z, path, cases[i].ask) == TSR_OK, "%s", tsr_last_error());
        const tsr_latent_info *info = tsr_latent_get_info(z);
        cr_assert(fabs(info->scale - cases[i].scale) < 1e-12, "case %zu: %g", i, info->scale);
        cr_assert(info->crop_width == (cases[i].recorded ? 37 : 0) &&
                  info->crop_height == (cases[i].recorded ? 22 : 0) &&
                  info->crop_frames == (cases[i].recorded ? 3 : 0));
        cr_assert(
            tsr_latent_read(z, 0, 0, out) == TSR_OK && out[1] == (float)((double)element(0, 0, 0, 0, 1) / info->scale));
        tsr_latent_close(&z);
        for (int bad = 0; bad < 3; bad++)
            cr_assert(open_scaled(&z, path, (const double[]){-1, NAN, INFINITY}[bad]) == TSR_ERR_ARGUMENT && !z);
    }
}

Test(latent, the_tensor_is_chosen_by_name_then_by_shape) {
    float v[2 * C] = {0};
    static const int64_t dim[] = {1, C, 1, 1, 2};
    tsr_latent *z;
    const char *path = temp_path("chosen");
    tsr_tensor t[] = {
        f32_tensor("noise", v, 5, dim), f32_tensor("samples", v, 5, dim), f32_tensor("other", v, 1, (int64_t[]){4})};
    cr_assert(tsr_safetensors_write(path, t, 3, NULL, 0) == TSR_OK);
    v[5] = 1;
    cr_assert(tsr_latent_open(&z, path, NULL) == TSR_OK, "%s", tsr_last_error()); /* samples, of two that fit */
    tsr_latent_close(&z);
    t[1].name = "masks";
    cr_assert(tsr_safetensors_write(path, t, 3, NULL, 0) == TSR_OK);
    cr_assert(tsr_latent_open(&z, path, NULL) == TSR_ERR_FORMAT && strstr(tsr_last_error(), "2 of its tensors"));
    t[1].name = "latent_tensor";
    cr_assert(tsr_safetensors_write(path, t, 3, NULL, 0) == TSR_OK);
    cr_assert(tsr_latent_open(&z, path, NULL) == TSR_OK, "%s", tsr_last_error());
    tsr_latent_close(&z);
    t[0].name = "x";
    cr_assert(tsr_safetensors_write(path, &t[0], 1, NULL, 0) == TSR_OK); /* the only one */
    cr_assert(tsr_latent_open(&z, path, NULL) == TSR_OK, "%s", tsr_last_error());
    tsr_latent_close(&z);
    cr_assert(tsr_latent_open(&z, path, &(tsr_latent_params){.channels = 0, .model_scale = 1}) == TSR_ERR_ARGUMENT);
    cr_assert(tsr_latent_open(&z, path, &(tsr_latent_params){.channels = 16, .model_scale = 0}) == TSR_ERR_ARGUMENT);
    cr_assert(tsr_latent_open(&z, path, &(tsr_latent_params){.layout = 7, .channels = 16, .model_scale = 1}) ==
              TSR_ERR_ARGUMENT);
}

Test(latent, from_memory) {
    float v[2 * 1 * 3 * 4], out[12];
    tsr_latent *z;
    for (int i = 0; i < 24; i++)
        v[i] = (float)i;
    cr_assert(tsr_latent_from_memory(&z, v, 2, 1, 3, 4) == TSR_OK, "%s", tsr_last_error());
    v[12] = 99; /* it is a copy */
    cr_assert(tsr_latent_read(z, 0, 1, out) == TSR_OK && out[0] == 12 && out[11] == 23);
    cr_assert(tsr_latent_get_info(z)->frames == 2 && tsr_latent_get_info(z)->width == 3 && tsr_latent_channels(z) == 4);
    tsr_latent_close(&z);
    v[17] = NAN;
    cr_assert(tsr_latent_from_memory(&z, v, 2, 1, 3, 4) == TSR_OK);
    cr_assert(tsr_latent_read(z, 0, 0, out) == TSR_OK && tsr_latent_read(z, 0, 1, out) == TSR_ERR_FORMAT);
    cr_assert(strstr(tsr_last_error(), "latent frame 1, channel 1, row 0, column 1 is nan"), "%s", tsr_last_error());
    tsr_latent_close(&z);
    cr_assert(tsr_latent_from_memory(&z, v, 0, 1, 3, 4) == TSR_ERR_ARGUMENT && !z);
    cr_assert(tsr_latent_from_memory(&z, NULL, 1, 1, 3, 4) == TSR_ERR_ARGUMENT);
}

Test(latent, the_demo_latents_open) {
    static const char *const names[] = {"spheres", "spheres-large", "marbles"};
    for (int i = 0; i < 3; i++) {
        char path[4096];
        tsr_latent *z;
        snprintf(path, sizeof path, "%s/%s.latent", getenv("TSR_ASSETS"), names[i]);
        cr_assert(tsr_latent_open(&z, path, NULL) == TSR_OK, "%s", tsr_last_error());
        const tsr_latent_info *info = tsr_latent_get_info(z);
        cr_assert(info->videos == 1 && info->frames == (i == 2 ? 15 : 8) && info->height == (i == 1 ? 64 : 32) &&
                  info->width == (i == 1 ? 112 : 56));
        float *out = malloc((size_t)(info->height * info->width * 16) * sizeof *out);
        for (int t = 0; t < info->frames; t++)
            cr_assert(tsr_latent_read(z, 0, t, out) == TSR_OK, "%s", tsr_last_error());
        free(out);
        tsr_latent_close(&z);
    }
}

/* ---------------------------------------------------------------- bad files */

/* Opens and reads the file in every way. TSR_OK: nothing was wrong. */
static tsr_status use_file(const char *path, bool latent) {
    tsr_tensor_file *f = NULL;
    tsr_latent *z = NULL;
    tsr_status status = latent ? tsr_latent_open(&z, path, NULL) : tsr_tensor_file_open(&f, path);
    for (size_t i = 0; f && i < tsr_tensor_file_count(f); i++) {
        const tsr_tensor *t = tsr_tensor_file_at(f, i);
        float *v = malloc(t->count * sizeof *v + 1);
        cr_assert(v && tsr_tensor_file_find(f, t->name) == t);
        tsr_tensor_read(t, 0, t->count, v);
        free(v);
    }
    for (int b = 0; z && status == TSR_OK && b < tsr_latent_get_info(z)->videos; b++)
        for (int t = 0; status == TSR_OK && t < tsr_latent_get_info(z)->frames; t++) {
            const tsr_latent_info *info = tsr_latent_get_info(z);
            float *v = malloc((size_t)info->height * (size_t)info->width * (size_t)tsr_latent_channels(z) * sizeof *v);
            cr_assert(v);
            status = tsr_latent_read(z, b, t, v);
            free(v);
        }
    tsr_tensor_file_close(&f);
    tsr_latent_close(&z);
    return status;
}

static void check_message(const char *path, const char *says, const char *what) {
    const char *m = tsr_last_error();
    cr_assert(strstr(m, path), "%s: the file is not named: %s", what, m);
    cr_assert(strstr(m, says), "%s: \"%s\" expected: %s", what, says, m);
    for (const char *p = m; *p; p++)
        cr_assert((unsigned char)*p >= 0x20 && *p != 0x7f, "%s: not one line: %s", what, m);
}

static void check_malformed(void *ctx, const malformed *m) {
    (void)ctx;
    const char *path = temp_path(m->name);
    write_bytes(path, m->bytes ? (const void *)m->bytes : "", m->size);
    if (m->latent) /* else the case would not test what it means to */
        cr_assert(use_file(path, false) == TSR_OK, "%s", tsr_last_error());
    cr_assert(use_file(path, m->latent) == TSR_ERR_FORMAT, "%s: %s", m->name, tsr_last_error());
    check_message(path, m->says, m->name);
    unlink(path);
}

Test(malformed, every_case_says_what_is_wrong) {
    size_t n = malformed_each(check_malformed, NULL);
    cr_assert(n >= 120, "%zu cases", n);
    printf("# %zu malformed files\n", n);
}

Test(malformed, what_is_no_file) {
    static const char *const paths[] = {"/nonexistent/file", "/", "/dev/null", ""};
    for (int i = 0; i < 4; i++) {
        tsr_status status = use_file(paths[i], i % 2);
        cr_assert(status == TSR_ERR_IO || status == TSR_ERR_FORMAT);
        check_message(paths[i], "", paths[i]);
    }
    const char *pipe = temp_path("pipe"), *secret = temp_path("secret");
    cr_assert(mkfifo(pipe, 0600) == 0);
    cr_assert(use_file(pipe, false) == TSR_ERR_FORMAT, "a named pipe"); /* and does not wait for a writer */
    check_message(pipe, "not a regular file", "pipe");
    write_bytes(secret, "GGUF", 4);
    chmod(secret, 0);
    if (access(secret, R_OK) != 0) { /* not for root */
        cr_assert(use_file(secret, false) == TSR_ERR_IO);
        check_message(secret, "Permission denied", "secret");
    }
}

Test(malformed, cut_at_every_byte) {
    for (malformed_seed_kind kind = 0; kind < SEEDS; kind++) {
        size_t size;
        uint8_t *bytes = malformed_seed(kind, &size);
        const char *path = temp_path("cut");
        write_bytes(path, bytes, size);
        cr_assert(use_file(path, kind == SEED_LATENT) == TSR_OK, "%s", tsr_last_error());
        while (size-- > 0) {
            cr_assert(truncate(path, (off_t)size) == 0);
            cr_assert(use_file(path, kind == SEED_LATENT) == TSR_ERR_FORMAT, "seed %d cut to %zu bytes opens",
                (int)kind, size);
            check_message(path, "", "cut");
        }
        free(bytes);
    }
}

/* A flipped bit may leave a good file; it never leaves one that is read out of bounds (the
 * sanitizers' part). */
Test(malformed, every_bit_flipped) {
    size_t refused = 0, all = 0;
    for (malformed_seed_kind kind = 0; kind < SEEDS; kind++) {
        size_t size;
        uint8_t *bytes = malformed_seed(kind, &size);
        const char *path = temp_path("flip");
        write_bytes(path, bytes, size);
        int fd = open(path, O_WRONLY);
        for (size_t bit = 0; bit < 8 * size; bit++, all++) {
            uint8_t flipped = (uint8_t)(bytes[bit / 8] ^ 1 << bit % 8);
            cr_assert(pwrite(fd, &flipped, 1, (off_t)(bit / 8)) == 1);
            if (use_file(path, kind == SEED_LATENT) != TSR_OK) {
                check_message(path, "", "flip");
                refused++;
            }
            cr_assert(pwrite(fd, &bytes[bit / 8], 1, (off_t)(bit / 8)) == 1);
        }
        close(fd);
        free(bytes);
    }
    cr_assert(refused > all / 10, "%zu of %zu refused", refused, all);
}

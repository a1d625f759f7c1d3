/* The synthetic weights in C against numbers printed by the Python reference: whole models by
 * checksums. */
#include "synthetic.h"
#include "temp.h"

#include "formats/tensor_file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* sum of word i * (i + 1), mod 2^64: order matters, unlike in a plain sum. */
static uint64_t weigh(uint64_t sum, uint64_t *i, uint32_t word) {
    return sum + word * ++*i;
}

Test(synthetic, values_are_the_reference_s) {
    static const struct {
        const char *name;
        int64_t dim[5];
        int ndim;
        uint64_t seed;
        float first, second, middle, last;
    } cases[] = {
        {"latent", {16, 2, 5, 6}, 4, 0, 0x1.fe4c38p-1f, -0x1.344d14p+0f, -0x1.ea66fp-2f, 0x1.ea1d98p-1f},
        {"latent", {16, 2, 5, 6}, 4, 7, -0x1.1166fcp-2f, -0x1.0af862p+0f, -0x1.8e7ed4p+0f, 0x1.9aa73ap-1f},
        {"video", {3, 2, 4, 4}, 4, 0, 0x1.5cde88p-1f, 0x1.cdc548p-2f, -0x1.1df174p-1f, 0x1.f6213p-1f},
        {"decoder.conv_in.weight", {512, 16, 3, 3, 3}, 5, 0, 0x1.dp-6f, -0x1.4p-5f, 0x1.058p-4f, -0x1.728p-7f},
        {"decoder.conv_in.bias", {512}, 1, 3, -0x1.6ap-6f, 0x1.87cp-4f, -0x1.87p-4f, 0x1.75cp-4f},
        {"decoder.conv_norm_out.weight", {128}, 1, 0, 0x1.b64p-1f, 0x1.a1p-1f, 0x1.1d8p+0f, 0x1.704p-1f},
        {"decoder.mid_block.attentions.0.to_q.weight", {64, 64}, 2, 1, 0x1.4c4p-3f, -0x1.148p-5f, -0x1.7fcp-3f,
            0x1.2ap-3f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = 1;
        float v[4];
        for (int d = 0; d < cases[i].ndim; d++)
            n *= (size_t)cases[i].dim[d];
        synth_values(cases[i].name, cases[i].dim, cases[i].ndim, cases[i].seed, 0, 2, v);
        synth_values(cases[i].name, cases[i].dim, cases[i].ndim, cases[i].seed, n / 2, 1, v + 2);
        synth_values(cases[i].name, cases[i].dim, cases[i].ndim, cases[i].seed, n - 1, 1, v + 3);
        cr_assert(v[0] == cases[i].first && v[1] == cases[i].second && v[2] == cases[i].middle && v[3] == cases[i].last,
            "%s: %a %a %a %a", cases[i].name, (double)v[0], (double)v[1], (double)v[2], (double)v[3]);
    }
}

Test(synthetic, latent_is_channels_last) {
    uint64_t sum = 0, i = 0;
    float *z = synth_latent(16, 2, 5, 6, 0); /* [2][5][6][16]; the checksum is of [16][2][5][6] */
    for (size_t c = 0; c < 16; c++)
        for (size_t p = 0; p < 60; p++) {
            uint32_t word;
            memcpy(&word, &z[p * 16 + c], 4);
            sum = weigh(sum, &i, word);
        }
    free(z);
    cr_assert(sum == 0x383babad8b5db, "%llx", (unsigned long long)sum);
}

Test(synthetic, full_size_shapes) {
    size_t count = 0, parameters = 0;
    synth_tensor *s = synth_shapes(&(synth_config){0}, &count);
    for (size_t i = 0; i < count; i++)
        parameters += s[i].count;
    free(s);
    cr_assert(count == 250 && parameters == 250648227, "%zu tensors, %zu parameters", count, parameters);
}

Test(synthetic, model_file_is_the_reference_s) {
    const synth_config config = {.channels = {32, 32, 64, 64}, .layers = 1, .seed = 5};
    const char *path = temp_path("model.safetensors");
    tsr_tensor_file *f;
    uint64_t sum = 0, words = 0, names = 0xCBF29CE484222325u;
    cr_assert(synth_model_write(path, &config) == TSR_OK, "%s", tsr_last_error());
    cr_assert(tsr_tensor_file_open(&f, path) == TSR_OK, "%s", tsr_last_error());
    cr_assert(tsr_tensor_file_count(f) == 182);
    for (size_t i = 0; i < 182; i++) {
        const tsr_tensor *t = tsr_tensor_file_at(f, i);
        char line[256], shape[96];
        snprintf(line, sizeof line, i ? "\n%s %s" : "%s %s", t->name, tsr_shape_text(shape, t->dim, t->ndim));
        for (const char *p = line; *p; p++)
            names = (names ^ (unsigned char)*p) * 0x100000001B3u;
        cr_assert(t->dtype == TSR_F16);
        const uint8_t *bytes = t->data;
        for (size_t k = 0; k < t->count; k++)
            sum = weigh(sum, &words, bytes[2 * k] | (uint32_t)bytes[2 * k + 1] << 8);
    }
    tsr_tensor_file_close(&f);
    cr_assert(words == 3114499 && names == 0xe79bc3fbdb415eab, "names and shapes: %llx", (unsigned long long)names);
    cr_assert(sum == 0x1bb0adbe4c681b0, "values: %llx", (unsigned long long)sum);
}

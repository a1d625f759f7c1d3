#include "shapes.h"

#include "model/quantise.h"
#include "temp.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "shapes: %s: %s\n", what, tsr_last_error());
        abort();
    }
}

tsr_vae *shapes_vae(const synth_config *config) {
    size_t n, size, data = 0;
    synth_tensor *shape = synth_shapes(config, &n);
    tsr_tensor *tensor = calloc(n, sizeof *tensor);
    must(shape && tensor, "out of memory");
    for (size_t i = 0; i < n; i++) {
        tensor[i] = (tsr_tensor){.name = shape[i].name,
            .dtype = TSR_F16,
            .ndim = shape[i].ndim,
            .count = shape[i].count,
            .bytes = 2 * shape[i].count};
        memcpy(tensor[i].dim, shape[i].dim, sizeof shape[i].dim);
        data += tensor[i].bytes;
    }
    char *header;
    must(tsr_safetensors_header(tensor, n, NULL, 0, &header, &size) == TSR_OK, "header");
    const char *path = temp_path("shapes.safetensors");
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    must(fd >= 0 && write(fd, header, size) == (ssize_t)size && ftruncate(fd, (off_t)(size + data)) == 0, path);
    close(fd);
    free(header);
    free(tensor);
    free(shape);
    tsr_tensor_file *file;
    tsr_vae *vae;
    must(tsr_tensor_file_open(&file, path) == TSR_OK && tsr_vae_create(&vae, file) == TSR_OK, path);
    unlink(path);
    return vae;
}

static size_t kernel_bytes(void *ctx, const tsr_kernel *k, tsr_dtype input) {
    (void)ctx;
    return tsr_kernel_weights(k) * tsr_dtype_size(input) + tsr_kernel_biases(k) * sizeof(float);
}

static void numerics(void *ctx, tsr_precision wanted, const tsr_half *half, tsr_numerics *out) {
    (void)ctx;
    static uint8_t eight[1024];
    bool wide = wanted == TSR_PRECISION_F32 || wanted == TSR_PRECISION_AUTO;
    bool bf16 = wanted == TSR_PRECISION_BF16;
    tsr_dtype type = wide ? TSR_F32 : TSR_F16;
    *out = (tsr_numerics){.precision = wide ? TSR_PRECISION_F32 : wanted,
        .stream = type,
        .act = bf16 ? TSR_BF16 : type,
        .slot = type,
        .shift = bf16 ? TSR_BF16_SHIFT : 0};
    if (wanted != TSR_PRECISION_INT8 && wanted != TSR_PRECISION_FP8)
        return;
    must(half->layers <= (int)sizeof eight, "too many layers");
    tsr_eight_layers(half, eight, half->layers);
    out->stream = out->act = TSR_F16;
    out->eight = eight;
    out->eight_type = wanted == TSR_PRECISION_INT8 ? TSR_U8 : TSR_E4M3;
}

tsr_target shapes_target(void) {
    return (tsr_target){
        .name = "a device of arithmetic",
        .join_heads = true,
        .align = 256,
        .flops_f32 = 60e12,
        .flops_16 = 200e12,
        .flops_8 = 400e12,
        .bandwidth = 900e9,
        .link_bandwidth = 25e9,
        .kernel_bytes = kernel_bytes,
        .numerics = numerics,
    };
}

/* Mutates tensor files and opens them in every way: fuzz_formats [--iterations N] [--seed S]
 * [FILE...]. Without files the seeds are the good and the malformed ones of malformed.c; with files
 * and no --iterations each is tried once as it is. With -DTSR_LIBFUZZER and clang's
 * -fsanitize=fuzzer it is a target of libFuzzer. */
#include "malformed.h"

#include "formats/latent_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *what) {
    fprintf(stderr, "fuzz_formats: %s: %s\n", what, tsr_last_error());
    abort();
}

/* One line that names the file, or the message is wrong. */
static void check_message(const char *path) {
    const char *m = tsr_last_error();
    if (!strstr(m, path))
        fail("message without the file's name");
    for (; *m; m++)
        if ((unsigned char)*m < 0x20)
            fail("message of more than one line");
}

static void use_tensors(const char *path) {
    tsr_tensor_file *f;
    if (tsr_tensor_file_open(&f, path) != TSR_OK) {
        check_message(path);
        return;
    }
    for (size_t i = 0; i < tsr_tensor_file_count(f); i++) {
        const tsr_tensor *t = tsr_tensor_file_at(f, i);
        float *v = malloc(t->count * sizeof *v + 1);
        if (!v || tsr_tensor_file_find(f, t->name) != t)
            fail("a tensor cannot be found by its name");
        tsr_tensor_read(t, 0, t->count, v);
        free(v);
    }
    tsr_tensor_file_close(&f);
}

static void use_latent(const char *path, tsr_layout layout) {
    tsr_latent_params params = TSR_LATENT_PARAMS_DEFAULT;
    tsr_latent *z;
    params.layout = layout;
    if (tsr_latent_open(&z, path, &params) != TSR_OK) {
        check_message(path);
        return;
    }
    const tsr_latent_info *info = tsr_latent_get_info(z);
    float *v = malloc((size_t)info->height * (size_t)info->width * (size_t)tsr_latent_channels(z) * sizeof *v);
    if (!v)
        fail("no memory");
    if (tsr_latent_read(z, info->videos - 1, info->frames - 1, v) != TSR_OK)
        check_message(path);
    free(v);
    tsr_latent_close(&z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) { /* a file in memory */
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    use_tensors(path);
    use_latent(path, TSR_LAYOUT_AUTO);
    use_latent(path, TSR_LAYOUT_BFHWC);
    return 0;
}

#ifndef TSR_LIBFUZZER

typedef struct input {
    uint8_t *bytes;
    size_t size;
} input;

static input *inputs;
static size_t count;
static uint64_t state;

static uint32_t random_below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 32) * n >> 32);
}

static void add_input(const uint8_t *bytes, size_t size) {
    inputs = realloc(inputs, (count + 1) * sizeof *inputs);
    uint8_t *copy = malloc(size + 1);
    if (!inputs || !copy)
        abort();
    if (size)
        memcpy(copy, bytes, size);
    inputs[count++] = (input){copy, size};
}

static void add_malformed(void *ctx, const malformed *m) {
    (void)ctx;
    if (m->size < 1 << 16)
        add_input(m->bytes, m->size);
}

static bool add_file(const char *path) {
    uint8_t *bytes = malloc(1 << 26);
    FILE *i = fopen(path, "rb");
    if (!bytes || !i) {
        perror(path);
        return false;
    }
    add_input(bytes, fread(bytes, 1, 1 << 26, i));
    fclose(i);
    free(bytes);
    return true;
}

/* Extremes are likelier than chance. */
static uint64_t random_number(void) {
    static const uint64_t edge[] = {0, 1, 2, 7, 8, 9, 31, 32, 255, 256, 65535, INT32_MAX, UINT32_MAX, (uint64_t)1 << 32,
        INT64_MAX, (uint64_t)1 << 63, UINT64_MAX - 7, UINT64_MAX};
    enum { EDGES = sizeof edge / sizeof *edge };
    uint32_t k = random_below(EDGES + 1);
    return k < EDGES ? edge[k] : random_below(1000);
}

/* One change: a bit, a byte, a number, digits of a text, bytes cut out, doubled, or the end cut
 * off. */
static size_t mutate(uint8_t *b, size_t size, size_t room) {
    size_t at = random_below((uint32_t)size), n = 1 + random_below(16);
    uint64_t number = random_number();
    n = n > size - at ? size - at : n;
    switch (random_below(7)) {
    case 0:
        b[at] ^= (uint8_t)(1 << random_below(8));
        return size;
    case 1:
        b[at] = (uint8_t)random_below(256);
        return size;
    case 2:
        memcpy(b + at, &number, n < 8 ? n : 8);
        return size;
    case 3:
        b[at] = (uint8_t) "0123456789[]{}(),:\"'\\.-e "[random_below(26)];
        return size;
    case 4:
        memmove(b + at, b + at + n, size - at - n);
        return size - n;
    case 5:
        if (size + n > room)
            return size;
        memmove(b + at + n, b + at, size - at);
        return size + n;
    default:
        return random_below(4) ? size : at;
    }
}

static void run(long iterations) {
    size_t largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = inputs[i].size > largest ? inputs[i].size : largest;
    uint8_t *b = malloc(largest + 256);
    if (!b)
        abort();
    for (long i = 0; i < iterations; i++) {
        const input *in = &inputs[random_below((uint32_t)count)];
        size_t size = in->size;
        memcpy(b, in->bytes, size);
        for (uint32_t k = 1 + random_below(4); k > 0 && size > 0; k--)
            size = mutate(b, size, largest + 256);
        LLVMFuzzerTestOneInput(b, size);
    }
    free(b);
}

int main(int argc, char **argv) {
    long iterations = -1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--iterations") == 0 && i + 1 < argc)
            iterations = atol(argv[++i]);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            state = strtoull(argv[++i], NULL, 10);
        else if (!add_file(argv[i]))
            return 1;
    }
    if (count == 0) {
        for (malformed_seed_kind kind = 0; kind < SEEDS; kind++) { /* often: malformed ones mostly end at once */
            size_t size;
            uint8_t *bytes = malformed_seed(kind, &size);
            for (int i = 0; i < 50; i++)
                add_input(bytes, size);
            free(bytes);
        }
        malformed_each(add_malformed, NULL);
    }
    double start = tsr_now();
    for (size_t i = 0; i < count; i++)
        LLVMFuzzerTestOneInput(inputs[i].bytes, inputs[i].size);
    run(iterations > 0 ? iterations : 0);
    printf("%zu files, %ld mutations, %.1f s\n", count, iterations > 0 ? iterations : 0, tsr_now() - start);
    for (size_t i = 0; i < count; i++)
        free(inputs[i].bytes);
    free(inputs);
    return 0;
}

#endif

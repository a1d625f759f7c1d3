/* Bad files by the hundred, made in memory: every field of every header of safetensors, GGUF, npy
 * and of latents in them. And one good file of each kind, to cut, flip and mutate. */
#ifndef TSR_TESTS_MALFORMED_H
#define TSR_TESTS_MALFORMED_H

#include <stddef.h>
#include <stdint.h>

typedef struct malformed {
    const char *name; /* a file name */
    int latent;       /* the file opens; as a latent, opening or reading it fails */
    const uint8_t *bytes;
    size_t size;
    const char *says; /* part of the message that must come */
} malformed;

/* Calls fn for each case and returns how many there are. What fn is given lives during the call. */
typedef void (*malformed_fn)(void *ctx, const malformed *m);
size_t malformed_each(malformed_fn fn, void *ctx);

/* Good files of a few hundred bytes to a few KiB, malloc'd. */
typedef enum { SEED_SAFETENSORS, SEED_GGUF, SEED_NPY, SEED_LATENT, SEEDS } malformed_seed_kind;
uint8_t *malformed_seed(malformed_seed_kind kind, size_t *size);

#endif

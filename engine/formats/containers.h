/* What the readers of the single containers share. Only for engine/formats. */
#ifndef TSR_CONTAINERS_H
#define TSR_CONTAINERS_H

#include "formats/tensor_file.h"

typedef struct tsr_pair {
    char *key, *value; /* owned */
} tsr_pair;

struct tsr_tensor_file {
    char *path;
    const char *container;
    const uint8_t *map; /* the whole file, read only */
    size_t bytes;
    tsr_tensor *tensor; /* in the file's order; names owned */
    size_t count, room;
    const tsr_tensor **by_name; /* sorted, once open */
    tsr_pair *meta;             /* sorted by key, once open */
    size_t metas, meta_room;
};

/* Each fills f from its mapping. Names and metadata keys are checked for doubles afterwards, by the
 * caller. */
tsr_status tsr_safetensors_parse(tsr_tensor_file *f);
tsr_status tsr_gguf_parse(tsr_tensor_file *f);
tsr_status tsr_npy_parse(tsr_tensor_file *f);

/* Records "PATH: tensor NAME: reason" (NAME NULL: "PATH: reason") and returns TSR_ERR_FORMAT. */
tsr_status tsr_file_bad(const tsr_tensor_file *f, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends a copy of a tensor that is already checked and whole; copies its name. */
tsr_status tsr_file_add(tsr_tensor_file *f, const tsr_tensor *t);
tsr_status tsr_file_add_meta(tsr_tensor_file *f, const char *key, const char *value);

/* The product of the dimensions; false where one is negative or the product overflows. */
bool tsr_shape_count(const int64_t *dim, int ndim, size_t *count);
/* Elements in a block and its bytes: 1 and the size for plain types. */
void tsr_block_size(tsr_dtype t, size_t *elements, size_t *bytes);
/* n whole blocks to floats; src may be unaligned. */
void tsr_blocks_to_f32(tsr_dtype t, const uint8_t *src, size_t n, float *out);

enum { TSR_GGUF_ALIGN = 32 }; /* of every tensor's data, in the files we write */

static inline uint16_t tsr_le16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t tsr_le32(const uint8_t *p) {
    return tsr_le16(p) | (uint32_t)tsr_le16(p + 2) << 16;
}
static inline uint64_t tsr_le64(const uint8_t *p) {
    return tsr_le32(p) | (uint64_t)tsr_le32(p + 4) << 32;
}

#endif

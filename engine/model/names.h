/* The tensors of a file by their names without prefix. Private to this floor. */
#ifndef TSR_NAMES_H
#define TSR_NAMES_H

#include "model/vae.h"

typedef struct tsr_named {
    const char *name; /* in the file's own string, behind the prefix */
    const tsr_tensor *tensor;
    bool used; /* asked for by the architecture */
} tsr_named;

typedef struct tsr_names {
    const char *path;
    size_t count;
    tsr_named *entry; /* [count], sorted by name */
} tsr_names;

tsr_status tsr_names_create(tsr_names *out, const tsr_tensor_file *file);
void tsr_names_clear(tsr_names *n);

/* NULL where there is none. Marks it used. Where two tensors stand for one name, an error. */
tsr_status tsr_names_get(tsr_names *n, const char *name, const tsr_tensor **out);
/* Is there a tensor whose name begins with this? */
bool tsr_names_under(const tsr_names *n, const char *prefix);
/* How many blocks "prefix0.", "prefix1.", ... there are: 1 + the largest number in use; 0 for none. */
int tsr_names_numbered(const tsr_names *n, const char *prefix);

/* Reads one half's architecture and checks its tensors. half->present must be set. widths: of the levels in the
 * order of the blocks; resnets: a block. */
tsr_status tsr_half_infer(tsr_half *half, tsr_names *names, bool encoder, int widths[TSR_MAX_LEVELS], int *resnets);
void tsr_half_clear(tsr_half *half);

#endif

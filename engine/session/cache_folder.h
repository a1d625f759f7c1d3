/* The cache folder, $XDG_CACHE_HOME/tessera: small facts that took time to find, one file each. */
#ifndef TSR_CACHE_FOLDER_H
#define TSR_CACHE_FOLDER_H

#include "core/core.h"

/* What a model is known by there: its size and samples of its content, so that it may be moved and renamed. */
tsr_status tsr_model_key(const tsr_model *m, uint64_t *out);
/* The text kept under this name, malloc'd, 0-terminated; NULL where there is none. At most 1 MiB. */
char *tsr_cache_read(const char *name);
/* Keeps a text. A folder that cannot be written is no failure of anything: it is logged once at DEBUG. */
void tsr_cache_write(const char *name, const char *text);

#endif

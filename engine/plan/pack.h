/* Packing buffers with known lifetimes into one block: those alive at the same time never overlap. */
#ifndef TSR_PACK_H
#define TSR_PACK_H

#include "core/core.h"

typedef struct tsr_life {
    size_t bytes;
    int first, last; /* ops between which it is alive, both included; 0 <= first <= last */
    size_t lead;     /* its first bytes, which are alive from lead_first on: room for what comes at another time */
    int lead_first;
} tsr_life;

/* Writes at[n], multiples of align (a power of two), and the size of the block. Stops where it needs no more than
 * `enough` or meets the lower bound; otherwise tries `effort` rounds of rearranging. TSR_ERR_MEMORY, or
 * TSR_ERR_UNSUPPORTED where sizes overflow. */
tsr_status tsr_pack(const tsr_life *life, int n, size_t align, int effort, size_t enough, size_t *at, size_t *bytes);
/* The largest live set, each buffer rounded up to align: no packing is smaller. SIZE_MAX where sizes overflow. */
size_t tsr_pack_bound(const tsr_life *life, int n, size_t align);

#endif

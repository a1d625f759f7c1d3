/* Programs whose widest levels run in bands of rows. */
#ifndef TSR_BANDS_H
#define TSR_BANDS_H

#include "model/program.h"

/* Rewrites a program of whole frames, as params.band and params.page_level say: ops, buffers and sections. Lifetimes
 * are the caller's to find. On failure the program is still fit to be destroyed. */
tsr_status tsr_program_in_bands(tsr_program *p);

#endif

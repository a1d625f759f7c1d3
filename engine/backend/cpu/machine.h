/* What machine this is. */
#ifndef TSR_MACHINE_H
#define TSR_MACHINE_H

#include "core/core.h"

/* Memory that may still be taken and memory in all, in bytes, with the limits of the control group
 * counted in; 0 where unknown. */
void tsr_machine_memory(int64_t *free_bytes, int64_t *total);
void tsr_machine_name(char name[128]);      /* "AMD EPYC ..." */
const char *tsr_machine_instructions(void); /* "AVX-512 VNNI", "AVX2", ... */
/* Bytes/s of a copy by all threads that reads half of `bytes` and writes the other, measured now; 0: no memory. */
double tsr_machine_copy_rate(size_t bytes);
double tsr_machine_bandwidth(void); /* that of a large copy */

#endif

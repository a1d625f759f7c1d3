/* Caches that live on the host, transferred beside the ops by a thread of its own. */
#ifndef TSR_CPU_STREAM_H
#define TSR_CPU_STREAM_H

#include "backend/cpu/cpu.h"

/* Of a plan that has none on the host: NULL. */
tsr_status tsr_cpu_stream_create(tsr_cpu_stream **out, const tsr_plan *plan, char *arena);
void tsr_cpu_stream_destroy(tsr_cpu_stream **s);
/* Before a step's first op: no transfer is under way. */
void tsr_cpu_stream_begin(tsr_cpu_stream *s, tsr_step step);
/* Before op i, for all i in turn: what has to be done is waited for, what may begin begins. */
void tsr_cpu_stream_before(tsr_cpu_stream *s, int i);
/* What the codes of a cache on the host stand for. */
tsr_code_range *tsr_cpu_stream_range(tsr_cpu_stream *s, int cache);
/* Instead of running a CACHE_LOAD or CACHE_SAVE of a cache that lives on the host. */
void tsr_cpu_stream_op(tsr_cpu_stream *s, const tsr_op_io *io);

#endif

/* A Chrome trace (chrome://tracing, ui.perfetto.dev): what each thread did when. */
#ifndef TSR_TRACE_H
#define TSR_TRACE_H

#include "core/core.h"

typedef struct tsr_trace tsr_trace;

/* Events go to path.part while the work runs, so that memory does not grow with the video. */
tsr_status tsr_trace_open(tsr_trace **out, const char *path);
/* Completes the file and gives it its name. Reports a full disk. */
tsr_status tsr_trace_finish(tsr_trace *t);
/* Without a finish before it, removes the part file. */
void tsr_trace_close(tsr_trace **t);

/* The rest is callable from any thread and does nothing where t is NULL. */
void tsr_trace_thread(tsr_trace *t, int thread, const char *name);
/* A span of work on a thread, times as of tsr_now(); category is "stage", "tile", "transfer" or
 * "op". */
void tsr_trace_event(tsr_trace *t, int thread, const char *category, double begin, double end, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

#endif

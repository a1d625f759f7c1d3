/* What reading and writing through libav share: its log, and the reason behind its error codes. */
#ifndef TSR_LIBAV_H
#define TSR_LIBAV_H

#include "core/core.h"

/* Sends libav's log, process-wide, to tsr_log, and keeps its last error for tsr_libav_fail. */
void tsr_libav_listen(void);
/* Forgets what libav said on this thread. */
void tsr_libav_forget(void);
/* A demuxer has logged an error on this thread since: a file that ends early need not give any other sign. */
bool tsr_libav_demuxer_complained(void);
/* "what: path: reason", with what libav said, for "Invalid argument" alone helps nobody. */
tsr_status tsr_libav_fail(tsr_status status, const char *what, const char *path, int error);

/* A file, opened and its streams known; nothing but that file is ever read. Close with avformat_close_input. */
struct AVFormatContext;
tsr_status tsr_libav_open(struct AVFormatContext **out, const char *path);

#endif

#include "media/libav.h"

#include <libavutil/error.h>
#include <libavutil/log.h>
#include <string.h>

static _Thread_local char said[256];
static _Thread_local bool complained;

static bool of_demuxer(void *context) {
    const AVClass *c = context ? *(const AVClass *const *)context : NULL;
    AVClassCategory category = !c               ? AV_CLASS_CATEGORY_NA
                               : c->get_category ? c->get_category(context)
                                                 : c->category;
    return category == AV_CLASS_CATEGORY_DEMUXER;
}

static void on_log(void *context, int level, const char *format, va_list args) {
    char line[sizeof said];
    int prefix = 0; /* "[libx264 @ 0x...]" */
    if (level > AV_LOG_VERBOSE)
        return;
    av_log_format_line(context, level, format, args, line, sizeof line, &prefix);
    line[strcspn(line, "\n")] = 0;
    if (level <= AV_LOG_ERROR) {
        memcpy(said, line, sizeof line);
        complained |= of_demuxer(context);
    }
    tsr_log(TSR_LOG_DEBUG, "libav: %s", line);
}

void tsr_libav_listen(void) {
    av_log_set_callback(on_log);
}

void tsr_libav_forget(void) {
    *said = 0;
    complained = false;
}

bool tsr_libav_demuxer_complained(void) {
    return complained;
}

tsr_status tsr_libav_fail(tsr_status status, const char *what, const char *path, int error) {
    char text[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(error, text, sizeof text);
    return tsr_fail(error == AVERROR(ENOMEM) ? TSR_ERR_MEMORY : status, "%s: %s: %s%s%s", what, path,
        text, *said ? "; " : "", said);
}

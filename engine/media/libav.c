#include "media/libav.h"

#include <tessera/media.h>

#include <errno.h>
#include <libavformat/avformat.h>
#include <libavutil/error.h>
#include <libavutil/log.h>
#include <libavutil/murmur3.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char said[256];
static _Thread_local bool complained;

static bool of_demuxer(void *context) {
    const AVClass *c = context ? *(const AVClass *const *)context : NULL;
    AVClassCategory category = !c ? AV_CLASS_CATEGORY_NA : c->get_category ? c->get_category(context) : c->category;
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
    return tsr_fail(error == AVERROR(ENOMEM) ? TSR_ERR_MEMORY : status, "%s: %s: %s%s%s", what, path, text,
        *said ? "; " : "", said);
}

/* Formats that read other files, or turn text into pictures. */
static bool refused(const AVInputFormat *format) {
    static const char *const names[] = {"hls", "dash", "concat", "sdp", "tty", "lavfi", "imf", "webm_dash_manifest"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(format->name, names[i]) == 0)
            return true;
    return false;
}

tsr_status tsr_libav_open(AVFormatContext **out, const char *path) {
    AVDictionary *options = NULL;
    tsr_libav_listen();
    tsr_libav_forget();
    char *url = tsr_format_text("file:%s", path); /* a name is a file, whatever it looks like */
    if (!url)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to open it", path);
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "pattern_type", "none", 0); /* of image2: numbers are ours */
    int error = avformat_open_input(out, url, NULL, &options);
    av_dict_free(&options);
    free(url);
    if (error == AVERROR_INVALIDDATA)
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: is no picture or video that libav knows, or it is damaged", path);
    if (error < 0)
        return tsr_libav_fail(TSR_ERR_FORMAT, "cannot read", path, error);
    if (refused((*out)->iformat))
        return tsr_fail(TSR_ERR_FORMAT, "%.300s: is no picture or video", path);
    error = avformat_find_stream_info((*out), NULL);
    return error < 0 ? tsr_libav_fail(TSR_ERR_FORMAT, "cannot read", path, error) : TSR_OK;
}

tsr_status tsr_file_digest(const char *path, char digest[33]) {
    enum { CHUNK = 1 << 20 };
    uint8_t sum[16];
    struct AVMurMur3 *state = av_murmur3_alloc();
    uint8_t *chunk = malloc(CHUNK);
    FILE *f = fopen(path, "rb");
    tsr_status status = TSR_OK;
    if (!state || !chunk)
        status = tsr_fail(TSR_ERR_MEMORY, "out of memory: %.300s", path);
    else if (!f)
        status = tsr_fail(TSR_ERR_IO, "cannot read: %.300s: %s", path, strerror(errno));
    if (status == TSR_OK) {
        av_murmur3_init(state);
        for (size_t n; (n = fread(chunk, 1, CHUNK, f)) > 0;)
            av_murmur3_update(state, chunk, n);
        av_murmur3_final(state, sum);
        for (int i = 0; i < 16; i++)
            snprintf(digest + (ptrdiff_t)2 * i, 3, "%02x", sum[i]);
        if (ferror(f))
            status = tsr_fail(TSR_ERR_IO, "cannot read: %.300s: %s", path, strerror(errno));
    }
    if (f)
        fclose(f);
    free(chunk);
    av_free(state);
    return status;
}

#include "media/media.h"
#include "media/read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SIDE = 65536 };

void tsr_reader_note(tsr_reader *r, const char *format, ...) {
    size_t at = strlen(r->notes);
    if (at && at + 3 < sizeof r->notes)
        at += (size_t)snprintf(r->notes + at, sizeof r->notes - at, "; ");
    va_list args;
    va_start(args, format);
    vsnprintf(r->notes + at, sizeof r->notes - at, format, args);
    va_end(args);
}

tsr_status tsr_reader_bad(const tsr_reader *r, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return tsr_fail(TSR_ERR_FORMAT, "%.300s: %s", r->path, text);
}

/* By the first bytes; what is no PNG and no tensor file is libav's to know. */
static tsr_status find_ops(tsr_reader *r) {
    bool numbered = false;
    struct stat st;
    uint8_t head[16] = {0};
    tsr_status status = TSR_OK;
    int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && strchr(r->path, '%')) {
        status = tsr_pattern_check(r->path, &numbered);
        r->ops = &tsr_read_sequence;
        if (status != TSR_OK || numbered)
            return status;
    }
    if (fd < 0)
        return tsr_fail(TSR_ERR_IO, "%.300s: cannot open: %s", r->path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        status = tsr_reader_bad(r, S_ISDIR(st.st_mode) ? "is a folder; name a file, or numbered pictures as %%05d.png"
                                                       : "is not a regular file; copy it to a file first");
    else if (st.st_size == 0)
        status = tsr_reader_bad(r, "is empty; fetch or write it again");
    ssize_t n = status == TSR_OK ? read(fd, head, sizeof head) : 0;
    close(fd);
    if (n >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0)
        r->ops = &tsr_read_png;
    else if (n >= 9 && (memcmp(head, "\x93NUMPY", 6) == 0 || (head[8] == '{' && head[7] == 0)))
        r->ops = &tsr_read_tensor;
    else
        r->ops = &tsr_read_libav;
    return status;
}

tsr_status tsr_reader_open(tsr_reader **out, const char *path) {
    *out = NULL;
    tsr_status status;
    tsr_reader *r = calloc(1, sizeof *r);
    if (!r || !(r->path = strdup(path))) {
        status = tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to open it", path);
        goto error;
    }
    TSR_TRY(find_ops(r));
    TSR_TRY(r->ops->open(r));
    if (r->info.width < 1 || r->info.height < 1 || r->info.width > MAX_SIDE || r->info.height > MAX_SIDE)
        TSR_TRY(tsr_reader_bad(r, "impossible picture size %dx%d", r->info.width, r->info.height));
    r->info.path = r->path;
    r->info.notes = r->notes;
    *out = r;
    return TSR_OK;
error:
    tsr_reader_close(&r);
    return status;
}

const tsr_media_info *tsr_reader_get_info(const tsr_reader *r) {
    return &r->info;
}

tsr_status tsr_reader_frame(tsr_reader *r, float *rgb, bool *got) {
    *got = false;
    tsr_status status = r->ops->frame(r, rgb, got);
    r->at += status == TSR_OK && *got;
    return status;
}

/* How even the frames of a video are, now that all have been seen. */
static void take_times(tsr_reader *r, const tsr_reader *seen) {
    double span = seen->last - seen->first;
    /* Containers round times, mkv to milliseconds. */
    if (seen->at < 3 || !(seen->longest - seen->shortest > 0.0021) || !(span > 0))
        return;
    r->info.variable = true;
    r->info.fps = (double)(seen->at - 1) / span;
    tsr_reader_note(r, "its frame rate varies, %.4g on average: frames are taken one by one", r->info.fps);
}

tsr_status tsr_reader_count(tsr_reader *r, int64_t *frames) {
    tsr_reader *again = NULL;
    tsr_status status = TSR_OK;
    if (r->info.frames == 0) {
        TSR_TRY(tsr_reader_open(&again, r->path));
        for (bool got = true; got;)
            TSR_TRY(tsr_reader_frame(again, NULL, &got));
        if (again->at == 0)
            TSR_TRY(tsr_reader_bad(r, "holds no frame"));
        r->info.frames = again->at;
        take_times(r, again);
    }
    *frames = r->info.frames;
error:
    tsr_reader_close(&again);
    return status;
}

void tsr_reader_close(tsr_reader **rp) {
    tsr_reader *r = *rp;
    if (!r)
        return;
    if (r->ops)
        r->ops->close(r);
    free(r->path);
    free(r);
    *rp = NULL;
}

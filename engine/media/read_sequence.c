/* Numbered pictures: "%05d.png", from the lowest number there is, without gaps. Each is opened when its turn
 * comes. */
#include "media/media.h"
#include "media/read.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sequence {
    int64_t first;
};

/* The number that the pattern (without its folder) has to carry to be this name; -1: none. */
static int64_t number_of(const char *pattern, const char *name) {
    for (const char *digit = name; *digit; digit++) {
        if (*digit < '0' || *digit > '9')
            continue;
        errno = 0;
        long long n = strtoll(digit, NULL, 10);
        char *as = errno == 0 && n <= INT32_MAX ? tsr_pattern_name(pattern, n) : NULL;
        bool same = as && strcmp(as, name) == 0;
        free(as);
        if (same)
            return n;
    }
    return -1;
}

/* How many names of the folder fit the pattern, and their lowest and highest numbers. */
static tsr_status find_numbers(const tsr_reader *r, int64_t *first, int64_t *last) {
    const char *slash = strrchr(r->path, '/');
    const char *pattern = slash ? slash + 1 : r->path;
    char *folder = slash == r->path ? strdup("/") : slash ? strndup(r->path, (size_t)(slash - r->path)) : strdup(".");
    DIR *d = folder ? opendir(folder) : NULL;
    tsr_status status =
        d ? TSR_OK : tsr_fail(TSR_ERR_IO, "%.300s: cannot open its folder: %s", r->path, strerror(errno));
    *first = *last = -1;
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t n = number_of(pattern, e->d_name);
        if (n < 0)
            continue;
        *first = *first < 0 || n < *first ? n : *first;
        *last = n > *last ? n : *last;
    }
    if (status == TSR_OK && *first < 0)
        status =
            tsr_fail(TSR_ERR_IO, "%.300s: no picture of that name; number them from 0 or any other number", r->path);
    if (d)
        closedir(d);
    free(folder);
    return status;
}

/* The picture of a number, opened. */
static tsr_status open_picture(const tsr_reader *r, int64_t number, tsr_reader **out) {
    char *name = tsr_pattern_name(r->path, number);
    *out = NULL;
    if (!name)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to open it", r->path);
    tsr_status status = tsr_reader_open(out, name);
    if (status == TSR_OK && (*out)->info.frames != 1 && (*out)->ops != &tsr_read_libav)
        status = tsr_reader_bad(*out, "is no single picture");
    free(name);
    return status;
}

static tsr_status sequence_open(tsr_reader *r) {
    int64_t last = 0;
    tsr_reader *picture = NULL;
    tsr_status status;
    struct sequence *s = r->state = calloc(1, sizeof *s);
    if (!s)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to read it", r->path);
    TSR_TRY(find_numbers(r, &s->first, &last));
    for (int64_t i = s->first; i <= last; i++) {
        char *name = tsr_pattern_name(r->path, i);
        bool there = name && access(name, R_OK) == 0;
        if (!there)
            status = tsr_fail(TSR_ERR_IO, "%.300s: is missing or cannot be read, but pictures up to %lld are there",
                name ? name : r->path, (long long)last);
        free(name);
        if (!there)
            return status;
    }
    TSR_TRY(open_picture(r, s->first, &picture));
    r->info = picture->info;
    r->info.kind = "numbered pictures";
    r->info.frames = last - s->first + 1;
    r->info.fps = 0;
    r->info.audio = false;
    memcpy(r->notes, picture->notes, sizeof r->notes);
error:
    tsr_reader_close(&picture);
    return status;
}

static tsr_status sequence_frame(tsr_reader *r, float *rgb, bool *got) {
    const struct sequence *s = r->state;
    tsr_reader *picture = NULL;
    tsr_status status = TSR_OK;
    if (r->at == r->info.frames)
        return TSR_OK;
    TSR_TRY(open_picture(r, s->first + r->at, &picture));
    if (picture->info.width != r->info.width || picture->info.height != r->info.height)
        TSR_TRY(tsr_reader_bad(picture, "is %dx%d, the first one is %dx%d; pictures of one video have one size",
            picture->info.width, picture->info.height, r->info.width, r->info.height));
    TSR_TRY(tsr_reader_frame(picture, rgb, got));
    if (!*got)
        status = tsr_reader_bad(picture, "holds no picture");
error:
    tsr_reader_close(&picture);
    return status;
}

static void sequence_close(tsr_reader *r) {
    free(r->state);
}

const tsr_reader_ops tsr_read_sequence = {.open = sequence_open, .frame = sequence_frame, .close = sequence_close};

#include "media/media.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    const char *name; /* also the suffix, where there is one */
    bool suffix;
    const tsr_writer_ops *ops;
} formats[] = {
    [TSR_FORMAT_AUTO] = {"auto", false, NULL},
    [TSR_FORMAT_PNG] = {"png", true, &tsr_png_ops},
    [TSR_FORMAT_MP4] = {"mp4", true, &tsr_video_ops},
    [TSR_FORMAT_MKV] = {"mkv", true, &tsr_video_ops},
    [TSR_FORMAT_WEBM] = {"webm", true, &tsr_video_ops},
    [TSR_FORMAT_Y4M] = {"y4m", true, &tsr_y4m_ops},
    [TSR_FORMAT_RGB24] = {"rgb24", false, &tsr_raw_ops},
    [TSR_FORMAT_RGB48] = {"rgb48", false, &tsr_raw_ops},
    [TSR_FORMAT_NPY] = {"npy", true, &tsr_npy_ops},
    [TSR_FORMAT_SAFETENSORS] = {"safetensors", true, &tsr_safetensors_ops},
    [TSR_FORMAT_NULL] = {"null", false, &tsr_null_ops},
};
enum { FORMATS = sizeof formats / sizeof *formats, MAX_SIDE = 65536 };

bool tsr_format_from_name(const char *name, tsr_format *out) {
    for (int f = TSR_FORMAT_AUTO + 1; f < FORMATS; f++)
        if (strcmp(name, formats[f].name) == 0) {
            *out = (tsr_format)f;
            return true;
        }
    return false;
}

const char *tsr_format_name(tsr_format f) {
    return (unsigned)f < FORMATS ? formats[f].name : "?";
}

size_t tsr_pixels_bytes(tsr_pixels pixels, int width, int height) {
    size_t each = pixels == TSR_PIXELS_RGB8 ? 1 : pixels == TSR_PIXELS_RGB16 ? 2 : 4;
    return (size_t)width * (size_t)height * 3 * each;
}

void tsr_fps_fraction(double fps, int *num, int *den) {
    for (int n = 24; n <= 240; n++) { /* "23.98" is as far off as people write it */
        bool broadcast = n % 24 == 0 || n % 30 == 0;
        if (broadcast && fabs(fps - n * 1000 / 1001.0) < 0.005) {
            *num = n * 1000;
            *den = 1001;
            return;
        }
    }
    *den = 1;
    while (*den < 1000 && fabs(fps * *den - round(fps * *den)) > 1e-6 * *den)
        ++*den;
    *num = (int)lround(fps * *den);
}

static tsr_status find_format(const char *path, tsr_format *format) {
    if (!path || strcmp(path, "-") == 0)
        return tsr_fail(TSR_ERR_ARGUMENT,
            "no format: %s has no suffix to know it by; name one (y4m, rgb24, rgb48, ...)",
            path ? "standard output" : "the output");
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    for (int f = TSR_FORMAT_AUTO + 1; dot && f < FORMATS; f++)
        if (formats[f].suffix && strcasecmp(dot + 1, formats[f].name) == 0) {
            *format = (tsr_format)f;
            return TSR_OK;
        }
    return tsr_fail(
        TSR_ERR_ARGUMENT, "unknown suffix: %s; use .png .mp4 .mkv .webm .y4m .npy .safetensors or name a format", path);
}

static tsr_status check_params(const tsr_writer_params *p) {
    if (p->width < 1 || p->height < 1 || p->width > MAX_SIDE || p->height > MAX_SIDE)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "impossible picture size: %dx%d; sides of 1 to %d", p->width, p->height, MAX_SIDE);
    if (p->frames < 0 || p->first < 0 || p->frames > INT32_MAX || p->first > INT32_MAX)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "impossible frames: %lld from %lld", (long long)p->frames, (long long)p->first);
    if (!(p->fps >= 0.01 && p->fps <= 1000))
        return tsr_fail(TSR_ERR_ARGUMENT, "impossible frame rate: %g; use 0.01 to 1000", p->fps);
    if (p->crf < -1 || p->crf > 63)
        return tsr_fail(TSR_ERR_ARGUMENT, "impossible crf: %d; use 0 to 63", p->crf);
    bool png = p->format == TSR_FORMAT_PNG;
    bool video = p->format >= TSR_FORMAT_MP4 && p->format <= TSR_FORMAT_Y4M;
    if (p->depth != 8 && !(png && p->depth == 16) && !(video && p->depth == 10))
        return tsr_fail(TSR_ERR_ARGUMENT, "impossible depth: %d bits in %s; use 8%s", p->depth,
            tsr_format_name(p->format),
            png     ? " or 16"
            : video ? " or 10"
                    : "");
    return TSR_OK;
}

/* All that is missing of a file is its name. */
static tsr_status open_whole(tsr_writer *w) {
    bool left = false;
    struct stat st;
    w->ops = &tsr_null_ops;
    tsr_status status = tsr_out_open_left(&w->out, w->params.path, w->params.overwrite, &left);
    if (status == TSR_OK && !left && stat(w->params.path, &st) != 0)
        status = tsr_journal_misfit(&w->journal, "speaks of %s.part, which is gone; bring it back,", w->params.path);
    return status;
}

tsr_status tsr_writer_go_on(tsr_writer *w, const void *head, size_t head_bytes, int64_t bytes) {
    bool left;
    tsr_status status = tsr_out_open_left(&w->out, w->params.path, w->params.overwrite, &left);
    if (status == TSR_OK && !left)
        return tsr_journal_misfit(&w->journal, "speaks of %s.part, which is gone; bring it back,", w->params.path);
    return status == TSR_OK ? tsr_out_go_on(&w->out, head, head_bytes, bytes) : status;
}

static tsr_status open_format(tsr_writer *w) {
    tsr_status status;
    w->ops = formats[w->params.format].ops;
    if (w->params.resume)
        TSR_TRY(tsr_journal_open(&w->journal, &w->params));
    w->written = w->journal.frames;
    if (w->journal.whole)
        TSR_TRY(open_whole(w));
    TSR_TRY(w->ops->open(w));
    if (w->params.resume)
        TSR_TRY(tsr_journal_begin(&w->journal));
    else if (w->params.path)
        tsr_journal_discard(w->params.path);
error:
    return status;
}

tsr_status tsr_writer_open(tsr_writer **out, const tsr_writer_params *params) {
    *out = NULL;
    tsr_writer *w = calloc(1, sizeof *w);
    if (!w)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: writer");
    tsr_status status;
    w->out = (tsr_out)TSR_OUT_NONE;
    w->params = *params;
    w->params.path = params->path ? strdup(params->path) : NULL;
    w->params.codec = params->codec ? strdup(params->codec) : NULL;
    w->params.audio_from = params->audio_from ? strdup(params->audio_from) : NULL;
    w->params.resume = params->resume ? strdup(params->resume) : NULL;
    w->journal = (tsr_journal)TSR_JOURNAL_NONE;
    if ((params->resume && !w->params.resume) || (params->path && !w->params.path) ||
        (params->codec && !w->params.codec) || (params->audio_from && !w->params.audio_from)) {
        status = tsr_fail(TSR_ERR_MEMORY, "out of memory: writer");
        goto error;
    }
    if (params->format == TSR_FORMAT_AUTO)
        TSR_TRY(find_format(params->path, &w->params.format));
    if ((unsigned)w->params.format >= FORMATS || (!params->path && w->params.format != TSR_FORMAT_NULL)) {
        status =
            tsr_fail(TSR_ERR_ARGUMENT, "no output: the %s format wants a file name", tsr_format_name(w->params.format));
        goto error;
    }
    TSR_TRY(check_params(&w->params));
    TSR_TRY(open_format(w));
    w->frame_bytes = tsr_pixels_bytes(w->pixels, w->params.width, w->params.height);
    *out = w;
    return TSR_OK;
error:
    tsr_writer_close(&w);
    return status;
}

char *tsr_writer_existing(const tsr_writer_params *p) {
    tsr_format format = p->format;
    bool numbered = false;
    if (!p->path || format == TSR_FORMAT_NULL)
        return NULL;
    if (format == TSR_FORMAT_AUTO && find_format(p->path, &format) != TSR_OK)
        return NULL;
    bool picture = format == TSR_FORMAT_PNG;
    if (picture && tsr_pattern_check(p->path, &numbered) != TSR_OK)
        return NULL;
    int64_t there = p->resume ? tsr_journal_frames(p->path) : 0;
    if (!numbered && there && there == p->frames)
        return NULL; /* it may be just that that got its name last */
    for (int64_t i = numbered ? there : 0; i == 0 || (numbered && i < p->frames); i++) {
        char *name = picture ? tsr_pattern_name(p->path, p->first + i) : strdup(p->path);
        struct stat st;
        if (!name || (stat(name, &st) == 0 && S_ISREG(st.st_mode)))
            return name;
        free(name);
    }
    return NULL;
}

int64_t tsr_writer_done(const tsr_writer *w) {
    return w->journal.frames;
}

tsr_status tsr_writer_note(tsr_writer *w, const char *name, const char *value) {
    return tsr_journal_note(&w->journal, name, value);
}

tsr_pixels tsr_writer_pixels(const tsr_writer *w) {
    return w->pixels;
}

tsr_status tsr_writer_frame(tsr_writer *w, const tsr_frame *f) {
    if (w->failed || w->finished)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "no more frames: the writer has %s", w->failed ? "failed before" : "finished");
    if (f->width != w->params.width || f->height != w->params.height || f->pixels != w->pixels ||
        f->bytes != w->frame_bytes)
        return tsr_fail(TSR_ERR_ARGUMENT, "wrong frame: %dx%d, %zu bytes; the writer was opened for %dx%d, %zu bytes",
            f->width, f->height, f->bytes, w->params.width, w->params.height, w->frame_bytes);
    if (f->index != w->params.first + w->written || (w->params.frames && w->written == w->params.frames))
        return tsr_fail(TSR_ERR_ARGUMENT, "wrong frame: number %lld where %lld was due", (long long)f->index,
            (long long)(w->params.first + w->written));
    tsr_status status;
    w->failed = true; /* until all of it succeeded */
    TSR_TRY(w->ops->frame(w, f));
    if (w->ops->appends && w->journal.path) {
        TSR_TRY(tsr_out_sync(&w->out));
        TSR_TRY(tsr_journal_record(&w->journal, w->written + 1, 0, 0));
    }
    w->written++;
    w->failed = false;
error:
    return status;
}

tsr_status tsr_writer_finish(tsr_writer *w) {
    if (w->failed || w->finished)
        return tsr_fail(
            TSR_ERR_ARGUMENT, "nothing to finish: the writer has %s", w->failed ? "failed before" : "finished");
    w->failed = true; /* until all of it succeeded */
    if (w->params.frames && w->written != w->params.frames)
        return tsr_fail(
            TSR_ERR_IO, "incomplete: %lld of %lld frames written", (long long)w->written, (long long)w->params.frames);
    if (w->written == 0)
        return tsr_fail(TSR_ERR_IO, "incomplete: no frame written");
    tsr_status status;
    if (w->ops->finish)
        TSR_TRY(w->ops->finish(w));
    if (w->journal.path && w->out.fd >= 0) {
        TSR_TRY(tsr_out_sync(&w->out));
        TSR_TRY(tsr_journal_whole(&w->journal));
        w->out.keep = true;
    }
    if (w->out.fd >= 0)
        TSR_TRY(tsr_out_commit(&w->out));
    tsr_journal_remove(&w->journal);
    w->failed = false;
    w->finished = true;
    return TSR_OK;
error:
    return status;
}

void tsr_writer_close(tsr_writer **wp) {
    tsr_writer *w = *wp;
    if (!w)
        return;
    w->out.keep = w->journal.frames > 0; /* what a later writer goes on with */
    if (w->ops && w->ops->close)
        w->ops->close(w);
    tsr_out_abort(&w->out);
    if (!w->journal.left && !w->journal.frames)
        tsr_journal_remove(&w->journal);
    tsr_journal_close(&w->journal);
    free((char *)w->params.path);
    free((char *)w->params.codec);
    free((char *)w->params.audio_from);
    free((char *)w->params.resume);
    free(w);
    *wp = NULL;
}

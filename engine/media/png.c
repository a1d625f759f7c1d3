/* PNG through libpng: one picture, or a numbered one a frame, each renamed when it is whole. */
#include "media/media.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* zlib level: 9 takes several times as long for a few percent. */
enum { LEVEL = 5, BUFFER = 1 << 16 };

static tsr_status bad_pattern(const char *path) {
    return tsr_fail(
        TSR_ERR_ARGUMENT, "bad number pattern: %s; one %%05d in the file name, %%%% for a percent sign", path);
}

/* The length of a "%d", "%5d", "%05d" at s, and its width; 0 where it is none. */
static size_t pattern_at(const char *s, int *width) {
    size_t n = 1 + strspn(s + 1, "0123456789");
    if (s[n] != 'd' || n > 3)
        return 0;
    *width = atoi(s + 1);
    return n + 1;
}

tsr_status tsr_pattern_check(const char *path, bool *numbered) {
    *numbered = false;
    const char *slash = strrchr(path, '/');
    for (const char *s = path; (s = strchr(s, '%'));) {
        int width;
        size_t n = s[1] == '%' ? 2 : pattern_at(s, &width);
        if (n == 0 || (s[1] != '%' && (*numbered || (slash && s < slash))))
            return bad_pattern(path);
        *numbered |= s[1] != '%';
        s += n;
    }
    return TSR_OK;
}

char *tsr_pattern_name(const char *pattern, int64_t index) {
    char *name = NULL;
    size_t size;
    FILE *f = open_memstream(&name, &size);
    if (!f)
        return NULL;
    for (const char *s = pattern; *s;) {
        int width = 0;
        size_t n = *s != '%' ? 1 : s[1] == '%' ? 2 : pattern_at(s, &width);
        if (*s == '%' && s[1] != '%')
            fprintf(f, "%0*lld", width, (long long)index);
        else
            fputc(*s, f);
        s += n;
    }
    if (fclose(f) == 0)
        return name;
    free(name);
    return NULL;
}

/* ---------------------------------------------------------------- one picture */

struct target {
    tsr_out *out;
    tsr_status status;
};

static void on_error(png_structp png, png_const_charp message) {
    struct target *t = png_get_error_ptr(png);
    if (t->status == TSR_OK) /* else on_write has said it already */
        t->status = tsr_fail(TSR_ERR_IO, "cannot write: %s: libpng: %s", t->out->path, message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    tsr_log(TSR_LOG_DEBUG, "libpng: %s", message);
}

static void on_write(png_structp png, png_bytep data, size_t n) {
    struct target *t = png_get_io_ptr(png);
    t->status = tsr_out_write(t->out, data, n);
    if (t->status != TSR_OK)
        png_error(png, "write");
}

static void on_flush(png_structp png) {
    (void)png;
}

/* Nothing in here lives beyond a longjmp. */
static void encode(png_structp png, png_infop info, const tsr_frame *f) {
    if (setjmp(png_jmpbuf(png)) != 0)
        return;
    bool deep = f->pixels == TSR_PIXELS_RGB16;
    png_set_IHDR(png, info, (png_uint_32)f->width, (png_uint_32)f->height, deep ? 16 : 8, PNG_COLOR_TYPE_RGB,
        PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_sRGB_gAMA_and_cHRM(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
    png_set_compression_level(png, LEVEL);
    png_set_compression_buffer_size(png, BUFFER);
    png_write_info(png, info);
    if (deep)
        png_set_swap(png); /* PNG is big-endian */
    size_t row = f->bytes / (size_t)f->height;
    for (int y = 0; y < f->height; y++)
        png_write_row(png, (png_const_bytep)f->data + (size_t)y * row);
    png_write_end(png, info);
}

static tsr_status write_picture(tsr_out *out, const tsr_frame *f) {
    struct target target = {out, TSR_OK};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &target, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info) {
        png_set_write_fn(png, &target, on_write, on_flush);
        encode(png, info, f);
    } else {
        target.status = tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", out->path);
    }
    png_destroy_write_struct(&png, &info);
    return target.status;
}

/* ---------------------------------------------------------------- the writer */

/* A picture that the journal says is there; of the last one perhaps only the new name is missing. */
static tsr_status check_left(tsr_writer *w, const char *name, bool last) {
    struct stat st;
    bool left = false;
    tsr_out out = TSR_OUT_NONE;
    if (last) {
        tsr_status status = tsr_out_open_left(&out, name, w->params.overwrite, &left);
        if (status != TSR_OK || left)
            return status == TSR_OK ? tsr_out_commit(&out) : status;
    }
    if (stat(name, &st) == 0 && S_ISREG(st.st_mode))
        return TSR_OK;
    return tsr_journal_misfit(&w->journal, "speaks of %s, which is gone; bring it back,", name);
}

static tsr_status png_open(tsr_writer *w) {
    const tsr_writer_params *p = &w->params;
    w->pixels = p->depth == 16 ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    bool numbered;
    tsr_status status;
    TSR_TRY(tsr_pattern_check(p->path, &numbered));
    if (!numbered) {
        if (p->frames > 1)
            return tsr_fail(TSR_ERR_ARGUMENT,
                "one picture for %lld frames: %s; put %%05d into the name or choose one frame", (long long)p->frames,
                p->path);
        w->params.frames = 1;
        tsr_journal_close(&w->journal);            /* one picture is there or it is not */
        char *name = tsr_pattern_name(p->path, 0); /* "%%" */
        status =
            name ? tsr_out_open(&w->out, name, p->overwrite) : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path);
        free(name);
        return status;
    }
    /* Every name that will be written, before anything is decoded; at least the first, for the
     * folder. */
    for (int64_t i = 0; i == 0 || i < p->frames; i++) {
        char *name = tsr_pattern_name(p->path, p->first + i);
        status = !name            ? tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path)
                 : i < w->written ? check_left(w, name, i == w->written - 1)
                                  : tsr_out_check(name, p->overwrite);
        free(name);
        if (status != TSR_OK)
            return status;
    }
    return TSR_OK;
error:
    return status;
}

static tsr_status png_frame(tsr_writer *w, const tsr_frame *f) {
    if (w->out.fd >= 0)
        return write_picture(&w->out, f);
    char *name = tsr_pattern_name(w->params.path, f->index);
    if (!name)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", w->params.path);
    tsr_out out = TSR_OUT_NONE;
    tsr_status status;
    TSR_TRY(tsr_out_open(&out, name, w->params.overwrite));
    TSR_TRY(write_picture(&out, f));
    if (w->journal.path) { /* written down before it gets its name: whichever is seen later, it is not written again */
        TSR_TRY(tsr_out_sync(&out));
        TSR_TRY(tsr_journal_record(&w->journal, w->written + 1, 0, 0));
        TSR_TRY(tsr_journal_sync(&w->journal));
        out.keep = true;
    }
    status = tsr_out_commit(&out);
error:
    tsr_out_abort(&out);
    free(name);
    return status;
}

const tsr_writer_ops tsr_png_ops = {.open = png_open, .frame = png_frame};

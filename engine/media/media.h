/* Inside media: one output file, one writer, and what each format fills in. */
#ifndef TSR_MEDIA_H
#define TSR_MEDIA_H

#include <tessera/media.h>

#include "core/core.h"
#include "media/journal.h"

/* ---------------------------------------------------------------- one output file */

/* A regular file is written as path.part and gets its name when it is whole. What is there already
 * and is no regular file (pipe, device) is written in place. Whole means: against a kill; against a
 * power cut after tsr_out_sync() only. */
typedef struct tsr_out {
    int fd;     /* -1: not open */
    char *path; /* "standard output" for "-" */
    char *part; /* NULL: written in place */
    bool keep;  /* what is not committed stays, for a later render to go on with */
} tsr_out;
#define TSR_OUT_NONE                                                                                                   \
    { .fd = -1 }

/* Whether path could be written, without touching it: TSR_OK, or why not. */
tsr_status tsr_out_check(const char *path, bool overwrite);
tsr_status tsr_out_open(tsr_out *o, const char *path, bool overwrite);
/* Opens the part file that a killed render left, instead. It must begin with `head` and hold `bytes`; what is behind
 * them is cut off, and writing goes on there. *left is false where there is none: nothing is open then. */
tsr_status tsr_out_open_left(tsr_out *o, const char *path, bool overwrite, bool *left);
tsr_status tsr_out_go_on(tsr_out *o, const void *head, size_t head_bytes, int64_t bytes);
tsr_status tsr_out_sync(tsr_out *o);
tsr_status tsr_out_write(tsr_out *o, const void *data, size_t bytes);
tsr_status tsr_out_write_at(tsr_out *o, int64_t offset, const void *data, size_t bytes);
/* Fails for the reason in errno. */
tsr_status tsr_out_fail(const tsr_out *o);
/* Closes and renames. Where it fails nothing has been renamed and the part file is gone, but for `keep`. */
tsr_status tsr_out_commit(tsr_out *o);
void tsr_out_abort(tsr_out *o);

/* ---------------------------------------------------------------- writers */

typedef struct tsr_writer_ops {
    /* Checks the parameters, sets w->pixels, opens what it writes. close() is called whatever
     * open() returns. */
    tsr_status (*open)(tsr_writer *w);
    tsr_status (*frame)(tsr_writer *w, const tsr_frame *frame);
    tsr_status (*finish)(tsr_writer *w); /* before the commit of w->out; NULL: nothing to do */
    void (*close)(tsr_writer *w);        /* frees w->state; NULL: nothing to do */
    bool appends;                        /* a frame in w->out needs no later one: it can be gone on with behind any */
} tsr_writer_ops;

struct tsr_writer {
    const tsr_writer_ops *ops;
    tsr_writer_params params; /* path and codec are copies; format is never AUTO */
    tsr_pixels pixels;
    size_t frame_bytes;
    int64_t written;
    bool failed, finished;
    tsr_journal journal; /* where params.resume asks for one; open() begins at w->written == journal.frames */
    tsr_out out;         /* the one file; not used by numbered pictures and null */
    void *state;         /* of the format */
};

extern const tsr_writer_ops tsr_png_ops, tsr_video_ops, tsr_y4m_ops, tsr_raw_ops, tsr_npy_ops, tsr_safetensors_ops,
    tsr_null_ops;

/* Opens w->out as a killed writer left it: it begins with `head` and has `bytes` that count. */
tsr_status tsr_writer_go_on(tsr_writer *w, const void *head, size_t head_bytes, int64_t bytes);

size_t tsr_pixels_bytes(tsr_pixels pixels, int width, int height);

/* The frame rate as a fraction: exact for whole numbers and for the n*1000/1001 that people write
 * as 23.976. */
void tsr_fps_fraction(double fps, int *num, int *den);

/* A picture name with a number in it: "%05d". *numbered is false where there is none; "%%" is a
 * percent sign. */
tsr_status tsr_pattern_check(const char *path, bool *numbered);
char *tsr_pattern_name(const char *pattern, int64_t index); /* malloc'd, or NULL */

#endif

/* Inside media: one input, one reader, and what each kind of file fills in. */
#ifndef TSR_READ_H
#define TSR_READ_H

#include <tessera/media.h>

#include "core/core.h"

typedef struct tsr_reader_ops {
    /* Fills r->info but path. close() is called whatever open() returns. */
    tsr_status (*open)(tsr_reader *r);
    /* The next frame; without rgb it is only read over, as far as needed to see that it is whole. */
    tsr_status (*frame)(tsr_reader *r, float *rgb, bool *got);
    void (*close)(tsr_reader *r); /* frees r->state */
} tsr_reader_ops;

struct tsr_reader {
    const tsr_reader_ops *ops;
    tsr_media_info info;
    char *path;
    char notes[256];
    int64_t at;                            /* frames read */
    double first, last, shortest, longest; /* times of the first and last of them and between two, seconds; videos */
    void *state;
};

extern const tsr_reader_ops tsr_read_png, tsr_read_sequence, tsr_read_libav, tsr_read_tensor;

/* Adds to the notes, after a semicolon. */
void tsr_reader_note(tsr_reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A damaged file: "PATH: reason". */
tsr_status tsr_reader_bad(const tsr_reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Fails where the container says that the file should be longer. */
tsr_status tsr_reader_check_whole(const tsr_reader *r);

/* Where pixel (x, y) of a stored picture stands in the one shown: base + x*dx + y*dy, in pixels. */
typedef struct tsr_turn {
    int64_t base, dx, dy;
} tsr_turn;

#endif

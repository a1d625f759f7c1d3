/* Frames as they are, one after the other; and frames counted and forgotten. */
#include "media/media.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rgb48 is little-endian: swap here");

static tsr_status raw_open(tsr_writer *w) {
    w->pixels = w->params.format == TSR_FORMAT_RGB48 ? TSR_PIXELS_RGB16 : TSR_PIXELS_RGB8;
    int64_t there = w->written * (int64_t)tsr_pixels_bytes(w->pixels, w->params.width, w->params.height);
    return there ? tsr_writer_go_on(w, "", 0, there) : tsr_out_open(&w->out, w->params.path, w->params.overwrite);
}

static tsr_status raw_frame(tsr_writer *w, const tsr_frame *f) {
    return tsr_out_write(&w->out, f->data, f->bytes);
}

const tsr_writer_ops tsr_raw_ops = {.open = raw_open, .frame = raw_frame, .appends = true};

static tsr_status null_open(tsr_writer *w) {
    w->pixels = TSR_PIXELS_RGB8;
    return TSR_OK;
}

static tsr_status null_frame(tsr_writer *w, const tsr_frame *f) {
    (void)w;
    (void)f;
    return TSR_OK;
}

const tsr_writer_ops tsr_null_ops = {.open = null_open, .frame = null_frame};

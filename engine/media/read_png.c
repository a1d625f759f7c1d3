/* PNG through libpng: 1 to 16 bits, gray, palette or RGB, as RGB of 8 or 16. Taken as sRGB, whatever chunks say. */
#include "media/read.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct picture {
    FILE *file;
    png_structp png;
    png_infop info;
    tsr_status status;
    uint8_t *pixels;
    png_bytep *row;
};

static void on_error(png_structp png, png_const_charp message) {
    tsr_reader *r = png_get_error_ptr(png);
    ((struct picture *)r->state)->status = tsr_reader_bad(r, "damaged or cut short: libpng: %s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    tsr_log(TSR_LOG_DEBUG, "libpng: %s", message);
}

/* Nothing in here lives beyond a longjmp. */
static void read_header(tsr_reader *r, struct picture *p) {
    if (setjmp(png_jmpbuf(p->png)) != 0)
        return;
    png_init_io(p->png, p->file);
    png_read_info(p->png, p->info);
    int type = png_get_color_type(p->png, p->info), depth = png_get_bit_depth(p->png, p->info);
    r->info.kind = "png";
    r->info.width = (int)png_get_image_width(p->png, p->info);
    r->info.height = (int)png_get_image_height(p->png, p->info);
    r->info.frames = 1;
    r->info.depth = depth == 16 ? 16 : 8;
    if ((type & PNG_COLOR_MASK_ALPHA) || png_get_valid(p->png, p->info, PNG_INFO_tRNS))
        tsr_reader_note(r, "alpha is dropped");
    png_set_expand(p->png);
    png_set_gray_to_rgb(p->png);
    png_set_strip_alpha(p->png);
    if (depth == 16)
        png_set_swap(p->png); /* PNG is big-endian */
    png_set_interlace_handling(p->png);
    png_read_update_info(p->png, p->info);
}

static void read_pixels(struct picture *p) {
    if (setjmp(png_jmpbuf(p->png)) != 0)
        return;
    png_read_image(p->png, p->row);
    png_read_end(p->png, NULL);
}

static tsr_status png_open(tsr_reader *r) {
    struct picture *p = r->state = calloc(1, sizeof *p);
    if (!p)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to read it", r->path);
    p->file = fopen(r->path, "rbe");
    if (!p->file)
        return tsr_fail(TSR_ERR_IO, "%.300s: cannot open: %s", r->path, strerror(errno));
    p->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, on_error, on_warning);
    p->info = p->png ? png_create_info_struct(p->png) : NULL;
    if (!p->info)
        return tsr_fail(TSR_ERR_MEMORY, "%.300s: no memory to read it", r->path);
    read_header(r, p);
    return p->status;
}

static tsr_status alloc_rows(const tsr_reader *r, struct picture *p) {
    size_t h = (size_t)r->info.height, row = png_get_rowbytes(p->png, p->info), bytes;
    bool ok = row == (size_t)r->info.width * 3 * (size_t)(r->info.depth / 8) && tsr_mul(row, h, &bytes);
    if (ok) {
        p->pixels = malloc(bytes);
        p->row = malloc(h * sizeof *p->row);
    }
    if (!p->pixels || !p->row)
        return tsr_fail(
            TSR_ERR_MEMORY, "%.300s: no memory for a picture of %dx%d", r->path, r->info.width, r->info.height);
    for (size_t y = 0; y < h; y++)
        p->row[y] = p->pixels + y * row;
    return TSR_OK;
}

static tsr_status png_frame(tsr_reader *r, float *rgb, bool *got) {
    struct picture *p = r->state;
    if (r->at > 0)
        return TSR_OK;
    tsr_status status = alloc_rows(r, p);
    if (status == TSR_OK) {
        read_pixels(p);
        status = p->status;
    }
    if (status != TSR_OK)
        return status;
    size_t n = (size_t)r->info.width * (size_t)r->info.height * 3;
    for (size_t i = 0; rgb && i < n; i++) {
        uint16_t wide;
        memcpy(&wide, p->pixels + (r->info.depth == 16 ? 2 * i : 0), 2);
        rgb[i] = r->info.depth == 16 ? (float)wide * (2 / 65535.0f) - 1 : (float)p->pixels[i] * (2 / 255.0f) - 1;
    }
    *got = true;
    return TSR_OK;
}

static void png_close(tsr_reader *r) {
    struct picture *p = r->state;
    if (!p)
        return;
    png_destroy_read_struct(&p->png, &p->info, NULL);
    if (p->file)
        fclose(p->file);
    free(p->pixels);
    free(p->row);
    free(p);
}

const tsr_reader_ops tsr_read_png = {.open = png_open, .frame = png_frame, .close = png_close};

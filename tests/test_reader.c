/* Pictures and video in: tests/data/media (made by ffmpeg, see make_media.sh) holds patches of known colours in every
 * kind of file; bad and cut files give one line. */
#include "temp.h"

#include "formats/tensor_file.h"
#include "media/media.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ok(call) cr_assert((call) == TSR_OK, "%s", tsr_last_error())
#define fails(call, status, text)                                                                                      \
    do {                                                                                                               \
        cr_assert((call) == (status), "not refused as it should be: %s", tsr_last_error());                            \
        cr_assert(strstr(tsr_last_error(), text) && !strchr(tsr_last_error(), '\n'), "%s", tsr_last_error());          \
    } while (0)

static const char *media(const char *name) {
    static char path[2][1024];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/media/%s", getenv("TSR_TEST_DATA"), name);
    return path[turn];
}

/* ---------------------------------------------------------------- colours */

static const uint8_t colours[8][3] = {
    {255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}, {0, 0, 0}, {128, 128, 128}, {200, 60, 30}, {30, 90, 180}};

/* The colour shown at the middle of patch i, row y of the picture as it was before it was turned. */
static const uint8_t *colour_of(int patch, int64_t frame, bool low) {
    return low ? colours[5] : colours[(patch + frame) % 8];
}

static const uint8_t *as_gray(const uint8_t *c, uint8_t out[3]) { /* BT.601, as ffmpeg makes it */
    out[0] = out[1] = out[2] = (uint8_t)lround(0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]);
    return out;
}

struct want {
    int width, height; /* before turning */
    int frames;
    int turn;         /* clockwise */
    double tolerance; /* 8-bit levels */
    bool gray;
};

/* Where pixel (x, y) of the upright picture is shown. */
static size_t shown_at(const struct want *w, int x, int y) {
    int h = w->height, v = w->width;
    int sx = w->turn == 90 ? h - 1 - y : w->turn == 180 ? v - 1 - x : w->turn == 270 ? y : x;
    int sy = w->turn == 90 ? x : w->turn == 180 ? h - 1 - y : w->turn == 270 ? v - 1 - x : y;
    int width = w->turn % 180 ? h : v;
    return 3 * ((size_t)sy * (size_t)width + (size_t)sx);
}

static void check_frame(const char *name, const struct want *w, int64_t frame, const float *rgb) {
    for (int patch = 0; patch < 8; patch++)
        for (int low = 0; low < 2; low++) {
            uint8_t gray[3];
            int x = (2 * patch + 1) * w->width / 16, y = low ? w->height * 7 / 8 : w->height / 3;
            const uint8_t *want = colour_of(patch, frame, low);
            want = w->gray ? as_gray(want, gray) : want;
            const float *got = rgb + shown_at(w, x, y);
            for (int c = 0; c < 3; c++) {
                double level = ((double)got[c] + 1) * 127.5;
                cr_assert(fabs(level - want[c]) <= w->tolerance,
                    "%s: frame %lld, patch %d%s, channel %d: %.2f, expected %d", name, (long long)frame, patch,
                    low ? " below" : "", c, level, want[c]);
            }
        }
}

static void check_media(const char *name, struct want w, const char *notes) {
    tsr_reader *r;
    int64_t frames;
    bool got = true;
    ok(tsr_reader_open(&r, media(name)));
    const tsr_media_info *info = tsr_reader_get_info(r);
    cr_assert(info->width == (w.turn % 180 ? w.height : w.width) && info->height == (w.turn % 180 ? w.width : w.height),
        "%s: %dx%d", name, info->width, info->height);
    ok(tsr_reader_count(r, &frames));
    cr_expect(frames == w.frames && info->frames == frames, "%s: %lld frames", name, (long long)frames);
    cr_expect(strstr(info->notes, notes) && (*notes || !*info->notes), "%s: '%s'", name, info->notes);
    float *rgb = malloc((size_t)w.width * (size_t)w.height * 3 * sizeof *rgb);
    for (int64_t i = 0; i < w.frames; i++) {
        ok(tsr_reader_frame(r, rgb, &got));
        cr_assert(got, "%s: no frame %lld", name, (long long)i);
        check_frame(name, &w, i, rgb);
    }
    ok(tsr_reader_frame(r, rgb, &got));
    cr_expect(!got, "%s: a frame too many", name);
    free(rgb);
    tsr_reader_close(&r);
}

Test(reader, matrix_range_depth_and_subsampling) {
    check_media("h264.mp4", (struct want){64, 48, 5, .tolerance = 4}, "");
    check_media("bframes.mkv", (struct want){64, 48, 5, .tolerance = 4}, "");
    check_media("bt601_full.mkv", (struct want){64, 48, 5, .tolerance = 5}, "");
    check_media("untagged.mp4", (struct want){64, 48, 5, .tolerance = 4}, "");
    check_media("ten_bits.mp4", (struct want){64, 48, 5, .tolerance = 4}, "");
    check_media("yuv444.mp4", (struct want){64, 48, 5, .tolerance = 4}, "");
    check_media("yuv422_prores.mov", (struct want){64, 48, 5, .tolerance = 12}, "");
    check_media("rgb.mkv", (struct want){64, 48, 5, .tolerance = 0.001}, "");
    check_media("gray.mkv", (struct want){64, 48, 5, .tolerance = 2, .gray = true}, "");
    check_media("alpha.mov", (struct want){64, 48, 5, .tolerance = 0.001}, "alpha is dropped");
    check_media("animation.gif", (struct want){64, 48, 5, .tolerance = 4}, "alpha is dropped");
    check_media("picture.jpg", (struct want){64, 48, 1, .tolerance = 6}, "");
}

Test(reader, odd_sizes) {
    check_media("odd.webm", (struct want){33, 25, 3, .tolerance = 60}, "");
    check_media("odd444.mp4", (struct want){33, 25, 3, .tolerance = 4}, "");
}

Test(reader, turned_as_the_file_asks) {
    check_media("turned_90.mp4", (struct want){64, 48, 5, .turn = 270, .tolerance = 4}, "turned by 90");
    check_media("turned_180.mp4", (struct want){64, 48, 5, .turn = 180, .tolerance = 4}, "turned by 180");
    check_media("turned_270.mp4", (struct want){64, 48, 5, .turn = 90, .tolerance = 4}, "turned by 90");
}

Test(reader, png_of_every_kind) {
    check_media("rgba.png", (struct want){64, 48, 1, .tolerance = 0.001}, "alpha is dropped");
    check_media("rgb48be.png", (struct want){64, 48, 1, .tolerance = 1}, "");
    check_media("gray.png", (struct want){64, 48, 1, .tolerance = 2, .gray = true}, "");
    check_media("gray16be.png", (struct want){64, 48, 1, .tolerance = 2, .gray = true}, "");
    check_media("ya16be.png", (struct want){64, 48, 1, .tolerance = 2, .gray = true}, "alpha is dropped");
    check_media("pal8.png", (struct want){64, 48, 1, .tolerance = 4}, "");
}

Test(reader, sound_and_frame_rates) {
    tsr_reader *r;
    int64_t frames;
    ok(tsr_reader_open(&r, media("sound.mp4")));
    cr_expect(tsr_reader_get_info(r)->audio && tsr_reader_get_info(r)->fps == 25 && !tsr_reader_get_info(r)->variable);
    cr_expect_str_eq(tsr_reader_get_info(r)->kind, "video");
    tsr_reader_close(&r);
    ok(tsr_reader_open(&r, media("vfr.mkv")));
    ok(tsr_reader_count(r, &frames));
    /* shown at 0, 2, 6, 12 and 20 of 1/25 s */
    cr_expect(frames == 5 && !tsr_reader_get_info(r)->audio && tsr_reader_get_info(r)->variable);
    cr_expect(fabs(tsr_reader_get_info(r)->fps - 4 / 0.8) < 0.01, "%g", tsr_reader_get_info(r)->fps);
    cr_expect(strstr(tsr_reader_get_info(r)->notes, "its frame rate varies"));
    tsr_reader_close(&r);
    check_media("vfr.mkv", (struct want){64, 48, 5, .tolerance = 4}, "varies");
}

/* ---------------------------------------------------------------- chroma between its samples */

/* A ramp of blue written by our own writer as 4:2:0, sited left, comes back as a ramp. */
Test(reader, chroma_is_interpolated_where_it_is_sited) {
    enum { W = 128, H = 16 };
    uint8_t *rgb = malloc(W * H * 3);
    float *back = malloc(W * H * 3 * sizeof *back);
    const char *path = temp_path("ramp.mkv");
    tsr_writer_params p = TSR_WRITER_PARAMS_DEFAULT;
    tsr_writer *w;
    tsr_reader *r;
    bool got;
    for (int i = 0; i < W * H; i++) {
        rgb[3 * i] = 128;
        rgb[3 * i + 1] = 128;
        rgb[3 * i + 2] = (uint8_t)(64 + i % W);
    }
    p.path = path;
    p.width = W;
    p.height = H;
    p.frames = 1;
    p.crf = 1;
    ok(tsr_writer_open(&w, &p));
    ok(tsr_writer_frame(w, &(tsr_frame){0, W, H, TSR_PIXELS_RGB8, rgb, W * H * 3}));
    ok(tsr_writer_finish(w));
    tsr_writer_close(&w);
    ok(tsr_reader_open(&r, path));
    ok(tsr_reader_frame(r, back, &got));
    double shift = 0; /* of the ramp, in pixels: half a pixel where the siting is wrong */
    for (int x = 8; x < W - 8; x++)
        shift += ((double)back[3 * (8 * W + x) + 2] + 1) * 127.5 - (64 + x);
    shift /= W - 16;
    cr_expect(fabs(shift) < 0.25, "blue is off by %.2f levels", shift);
    tsr_reader_close(&r);
    free(rgb);
    free(back);
}

/* ---------------------------------------------------------------- numbered pictures, tensors */

static void write_picture(const char *path, int w, int h, uint8_t value) {
    tsr_writer_params p = TSR_WRITER_PARAMS_DEFAULT;
    tsr_writer *writer;
    uint8_t *rgb = malloc((size_t)(w * h * 3));
    memset(rgb, value, (size_t)(w * h * 3));
    p.path = path;
    p.format = TSR_FORMAT_PNG;
    p.width = w;
    p.height = h;
    p.overwrite = true;
    ok(tsr_writer_open(&writer, &p));
    ok(tsr_writer_frame(writer, &(tsr_frame){0, w, h, TSR_PIXELS_RGB8, rgb, (size_t)(w * h * 3)}));
    ok(tsr_writer_finish(writer));
    tsr_writer_close(&writer);
    free(rgb);
}

Test(reader, numbered_pictures_from_any_number) {
    tsr_reader *r;
    bool got;
    float rgb[4 * 2 * 3];
    write_picture(temp_path("shot7_00098.png"), 4, 2, 98);
    write_picture(temp_path("shot7_00099.png"), 4, 2, 99);
    write_picture(temp_path("shot7_00100.png"), 4, 2, 100);
    write_picture(temp_path("shot7_100.png"), 4, 2, 0); /* another pattern's */
    ok(tsr_reader_open(&r, temp_path("shot7_%05d.png")));
    cr_expect(tsr_reader_get_info(r)->frames == 3 && tsr_reader_get_info(r)->width == 4);
    for (int i = 98; i <= 100; i++) {
        ok(tsr_reader_frame(r, rgb, &got));
        cr_expect(got && fabsf((rgb[0] + 1) * 127.5f - (float)i) < 0.01f);
    }
    ok(tsr_reader_frame(r, rgb, &got));
    cr_expect(!got);
    tsr_reader_close(&r);
    unlink(temp_path("shot7_00099.png"));
    fails(tsr_reader_open(&r, temp_path("shot7_%05d.png")), TSR_ERR_IO, "shot7_00099.png: is missing");
    write_picture(temp_path("shot7_00099.png"), 2, 2, 99);
    ok(tsr_reader_open(&r, temp_path("shot7_%05d.png")));
    ok(tsr_reader_frame(r, rgb, &got));
    fails(tsr_reader_frame(r, rgb, &got), TSR_ERR_FORMAT, "is 2x2, the first one is 4x2");
    tsr_reader_close(&r);
    fails(tsr_reader_open(&r, temp_path("none_%05d.png")), TSR_ERR_IO, "no picture of that name");
    fails(tsr_reader_open(&r, temp_path("none_%05x.png")), TSR_ERR_ARGUMENT, "bad number pattern");
}

static void write_tensor(const char *path, float *v, int ndim, const int64_t *dim, bool npy) {
    tsr_tensor t = {.name = "video", .dtype = TSR_F32, .ndim = ndim, .count = 1, .data = v};
    for (int i = 0; i < ndim; i++) {
        t.dim[i] = dim[i];
        t.count *= (size_t)dim[i];
    }
    t.bytes = t.count * sizeof *v;
    if (npy)
        ok(tsr_npy_write(path, &t));
    else
        ok(tsr_safetensors_write(path, &t, 1, NULL, 0));
}

Test(reader, tensors_are_exact) {
    enum { F = 3, H = 2, W = 5 };
    float v[3 * F * H * W], rgb[H * W * 3];
    for (int i = 0; i < 3 * F * H * W; i++)
        v[i] = (float)i / 40 - 1.1f; /* beyond -1..1: left alone */
    for (int npy = 0; npy < 2; npy++) {
        const char *path = temp_path(npy ? "v.npy" : "v.safetensors");
        tsr_reader *r;
        bool got;
        write_tensor(path, v, 4, (int64_t[]){3, F, H, W}, npy);
        ok(tsr_reader_open(&r, path));
        cr_expect(tsr_reader_get_info(r)->frames == F && tsr_reader_get_info(r)->width == W &&
                  tsr_reader_get_info(r)->height == H);
        for (int f = 0; f < F; f++) {
            ok(tsr_reader_frame(r, rgb, &got));
            for (int i = 0; i < H * W; i++)
                for (int c = 0; c < 3; c++)
                    cr_assert(got && rgb[3 * i + c] == v[(c * F + f) * H * W + i]);
        }
        ok(tsr_reader_frame(r, rgb, &got));
        cr_expect(!got);
        tsr_reader_close(&r);
    }
}

Test(reader, tensors_that_are_no_video) {
    float v[64] = {0}, rgb[64];
    tsr_reader *r;
    bool got;
    write_tensor(temp_path("bad.npy"), v, 4, (int64_t[]){4, 1, 4, 4}, true);
    fails(tsr_reader_open(&r, temp_path("bad.npy")), TSR_ERR_FORMAT, "a video is float32 [3, frames, height, width]");
    v[5] = NAN;
    write_tensor(temp_path("bad.npy"), v, 4, (int64_t[]){3, 1, 4, 4}, true);
    ok(tsr_reader_open(&r, temp_path("bad.npy")));
    fails(tsr_reader_frame(r, rgb, &got), TSR_ERR_FORMAT, "frame 0 holds a value that is not finite");
    tsr_reader_close(&r);
    v[5] = 255;
    write_tensor(temp_path("bad.npy"), v, 4, (int64_t[]){3, 1, 4, 4}, true);
    ok(tsr_reader_open(&r, temp_path("bad.npy")));
    fails(tsr_reader_frame(r, rgb, &got), TSR_ERR_FORMAT, "a value of 255; frames lie in -1..1");
    tsr_reader_close(&r);
}

/* ---------------------------------------------------------------- broken files */

static char *load(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    char *data = malloc(1 << 16);
    *size = fread(data, 1, 1 << 16, f);
    fclose(f);
    return data;
}

static void save(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
}

/* Reads all of it; the frames there were, and the status. */
static tsr_status read_all(const char *path, int *frames) {
    tsr_reader *r = NULL;
    float *rgb = malloc(64 * 64 * 3 * sizeof *rgb);
    tsr_status status = tsr_reader_open(&r, path);
    bool got = status == TSR_OK;
    for (*frames = 0; status == TSR_OK && got; *frames += got)
        status = tsr_reader_frame(r, rgb, &got);
    --*frames;
    tsr_reader_close(&r);
    free(rgb);
    return status;
}

/* Cut at 40 places: an error of one line that names the file, never fewer frames with a smile. */
static void check_cuts(const char *name, int frames) {
    size_t size;
    char *data = load(media(name), &size);
    int silent = 0;
    for (size_t i = 1; i <= 40; i++) {
        const char *path = temp_path(name);
        int n = 0;
        save(path, data, size * i / 41);
        if (read_all(path, &n) == TSR_OK)
            silent += n + 1 < frames;
        else
            cr_expect(strstr(tsr_last_error(), name) && !strchr(tsr_last_error(), '\n'), "%s", tsr_last_error());
    }
    cr_expect(silent == 0, "%s: %d of 40 cuts passed for shorter videos", name, silent);
    free(data);
}

Test(reader, cut_files_are_errors) {
    check_cuts("h264.mp4", 5);
    check_cuts("turned_90.mp4", 5);
    check_cuts("bframes.mkv", 5);
    check_cuts("odd.webm", 3);
    check_cuts("alpha.mov", 5);
    check_cuts("animation.gif", 5);
    check_cuts("picture.jpg", 1);
    check_cuts("rgba.png", 1);
    check_cuts("rgb48be.png", 1);
}

Test(reader, damaged_files_never_crash) {
    static const char *const names[] = {
        "h264.mp4", "bframes.mkv", "alpha.mov", "animation.gif", "picture.jpg", "rgba.png"};
    uint32_t seed = 1;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        size_t size;
        char *data = load(media(names[k]), &size);
        for (int i = 0; i < 60; i++) {
            const char *path = temp_path(names[k]);
            int n;
            seed = seed * 1664525u + 1013904223u;
            size_t at = seed % size;
            char was = data[at];
            data[at] = (char)(seed >> 8);
            save(path, data, size);
            data[at] = was;
            if (read_all(path, &n) != TSR_OK)
                cr_expect(
                    !strchr(tsr_last_error(), '\n') && strstr(tsr_last_error(), names[k]), "%s", tsr_last_error());
        }
        free(data);
    }
}

Test(reader, files_that_are_no_media) {
    tsr_reader *r;
    save(temp_path("empty.mp4"), "", 0);
    save(temp_path("text.mp4"), "This is not a video at all, it is a line of text.\n", 50);
    save(temp_path("list.m3u8"),
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n", 82);
    save(temp_path("list.ffconcat"), "ffconcat version 1.0\nfile a.mp4\n", 32);
    fails(tsr_reader_open(&r, temp_path("none.mp4")), TSR_ERR_IO, "none.mp4: cannot open");
    fails(tsr_reader_open(&r, temp_path("empty.mp4")), TSR_ERR_FORMAT, "empty.mp4: is empty");
    fails(tsr_reader_open(&r, temp_path(".")), TSR_ERR_FORMAT, "is a folder");
    fails(tsr_reader_open(&r, temp_path("text.mp4")), TSR_ERR_FORMAT, "text.mp4: is no picture or video");
    cr_expect(tsr_reader_open(&r, temp_path("list.m3u8")) != TSR_OK);
    cr_expect(tsr_reader_open(&r, temp_path("list.ffconcat")) != TSR_OK);
    fails(tsr_reader_open(&r, media("../goldens/gguf/tiny_f16_native.gguf")), TSR_ERR_FORMAT, "tiny_f16_native.gguf");
}
